"""Public formats of request traces; imports nothing heavy, as the command line names them."""

from enum import StrEnum


class TraceFormat(StrEnum):
    """Public formats of request traces.

    References
    ----------
    Mooncake: https://github.com/kvcache-ai/Mooncake, FAST'25 release.
    Azure: https://github.com/Azure/AzurePublicDataset, AzureLLMInferenceDataset2023, 2024.
    BurstGPT: https://github.com/HPMLL/BurstGPT, arXiv 2401.17644.
    """

    MOONCAKE = "mooncake"
    AZURE = "azure"
    BURSTGPT = "burstgpt"

    @property
    def label(self) -> str:
        """The format's name as people know it."""
        return {
            "mooncake": "Mooncake JSONL",
            "azure": "Azure CSV",
            "burstgpt": "BurstGPT CSV",
        }[self.value]

    @property
    def has_instants(self) -> bool:
        """Whether its time stamps are instants; the others count from the trace's start."""
        return self is TraceFormat.AZURE

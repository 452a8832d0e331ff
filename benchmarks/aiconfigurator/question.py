"""What both are asked, and what a fleet is."""

from collections.abc import Sequence
from dataclasses import dataclass

from planner.domain.fleet import Role

TPS = (1, 2, 4, 8)
ACCELERATORS = {"h100": "h100_sxm", "h200": "h200_sxm"}
"""Names in Poolwise's specs, and aiconfigurator's."""
PER_NODE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The most tokens/s of so many GPUs, requests all alike.

    Parameters
    ----------
    model_path : str
        aiconfigurator's name of the model.
    layers : int
        aiconfigurator adds a fixed time per layer to an aggregated TTFT.
    """

    model_path: str
    layers: int
    parameters: int
    max_context_tokens: int
    isl: int = 4000
    osl: int = 500
    ttft_s: float = 1.0
    tpot_s: float = 0.04
    gpus: int = 32


QUESTIONS = (
    Question(
        model_path="Qwen/Qwen3-32B",
        layers=64,
        parameters=32_762_123_264,
        max_context_tokens=40_960,
    ),
    Question(
        model_path="meta-llama/Meta-Llama-3.1-70B",
        layers=80,
        parameters=70_553_706_496,
        max_context_tokens=131_072,
    ),
)
KV_HEADS, HEAD_SIZE = 8, 128
"""Of both models."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Worker:
    """One replica of a shape at an operating point.

    Parameters
    ----------
    batch : int
        prefill: prompts in a step; decode and aggregated: requests at once.
    prompts : int
        aggregated: prompts in a mixed step.
    """

    role: Role
    accelerator: str
    tp: int
    batch: int
    prompts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """What a worker does by somebody's estimate, with aiconfigurator's corrections applied."""

    worker: Worker
    rps: float
    ttft_s: float
    tpot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """How many of which workers."""

    parts: tuple[tuple[int, Worker], ...]

    @property
    def gpus(self) -> int:
        """GPUs of all workers."""
        return sum(count * worker.tp for count, worker in self.parts)

    @property
    def text(self) -> str:
        """As in `16 prefill h100 tp1 + 4 decode h100 tp4`."""
        return " + ".join(
            f"{count} {worker.role} {worker.accelerator} tp{worker.tp}"
            for count, worker in sorted(self.parts, key=lambda part: _place(part[1]))
        )

    def usd_per_hour(self, usd_per_gpu_hour: dict[str, float]) -> float:
        """What its GPUs cost."""
        return sum(n * w.tp * usd_per_gpu_hour[w.accelerator] for n, w in self.parts)


def _place(worker: Worker) -> tuple[int, str, int]:
    return (Role.PREFILL, Role.DECODE, Role.AGGREGATED).index(worker.role), *(
        worker.accelerator,
        worker.tp,
    )


def served_rps(parts: Sequence[tuple[int, Rated]]) -> float:
    """Requests/s of a fleet: min(prefill, decode) + aggregated, as both count them."""
    sums = dict.fromkeys(Role, 0.0)
    for count, rated in parts:
        sums[rated.worker.role] += count * rated.rps
    return min(sums[Role.PREFILL], sums[Role.DECODE]) + sums[Role.AGGREGATED]

"""What a worker with a KV tier is started with, as JSON."""

from typing import Self

from planner.service.documents.document import Document
from serving.kv.tiers import TierFlags


class TierDocument(Document):
    """Options, variables, and contents of files by the variable that names them."""

    transfer_config: str
    flags: list[str]
    environment: dict[str, str]
    files: dict[str, str]
    remarks: list[str]

    @classmethod
    def of(cls, made: TierFlags) -> Self:
        """The document of what was rendered."""
        return cls(
            transfer_config=made.transfer_config,
            flags=list(made.flags),
            environment=dict(made.environment),
            files=dict(made.files),
            remarks=list(made.remarks),
        )

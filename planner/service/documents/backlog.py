"""Work that waits in front of a model's replicas, as JSON."""

from typing import Annotated

from pydantic import Field

from planner.autoscale.backlog import Backlog
from planner.service.documents.document import Document, Instant, Number, Total

Rate = Annotated[float, Number, Field(ge=0, le=1e12)]


class BacklogDocument(Document):
    """Work that waits, of one instant; what arrived is counted over the seconds before it."""

    observed_at: Instant
    waiting_prompt_tokens: Total = Field(
        description="prompt tokens that no replica has begun to compute, cached ones left out"
    )
    decoding_sequences: Total = Field(
        description="sequences being decoded or waiting for a decode slot"
    )
    context_tokens: Rate = Field(
        default=0.0, description="mean prompt and answer so far of those sequences"
    )
    request_rate_rps: Rate | None = Field(
        default=None, description="what arrives, requests/s; without it nothing is started"
    )
    input_tokens_per_s: Rate | None = Field(
        default=None, description="what arrives, prompt tokens/s"
    )
    sequences_before: Total | None = Field(
        default=None,
        description="`decoding_sequences` as they were 30 s before: where they clearly grow, "
        "decode replicas start before their batches are full",
    )


def backlog_document(backlog: Backlog) -> BacklogDocument:
    """The document of a backlog."""
    return BacklogDocument(
        **{name: getattr(backlog, name) for name in BacklogDocument.model_fields}
    )


def backlog_of(document: BacklogDocument, *, model: str) -> Backlog:
    """The backlog that a document describes."""
    return Backlog(model=model, **document.model_dump())

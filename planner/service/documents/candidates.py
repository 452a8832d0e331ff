"""What `poolwise shapes --json` prints: every shape that was looked at, and what became of it."""

from collections.abc import Sequence

from pydantic import Field

from planner.domain.model import Quality
from planner.domain.profile import ProfileKind
from planner.domain.spec import Spec
from planner.optimize.shapes import Candidate, Verdict
from planner.service.documents.document import Document
from planner.service.documents.replica_shape import ReplicaFields


class ContextDocument(Document):
    """How many requests of a length one replica holds at once."""

    context_tokens: int = Field(description="prompt plus answer, tokens")
    requests: int | None = Field(
        description="whose KV cache fits; 0: not one; null: longer than the model takes, or memory "
        "not known"
    )


class CandidateDocument(ReplicaFields):
    """A shape with its memory, in bytes on each accelerator, and what became of it."""

    model: str
    label: str = Field(description="short name, as in plans")
    accelerators: int = Field(description="of one replica")
    usd_per_hour: float = Field(description="of one replica by the cheapest offer, USD/h")
    quality: Quality = Field(description="the worse of what its formats are judged")
    usable_bytes: float | None = Field(description="the engine's share; null: memory not known")
    weight_bytes: float | None
    overhead_bytes: float | None = Field(description="one step's work, and the engine itself")
    kv_bytes: float | None = Field(description="left for KV cache; below 0: missing for weights")
    kv_tokens: int | None = Field(description="of the whole replica, tokens")
    longest_context_tokens: int | None = Field(description="that fits and that the model takes")
    contexts: list[ContextDocument]
    profile_id: str | None
    profile_kind: ProfileKind | None = Field(description="null: there is no profile")
    verdict: Verdict
    reason: str = Field(description="why it is not kept; empty: it is")
    missing_bytes: float = Field(description="that every accelerator lacks; 0: none")
    dominated_by: str = Field(description="label; empty: by none")


class ShapesAnswer(Document):
    """Every candidate of a model."""

    model: str
    max_context_tokens: int
    estimated: bool = Field(description="true: some rest on estimates, which are rough")
    incomplete: bool = Field(description="true: some rest on a profile whose measuring broke off")
    shapes: list[CandidateDocument]


def shapes_answer(
    spec: Spec, model: str, found: Sequence[Candidate], *, contexts: Sequence[int]
) -> ShapesAnswer:
    """The answer for candidates of a model.

    Parameters
    ----------
    contexts : sequence of int
        Lengths of requests, tokens, that are counted.
    """
    profiles = [c.profile for c in found if c.profile is not None]
    return ShapesAnswer(
        model=model,
        max_context_tokens=spec.model(model).max_context_tokens,
        estimated=any(p.provenance.kind is ProfileKind.ESTIMATED for p in profiles),
        incomplete=any(p.interrupted for p in profiles),
        shapes=[_document(spec, one, contexts) for one in found],
    )


def _document(spec: Spec, one: Candidate, contexts: Sequence[int]) -> CandidateDocument:
    shape, memory, profile = one.shape, one.memory, one.profile
    longest = spec.model(shape.model).max_context_tokens
    offers = spec.accelerator(shape.accelerator).offers
    return CandidateDocument(
        **dict(ReplicaFields.of(shape)),
        model=shape.model,
        label=shape.label,
        accelerators=shape.accelerators,
        usd_per_hour=min(o.usd_per_gpu_hour for o in offers) * shape.accelerators,
        quality=one.quality,
        usable_bytes=None if memory is None else memory.usable_bytes,
        weight_bytes=None if memory is None else memory.weight_bytes,
        overhead_bytes=None if memory is None else memory.overhead_bytes,
        kv_bytes=None if memory is None else memory.kv_bytes,
        kv_tokens=one.kv_tokens,
        longest_context_tokens=None if one.kv_tokens is None else min(one.kv_tokens, longest),
        contexts=[
            ContextDocument(
                context_tokens=tokens, requests=None if tokens > longest else one.requests(tokens)
            )
            for tokens in contexts
        ],
        profile_id=None if profile is None else profile.profile_id,
        profile_kind=None if profile is None else profile.provenance.kind,
        verdict=one.verdict,
        reason=one.reason,
        missing_bytes=one.missing_bytes,
        dominated_by=one.dominated_by,
    )

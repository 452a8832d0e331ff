"""How long answers will be, and what is still to come of one that is being written, as JSON."""

from typing import Annotated, Self

from pydantic import Field

from planner.domain.forecast import Demand
from planner.domain.output_length import OutputLengths
from planner.service.documents.document import Document

LEVELS = (0.1, 0.5, 0.9, 0.95, 0.99)
SO_FAR_TOKENS = (0, 16, 64, 256, 1024, 4096, 16384)
FEWEST_RATIO = 1e-6
"""No row for answers that fewer than one in a million get as long as."""

Tokens = Annotated[float, Field(ge=0, le=1e12)]
Level = Annotated[float, Field(ge=0, le=1)]


class RemainingDocument(Document):
    """Tokens still to come of an answer that has `so_far_tokens`."""

    so_far_tokens: int = Field(ge=0, le=10**9, description="written so far, tokens")
    longer_ratio: float = Field(ge=0, le=1, description="share of answers that get longer, 0..1")
    mean_tokens: Tokens = Field(description="mean still to come, tokens")
    values: list[Tokens] = Field(description="still to come at `levels`, tokens")


class OutputLengthsDocument(Document):
    """The answers of one request class."""

    request_class: str
    levels: list[Level] = Field(description="increasing, 0..1")
    values: list[Tokens] = Field(description="length of an answer at `levels`, tokens")
    mean_tokens: Tokens = Field(description="mean length of an answer, tokens")
    remaining: list[RemainingDocument] = Field(
        description="for answers in flight, by the tokens that they have so far"
    )

    @classmethod
    def of(cls, demand: Demand) -> Self:
        """The document of what a class is expected to ask for.

        A row for as long as answers get; beyond the longest one nothing is known. From the shape,
        which is coarse, where the answers themselves were not seen.
        """
        shape = demand.shape
        lengths = demand.output_lengths or OutputLengths.of_shape(shape)
        known = [t for t in SO_FAR_TOKENS if t == 0 or lengths.longer_than(t) > FEWEST_RATIO]
        return cls(
            request_class=demand.request_class,
            levels=list(LEVELS),
            values=[round(lengths.quantile(level), 1) for level in LEVELS],
            mean_tokens=round(float(shape.osl_mean), 1),
            remaining=[_remaining(lengths, tokens) for tokens in known],
        )


def _remaining(lengths: OutputLengths, so_far: int) -> RemainingDocument:
    return RemainingDocument(
        so_far_tokens=so_far,
        longer_ratio=round(lengths.longer_than(so_far), 6),
        mean_tokens=round(lengths.remaining_mean(so_far=so_far), 1),
        values=[round(lengths.remaining_quantile(q, so_far=so_far), 1) for q in LEVELS],
    )

"""What added load did to a live deployment, as JSON."""

from collections.abc import Sequence
from typing import Self

from planner.service.documents.document import Document
from profiler.live.perturb import Response, bottleneck_of


class ResponseDocument(Document):
    """One kind of load; ratios are with over without, minus 1, intervals 95 %."""

    kind: str
    ttft_ratio: float
    ttft_interval: tuple[float, float]
    itl_ratio: float
    itl_interval: tuple[float, float]
    readings: int

    @classmethod
    def of(cls, response: Response) -> Self:
        """The document of a response."""
        return cls(
            kind=response.kind,
            ttft_ratio=response.ttft_ratio,
            ttft_interval=response.ttft_interval,
            itl_ratio=response.itl_ratio,
            itl_interval=response.itl_interval,
            readings=response.readings,
        )


class PerturbationDocument(Document):
    """All kinds; `bottleneck` null: there is room for each."""

    bottleneck: str | None
    responses: list[ResponseDocument]

    @classmethod
    def of(cls, responses: Sequence[Response]) -> Self:
        """The document of what was found."""
        return cls(
            bottleneck=bottleneck_of(responses),
            responses=[ResponseDocument.of(r) for r in responses],
        )

"""What requests hold. Seconds, tokens, USD; instants with a time zone; no unknown field."""

from typing import Annotated, Self

import numpy as np
from pydantic import Field, JsonValue, model_validator

from planner.domain.errors import HistoryError
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.workload import Workload
from planner.service.documents.document import Document, Instant
from planner.service.documents.fleet import FleetDocument
from planner.service.documents.forecast import ForecastDocument
from planner.service.documents.history import WindowDocument

MOST_REQUESTS = 1_000_000

Offset = Annotated[float, Field(ge=0, le=366 * 86_400, description="seconds")]
Tokens = Annotated[int, Field(ge=0, le=10**7, description="tokens")]


class PlanBody(Document):
    """What to plan. All left out: from the stored observations and fleet, as the loop would."""

    deployment: str | None = Field(default=None, description="left out: the one served here")
    history: list[WindowDocument] | None = Field(
        default=None, description="observed windows; left out: the stored ones"
    )
    forecast: ForecastDocument | None = Field(
        default=None, description="plan for this instead of a forecast from history"
    )
    fleet: FleetDocument | None = Field(
        default=None, description="the fleet that runs; left out: as the target has it"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.history is not None and self.forecast is not None:
            raise ValueError("give history or forecast, not both")
        return self


class DecisionBody(Document):
    """Why a plan is approved or rejected."""

    reason: str = Field(default="", max_length=2_000)


class RecommendationBody(Document):
    """Observed windows and the fleet that runs; nothing of it is stored."""

    spec: dict[str, JsonValue] | None = Field(
        default=None, description="a spec with everything inline; left out: the server's"
    )
    allow_estimates: bool = Field(
        default=False, description="estimate missing profiles of `spec` by roofline"
    )
    model: str | None = Field(default=None, description="left out: the spec's only one")
    history: list[WindowDocument]
    fleet: FleetDocument
    now: Instant | None = Field(
        default=None, description="when to recommend for; left out: the end of the last window"
    )


class ForecastBody(Document):
    """Observed windows; left out: the stored ones."""

    history: list[WindowDocument] | None = None
    now: Instant | None = Field(default=None, description="left out: the end of the last window")


class RequestsBody(Document):
    """Requests in order of arrival: equally long lists."""

    arrival_offset_s: list[Offset] = Field(min_length=1, max_length=MOST_REQUESTS)
    input_tokens: list[Tokens] = Field(min_length=1, max_length=MOST_REQUESTS)
    output_tokens: list[Tokens] = Field(min_length=1, max_length=MOST_REQUESTS)
    cached_tokens: list[Tokens] | None = Field(default=None, description="left out: none cached")
    duration_s: float | None = Field(
        default=None,
        gt=0,
        le=366 * 86_400,
        description="interval of the arrivals; left out: until the last one",
    )
    start_at: Instant

    def workload(self) -> Workload:
        """The requests as a workload.

        Raises
        ------
        HistoryError
            When they are no workload.
        """
        count = len(self.arrival_offset_s)
        cached = [0] * count if self.cached_tokens is None else self.cached_tokens
        try:
            return Workload(
                start_at=self.start_at,
                arrival_offset_s=np.asarray(self.arrival_offset_s, dtype=np.float64),
                input_tokens=np.asarray(self.input_tokens, dtype=np.int64),
                output_tokens=np.asarray(self.output_tokens, dtype=np.int64),
                cached_tokens=np.asarray(cached, dtype=np.int64),
                request_class=np.full(count, DEFAULT_CLASS),
                duration_s=self.duration_s or max(self.arrival_offset_s[-1], 1e-6),
            )
        except (ValueError, OverflowError) as error:
            raise HistoryError(f"requests: {error}") from error


class SimulationBody(Document):
    """Requests, and the replicas to replay them on: a stored plan, or a fleet."""

    requests: RequestsBody
    plan_id: str | None = None
    fleet: FleetDocument | None = Field(
        default=None, description="its ready replicas serve; left out with plan_id: as it runs now"
    )


class ObservationsBody(Document):
    """Observed windows to remember."""

    history: list[WindowDocument] = Field(min_length=1, max_length=10_000)

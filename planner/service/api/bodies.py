"""What requests hold. Seconds, tokens, USD; instants with a time zone; no unknown field."""

from typing import Annotated, Self

from pydantic import Field, JsonValue, StrictBool, model_validator

from planner.domain.spec import Objective
from planner.service.documents.document import Document, Instant, Number, WindowSeconds
from planner.service.documents.fleet import FleetDocument
from planner.service.documents.forecast import ForecastDocument
from planner.service.documents.history import WindowDocument, asked_until
from planner.service.documents.known_events import MOST_EVENTS, KnownEventDocument


class PlanBody(Document):
    """What to plan. All left out: from the stored observations and fleet, as the loop would."""

    deployment: str | None = Field(
        default=None, description="left out: the only one that is served here"
    )
    history: list[WindowDocument] | None = Field(
        default=None, description="observed windows; left out: the stored ones"
    )
    forecast: ForecastDocument | None = Field(
        default=None, description="plan for this instead of a forecast from history"
    )
    fleet: FleetDocument | None = Field(
        default=None, description="the fleet that runs; left out: as the target has it"
    )
    objective: Objective | None = Field(
        default=None, description="what is best; left out: as the spec says"
    )
    explain: StrictBool = Field(
        default=False, description="also say what small changes would cost or save"
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

    deployment: str | None = Field(
        default=None, description="whose spec; left out: the only one that is served here"
    )
    spec: dict[str, JsonValue] | None = Field(
        default=None, description="a spec with everything inline; left out: the deployment's"
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

    @model_validator(mode="before")
    @classmethod
    def _nothing_of_later_windows(cls, data: object) -> object:
        return asked_until(data, "now")


MOST_PATHS = 1_000
MOST_PATH_VALUES = 100_000
"""Paths times windows of one answer."""


class ForecastBody(Document):
    """What to forecast from. All left out: the stored windows, as the spec says."""

    deployment: str | None = Field(
        default=None, description="as its spec says; left out: the only one that is served here"
    )
    history: list[WindowDocument] | None = Field(
        default=None, description="observed windows; left out: the stored ones"
    )
    window_s: WindowSeconds | None = Field(
        default=None, description="length of the forecast windows, seconds; left out: the spec's"
    )
    horizon_windows: Annotated[int, Number, Field(ge=1, le=1000)] | None = Field(
        default=None, description="how many; left out: as the spec says"
    )
    made_at: Instant | None = Field(
        default=None,
        description="nothing after this is looked at; left out: the end of the last window",
    )
    now: Instant | None = Field(default=None, description="an older name of made_at")
    events: list[KnownEventDocument] = Field(
        default_factory=list,
        max_length=MOST_EVENTS,
        description="what you know and no history tells, beside the spec's",
    )
    paths: Annotated[int, Number] = Field(
        default=0, ge=0, le=MOST_PATHS, description="possible futures to draw, count"
    )
    seed: Annotated[int, Number] = Field(default=0, ge=0, lt=2**31, description="for the paths")

    @model_validator(mode="before")
    @classmethod
    def _nothing_of_later_windows(cls, data: object) -> object:
        return asked_until(data, "made_at", "now")

    @model_validator(mode="after")
    def _one_instant(self) -> Self:
        if self.now is not None and self.made_at is not None:
            raise ValueError("now is an older name of made_at: give made_at alone")
        return self


class ObservationsBody(Document):
    """Observed windows to remember."""

    history: list[WindowDocument] = Field(min_length=1, max_length=10_000)

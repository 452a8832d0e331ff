"""The written spec's settings: what is best, what is looked ahead, who may move the fleet."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from planner.domain.calibration import CalibrationSettings
from planner.domain.spec import (
    ForecastSettings,
    LoopMode,
    LoopSettings,
    Objective,
    PlanningSettings,
    StageDeadlines,
    TransferLink,
)
from planner.domain.topology import Cell
from planner.service.documents.known_events import (
    MOST_EVENTS,
    KnownEventDocument,
    known_events,
)
from planner.service.spec.part import Name, SpecPart

_FORECAST = ForecastSettings()
_LOOP = LoopSettings()
_CALIBRATION = CalibrationSettings()


class TransferLinkPart(SpecPart):
    """What KV transfers may take that cross one link, by the accelerators at its two ends."""

    prefill: Name | None = Field(
        default=None, description="accelerator of the prefill pools; default: any"
    )
    decode: Name | None = Field(
        default=None, description="accelerator of the decode pools; default: any"
    )
    bytes_per_s: float = Field(gt=0, le=1e18, description="all transfers over it, bytes/s")


class PlanningPart(SpecPart):
    """What is best, and what a plan has to keep beside objectives and budget."""

    objective: Objective = Field(
        default=Objective.COST,
        description="cost (least USD), power (least energy), accelerators (fewest accelerator-"
        "hours), goodput (most requests in time within the limits)",
    )
    shortfall_usd_per_request: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="price of an unserved request, USD; default: all demand has to be met",
    )
    spot_share_limit: float | None = Field(
        default=None, ge=0, le=1, description="share of a role's replicas that may be spot, 0..1"
    )
    transfer_bytes_per_s: float | None = Field(
        default=None, gt=0, le=1e18, description="all KV transfers together, bytes/s"
    )
    transfer_links: list[TransferLinkPart] = Field(
        default_factory=list,
        max_length=100,
        description="KV transfers between pools on two accelerator types, link by link; the "
        "router has to keep to the plan's pairs",
    )
    min_prefill_per_decode: float | None = Field(
        default=None, gt=0, le=1e6, description="prefill replicas per decode replica, at least"
    )
    max_prefill_per_decode: float | None = Field(
        default=None, gt=0, le=1e6, description="prefill replicas per decode replica, at most"
    )
    one_shape_per_role: bool = Field(
        default=False, description="true: all replicas of a role are alike, no mix of hardware"
    )
    profile_error_ratio: Literal["profile"] | Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.0,
        description="plan as if every replica were so much slower than its profile, ratio; "
        "profile: each by the error_ratio that its own profile states (provenance.error_ratio)",
    )

    @field_validator("profile_error_ratio", mode="before")
    @classmethod
    def _error(cls, given: object) -> object:
        number = isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= 10
        if given != "profile" and not number:
            raise PydanticCustomError("error", "give a ratio from 0 to 10, or profile")
        return given

    @property
    def settings(self) -> PlanningSettings:
        """The same as a value."""
        own = self.profile_error_ratio == "profile"
        given = self.model_dump(exclude={"profile_error_ratio", "transfer_links"})
        return PlanningSettings(
            **given,
            transfer_links=tuple(TransferLink(**link.model_dump()) for link in self.transfer_links),
            profile_error_ratio=0.0 if own else float(self.profile_error_ratio),
            own_profile_error=own,
        )


class CellPart(SpecPart):
    """A topology cell: the workers behind one router, between which KV caches move fast."""

    name: Name = Field(description="lower-case letters, digits and dashes, 30 at the most")
    gpus: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=list,
        description="local: GPUs of this machine in it; empty: those that no other cell names",
    )
    cpus: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=list,
        description="local: processors that its workers are bound to; empty: any",
    )
    node_labels: dict[Name, Name] = Field(
        default_factory=dict, description="kubernetes: labels of the nodes that belong to it"
    )

    @property
    def cell(self) -> Cell:
        """The same as a value."""
        return Cell(
            name=self.name,
            gpus=tuple(self.gpus),
            cpus=tuple(self.cpus),
            node_labels=tuple(sorted(self.node_labels.items())),
        )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        try:
            _ = self.cell
        except ValueError as error:
            raise PydanticCustomError("cell", "{why}", {"why": str(error)}) from None
        return self


class ForecastPart(SpecPart):
    """How far to look and how careful to be."""

    window_s: float = Field(
        default=_FORECAST.window_s, ge=1, le=7 * 86_400, description="planning window, seconds"
    )
    horizon_windows: int = Field(
        default=_FORECAST.horizon_windows, ge=1, le=1000, description="windows planned ahead"
    )
    demand_level: Literal["auto"] | Annotated[float, Field(gt=0, lt=1)] = Field(
        default=_FORECAST.demand_level,
        description="quantile of the forecast that capacity must meet, 0..1; auto: from the "
        "promised attainment, or with planning.shortfall_usd_per_request from what serving and "
        "not serving one more request cost",
    )

    events: list[KnownEventDocument] = Field(
        default_factory=list,
        max_length=MOST_EVENTS,
        description="what you know and no history tells: launches, sales, holidays; past ones are "
        "taken out of the history, coming ones multiply the forecast",
    )
    boosted_trees: bool = Field(
        default=_FORECAST.boosted_trees,
        description="true: gradient-boosted trees are one more forecasting method; slower, and "
        "seldom better",
    )

    @field_validator("demand_level", mode="before")
    @classmethod
    def _level(cls, given: object) -> object:
        number = isinstance(given, int | float) and not isinstance(given, bool) and 0 < given < 1
        if given != "auto" and not number:
            raise PydanticCustomError("level", "give a number above 0 and below 1, or auto")
        return given

    @property
    def settings(self) -> ForecastSettings:
        """The same as a value."""
        auto = self.demand_level == "auto"
        return ForecastSettings(
            window_s=self.window_s,
            horizon_windows=self.horizon_windows,
            demand_level=_FORECAST.demand_level if auto else float(self.demand_level),
            choose_level=auto,
            events=known_events(self.events),
            boosted_trees=self.boosted_trees,
        )


class DeadlinesPart(SpecPart):
    """How long a tick waits for each of its stages; then the last good decision counts."""

    observe_s: float = Field(
        default=_LOOP.deadlines.observe_s, ge=0.1, le=86_400, description="load and fleet, seconds"
    )
    forecast_s: float = Field(
        default=_LOOP.deadlines.forecast_s, ge=0.1, le=86_400, description="forecast, seconds"
    )
    plan_s: float = Field(
        default=_LOOP.deadlines.plan_s,
        ge=0.1,
        le=86_400,
        description="plan and its proof in the twin, seconds",
    )
    apply_s: float = Field(
        default=_LOOP.deadlines.apply_s,
        ge=0.1,
        le=86_400,
        description="rollout, seconds; a longer one goes on while later ticks hold",
    )


class LoopPart(SpecPart):
    """When the loop acts, and the solver's limits."""

    mode: LoopMode = Field(
        default=_LOOP.mode,
        description="off, advise (plans only), approve (asks), auto (applies what guards allow)",
    )
    slow_interval_s: float = Field(
        default=_LOOP.slow_interval_s, ge=1, le=86_400, description="between ticks, seconds"
    )
    fast_interval_s: float = Field(
        default=_LOOP.fast_interval_s,
        ge=0,
        le=3_600,
        description="between looks at waiting work (role flips, one replica more; no solver), "
        "seconds; 0: none",
    )
    deadlines: DeadlinesPart = Field(
        default_factory=DeadlinesPart, description="how long each stage of a tick may take"
    )
    seed: int = Field(default=_LOOP.seed, ge=0, lt=2**31, description="for the twin and the solver")
    solver_time_limit_s: float = Field(
        default=_LOOP.solver_time_limit_s, ge=0.1, le=3_600, description="per solve, seconds"
    )

    @property
    def settings(self) -> LoopSettings:
        """The same as a value."""
        given = self.model_dump(exclude={"deadlines"})
        return LoopSettings(**given, deadlines=StageDeadlines(**self.deadlines.model_dump()))


class CalibrationPart(SpecPart):
    """How capacity follows what replicas are seen to do."""

    enabled: bool = Field(
        default=_CALIBRATION.enabled,
        description="false: drift from the profile is told, and capacity stays as profiled",
    )
    max_slower_ratio: float = Field(
        default=_CALIBRATION.max_slower_ratio,
        ge=0,
        le=2,
        description="a profile's times become at most so much longer, ratio",
    )
    max_faster_ratio: float = Field(
        default=_CALIBRATION.max_faster_ratio,
        ge=0,
        le=2,
        description="replicas count as at most so much faster than profiled, ratio",
    )
    tolerance_ratio: float = Field(
        default=_CALIBRATION.tolerance_ratio,
        ge=0.01,
        le=1,
        description="a smaller shift is no drift, ratio",
    )
    false_alarm_ticks: float = Field(
        default=_CALIBRATION.false_alarm_ticks,
        ge=100,
        le=1e9,
        description="without drift, one false alarm in so many ticks on average, count",
    )

    @property
    def settings(self) -> CalibrationSettings:
        """The same as a value."""
        return CalibrationSettings(**self.model_dump())

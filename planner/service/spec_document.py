"""The spec as written: `apiVersion: poolwise/v1`, every field with its unit.

Only the form is checked here; `spec_file` converts it to `planner.domain.spec.Spec` and checks
what fields mean together.
"""

from typing import Annotated, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from planner.domain.fleet import Role
from planner.domain.model import Dtype, Quality
from planner.domain.slo import DEFAULT_CLASS, NO_SINGLE_GAPS
from planner.domain.spec import (
    ApprovalPolicy,
    ForecastSettings,
    GuardSettings,
    LoopMode,
    LoopSettings,
    Objective,
    PlanningSettings,
    RoutesBy,
    Routing,
    TargetKind,
    TransferLink,
)
from planner.service.documents.known_events import (
    MOST_EVENTS,
    KnownEventDocument,
    known_events,
)

API_VERSION = "poolwise/v1"

_FORECAST = ForecastSettings()
_LOOP = LoopSettings()
_GUARDS = GuardSettings()
_APPROVAL = ApprovalPolicy()

Name = Annotated[str, Field(min_length=1, max_length=200)]


class SpecPart(BaseModel):
    """What every part of the spec has in common: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, given: object, info: ValidationInfo[object]) -> object:
        annotation = cls.model_fields[info.field_name or ""].annotation
        numeric = {int, float} & {annotation, *get_args(annotation)}
        each = given if isinstance(given, list) else [given]
        if numeric and any(isinstance(value, bool) for value in each):
            raise PydanticCustomError("number", "true and false are no numbers: give a number")
        return given


class ModelPart(SpecPart):
    """A served model."""

    name: Name = Field(description="the name it is served under")
    config: str | dict[str, JsonValue] = Field(
        description="its config.json: a path counted from the spec's folder, or the content itself"
    )
    priority: int = Field(
        default=0, description="where models share an inventory, the higher is served first"
    )
    parameters: int | None = Field(
        default=None,
        ge=1,
        le=10**15,
        description="weights, count; needed where config.json does not tell (mixture of experts)",
    )
    active_parameters: int | None = Field(
        default=None, ge=1, le=10**15, description="weights that one token passes through, count"
    )
    weight_dtype: Dtype | None = Field(
        default=None, description="stored format of the weights; default: as in config.json"
    )
    kv_dtype: Dtype | None = Field(
        default=None, description="stored format of the KV cache; default: as in config.json"
    )
    max_context_tokens: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="longest prompt plus answer that is served, tokens",
    )


class SloPart(SpecPart):
    """What one request class of one model was promised, request by request."""

    model: Name = Field(description="name of one of `models`")
    request_class: Name = Field(default=DEFAULT_CLASS, description="who is promised this")
    ttft_s: float = Field(description="time to first token, seconds, at most 120")
    tpot_s: float = Field(
        description="time per output token, (e2e - ttft) / (output tokens - 1), seconds"
    )
    attainment_ratio: float = Field(
        default=0.95, description="share of requests that must meet every objective, 0..1"
    )
    itl_p99_s: float | None = Field(
        default=None,
        description="refused: neither plan nor twin judges single gaps between tokens; promise "
        "their mean by tpot_s",
    )
    e2e_s: float | None = Field(default=None, description="end-to-end time, seconds")

    @field_validator("itl_p99_s", mode="before")
    @classmethod
    def _single_gaps(cls, given: object) -> object:
        if given is not None:
            raise PydanticCustomError("single_gaps", NO_SINGLE_GAPS)
        return given


class PricePart(SpecPart):
    """Price of one accelerator for one hour, by purchase option; at least one is given."""

    on_demand: float | None = Field(default=None, ge=0, le=1e5, description="USD per GPU hour")
    reserved: float | None = Field(
        default=None,
        ge=0,
        le=1e5,
        description="USD per GPU hour; with reserved_count paid whether used or not, without it "
        "an offer like on_demand, paid while planned",
    )
    reserved_count: int | None = Field(
        default=None,
        ge=0,
        le=10**6,
        description="accelerators that are reserved, count: always paid, used before others, and "
        "part of inventory; default: none is, as many as wanted may be had at the reserved price",
    )
    spot: float | None = Field(default=None, ge=0, le=1e5, description="USD per GPU hour")
    spot_interruptions_per_hour: float = Field(
        default=0.0, ge=0, le=1e3, description="expected reclaims of one spot accelerator, 1/h"
    )
    billing_increment_s: float = Field(
        default=0.0,
        ge=0,
        le=366 * 86_400,
        description="a start pays at least for so long, and is kept so long, seconds; later time "
        "is counted to the second; 0: no least",
    )

    @model_validator(mode="after")
    def _counted_where_priced(self) -> Self:
        if self.reserved_count is not None and self.reserved is None:
            raise PydanticCustomError(
                "reserved", "reserved_count needs the price of a reserved one: give reserved, too"
            )
        return self


class AcceleratorPart(SpecPart):
    """An accelerator type, what it costs and how many may be had."""

    name: Name = Field(description="as in profiles and pools, such as h100")
    per_node: int = Field(ge=1, le=10**4, description="accelerators in one node, count")
    inventory: int = Field(ge=0, le=10**6, description="how many may be had in all, count")
    usd_per_gpu_hour: PricePart = Field(description="USD for one accelerator and hour")
    memory_bytes: float | None = Field(
        default=None,
        gt=0,
        le=1e15,
        description="memory of one, bytes; default: the vendor's figure where it is known",
    )
    power_w: float | None = Field(default=None, gt=0, le=1e6, description="power of one at load, W")

    @model_validator(mode="after")
    def _reserved_are_there(self) -> Self:
        count = self.usd_per_gpu_hour.reserved_count
        if count is not None and count > self.inventory:
            raise PydanticCustomError(
                "reserved",
                "reserved_count {count} is above inventory {inventory}: reserved ones are part of "
                "the inventory",
                {"count": count, "inventory": self.inventory},
            )
        return self


class PoolPart(SpecPart):
    """A replica shape that may be planned, and how many of it."""

    model: Name = Field(description="name of one of `models`")
    role: Role = Field(description="prefill, decode or aggregated")
    accelerator: Name = Field(description="name of one of `accelerators`")
    tp: int = Field(default=1, ge=1, le=10**4, description="tensor parallel degree, accelerators")
    pp: int = Field(default=1, ge=1, le=10**4, description="pipeline parallel degree")
    dp: int = Field(default=1, ge=1, le=10**4, description="data parallel degree")
    weight_dtype: Dtype | None = Field(
        default=None, description="format of the weights; default: the model's own"
    )
    kv_dtype: Dtype | None = Field(
        default=None, description="format of the KV cache; default: the model's own"
    )
    max_num_batched_tokens: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="tokens computed in one step at the most (chunk size); default: as profiled",
    )
    max_num_seqs: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="sequences decoded together at the most, count; default: as profiled",
    )
    min_replicas: int = Field(default=0, ge=0, le=10**6, description="at least so many, count")
    max_replicas: int | None = Field(
        default=None,
        ge=0,
        le=10**6,
        description="at most so many, count; default: what the inventory has",
    )
    min_up_s: float = Field(
        default=0.0, ge=0, le=366 * 86_400, description="a started replica is kept so long, seconds"
    )
    max_starts: int | None = Field(
        default=None, ge=0, le=10**6, description="at most so many come at once, count"
    )
    max_stops: int | None = Field(
        default=None, ge=0, le=10**6, description="at most so many go at once, count"
    )


class QualityPart(SpecPart):
    """How good answers are with a number format, as you judge it; Poolwise does not."""

    weights: dict[Dtype, Quality] = Field(
        default_factory=dict, description="by format of the weights: reference, near or lossy"
    )
    kv: dict[Dtype, Quality] = Field(
        default_factory=dict, description="by format of the KV cache: reference, near or lossy"
    )


Degree = Annotated[int, Field(ge=1, le=10**4)]
Limit = Annotated[int, Field(ge=1, le=10**9)]


class ShapesPart(SpecPart):
    """Replica shapes of a model to consider beside `pools`: every combination of these lists.

    Those that fit and have a profile may be planned, as many as the inventory has.
    """

    model: Name = Field(description="name of one of `models`")
    roles: list[Role] = Field(
        default_factory=lambda: list(Role),
        min_length=1,
        description="prefill, decode, aggregated; default: all",
    )
    accelerators: list[Name] | None = Field(
        default=None, min_length=1, description="names of `accelerators`; default: all"
    )
    tp: list[Degree] | None = Field(
        default=None,
        min_length=1,
        description="tensor parallel degrees; default: powers of two that divide the heads",
    )
    pp: list[Degree] = Field(
        default_factory=lambda: [1], min_length=1, description="pipeline parallel degrees"
    )
    weight_dtypes: list[Dtype] | None = Field(
        default=None, min_length=1, description="formats of the weights; default: the model's own"
    )
    kv_dtypes: list[Dtype] | None = Field(
        default=None, min_length=1, description="formats of the KV cache; default: the model's own"
    )
    max_num_batched_tokens: list[Limit] | None = Field(
        default=None, min_length=1, description="tokens in one step; default: as profiled"
    )
    max_num_seqs: list[Limit] | None = Field(
        default=None, min_length=1, description="sequences together; default: as profiled"
    )
    quality: QualityPart = Field(
        default_factory=QualityPart,
        description="how good answers are with each format that is not the model's own",
    )
    min_quality: Quality = Field(
        default=Quality.LOSSY, description="formats that are judged worse are not considered"
    )
    context_tokens: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="prompt plus answer that every shape has to hold, tokens; default: any",
    )


class BudgetPart(SpecPart):
    """Limits over the whole fleet; left out: no limit."""

    usd_per_hour: float | None = Field(default=None, ge=0, le=1e12, description="USD/h")
    power_w: float | None = Field(default=None, ge=0, le=1e12, description="W")


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


class TargetPart(SpecPart):
    """What plans are applied to."""

    kind: TargetKind = Field(
        default=TargetKind.DRY_RUN, description="dry_run shows only; local starts processes"
    )
    routes_by: list[RoutesBy] = Field(
        default_factory=list,
        description="what its router can tell requests apart by, to send them to different pools; "
        "empty: it only balances load",
    )
    uncached_input_buckets: list[int] = Field(
        default=[2048, 8192],
        description="with routes_by uncached_input_tokens: where one bucket of prompt lengths ends "
        "and the next begins, increasing, tokens to compute",
    )

    @field_validator("uncached_input_buckets")
    @classmethod
    def _increasing(cls, limits: list[int]) -> list[int]:
        try:
            Routing(bucket_limits=tuple(limits))
        except ValueError:
            raise PydanticCustomError(
                "buckets", "limits must increase and be at least 1 token"
            ) from None
        return limits

    @model_validator(mode="after")
    def _buckets_where_asked_for(self) -> Self:
        if RoutesBy.UNCACHED_INPUT_TOKENS in self.routes_by and not self.uncached_input_buckets:
            raise PydanticCustomError(
                "buckets",
                "routes_by uncached_input_tokens needs uncached_input_buckets: give at least one "
                "limit, as in [2048, 8192], or take uncached_input_tokens out of routes_by",
            )
        return self

    @property
    def routing(self) -> Routing:
        """What it can do, as a value."""
        by_length = RoutesBy.UNCACHED_INPUT_TOKENS in self.routes_by
        return Routing(
            by_class=RoutesBy.REQUEST_CLASS in self.routes_by,
            bucket_limits=tuple(self.uncached_input_buckets) if by_length else (),
        )


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


class LoopPart(SpecPart):
    """When the loop acts, and the solver's limits."""

    mode: LoopMode = Field(
        default=_LOOP.mode,
        description="off, advise (plans only), approve (asks), auto (applies what guards allow)",
    )
    slow_interval_s: float = Field(
        default=_LOOP.slow_interval_s, ge=1, le=86_400, description="between ticks, seconds"
    )
    seed: int = Field(default=_LOOP.seed, ge=0, lt=2**31, description="for the twin and the solver")
    solver_time_limit_s: float = Field(
        default=_LOOP.solver_time_limit_s, ge=0.1, le=3_600, description="per solve, seconds"
    )


class GuardsPart(SpecPart):
    """Bounds on what a rollout may do."""

    max_disrupted_replicas: int = Field(
        default=_GUARDS.max_disrupted_replicas,
        ge=1,
        le=10**6,
        description="replicas taken out of service at once, count",
    )
    scale_down_stabilization_s: float = Field(
        default=_GUARDS.scale_down_stabilization_s,
        ge=0,
        le=1e9,
        description="capacity goes only when it was unneeded for so long, seconds",
    )
    stale_observation_s: float = Field(
        default=_GUARDS.stale_observation_s,
        gt=0,
        le=1e9,
        description="older observations forbid scale-down, seconds",
    )


class ApprovalPart(SpecPart):
    """Which changes need a person."""

    auto_below_replicas: int = Field(
        default=_APPROVAL.auto_below_replicas,
        ge=0,
        le=10**6,
        description="a diff that touches fewer replicas is approved by policy; 0: never",
    )
    expires_s: float = Field(
        default=_APPROVAL.expires_s,
        gt=0,
        le=1e9,
        description="a pending plan expires after, seconds",
    )


class SpecDocument(SpecPart):
    """One deployment: models, promises, hardware, bounds, target, settings.

    Seconds, tokens, bytes, USD and W throughout; ratios 0..1.
    """

    api_version: Literal["poolwise/v1"] = Field(alias="apiVersion", description="poolwise/v1")
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = Field(
        default="default",
        description="the deployment's name: lower-case letters, digits, hyphens",
    )
    models: list[ModelPart] = Field(min_length=1, description="served models")
    slos: list[SloPart] = Field(min_length=1, description="promises per model and request class")
    accelerators: list[AcceleratorPart] = Field(min_length=1, description="what may be had")
    profiles: list[str | dict[str, JsonValue]] = Field(
        default_factory=list,
        description="measured profiles: paths counted from the spec's folder, or their content",
    )
    pools: list[PoolPart] = Field(
        default_factory=list, description="replica shapes that may be planned, one by one"
    )
    shapes: list[ShapesPart] = Field(
        default_factory=list,
        max_length=10,
        description="replica shapes to search; `pools`, `shapes` or both",
    )
    budget: BudgetPart = Field(default_factory=BudgetPart, description="limits of the fleet")
    planning: PlanningPart = Field(
        default_factory=PlanningPart, description="what is best, and further limits"
    )
    target: TargetPart = Field(default_factory=TargetPart, description="where plans are applied")
    forecast: ForecastPart = Field(default_factory=ForecastPart, description="window and horizon")
    loop: LoopPart = Field(default_factory=LoopPart, description="the control loop")
    guards: GuardsPart = Field(default_factory=GuardsPart, description="rollout bounds")
    approval: ApprovalPart = Field(default_factory=ApprovalPart, description="who must approve")


def spec_schema() -> dict[str, JsonValue]:
    """The JSON Schema of the spec, for editors and checks."""
    schema = SpecDocument.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}

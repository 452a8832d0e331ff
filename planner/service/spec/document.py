"""The spec as written: `apiVersion: poolwise/v1`, every field with its unit.

Only the form is checked here; `spec_file` converts it to `planner.domain.spec.Spec` and checks
what fields mean together.
"""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    JsonValue,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from planner.domain.fleet import Role
from planner.domain.model import Dtype, Quality
from planner.domain.slo import DEFAULT_CLASS, NO_SINGLE_GAPS
from planner.service.spec.guards import ApprovalPart, GuardsPart
from planner.service.spec.part import Name, SpecPart
from planner.service.spec.settings import (
    CalibrationPart,
    ForecastPart,
    LoopPart,
    PlanningPart,
)
from planner.service.spec.target import TargetPart

API_VERSION = "poolwise/v1"


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

    @model_validator(mode="after")
    def _interrupted_where_priced(self) -> Self:
        if self.spot_interruptions_per_hour and self.spot is None:
            raise PydanticCustomError(
                "spot",
                "spot_interruptions_per_hour needs the price of a spot one, without which nothing "
                "is bought that way: give spot, too, or leave it out",
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
    calibration: CalibrationPart = Field(
        default_factory=CalibrationPart, description="profiles that drift"
    )
    guards: GuardsPart = Field(default_factory=GuardsPart, description="rollout bounds")
    approval: ApprovalPart = Field(default_factory=ApprovalPart, description="who must approve")


def spec_schema() -> dict[str, JsonValue]:
    """The JSON Schema of the spec, for editors and checks."""
    schema = SpecDocument.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}

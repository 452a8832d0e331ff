"""A capacity report as JSON: every figure that its page shows, and where it comes from.

The page is made of this document alone, so that no figure stands on it that is not in the file.
"""

from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field

from planner.domain.hardware import PurchaseOption
from planner.domain.plan import PlanStatus
from planner.domain.profile import ProfileKind
from planner.service.documents.document import Document, parse, read_object
from planner.service.documents.plan import (
    ClassAttainmentDocument,
    PlanDocument,
    RejectedDocument,
)
from planner.service.documents.replica_shape import ReplicaFields

SCHEMA_VERSION: Literal["poolwise/capacity-report/v1"] = "poolwise/capacity-report/v1"

ScenarioKind = Literal["base", "slo", "price", "profile", "growth", "workload", "purchase"]


class LengthsDocument(Document):
    """How long prompts or answers are, tokens."""

    mean: float
    p50: float
    p95: float
    p99: float


class PaceDocument(Document):
    """What arrived in [start_at, start_at + window_s), all classes together."""

    start_at: AwareDatetime
    window_s: float
    request_rate_rps: float
    input_tokens_per_s: float = Field(description="cached ones included")
    output_tokens_per_s: float


class PatternDocument(Document):
    """The mean rate of one hour of the day, or of one day of the week."""

    name: str = Field(description="`14:00`, in UTC, or a day's name")
    request_rate_rps: float


class ClassShareDocument(Document):
    """One request class."""

    request_class: str
    requests: int
    request_ratio: float = Field(description="of all requests, 0..1")


class WorkloadDocument(Document):
    """What was seen."""

    source: str = Field(description="a file, the store, or a description")
    described: bool = Field(description="true: drawn from a description, nobody saw it arrive")
    start_at: AwareDatetime
    end_at: AwareDatetime
    duration_s: float = Field(description="that the windows cover, seconds")
    windows: int
    requests: int
    request_rate_rps: float = Field(description="mean, requests/s")
    peak_rps: float = Field(description="in the busiest window, requests/s")
    peak_window_s: float = Field(description="length of the windows, seconds")
    peak_to_mean: float
    input_tokens_per_s: float = Field(description="mean, cached ones included")
    output_tokens_per_s: float = Field(description="mean")
    isl: LengthsDocument | None = Field(description="null: single requests are not known")
    osl: LengthsDocument | None
    reuse_ratio: float | None = Field(
        description="share of prompt tokens seen before, 0..1; null: not known"
    )
    arrival_cv: float = Field(description="variation of the gaps between arrivals; 1: Poisson")
    arrivals_known: bool = Field(
        default=True, description="false: single requests are not known, arrival_cv is assumed"
    )
    uncovered_s: float = Field(
        default=0.0, description="between the first and the last window, in no window, seconds"
    )
    classes: list[ClassShareDocument]
    pace: list[PaceDocument]
    day: list[PatternDocument] = Field(description="24 hours; empty: less than a day was seen")
    week: list[PatternDocument] = Field(description="7 days; empty: less than a week was seen")
    notes: list[str] = Field(description="what is wrong with it: gaps, silences, refused rows")


class ExpectedDocument(Document):
    """What a planning window is expected to bring."""

    start_at: AwareDatetime
    window_s: float
    request_rate_median_rps: float
    request_rate_q90_rps: float
    request_rate_planned_rps: float = Field(description="what the fleet is made for")


class FleetWindowDocument(Document):
    """The accelerators of one planning window."""

    start_at: AwareDatetime
    after_start_s: float = Field(description="after the first request was seen, seconds")
    window_s: float
    usd_per_hour: float = Field(description="what is paid, reserved ones that are idle included")
    accelerators: int
    bottleneck: str
    attainment_ratio: float | None
    attainment_low_ratio: float | None
    attainment_high_ratio: float | None
    source: str = Field(description="of the attainment: twin or closed_form")


class PoolDocument(ReplicaFields):
    """Replicas of one shape over the horizon."""

    label: str
    purchase_option: PurchaseOption
    fewest_replicas: int
    most_replicas: int
    replicas: list[int] = Field(description="one a window")
    accelerators_per_replica: int
    utilization_ratio: float = Field(description="in the busiest window, 0..1")


class TypeDocument(Document):
    """The accelerators of one type."""

    accelerator: str
    fewest: int = Field(description="in any window")
    most: int = Field(description="in any window: what has to be had")
    mean: float
    inventory: int
    spare: int = Field(description="of the inventory, in the window that needs most")


class ReservedDocument(Document):
    """Reserved accelerators of one type: paid all the time, used or not."""

    accelerator: str
    reserved: int = Field(
        description="as many as the spec has (reserved_count), or as the plan uses at the most"
    )
    used_mean: float = Field(description="of them in use, mean over the horizon")
    idle_mean: float = Field(description="of them not in use")
    usd_per_hour: float = Field(description="of one")
    idle_usd_per_hour: float = Field(description="what the idle ones cost in the mean")
    idle_usd_per_day: float


class RecommendedDocument(Document):
    """The fleet, and what is paid for it: reserved ones all the time, others while used."""

    windows: list[FleetWindowDocument]
    pools: list[PoolDocument]
    types: list[TypeDocument]
    reserved: list[ReservedDocument] = Field(
        description="by type, where the plan uses reserved ones or the spec has paid for some"
    )
    busiest_window: int = Field(description="the one with most requests/s, from 0")
    usd_per_hour: float = Field(
        description="mean over the horizon of what is paid, reserved ones that are idle included"
    )
    used_usd_per_hour: float = Field(
        description="the plan's own cost, which other plans on this page are compared with: "
        "reserved ones without a reserved_count cost nothing there while they are idle"
    )
    usd_per_hour_busiest: float
    usd_per_day: float = Field(description="24 hours like the horizon")
    usd_per_month: float = Field(description="30 such days")
    usd_per_million_tokens: float | None = Field(
        description="prompt and answer tokens, cached ones included, of the expected traffic; "
        "null: none is expected"
    )
    usd_per_million_output_tokens: float | None
    covers_a_day: bool = Field(description="false: a day is the horizon, again and again")


class BottleneckDocument(Document):
    """What would miss first if the load grew, and how much of the horizon that is so."""

    bottleneck: str
    time_ratio: float = Field(description="of the horizon, 0..1")


class DisaggregationDocument(Document):
    """Whether prompts and answers should have replicas of their own."""

    recommended: Literal["disaggregated", "aggregated", "both", "none"]
    bottlenecks: list[BottleneckDocument]
    alternatives: list[RejectedDocument]
    other_way: RejectedDocument | None = Field(
        description="the alternative of the other kind; null: no profile allows one"
    )
    other_way_more_ratio: float | None = Field(
        description="what the other way costs more, as a share of the plan; null: not known"
    )


class AttainmentDocument(Document):
    """What the twin saw of the busiest window in sampled futures."""

    start_at: AwareDatetime
    window_s: float
    future_s: float = Field(description="length of one future, seconds")
    futures: int
    requests: int
    attainment_ratio: float | None
    low_ratio: float | None = Field(description="95 % interval over futures")
    high_ratio: float | None
    holds: bool | None = Field(description="null: not clear with 95 % confidence")
    classes: list[ClassAttainmentDocument]
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    tpot_p95_s: float | None
    ttft_s: float = Field(description="promised, the strictest class")
    tpot_s: float
    flags: list[str]


class ScenarioDocument(Document):
    """The cheapest fleet for the busiest window if one thing were otherwise."""

    kind: ScenarioKind
    change: str
    status: PlanStatus | None = Field(description="null: not planned, `reason` says why")
    reason: str = ""
    usd_per_hour: float | None
    more_usd_per_hour: float | None = Field(description="than as it is; below 0: cheaper")
    more_ratio: float | None = Field(description="the same as a share")
    accelerators: dict[str, int] = Field(description="by type")
    fleet: str = Field(description="replicas by pool")
    attainment_ratio: float | None
    rate_ratio: float = Field(default=1.0, description="times the requests")
    beyond_inventory: bool = Field(
        default=False, description="true: no fleet within the limits; figures are without limits"
    )


class ParetoPointDocument(Document):
    """A promise, and the cheapest fleet that was proven to keep it in the busiest window."""

    ttft_s: float
    attainment_ratio: float
    usd_per_hour: float | None = Field(description="null: no fleet keeps it")
    efficient: bool = Field(description="nothing cheaper promises as much")
    reason: str = ""


class RunsOutDocument(Document):
    """When the inventory is used up at a pace of growth."""

    growth_per_month_ratio: float
    asked: bool = Field(description="true: this growth was given; else an example")
    at: AwareDatetime | None = Field(description="null: not before 2200")


class InventoryDocument(Document):
    """How far today's inventory and limits carry."""

    carries_ratio: float = Field(description="so many times the requests are served; 0: not these")
    fails_ratio: float | None = Field(description="so many are not; null: none was found")
    fails_why: str
    from_at: AwareDatetime = Field(description="dates are counted from here")
    runs_out: list[RunsOutDocument]


class SplitDocument(Document):
    """How the accelerators of one type are used through the horizon, and how to pay for them."""

    accelerator: str
    always_on: int = Field(description="used in every window")
    most: int
    mean: float
    planned_reserved: float = Field(description="mean, as planned")
    planned_on_demand: float
    planned_spot: float
    reserved_usd_per_hour: float | None = Field(description="of one; null: the spec has no price")
    on_demand_usd_per_hour: float | None
    spot_usd_per_hour: float | None
    break_even_ratio: float | None = Field(
        description="reserving one pays when it is used for so much of the time, 0..1"
    )
    worth_reserving: int | None = Field(description="so many are used for at least that long")
    all_on_demand_usd_per_day: float | None
    all_reserved_usd_per_day: float | None
    split_usd_per_day: float | None = Field(
        description="`worth_reserving` reserved, the rest on demand"
    )


class ProfileDocument(Document):
    """Where the times of one kind of replica come from."""

    profile_id: str
    model: str
    accelerator: str
    tp: int
    roles: list[str]
    used: bool = Field(description="true: the recommended fleet rests on it")
    kind: ProfileKind
    source: str
    measured_at: AwareDatetime
    machine: str
    engine: str
    points: int
    error_ratio: float
    complete: bool
    notes: list[str]


class EffortDocument(Document):
    """What the report took, and what was left out for want of time."""

    quick: bool
    time_limit_s: float
    wall_s: float
    plans: int
    left_out: int


class CapacityReport(Document):
    """How many accelerators, of which kind, at what cost, why, and how sure."""

    schema_version: Literal["poolwise/capacity-report/v1"] = SCHEMA_VERSION
    deployment: str
    model: str
    made_at: AwareDatetime
    workload: WorkloadDocument
    forecast_method: str
    demand_level: float | None = Field(description="quantile that is planned for, 0..1")
    expected: list[ExpectedDocument]
    plan: PlanDocument
    recommended: RecommendedDocument
    disaggregation: DisaggregationDocument
    attainment: AttainmentDocument | None = Field(description="null: nothing could be replayed")
    attainment_reason: str = Field(default="", description="why there is none")
    base: ScenarioDocument = Field(description="the busiest window as it is")
    sensitivity: list[ScenarioDocument]
    pareto: list[ParetoPointDocument]
    growth: list[ScenarioDocument]
    inventory: InventoryDocument | None = Field(description="null: not asked for want of time")
    split: list[SplitDocument]
    purchase: list[ScenarioDocument]
    risks: list[str]
    assumptions: list[str]
    profiles: list[ProfileDocument]
    effort: EffortDocument


def read_capacity_report(path: Path) -> CapacityReport:
    """The report in a JSON file.

    Raises
    ------
    HistoryError
        When the file is missing or no report.
    """
    return parse(CapacityReport, read_object(path, what="a capacity report"), where=str(path))

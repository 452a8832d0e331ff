"""A plan as JSON, both ways. These keys are a contract: others drive Poolwise by them."""

from pathlib import Path

from pydantic import AwareDatetime, Field

from planner.domain.errors import HistoryError
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import (
    BindingRow,
    Bottleneck,
    ClassAttainment,
    CostTerm,
    Holding,
    Plan,
    PlanInputs,
    PlannedPool,
    PlanStatus,
    PlanWindow,
    Prediction,
    RejectedAlternative,
    ShadowPrice,
    SolverReport,
    StretchedPromise,
    TrafficShare,
)
from planner.service.documents.document import Document, parse, read_object
from planner.service.documents.placement import (
    PlacementDocument,
    placement_document,
    placement_of,
)
from planner.service.documents.replica_shape import ReplicaFields

BESIDE_PLAN = ("deployment", "created_at", "approval", "diff", "findings", "what_if", "pareto")
"""Keys that answers add to a plan's own; they follow from it, the fleet and the store."""


class PlannedPoolDocument(ReplicaFields):
    """Replicas of one shape in one window."""

    model: str
    purchase_option: PurchaseOption
    replicas: int = Field(ge=0)
    utilization_ratio: float = Field(description="share of its capacity that is used, 0..1")


class ClassAttainmentDocument(Document):
    """How many requests of a class will be in time, beside what it was promised."""

    request_class: str
    target_ratio: float = Field(description="of its requests shall be in time, 0..1")
    attainment_ratio: float
    low_ratio: float | None = Field(default=None, description="95 % interval, of the twin")
    high_ratio: float | None = None
    requests: int | None = Field(default=None, description="that the twin saw")


class PredictionDocument(Document):
    """What requests will experience; null where nothing arrives."""

    attainment_ratio: float | None = Field(description="share that meets every objective, 0..1")
    attainment_low_ratio: float | None = None
    attainment_high_ratio: float | None = None
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    tpot_p95_s: float | None = None
    itl_p95_s: float | None = Field(default=None, description="over all gaps, seconds")
    source: str = Field(description="twin or closed_form")
    classes: list[ClassAttainmentDocument] = Field(
        default_factory=list, description="each class under its own promise, in order of name"
    )


class TrafficShareDocument(ReplicaFields):
    """The part of requests that the router can tell apart that goes to a pool."""

    model: str
    purchase_option: PurchaseOption
    request_class: str = Field(description="empty: all classes")
    above_tokens: int = Field(ge=0, description="prompts with more uncached tokens than this")
    most_tokens: int | None = Field(description="and at most so many; null: any more")
    share_ratio: float = Field(
        ge=0, le=1, description="of their prompts, for decode pools of their answers, 0..1"
    )


class PlanWindowDocument(Document):
    """The fleet to have in [start_at, start_at + window_s)."""

    start_at: AwareDatetime
    window_s: float
    request_rate_rps: float
    pools: list[PlannedPoolDocument]
    predicted: PredictionDocument
    bottleneck: Bottleneck
    usd_per_hour: float
    ready_after_s: float = Field(
        default=0.0,
        description="from the beginning of the window until the replicas that are started for it "
        "serve, seconds; the prediction is for the time from then on",
    )
    shortfall_rps: float = Field(
        default=0.0, description="of request_rate_rps, left unserved on purpose, requests/s"
    )
    traffic: list[TrafficShareDocument] = Field(
        default_factory=list, description="who is sent where; empty: all are balanced over all"
    )


class BindingDocument(Document):
    """A constraint row without slack."""

    row: str
    equation: str
    sentence: str


class RejectedDocument(Document):
    """A fleet that was considered and not chosen."""

    name: str
    reason: str
    usd_per_hour: float | None


class ShadowPriceDocument(Document):
    """What a stated change would cost, found by solving again."""

    change: str
    usd_per_hour: float | None = Field(
        description="of the fleet and of what it leaves unserved, where that has a price: above 0 "
        "dearer; null: nothing could serve"
    )
    sentence: str
    more: float | None = Field(
        default=None,
        description="of what was to be best, in `unit`: of every term of the objective; null: "
        "nothing could serve, or a plan of an earlier version",
    )
    unit: str = Field(default="USD/h", description="USD/h, W, accelerators or requests/s")


class HoldingDocument(Document):
    """What another model holds of something that models share; this plan has the rest."""

    resource: str = Field(description="an accelerator type, usd_per_hour or power_w")
    amount: float = Field(description="held at the most: accelerators, USD/h or W")
    total: float = Field(description="what the spec has in all")
    model: str
    priority: int
    above: bool = Field(description="true: of higher priority than the model of this plan")
    varies: bool = Field(default=False, description="true: it holds less in some windows")


class SolverDocument(Document):
    """What solved it, how well, and how to solve it again."""

    name: str
    gap_ratio: float
    wall_s: float
    seed: int
    time_limit_s: float
    replayable: bool


class CostDocument(Document):
    """One named term of what the plan comes to: of its cost, or what else was counted."""

    name: str
    usd: float = Field(description="over the horizon, USD; 0 for what is no money")
    value: float | None = Field(
        default=None,
        description="in `unit`: USD and kWh over the horizon, W, accelerators and requests/s in "
        "time as means over it",
    )
    unit: str = Field(default="USD", description="of value")
    sought: bool = Field(default=False, description="true: this was to be best")


class InputsDocument(Document):
    """Ids of everything the plan was made from."""

    spec_id: str
    forecast_id: str
    profile_ids: list[str]
    fleet_version: str | None
    demand_level: float | None = Field(
        default=None, description="quantile of the forecast that was planned for, 0..1"
    )
    assumptions: list[str] = Field(
        default_factory=list,
        description="what was taken to be otherwise than the inputs say: corrected profiles",
    )


class StretchedDocument(Document):
    """An objective that no pool keeps, not even without load, and what was planned for instead."""

    request_class: str = Field(description="empty: of all that arrives")
    objective: str = Field(description="ttft_s, tpot_s or e2e_s")
    promised_s: float = Field(description="as the spec promises it; it is not kept")
    planned_s: float = Field(description="as fleet, rows, alternatives and prices are for")


class PlanDocument(Document):
    """Pools per window for one deployment, with reasons."""

    plan_id: str
    model: str
    made_at: AwareDatetime
    status: PlanStatus
    usd_per_hour: float = Field(description="mean over the horizon, USD/h")
    windows: list[PlanWindowDocument]
    objective: list[CostDocument]
    binding: list[BindingDocument]
    rejected: list[RejectedDocument]
    relaxations: list[str]
    solver: SolverDocument
    inputs: InputsDocument
    estimated: bool = Field(description="true: rests on an estimated profile; never auto-applied")
    shadow_prices: list[ShadowPriceDocument] = Field(
        default_factory=list, description="empty: not asked for"
    )
    held_by_others: list[HoldingDocument] = Field(
        default_factory=list, description="what other models hold of what all share"
    )
    incomplete: bool = Field(
        default=False, description="true: rests on a profile whose measuring broke off"
    )
    placements: list[PlacementDocument] = Field(
        default_factory=list,
        description="one a window: where its replicas stand; empty: the spec names no cells",
    )
    unproven: list[str] = Field(
        default_factory=list,
        description="of a plan that is not infeasible: what the twin did not confirm",
    )
    stretched: list[StretchedDocument] = Field(
        default_factory=list, description="promises that no pool keeps; empty: there is none"
    )


def plan_document(plan: Plan) -> PlanDocument:
    """The document of a plan."""
    return PlanDocument(
        plan_id=plan.plan_id,
        model=plan.model,
        made_at=plan.made_at,
        status=plan.status,
        usd_per_hour=plan.usd_per_hour,
        windows=[_window_document(window) for window in plan.windows],
        objective=[CostDocument.model_validate(term) for term in plan.objective],
        binding=[BindingDocument.model_validate(row) for row in plan.binding],
        rejected=[RejectedDocument.model_validate(other) for other in plan.rejected],
        relaxations=list(plan.relaxations),
        solver=SolverDocument.model_validate(plan.solver),
        inputs=InputsDocument(
            spec_id=plan.inputs.spec_id,
            forecast_id=plan.inputs.forecast_id,
            profile_ids=list(plan.inputs.profile_ids),
            fleet_version=plan.inputs.fleet_version,
            demand_level=plan.inputs.demand_level,
            assumptions=list(plan.inputs.assumptions),
        ),
        estimated=plan.estimated,
        shadow_prices=[ShadowPriceDocument.model_validate(price) for price in plan.shadow_prices],
        held_by_others=[HoldingDocument.model_validate(h) for h in plan.held_by_others],
        incomplete=plan.incomplete,
        placements=[placement_document(placement) for placement in plan.placements],
        unproven=list(plan.unproven),
        stretched=[StretchedDocument.model_validate(one) for one in plan.stretched],
    )


def plan_of(document: PlanDocument, *, where: str) -> Plan:
    """The plan that a document describes.

    Raises
    ------
    HistoryError
        When its numbers are no plan.
    """
    inputs = document.inputs
    try:
        return Plan(
            plan_id=document.plan_id,
            model=document.model,
            made_at=document.made_at,
            status=document.status,
            usd_per_hour=document.usd_per_hour,
            windows=tuple(_window(window) for window in document.windows),
            objective=tuple(CostTerm(**term.model_dump()) for term in document.objective),
            binding=tuple(BindingRow(**row.model_dump()) for row in document.binding),
            rejected=tuple(RejectedAlternative(**r.model_dump()) for r in document.rejected),
            relaxations=tuple(document.relaxations),
            solver=SolverReport(**document.solver.model_dump()),
            inputs=PlanInputs(
                spec_id=inputs.spec_id,
                forecast_id=inputs.forecast_id,
                profile_ids=tuple(inputs.profile_ids),
                fleet_version=inputs.fleet_version,
                demand_level=inputs.demand_level,
                assumptions=tuple(inputs.assumptions),
            ),
            estimated=document.estimated,
            shadow_prices=tuple(ShadowPrice(**p.model_dump()) for p in document.shadow_prices),
            held_by_others=tuple(Holding(**h.model_dump()) for h in document.held_by_others),
            incomplete=document.incomplete,
            placements=tuple(placement_of(placement) for placement in document.placements),
            unproven=tuple(document.unproven),
            stretched=tuple(StretchedPromise(**one.model_dump()) for one in document.stretched),
        )
    except ValueError as error:
        raise HistoryError(f"{where}: {error}") from error


def read_plan(path: Path) -> Plan:
    """The plan in a JSON file, as `poolwise plan --json` prints it.

    Raises
    ------
    HistoryError
        When the file is missing or no plan.
    """
    data = dict(read_object(path, what="a plan"))
    for beside in BESIDE_PLAN:
        data.pop(beside, None)
    return plan_of(parse(PlanDocument, data, where=str(path)), where=str(path))


def _window_document(window: PlanWindow) -> PlanWindowDocument:
    return PlanWindowDocument(
        start_at=window.start_at,
        window_s=window.window_s,
        request_rate_rps=window.request_rate_rps,
        pools=[
            PlannedPoolDocument(
                **dict(ReplicaFields.of(pool.shape)),
                model=pool.shape.model,
                purchase_option=pool.purchase_option,
                replicas=pool.replicas,
                utilization_ratio=pool.utilization_ratio,
            )
            for pool in window.pools
        ],
        predicted=PredictionDocument.model_validate(window.predicted),
        bottleneck=window.bottleneck,
        usd_per_hour=window.usd_per_hour,
        shortfall_rps=window.shortfall_rps,
        ready_after_s=window.ready_after_s,
        traffic=[
            TrafficShareDocument(
                **dict(ReplicaFields.of(part.shape)),
                model=part.shape.model,
                purchase_option=part.purchase_option,
                request_class=part.request_class,
                above_tokens=part.above_tokens,
                most_tokens=part.most_tokens,
                share_ratio=part.share_ratio,
            )
            for part in window.traffic
        ],
    )


def _prediction(document: PredictionDocument) -> Prediction:
    classes = tuple(ClassAttainment(**dict(one)) for one in document.classes)
    return Prediction(**{**dict(document), "classes": classes})


def _window(document: PlanWindowDocument) -> PlanWindow:
    return PlanWindow(
        start_at=document.start_at,
        window_s=document.window_s,
        request_rate_rps=document.request_rate_rps,
        pools=tuple(
            PlannedPool(
                shape=pool.shape(pool.model),
                purchase_option=pool.purchase_option,
                replicas=pool.replicas,
                utilization_ratio=pool.utilization_ratio,
            )
            for pool in document.pools
        ),
        predicted=_prediction(document.predicted),
        bottleneck=document.bottleneck,
        usd_per_hour=document.usd_per_hour,
        shortfall_rps=document.shortfall_rps,
        ready_after_s=document.ready_after_s,
        traffic=tuple(
            TrafficShare(
                request_class=part.request_class,
                above_tokens=part.above_tokens,
                most_tokens=part.most_tokens,
                shape=part.shape(part.model),
                purchase_option=part.purchase_option,
                share_ratio=part.share_ratio,
            )
            for part in document.traffic
        ),
    )

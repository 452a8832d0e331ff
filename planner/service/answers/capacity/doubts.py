"""What could be wrong with a report: risks, what was assumed, and where profiles come from."""

from collections.abc import Iterator

from planner.domain.forecast import Forecast
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import Plan, PlanStatus
from planner.domain.profile import ProfileKind
from planner.domain.spec import Spec
from planner.service.answers.capacity.inventory import EXAMPLES
from planner.service.answers.capacity.scenarios import LONG_SHARE
from planner.service.documents.capacity_report import (
    AttainmentDocument,
    DisaggregationDocument,
    EffortDocument,
    ProfileDocument,
    RecommendedDocument,
    WorkloadDocument,
)

LITTLE_SPARE = 0.1
HIGH_ERROR = 0.15
BUSY = 0.9
WORTH_SAYING = 0.01


def risks(
    spec: Spec,
    plan: Plan,
    forecast: Forecast,
    *,
    recommended: RecommendedDocument,
    disaggregation: DisaggregationDocument,
    attained: AttainmentDocument | None,
) -> Iterator[str]:
    """What may make the answer wrong, the gravest first."""
    if plan.status is PlanStatus.INFEASIBLE:
        yield "no fleet within the spec's limits keeps the objectives"
    for what in plan.not_kept:
        yield f"no pool keeps every promise: {what}"
    other, more = disaggregation.other_way, disaggregation.other_way_more_ratio
    if other is not None and more is not None and more < -WORTH_SAYING:
        yield f"{other.name}, would cost {-more:.1%} less"
    yield from _of_profiles(spec, plan)
    if attained is not None and attained.holds is not True and attained.classes:
        said = "misses" if attained.holds is False else "does not clearly keep"
        yield f"in sampled futures of the busiest window the fleet {said} its promise"
    yield from plan.unproven
    yield from _of_pools(recommended)
    for drift in forecast.drifts:
        yield f"class {drift.request_class}: {drift.what}"


def _of_profiles(spec: Spec, plan: Plan) -> Iterator[str]:
    if plan.estimated:
        yield "profiles were estimated, not measured: measure them before buying"
    if plan.incomplete:
        yield "the measuring of a profile broke off: it rests on what was measured by then"
    for profile in spec.profiles:
        error = profile.provenance.error_ratio
        if error > HIGH_ERROR and profile.provenance.kind is ProfileKind.MEASURED:
            yield f"the profile of {profile.accelerator} states an error of {error:.0%}"


def _of_pools(recommended: RecommendedDocument) -> Iterator[str]:
    for kind in recommended.types:
        if kind.most and kind.spare < LITTLE_SPARE * kind.inventory:
            yield (
                f"of {kind.inventory:,} {kind.accelerator} only {kind.spare:,} are left where "
                "most are used: nothing replaces a failed node"
            )
    for pool in recommended.pools:
        if pool.utilization_ratio > BUSY:
            yield (
                f"{pool.label} is used to {pool.utilization_ratio:.0%} of its capacity in the "
                "busiest window"
            )
    if any(p.purchase_option is PurchaseOption.SPOT for p in recommended.pools):
        yield "spot accelerators may be reclaimed all at once, which no average rate tells"


def assumptions(
    spec: Spec,
    plan: Plan,
    workload: WorkloadDocument,
    recommended: RecommendedDocument,
    effort: EffortDocument,
) -> Iterator[str]:
    """What was taken for granted."""
    yield from plan.inputs.assumptions
    if workload.described:
        yield (
            f"nobody saw these requests: {workload.requests:,} were drawn from {workload.source}"
        )
    others = [model.name for model in spec.models if model.name != plan.model]
    if others:
        yield f"the whole inventory is for {plan.model}: {', '.join(others)} take nothing of it"
    if not recommended.covers_a_day:
        seen = sum(w.window_s for w in recommended.windows)
        yield (
            f"a day is taken to be {seen:,.0f} s like the planned ones, over and over: the history "
            "is too short, or the spec looks too little ahead, to tell day from night"
        )
    if workload.reuse_ratio is None:
        yield "prefix reuse is not known, and none is counted on"
    elif workload.reuse_ratio > 0:
        yield (
            f"replicas find {workload.reuse_ratio:.1%} of prompt tokens in their caches, as an "
            "endless cache that all share would; real caches find less"
        )
    yield "prices are those of the spec; power, network, staff and taxes are not in them"
    if any(
        o.purchase_option is PurchaseOption.RESERVED and not o.is_prepaid
        for a in spec.accelerators
        for o in a.offers
    ):
        yield (
            "a reserved price without a number of reserved accelerators (reserved_count) is "
            "planned as if it were paid only while used; what the report says is paid has as many "
            "reserved all day as any window uses"
        )
    paces = ", ".join(f"{pace:.0%}" for pace in EXAMPLES)
    yield f"growth of {paces} a month are examples, not forecasts; lengths and reuse stay"
    yield (
        f"the new long-context workload is {LONG_SHARE:.0%} more requests, answered as long as the "
        "longest class and without any prefix reuse"
    )
    yield "scenarios, sensitivity and the frontier are planned for the busiest window alone"
    if effort.left_out:
        yield f"{effort.left_out} of the questions were left out for want of time"


def used_profiles(spec: Spec, plan: Plan) -> frozenset[str]:
    """Ids of the profiles that the fleet rests on."""
    return frozenset(
        profile.profile_id
        for window in plan.windows
        for pool in window.pools
        if pool.replicas
        for profile in [spec.profile_of(pool.shape)]
        if profile is not None
    )


def profile_documents(
    spec: Spec, model: str, *, used: frozenset[str] = frozenset()
) -> list[ProfileDocument]:
    """Every profile of the model, those that the fleet rests on first."""
    found = [
        ProfileDocument(
            profile_id=p.profile_id,
            model=p.model,
            accelerator=p.accelerator,
            tp=p.tp,
            roles=[str(role) for role in p.roles],
            used=p.profile_id in used,
            kind=p.provenance.kind,
            source=p.provenance.source,
            measured_at=p.provenance.measured_at,
            machine=p.provenance.machine,
            engine=p.provenance.engine,
            points=p.provenance.points,
            error_ratio=p.provenance.error_ratio,
            complete=not p.interrupted,
            notes=list(p.provenance.notes),
        )
        for p in spec.profiles
        if p.model == model
    ]
    return sorted(found, key=lambda p: (not p.used, p.accelerator, p.tp))

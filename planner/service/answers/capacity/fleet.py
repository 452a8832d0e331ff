"""The recommended fleet over the horizon, what is paid for it, and whether it is disaggregated."""

import math
from datetime import datetime
from typing import Literal

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.forecast import Forecast
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import Plan, PlanStatus, PlanWindow, RejectedAlternative
from planner.domain.spec import Spec
from planner.service.answers.capacity.purchase import reserved_documents, unpaid_usd_per_hour
from planner.service.answers.capacity.seen import DAY_S
from planner.service.documents.capacity_report import (
    BottleneckDocument,
    DisaggregationDocument,
    ExpectedDocument,
    FleetWindowDocument,
    PoolDocument,
    RecommendedDocument,
    TypeDocument,
)
from planner.service.documents.plan import RejectedDocument
from planner.service.documents.replica_shape import ReplicaFields

DAYS_PER_MONTH = 30
_OTHER_WAYS = {
    "disaggregated": ("aggregated only", "aggregated instead"),
    "aggregated": ("disaggregated only", "disaggregated instead"),
}


def recommended_document(
    plan: Plan, forecast: Forecast, spec: Spec, *, peak: int, since: datetime
) -> RecommendedDocument:
    """The plan's pools and accelerators over all windows, and what is paid for them.

    Reserved accelerators are paid in every window, also where the plan uses fewer of them.

    Parameters
    ----------
    peak : int
        The busiest window.
    since : datetime
        When the first request was seen.
    """
    horizon_s = math.fsum(window.window_s for window in plan.windows)
    paid = [
        window.usd_per_hour + unpaid_usd_per_hour(plan, spec, window) for window in plan.windows
    ]
    usd = math.fsum(p * w.window_s for p, w in zip(paid, plan.windows, strict=True)) / horizon_s
    usd_per_day = usd * DAY_S / 3600
    return RecommendedDocument(
        windows=[_window(w, since, usd=p) for w, p in zip(plan.windows, paid, strict=True)],
        pools=_pools(plan, peak),
        types=_types(plan, spec),
        reserved=reserved_documents(plan, spec),
        busiest_window=peak,
        usd_per_hour=usd,
        used_usd_per_hour=plan.usd_per_hour,
        usd_per_hour_busiest=paid[peak],
        usd_per_day=usd_per_day,
        usd_per_month=usd_per_day * DAYS_PER_MONTH,
        usd_per_million_tokens=_per_million(plan, forecast, usd, outputs_only=False),
        usd_per_million_output_tokens=_per_million(plan, forecast, usd, outputs_only=True),
        covers_a_day=horizon_s >= DAY_S - 1,
    )


def expected_documents(plan: Plan, forecast: Forecast) -> list[ExpectedDocument]:
    """What every window is expected to bring, beside what was planned for."""
    return [
        ExpectedDocument(
            start_at=ahead.start_at,
            window_s=ahead.window_s,
            request_rate_median_rps=ahead.request_rate_rps(0.5),
            request_rate_q90_rps=ahead.request_rate_rps(0.9),
            request_rate_planned_rps=planned.request_rate_rps,
        )
        for ahead, planned in zip(forecast.windows, plan.windows, strict=True)
    ]


def disaggregation_document(plan: Plan) -> DisaggregationDocument:
    """Which way was recommended, what bounds it, and what the other ways would cost."""
    way = recommended_way(plan)
    other = _other_way(plan, way)
    more = None
    if other is not None and other.usd_per_hour is not None and plan.usd_per_hour > 0:
        more = other.usd_per_hour / plan.usd_per_hour - 1
    return DisaggregationDocument(
        recommended=way,
        bottlenecks=_bottlenecks(plan),
        alternatives=[RejectedDocument.model_validate(r) for r in plan.rejected],
        other_way=None if other is None else RejectedDocument.model_validate(other),
        other_way_more_ratio=more,
    )


def recommended_way(plan: Plan) -> Literal["disaggregated", "aggregated", "both", "none"]:
    """Whether the plan has replicas of single roles, of both, or some of each."""
    roles = {pool.shape.role for window in plan.windows for pool in window.pools if pool.replicas}
    if plan.status is PlanStatus.INFEASIBLE or not roles:
        return "none"
    if roles == {Role.AGGREGATED}:
        return "aggregated"
    return "both" if Role.AGGREGATED in roles else "disaggregated"


def _other_way(plan: Plan, way: str) -> RejectedAlternative | None:
    starts = _OTHER_WAYS.get(way, ())
    return next(
        (r for r in plan.rejected for start in starts if r.name.startswith(start)),
        None,
    )


def _bottlenecks(plan: Plan) -> list[BottleneckDocument]:
    seconds: dict[str, float] = {}
    for window in plan.windows:
        name = str(window.bottleneck)
        seconds[name] = seconds.get(name, 0.0) + window.window_s
    whole = math.fsum(seconds.values())
    return [
        BottleneckDocument(bottleneck=name, time_ratio=some / whole)
        for name, some in sorted(seconds.items(), key=lambda item: -item[1])
    ]


def _window(window: PlanWindow, since: datetime, *, usd: float) -> FleetWindowDocument:
    predicted = window.predicted
    return FleetWindowDocument(
        start_at=window.start_at,
        after_start_s=(window.start_at - since).total_seconds(),
        window_s=window.window_s,
        usd_per_hour=usd,
        accelerators=sum(p.replicas * p.shape.accelerators for p in window.pools),
        bottleneck=str(window.bottleneck),
        attainment_ratio=predicted.attainment_ratio,
        attainment_low_ratio=predicted.attainment_low_ratio,
        attainment_high_ratio=predicted.attainment_high_ratio,
        source=predicted.source,
    )


def _pools(plan: Plan, peak: int) -> list[PoolDocument]:
    keys: dict[tuple[ReplicaShape, PurchaseOption], None] = {}
    for window in plan.windows:
        keys.update(dict.fromkeys((p.shape, p.purchase_option) for p in window.pools))
    found = []
    for shape, option in sorted(keys, key=lambda k: (list(Role).index(k[0].role), k)):
        counts = [_count(window, shape, option) for window in plan.windows]
        if not any(counts):
            continue
        used = [
            p.utilization_ratio
            for p in plan.windows[peak].pools
            if (p.shape, p.purchase_option) == (shape, option)
        ]
        found.append(
            PoolDocument(
                **dict(ReplicaFields.of(shape)),
                label=shape.label,
                purchase_option=option,
                fewest_replicas=min(counts),
                most_replicas=max(counts),
                replicas=counts,
                accelerators_per_replica=shape.accelerators,
                utilization_ratio=used[0] if used else 0.0,
            )
        )
    return found


def _count(window: PlanWindow, shape: ReplicaShape, option: PurchaseOption) -> int:
    return sum(p.replicas for p in window.pools if (p.shape, p.purchase_option) == (shape, option))


def _types(plan: Plan, spec: Spec) -> list[TypeDocument]:
    whole = math.fsum(window.window_s for window in plan.windows)
    offered = {b.shape.accelerator for b in spec.pools if b.shape.model == plan.model}
    found = []
    for accelerator in spec.accelerators:
        if accelerator.name not in offered:
            continue
        counts = [window.accelerators(accelerator.name) for window in plan.windows]
        weighted = math.fsum(n * w.window_s for n, w in zip(counts, plan.windows, strict=True))
        found.append(
            TypeDocument(
                accelerator=accelerator.name,
                fewest=min(counts),
                most=max(counts),
                mean=weighted / whole,
                inventory=accelerator.inventory,
                spare=accelerator.inventory - max(counts),
            )
        )
    return found


def _per_million(
    plan: Plan, forecast: Forecast, usd_per_hour: float, *, outputs_only: bool
) -> float | None:
    """USD for a million tokens of the expected (median) traffic over the horizon."""

    def tokens_per_s(window: int) -> float:
        demands = forecast.windows[window].demands
        outputs = sum(d.output_tokens_per_s.median for d in demands)
        inputs = sum(d.input_tokens_per_s.median for d in demands)
        return outputs if outputs_only else inputs + outputs

    tokens = math.fsum(tokens_per_s(t) * w.window_s for t, w in enumerate(plan.windows))
    hours = math.fsum(w.window_s for w in plan.windows) / 3600
    return usd_per_hour * hours / tokens * 1e6 if tokens > 0 else None

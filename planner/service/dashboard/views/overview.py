"""All deployments on one page: what each does, and what waits for a person."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from planner.domain.rollout import ApprovalState
from planner.domain.slo import Slo
from planner.service.dashboard.views.decisions import DecisionView, timeline
from planner.service.dashboard.views.fleet import FleetView
from planner.service.dashboard.views.live import KEPT, MISSED
from planner.service.documents.directives import StandingDocument
from planner.service.reports.quantities import (
    MISSING,
    duration,
    sentence,
    share,
    usd_per_hour,
    words,
)
from planner.service.store import DecisionRecord, PlanRecord
from serving.telemetry.signals import DeploymentSignals

MODES = {
    "off": "the loop does nothing",
    "advise": "it plans, and moves nothing",
    "approve": "it plans, and asks a person",
    "auto": "it plans, and does what guards allow",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What people ordered, and what the loop may do.

    Parameters
    ----------
    paused : str
        `in`, `out`, `all` or empty, by people or by the spec.
    """

    mode: str
    mode_note: str
    mode_of_spec: str
    paused: str
    paused_note: str
    by_spec: bool
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One deployment.

    Parameters
    ----------
    seen : bool
        Whether any part of it is read; if not, there are no figures of now.
    """

    name: str
    model: str
    target: str
    orders: Orders
    fleet: FleetView
    waiting: tuple[str, ...]
    seen: bool
    ttft: str
    ttft_verdict: str
    attainment: str
    cost: str
    last: DecisionView | None


def orders_view(standing: StandingDocument) -> Orders:
    """Orders in force."""
    ways = {w for p in (standing.paused, standing.paused_by_spec) for w in _ways(p.value)}
    paused = "all" if len(ways) == 2 else "".join(ways)
    notes = {"in": "no capacity goes", "out": "no capacity comes", "all": "no capacity moves"}
    return Orders(
        mode=standing.mode.value,
        mode_note=MODES[standing.mode.value],
        mode_of_spec=standing.mode_of_spec.value,
        paused=paused,
        paused_note=notes.get(paused, ""),
        by_spec=standing.paused_by_spec.value != "none",
        sentences=tuple(sentence(one.sentence) for one in standing.directives),
    )


def _ways(pause: str) -> tuple[str, ...]:
    return {"none": (), "all": ("in", "out")}.get(pause, (pause,))


def card(
    *,
    name: str,
    model: str,
    target: str,
    orders: Orders,
    fleet: FleetView,
    plans: Sequence[PlanRecord],
    signals: DeploymentSignals | None,
    slos: Sequence[Slo],
    decisions: Sequence[DecisionRecord],
) -> Card:
    """One deployment in a few figures; `plans` and `decisions` come newest first."""
    p95 = None if signals is None else signals.ttft.p95_s.value
    promised = min((slo.ttft_s for slo in slos), default=None)
    verdict = ""
    if p95 is not None and promised is not None:
        verdict = KEPT if p95 <= promised else MISSED
    running = () if signals is None else signals.slos
    kept = [one.attainment_ratio.value for one in running]
    known = [value for value in kept if value is not None]
    return Card(
        name=name,
        model=model,
        target=words(target),
        orders=orders,
        fleet=fleet,
        waiting=tuple(r.plan.plan_id for r in plans if r.approval.state is ApprovalState.PENDING),
        seen=signals is not None,
        ttft=MISSING if p95 is None else f"{duration(p95)} of {duration(promised)}",
        ttft_verdict=verdict,
        attainment=share(min(known)) if known else MISSING,
        cost=usd_per_hour(None if signals is None else signals.usd_per_hour.value),
        last=next(iter(timeline(decisions)), None),
    )


def age(then: datetime, now: datetime) -> str:
    """How long ago, in the unit that people say it in."""
    seconds = max(0.0, (now - then).total_seconds())
    for unit, size_s in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago" if seconds >= 10 else "just now"

"""What the loop decided, in order of time, each with its reason."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from planner.service.dashboard.views.plans import plan_line
from planner.service.reports.quantities import rate, sentence, words
from planner.service.store import DecisionRecord, PlanRecord

GOOD = ("unchanged", "applied", "applying")
WAITS = ("pending", "advised", "held")
STORED = ("pending", "advised", "applied", "applying")
"""Outcomes whose plan is in the store; that of any other was made, and most often not kept."""
FIRST_WINDOW = "window 0:"
"""How a binding row of the first window begins."""
MOST_ROWS = 3
WORDS = {
    "off": "off",
    "no_data": "no data",
    "fell_back": "fell back",
    "unchanged": "nothing to change",
    "infeasible": "no fleet will do",
    "advised": "advised",
    "pending": "waits for approval",
    "held": "held back",
    "applied": "applied",
    "applying": "being applied",
    "failed": "failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionView:
    """One decision, or several alike that follow each other.

    Parameters
    ----------
    tone : str
        `good`, `waits` or `bad`.
    since_at : datetime or None
        When the first of several alike was made; None: there is one.
    plan_id : str
        Of its plan, where that has a page; empty: it was not kept.
    change : str
        Of its plan, as in `1P2D → 4P3D`; empty: the plan is not among those that were given.
    why : str
        For what load, and what each pool is needed for.
    """

    decided_at: datetime
    since_at: datetime | None
    count: int
    outcome: str
    tone: str
    reason: str
    plan_id: str
    change: str = ""
    why: str = ""


def timeline(
    records: Sequence[DecisionRecord], plans: Sequence[PlanRecord] = ()
) -> tuple[DecisionView, ...]:
    """Newest first; what was decided again and again stands there once.

    Parameters
    ----------
    plans : sequence of PlanRecord
        Of which decisions say what they change and why; others are only named.
    """
    found: list[DecisionView] = []
    known = {plan.plan.plan_id: plan for plan in plans}
    for record in records:
        view = _view(record, known.get(record.plan_id or ""))
        last = found[-1] if found else None
        if last is not None and _alike(last, view):
            found[-1] = replace(last, since_at=view.decided_at, count=last.count + 1)
        else:
            found.append(view)
    return tuple(found)


def _alike(one: DecisionView, other: DecisionView) -> bool:
    return (one.outcome, one.reason, one.plan_id) == (other.outcome, other.reason, other.plan_id)


def _view(record: DecisionRecord, plan: PlanRecord | None) -> DecisionView:
    kept = plan is not None or record.outcome in STORED
    tone = "good" if record.outcome in GOOD else "waits" if record.outcome in WAITS else "bad"
    return DecisionView(
        decided_at=record.decided_at,
        since_at=None,
        count=1,
        outcome=WORDS.get(record.outcome, words(record.outcome)),
        tone=tone,
        reason=sentence(record.reason),
        plan_id=(record.plan_id or "") if kept else "",
        change="" if plan is None else plan_line(plan).change,
        why="" if plan is None else _why(plan),
    )


def _why(record: PlanRecord) -> str:
    """What the first window is planned for, and the rows that keep its fleet from being smaller."""
    plan = record.plan
    if not plan.windows:
        return ""
    first = f"{FIRST_WINDOW} "
    needed = [r.sentence.removeprefix(first) for r in plan.binding if r.sentence.startswith(first)]
    load = f"planned for {rate(plan.windows[0].request_rate_rps, 'requests')}"
    return " ".join(sentence(said) for said in (load, *needed[:MOST_ROWS]))

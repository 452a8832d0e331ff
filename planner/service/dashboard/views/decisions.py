"""What the loop decided, in order of time, each with its reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from planner.service.reports.quantities import sentence, words
from planner.service.store import DecisionRecord

GOOD = ("unchanged", "applied", "applying")
WAITS = ("pending", "advised", "held")
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
    """

    decided_at: datetime
    since_at: datetime | None
    count: int
    outcome: str
    tone: str
    reason: str
    plan_id: str


def timeline(records: Sequence[DecisionRecord]) -> tuple[DecisionView, ...]:
    """Newest first; what was decided again and again stands there once."""
    found: list[DecisionView] = []
    for record in records:
        view = _view(record)
        last = found[-1] if found else None
        if last is not None and _alike(last, view):
            found[-1] = DecisionView(
                decided_at=last.decided_at,
                since_at=view.decided_at,
                count=last.count + 1,
                outcome=last.outcome,
                tone=last.tone,
                reason=last.reason,
                plan_id=last.plan_id,
            )
        else:
            found.append(view)
    return tuple(found)


def _alike(one: DecisionView, other: DecisionView) -> bool:
    return (one.outcome, one.reason, one.plan_id) == (other.outcome, other.reason, other.plan_id)


def _view(record: DecisionRecord) -> DecisionView:
    tone = "good" if record.outcome in GOOD else "waits" if record.outcome in WAITS else "bad"
    return DecisionView(
        decided_at=record.decided_at,
        since_at=None,
        count=1,
        outcome=WORDS.get(record.outcome, words(record.outcome)),
        tone=tone,
        reason=sentence(record.reason),
        plan_id=record.plan_id or "",
    )

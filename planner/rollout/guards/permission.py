"""Who may move anything at this moment: the leader, outside freeze windows, with a sound plan."""

from collections.abc import Sequence
from datetime import datetime

from planner.domain.guards import FreezeWindow
from planner.domain.plan import PlanStatus
from planner.domain.rollout import Verdict
from planner.rollout.guards.case import Case, Judgement


def leader(case: Case) -> Judgement:
    """Only one process writes."""
    if case.conditions.leader:
        return None
    return Verdict.REFUSE, "another process leads: only the leader moves the fleet"


def plan_quality(case: Case) -> Judgement:
    """Infeasible or estimated plans are never applied without a person."""
    if not case.automatic:
        return None
    if case.plan is None:
        return Verdict.REFUSE, "the plan behind the diff is not known: a person has to approve"
    if case.plan.status is PlanStatus.INFEASIBLE:
        return Verdict.REFUSE, "the plan is infeasible, it does not keep the objectives"
    if case.plan.estimated:
        return Verdict.REFUSE, "a profile behind the plan is an estimate: measure it first"
    return None


def freeze_windows(case: Case) -> Judgement:
    """Nothing moves while it is frozen; for a person's plan only where the window says so."""
    reason, manual = frozen(case.spec.guards.freeze_windows, case.conditions.now)
    if not reason:
        return None
    return (Verdict.DELAY if manual else Verdict.REFUSE), reason


def frozen(windows: Sequence[FreezeWindow], now: datetime) -> tuple[str, bool]:
    """Why nothing may move now (empty: it may), and whether a person's plan may all the same.

    Deny beats allow. Where there are allow windows, everything outside them is frozen.
    """
    denying = [w for w in windows if w.deny and w.holds(now)]
    if denying:
        said = ", ".join(w.reason for w in denying if w.reason)
        reason = "a freeze window is in force" + (f" ({said})" if said else "")
        return reason, all(w.manual for w in denying)
    allowing = [w for w in windows if not w.deny]
    if allowing and not any(w.holds(now) for w in allowing):
        return "no allow window is in force", all(w.manual for w in allowing)
    return "", True

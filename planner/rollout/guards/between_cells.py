"""Replicas that move from cell to cell: one ends here, its like starts there."""

from planner.domain.rollout import StepKind, Verdict
from planner.rollout.guards.case import Case, Judgement, Wish
from planner.rollout.guards.cautions import directions, paused, stale_observation


def unmoved(wish: Wish) -> str:
    """Why no replica is moved from cell to cell now; empty: some may be.

    Counts do not show a move: it is held by whatever would hold one replica less, or one more.
    """
    if not wish.spec.cells:
        return ""
    for limit in (stale_observation, paused, directions):
        for change in (-1, 1):
            asked = {key: max(0, count + change) for key, count in wish.present.items()}
            _, reason = limit(asked, wish)
            if reason:
                return reason.rpartition(": ")[2]
    return ""


def between_cells(case: Case) -> Judgement:
    """Nothing moves from cell to cell while capacity may not go, or not come."""
    started, drained = (
        {(s.shape, s.purchase_option) for s in case.diff.steps if s.cell and s.kind is kind}
        for kind in (StepKind.START, StepKind.DRAIN)
    )
    why = unmoved(case.wish)
    if not started & drained or not why:
        return None
    return Verdict.REFUSE, f"replicas would move to another cell: {why}"

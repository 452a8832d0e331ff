"""How many times today's traffic the inventory carries, and when that is used up."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from planner.domain.plan import PlanStatus
from planner.service.answers.capacity.scenarios import Case, Effort, planned, times
from planner.service.documents.capacity_report import (
    InventoryDocument,
    RunsOutDocument,
    ScenarioDocument,
)

EXAMPLES = (0.05, 0.1, 0.2)
"""Growth a month that dates are given for when nobody says what it is."""
DAYS_PER_MONTH = 30.4375
LAST_YEAR = 2200
_MOST_RATIO = 64.0


def carried(
    base: Case,
    as_it_is: ScenarioDocument,
    growth: Sequence[ScenarioDocument],
    effort: Effort,
    *,
    carries_today: bool,
    halvings: int,
) -> tuple[float, float | None, str]:
    """The most times the requests that are served, the fewest that are not, and why not.

    Parameters
    ----------
    growth : sequence of ScenarioDocument
        Plans that are there already, in order of their ratio.
    carries_today : bool
        Whether a fleet was found for the requests as they are.
    halvings : int
        Plans between the two that enclose it.
    """
    low, high, why = (1.0 if carries_today else 0.0), None, ""
    for known in (as_it_is, *growth):
        if known.status is None:
            continue
        if known.status is PlanStatus.INFEASIBLE:
            high, why = known.rate_ratio, known.reason
            break
        low = known.rate_ratio
    while high is None and 0 < low < _MOST_RATIO and halvings > 0 and not effort.is_over:
        found = _tried(base, 2 * low, effort)
        halvings -= 1
        low, high, why = (low, 2 * low, found) if found else (2 * low, None, "")
    for _ in range(halvings if high is not None and low > 0 else 0):
        if high is None or effort.is_over:
            break
        middle = math.sqrt(low * high)
        found = _tried(base, middle, effort)
        low, high, why = (low, middle, found) if found else (middle, high, why)
    return low, high, why


def _tried(base: Case, ratio: float, effort: Effort) -> str:
    """Why so many times the requests cannot be served; empty: they can."""
    made = planned(replace(base, forecast=times(base.forecast, ratio)), effort)
    if isinstance(made, str):
        return made
    if made.status is PlanStatus.INFEASIBLE:
        return (made.relaxations or ("no fleet keeps the objectives",))[0]
    return ""


def inventory_document(
    found: tuple[float, float | None, str], *, from_at: datetime, asked: float | None
) -> InventoryDocument | None:
    """The ratios, and dates for paces of growth; None where nothing beyond today was looked at.

    Parameters
    ----------
    asked : float or None
        Growth a month that was given, as a ratio: 0.1 is 10 %.
    """
    low, high, why = found
    if low == 1.0 and high is None:
        return None
    paces = [(asked, True)] if asked is not None else []
    paces += [(pace, False) for pace in EXAMPLES if pace != asked]
    return InventoryDocument(
        carries_ratio=low,
        fails_ratio=high,
        fails_why=why,
        from_at=from_at,
        runs_out=[
            RunsOutDocument(
                growth_per_month_ratio=pace, asked=is_asked, at=runs_out_at(low, pace, from_at)
            )
            for pace, is_asked in paces
        ],
    )


def runs_out_at(carries_ratio: float, per_month: float, from_at: datetime) -> datetime | None:
    """When traffic that grows so fast has grown to what is carried; None: not before 2200."""
    if carries_ratio <= 1:
        return from_at
    if per_month <= 0:
        return None
    days = DAYS_PER_MONTH * math.log(carries_ratio) / math.log1p(per_month)
    if from_at.year + days / 365 >= LAST_YEAR:
        return None
    return from_at + timedelta(days=days)

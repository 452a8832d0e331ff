"""What a shorter TTFT or a higher attainment costs: the frontier of cost, TTFT and attainment."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from planner.domain.errors import OutsideProfileError, SolverError, SpecError
from planner.domain.fleet import Fleet
from planner.domain.forecast import Forecast
from planner.domain.plan import Plan, PlanStatus
from planner.domain.slo import LONGEST_SLO_S
from planner.domain.spec import Spec
from planner.optimize.prove import plan

TTFT_RATIOS = (0.5, 0.7, 0.85, 1.0, 1.25, 1.6, 2.5)
ATTAINMENTS = (0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParetoPoint:
    """One promise and the cheapest fleet that was proven to keep it.

    Parameters
    ----------
    ttft_s, attainment_ratio : float
        The promise, of the strictest class.
    plan : Plan or None
        `infeasible` where no fleet keeps it; None where it could not be planned for.
    efficient : bool
        Proven, and no other proven point promises and serves as much for less, or more for as
        much.
    refused : str
        Why it could not be planned for; empty: it was.
    """

    ttft_s: float
    attainment_ratio: float
    plan: Plan | None
    efficient: bool
    refused: str = ""


def frontier(
    spec: Spec,
    forecast: Forecast,
    fleet: Fleet | None,
    *,
    made_at: datetime,
    promises: Sequence[tuple[float, float]] | None = None,
    progress: Callable[[int, int], None] | None = None,
    enough: Callable[[], bool] | None = None,
) -> tuple[ParetoPoint, ...]:
    """Plans for a grid of TTFT objectives and attainment targets, the cheapest first.

    A point that is refused (requests longer than what may miss, say) comes last, with the reason.
    Every point is planned and proven like a plan of its own; TPOT stays as promised.

    Parameters
    ----------
    promises : sequence of (times the promised TTFT, attainment target), or None
        In the order in which they are planned; None: the usual grid.
    progress : function of (done, all) or None
    enough : function that says whether to leave out the promises that are not planned yet, or None
    """
    slos = [s for s in spec.slos if s.model == forecast.model]
    targets = sorted({*ATTAINMENTS, max(s.attainment_ratio for s in slos)})
    usual = [(ratio, target) for ratio in TTFT_RATIOS for target in targets]
    grid = usual if promises is None else promises
    found = []
    for done, (ratio, target) in enumerate(grid):
        if enough is not None and enough():
            break
        if progress is not None:
            progress(done, len(grid))
        changed = _promising(spec, forecast.model, ratio, target)
        made, refused = None, ""
        try:
            made = plan(changed, forecast, fleet, made_at=made_at)
        except (OutsideProfileError, SolverError, SpecError) as error:
            refused = str(error)
        ttft_s = min(s.ttft_s for s in changed.slos if s.model == forecast.model)
        found.append(
            ParetoPoint(
                ttft_s=ttft_s,
                attainment_ratio=target,
                plan=made,
                efficient=False,
                refused=refused,
            )
        )
    judged = [replace(p, efficient=is_efficient(p, found)) for p in found]
    return tuple(sorted(judged, key=lambda p: (_usd(p), p.ttft_s, p.attainment_ratio)))


def _promising(spec: Spec, model: str, ratio: float, target: float) -> Spec:
    slos = tuple(
        replace(s, ttft_s=min(s.ttft_s * ratio, LONGEST_SLO_S), attainment_ratio=target)
        if s.model == model
        else s
        for s in spec.slos
    )
    return replace(spec, slos=slos)


def is_efficient(point: ParetoPoint, others: Sequence[ParetoPoint]) -> bool:
    """Whether a point is proven and no other proven one is at least as good in all and differs."""
    if not _keeps(point):
        return False
    mine = _merits(point)
    return not any(
        _keeps(other)
        and all(a <= b for a, b in zip(_merits(other), mine, strict=True))
        and _merits(other) != mine
        for other in others
    )


def _merits(point: ParetoPoint) -> tuple[float, float, float, float]:
    """Smaller is better: USD/h, TTFT, share that may miss, share that is left unserved."""
    usd, unserved = round(_usd(point), 4), round(_unserved_ratio(point), 4)
    return usd, point.ttft_s, -point.attainment_ratio, unserved


def _unserved_ratio(point: ParetoPoint) -> float:
    """Share of the requests that the plan leaves unserved on purpose."""
    windows = () if point.plan is None else point.plan.windows
    came = sum(w.request_rate_rps * w.window_s for w in windows)
    return sum(w.shortfall_rps * w.window_s for w in windows) / came if came > 0 else 0.0


def _usd(point: ParetoPoint) -> float:
    """USD/h; infinite where there is no plan."""
    return math.inf if point.plan is None else point.plan.usd_per_hour


def _keeps(point: ParetoPoint) -> bool:
    """Whether a fleet was found that keeps the promise, and the twin confirmed it."""
    made = point.plan
    return made is not None and made.status is not PlanStatus.INFEASIBLE and not made.unproven

"""The optimizer's answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.domain.forecast import Demand, ForecastWindow
from planner.domain.plan import CostTerm, PlanStatus
from planner.domain.workload import RequestKind
from planner.optimize.flow import moves, spread
from planner.optimize.inputs import Floats, Integers
from planner.optimize.objective import Decisions, changes, costs
from planner.optimize.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """Replicas per option and window, and what follows from them.

    Parameters
    ----------
    replicas : (options, windows) int
        Replicas to have: ready, or ordered and starting.
    flips : (flips, windows) int
        Replicas that change their role when the window begins.
    usable : (options, windows) int
        Those that serve in the window.
    sent_rps : (streams, options, windows) float
        Requests/s of each stream sent to each pool (`planner.optimize.flow.spread`).
    moved_rps : (streams, pairs, windows) float
        Of these what moves between two accelerator types (`Problem.link_pairs`).
    unserved_rps : (streams, windows) float
        Demand that the capacity does not cover.
    terms : tuple of CostTerm
        USD over the horizon.
    wall_s : float
        As the solver measured it.
    unserved_gap_ratio : float
        Of what could be served, so much more might be; 0 where as little as possible is unserved.
    replayable : bool
        False when the time limit ended the search: another run may end elsewhere.
    """

    status: PlanStatus
    replicas: Integers
    flips: Integers
    usable: Integers
    sent_rps: Floats
    moved_rps: Floats
    unserved_rps: Floats
    terms: tuple[CostTerm, ...]
    solver_name: str
    gap_ratio: float
    wall_s: float
    replayable: bool
    unserved_gap_ratio: float = 0.0

    @property
    def feasible(self) -> bool:
        """Whether there is a plan at all."""
        return self.status is not PlanStatus.INFEASIBLE

    @property
    def served_rps(self) -> Floats:
        """(options, windows) requests/s sent to each pool, all streams together."""
        return np.asarray(self.sent_rps.sum(axis=0), dtype=np.float64)

    @property
    def shortfall_rps(self) -> Floats:
        """(windows,) requests/s that stay unserved, all streams together."""
        return np.asarray(self.unserved_rps.sum(axis=0), dtype=np.float64)

    @property
    def usd(self) -> float:
        """All money terms over the horizon."""
        return sum(term.usd for term in self.terms)


def solution_of(
    problem: Problem,
    replicas: Integers,
    *,
    status: PlanStatus,
    solver_name: str,
    flips: Integers | None = None,
    gap_ratio: float = 0.0,
    wall_s: float = 0.0,
    replayable: bool = True,
) -> Solution:
    """The solution that follows from replicas and flips alone, whatever else the solver had."""
    if flips is None:
        flips = np.zeros((len(problem.flips), len(problem.windows)), dtype=np.int64)
    usable = problem.usable(replicas, flips)
    sent = np.zeros((len(problem.streams), *replicas.shape))
    unserved = np.zeros(problem.demand_rps.shape)
    moved = np.zeros((len(problem.streams), len(problem.link_pairs), len(problem.windows)))
    for t in problem.window_indices:
        sent[:, :, t], unserved[:, t] = spread(problem, usable, t)
        moved[:, :, t] = moves(problem, sent[:, :, t])
    starts, stops = changes(problem, replicas, flips)
    made = Decisions(
        replicas=replicas, starts=starts, stops=stops, flips=flips, shortfall_rps=unserved
    )
    return Solution(
        status=status,
        replicas=replicas,
        flips=flips,
        usable=usable,
        sent_rps=sent,
        moved_rps=moved,
        unserved_rps=unserved,
        terms=costs(problem, made),
        solver_name=solver_name,
        gap_ratio=gap_ratio,
        wall_s=wall_s,
        replayable=replayable,
    )


def is_sent_as_one(problem: Problem, solution: Solution, t: int) -> bool:
    """Whether all that is served in window `t` is one stream of all classes and lengths.

    So it is, too, where classes that cannot be kept are left out of it (`unkept_classes`).
    """
    sent = [k for k in problem.stream_indices if solution.sent_rps[k, :, t].any()]
    return all(problem.streams[k].kind == RequestKind() for k in sent)


def taken_rps(problem: Problem, solution: Solution) -> Floats:
    """(options, windows) mean requests/s of the pool's capacity that its traffic takes."""
    work = np.where(np.isfinite(problem.work), problem.work, 0.0)
    return np.asarray(np.einsum("ko,kot->ot", work, solution.sent_rps), dtype=np.float64)


def nothing_solves(problem: Problem, *, solver_name: str, wall_s: float) -> Solution:
    """The answer when no fleet satisfies every constraint."""
    empty = np.zeros((len(problem.options), len(problem.windows)), dtype=np.int64)
    return solution_of(
        problem, empty, status=PlanStatus.INFEASIBLE, solver_name=solver_name, wall_s=wall_s
    )


def admitted(
    problem: Problem, solution: Solution, window: ForecastWindow, t: int
) -> ForecastWindow:
    """The window's demand without what the plan leaves unserved on purpose, stream by stream."""
    demand, missing = problem.demand_rps[:, t], solution.unserved_rps[:, t]
    if not problem.sheds or demand.sum() <= 0:
        return window
    if len(problem.streams) == 1:
        return window.times(max(1 - float(missing[0]) / float(demand[0]), 0.0))
    kept = [
        max(1 - float(gone) / float(come), 0.0) if come > 0 else 1.0
        for come, gone in zip(demand, missing, strict=True)
    ]
    parts = (_kept_part(d, problem, kept) for d in window.demands)
    return replace(window, demands=tuple(d for d in parts if d is not None))


def _kept_part(demand: Demand, problem: Problem, kept: Sequence[float]) -> Demand | None:
    """Of every stream's requests in a class's demand so many as are kept; None: none are."""
    ratio = np.ones(len(demand.shape.weight))
    for stream, share in zip(problem.streams, kept, strict=True):
        if stream.request_class in ("", demand.request_class):
            ratio[stream.has(demand.shape)] = share
    return demand.part(ratio)


def usd_per_hour(problem: Problem, replicas: Integers, t: int) -> float:
    """What the replicas of window `t` and all reserved accelerators cost, USD/h."""
    prices = np.array([o.usd_per_hour for o in problem.options])
    return float(prices @ replicas[:, t]) + problem.reserved_usd_per_hour_in(t)


def mean_usd_per_hour(problem: Problem, replicas: Integers) -> float:
    """Mean over the horizon, weighted by window length, USD/h."""
    lengths = np.array([w.window_s for w in problem.windows])
    hourly = np.array([usd_per_hour(problem, replicas, t) for t in problem.window_indices])
    return float(hourly @ lengths / lengths.sum())

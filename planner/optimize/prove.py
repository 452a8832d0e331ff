"""The proof loop: propose a fleet, replay it in the twin, tighten what missed, propose again."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from planner.domain.errors import OutsideProfileError, SolverError, SpecError
from planner.domain.fleet import Fleet, Role
from planner.domain.forecast import Forecast
from planner.domain.plan import Plan, PlanStatus, RejectedAlternative
from planner.domain.slo import Slo
from planner.domain.spec import Spec
from planner.optimize.assemble import Proof, assemble, plan_id_of
from planner.optimize.blame import missed
from planner.optimize.check import check
from planner.optimize.clock import watching
from planner.optimize.coefficients import Taken, build_problem
from planner.optimize.demand_level import with_demand_level
from planner.optimize.explain import telling_windows
from planner.optimize.inputs import Integers
from planner.optimize.loads import promises, strictest
from planner.optimize.predicted import predict_window
from planner.optimize.problem import Discounted, Problem
from planner.optimize.proposal import Round, judged_windows, within
from planner.optimize.relax import Rebuild, attainable, relaxations
from planner.optimize.replay import LOOKS, Replay, replay
from planner.optimize.robustness import trusting_the_profiles
from planner.optimize.rounded_up import gap_to_relaxation
from planner.optimize.savings import MOST_WINDOWS, Twin, win_back
from planner.optimize.shadow import shadow_prices
from planner.optimize.solution import (
    Solution,
    is_sent_as_one,
)
from planner.optimize.solve import attempt, optimize
from planner.optimize.unoffered import other_way_alternative
from planner.optimize.ways import balancing, beside, not_chosen, worth

MAX_ROUNDS = 6
_TIGHTENING = (1.05, 1.1, 1.2, 1.2, 1.2)
"""Least factor by which a role's capacity is discounted after round 1, 2, 3 and so on."""

_LEAST_SHARE = 0.25
"""A fleet that does not even keep the promise for so much of its demand is of the wrong kind."""

_HALVINGS = 4
_HALVINGS_BACK = 4
"""So often a proven fleet is tried smaller: half way back to the last one that missed."""

_MOST_ROUTED = 12
"""Windows that are replayed, the busiest first, where requests are sent apart."""

_MOST_PREDICTED = 200
"""Windows that the closed form is asked about, the busiest first."""

_MOST_DOUBTED = 4
"""Windows that are replayed because the closed form doubts them, per round."""

_NO_BETTER = 0.002
"""An attainment that rose by less than this was not held back by what was tightened."""


Slos = tuple[Slo, ...]
"""What each class is promised."""


def plan(
    spec: Spec,
    forecast: Forecast,
    fleet: Fleet | None,
    *,
    made_at: datetime,
    explain: bool = False,
    taken: Taken | None = None,
) -> Plan:
    """The cheapest fleet per window that the twin finds to keep the objectives.

    Optimize, replay the first and the hardest window and those that the closed form doubts,
    discount the capacity of the role that missed and optimize again, `MAX_ROUNDS` times at the
    most. Predictions are for the demand level of the spec, by the twin where replayed and in
    closed form elsewhere.

    Parameters
    ----------
    fleet : Fleet or None
        What runs now; None plans from nothing, without lead times.
    explain : bool
        Also price small changes of the input (`Plan.shadow_prices`).
    taken : Taken or None
        What other models are to have in each window.

    Returns
    -------
    Plan
        `infeasible` when no fleet within the limits keeps the objectives: the windows then hold
        the fleet that serves most, and `relaxations` say what would help.

    Raises
    ------
    SpecError
        When the spec offers nothing that can serve, or contradicts itself.
    OutsideProfileError
        When requests are longer than anything that was measured.
    SolverError
        When the solver found nothing within its limits.
    """
    with watching() as clock:
        made = _plan(
            spec, forecast, fleet, made_at=made_at, compare=True, explain=explain, taken=taken
        )
    if not clock.ended_some:
        return made
    made = replace(made, solver=replace(made.solver, replayable=False))
    return replace(made, plan_id=plan_id_of(made))


def _plan(
    spec: Spec,
    forecast: Forecast,
    fleet: Fleet | None,
    *,
    made_at: datetime,
    compare: bool = False,
    explain: bool = False,
    taken: Taken | None = None,
) -> Plan:
    given = with_demand_level(spec, forecast)
    spec = given.cautious
    slos = promises(
        spec, forecast.model, (d.request_class for w in forecast.windows for d in w.demands)
    )

    def way_of(routed: Spec) -> _Way:
        def rebuild(relaxed: Spec) -> Problem:
            return build_problem(relaxed, forecast, fleet, made_at=made_at, taken=taken)

        return _way(routed, forecast, slos, rebuild)

    way, others = _cheaper(spec, way_of)
    final, rebuild, problem = way.final, way.tightened_again, way.problem.tightened(way.factors)
    status = _status(final, way.rounds)
    helpful: tuple[str, ...] = ()
    if status is PlanStatus.INFEASIBLE:
        classes = [slo.request_class for slo in slos]
        helpful = relaxations(problem, way.spec, rebuild, classes) or (_reached(final),)
    proof = Proof(
        problem=replace(final.problem, best_effort=final.exhausted),
        solution=final.solution,
        status=status,
        replays=(*final.replays, *final.helpless),
        unproven=final.unproven(forecast) if final.holds else (),
        wall_s=sum(r.solution.wall_s for r in way.rounds),
        relaxations=helpful,
        slo=strictest(slos),
        unoffered=(
            *others,
            *trusting_the_profiles(
                replace(given, routing=way.spec.routing),
                way.tightened_again,
                final.problem,
                final.solution,
            ),
            *other_way_alternative(
                spec,
                model=forecast.model,
                chosen=(final.problem, final.solution),
                plan_for=lambda other: _plan(other, forecast, None, made_at=made_at, taken=taken),
            ),
        )
        if compare
        else (),
        shadow_prices=shadow_prices(problem, way.spec, rebuild) if explain else (),
    )
    return assemble(way.spec, forecast, fleet, proof, made_at=made_at)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Way:
    """All that was proposed for one way to route, and the best of it.

    Parameters
    ----------
    factors : dict
        The best proposal's.
    """

    spec: Spec
    problem: Problem
    rebuild: Rebuild
    rounds: list[Round]
    factors: dict[Discounted, float]

    @property
    def final(self) -> Round:
        """Of proposals that all miss, the one that misses least; the later one if they tie."""
        last = self.rounds[-1]
        return last if last.holds else max(reversed(self.rounds), key=lambda r: r.spare_ratio)

    @property
    def kept(self) -> bool:
        """Whether a fleet keeps the objectives within the limits."""
        return self.final.holds and not self.final.exhausted

    def tightened_again(self, spec: Spec) -> Problem:
        """The problem for another spec, with the same factors."""
        return self.rebuild(spec).tightened(self.factors)


def _way(spec: Spec, forecast: Forecast, slos: Slos, rebuild: Rebuild) -> _Way:
    problem = rebuild(spec)
    rounds, factors = _rounds(spec, forecast, problem, slos, rebuild)
    if len(rounds) > 1:
        # Discounts of one role move traffic to another: each way alone may come out cheaper.
        rounds, factors = _cheapest_way(spec, forecast, problem, slos, (rounds, factors))
    twin = _twin(spec, forecast, slos)
    for cheaper, its in win_back(problem, rounds[-1], factors, twin):
        rounds, factors = [*rounds, cheaper], its
    return _Way(spec=spec, problem=problem, rebuild=rebuild, rounds=rounds, factors=factors)


def _twin(spec: Spec, forecast: Forecast, slos: Slos) -> Twin:
    """What a search for cheaper fleets asks."""

    def look(last: Round, usable: Integers, t: int) -> Replay | None:
        other = replace(last.solution, usable=usable)
        window = forecast.windows[t]
        return replay(
            spec,
            last.problem,
            other,
            window,
            t=t,
            slos=slos,
            until_clear=False,
            first_future=LOOKS[-1],
        )

    def propose(problem: Problem) -> Round | None:
        solution = attempt(problem)
        if solution is None or not solution.feasible:
            return None
        return _replayed(spec, forecast, problem, solution, slos, most_doubted=MOST_WINDOWS)

    return Twin(look=look, propose=propose)


def _cheaper(
    spec: Spec, way_of: Callable[[Spec], _Way]
) -> tuple[_Way, tuple[RejectedAlternative, ...]]:
    """Of requests sent apart and all of them balanced the better way, and what the other costs."""
    apart, other = way_of(spec), balancing(spec)
    if other is None or len(apart.problem.streams) == 1:
        return apart, ()
    try:
        even = way_of(other)
    except (OutsideProfileError, SolverError, SpecError):  # not all of them in all pools
        return apart, ()
    if not even.kept and not apart.kept:
        return apart, ()
    best, rest = min(
        ((apart, even), (even, apart)),
        key=lambda ways: (
            not ways[0].kept,
            *_merit(ways[0].final),
        ),
    )
    firsts = [way.rounds[0] for way in (best, rest) if not way.rounds[0].exhausted]
    if len(best.rounds) == 1:
        bounds = [r.solution.usd * (1 - r.solution.gap_ratio) for r in firsts]
        solution = beside(best.final.solution, best.problem, bounds)
        best = replace(best, rounds=[replace(best.final, solution=solution)])
    told = not_chosen(
        is_apart=rest is apart,
        other=(rest.final.problem, rest.final.solution),
        kept=rest.kept,
        chosen=(best.final.problem, best.final.solution),
    )
    return best, (told,)


def _rounds(
    spec: Spec, forecast: Forecast, problem: Problem, slos: Slos, rebuild: Rebuild
) -> tuple[list[Round], dict[Discounted, float]]:
    """Proposals in order, the last one the best, and the factors it was made with."""
    factors: dict[Discounted, float] = {}
    too_small: dict[Discounted, float] = {}
    rounds: list[Round] = []
    for number in range(MAX_ROUNDS):
        rounds.append(_propose(spec, forecast, problem.tightened(factors), slos, rebuild))
        last = rounds[-1]
        if last.exhausted or last.holds or number == MAX_ROUNDS - 1:
            break
        stuck = len(rounds) > 1 and (last.spare_ratio < rounds[-2].spare_ratio + _NO_BETTER)
        least = max(_TIGHTENING[number], 1 / _kept_share(spec, forecast, last, slos))
        too_small = dict(factors)
        for what, factor in missed(last, least=least, every=stuck, wide=number > 1).items():
            factors[what] = factors.get(what, 1.0) * factor
    if len(rounds) == 1 or not last.holds:
        return rounds, factors
    best, high = factors, factors
    for _ in range(_HALVINGS_BACK):
        between = {r: math.sqrt(f * too_small.get(r, 1.0)) for r, f in high.items()}
        tried = _propose(spec, forecast, problem.tightened(between), slos, rebuild)
        if tried.exhausted:
            high = between
        elif not tried.holds:
            too_small = between
        elif rounds[-1].exhausted or _worth(tried) <= _worth(rounds[-1]):
            rounds.append(tried)
            best = high = between
        else:
            break
    return rounds, best


def _cheapest_way(
    spec: Spec,
    forecast: Forecast,
    problem: Problem,
    slos: Slos,
    mixed: tuple[list[Round], dict[Discounted, float]],
) -> tuple[list[Round], dict[Discounted, float]]:
    """The cheapest proven proposal: of both ways side by side, or of one of them alone."""
    best = mixed
    kept = mixed[0][-1].holds and not mixed[0][-1].exhausted
    ways = [
        problem.only(lambda option: option.shape.role is not Role.AGGREGATED),
        problem.only(lambda option: option.shape.role is Role.AGGREGATED),
    ]
    forced = any(b.min_replicas for b in problem.bounds)
    for way in ways if all(w.options for w in ways) and not forced else ():
        try:
            rounds, factors = _rounds(spec, forecast, way, slos, _same(way))
        except SolverError:  # not in time: the mix stands
            continue
        last = rounds[-1]
        if last.exhausted or not last.holds:
            continue
        whole = within(problem.tightened(factors), last)
        if check(whole.problem, whole.solution):
            continue  # what is left out may not be stopped, or not so fast
        if not all(r.solution.replayable for r in mixed[0]):  # who knows what the mix would cost
            whole = replace(whole, solution=gap_to_relaxation(whole.problem, whole.solution))
        if not kept or _merit(whole) < _merit(best[0][-1]):
            best, kept = ([*mixed[0], whole], factors), True
    return best


def _same(problem: Problem) -> Rebuild:
    """One way alone is not asked what softer objectives would do."""
    return lambda _: problem


def _worth(proposal: Round) -> tuple[float, float, float]:
    return worth(proposal.problem, proposal.solution)


def _merit(proposal: Round) -> tuple[float, ...]:
    """Smaller is better: a fleet that the twin confirmed before one that it could not judge."""
    return float(proposal.nothing_confirmed), *_worth(proposal)


def _propose(
    spec: Spec, forecast: Forecast, problem: Problem, slos: Slos, rebuild: Rebuild
) -> Round:
    solution = attempt(problem)
    exhausted = solution is None or not solution.feasible
    if solution is None or exhausted:  # nothing serves all, or nothing was found in time
        problem = replace(attainable(problem, spec, rebuild), best_effort=True)
        solution = optimize(problem)
    return replace(_replayed(spec, forecast, problem, solution, slos), exhausted=exhausted)


def _replayed(
    spec: Spec,
    forecast: Forecast,
    problem: Problem,
    solution: Solution,
    slos: Slos,
    *,
    most_doubted: int = _MOST_DOUBTED,
) -> Round:
    """What the twin says of a solution."""
    judged = judged_windows(problem, solution)
    windows = _to_replay(
        spec, forecast, problem, solution, slos, judged=judged, most_doubted=most_doubted
    )
    seen = [replay(spec, problem, solution, forecast.windows[t], t=t, slos=slos) for t in windows]
    return Round(
        problem=problem,
        solution=solution,
        replays=tuple(r for r in seen if r is not None and r.window in judged),
        helpless=tuple(r for r in seen if r is not None and r.window not in judged),
        exhausted=False,
    )


def _to_replay(
    spec: Spec,
    forecast: Forecast,
    problem: Problem,
    solution: Solution,
    slos: Slos,
    *,
    judged: Sequence[int],
    most_doubted: int,
) -> list[int]:
    """The first and the hardest window, and the worst of those that need a second opinion.

    These are the ones that the closed form finds too slow, and those where it doubts itself. The
    first and the hardest are told apart once more among those that the plan has a say in.
    """
    busiest = sorted(problem.window_indices, key=lambda t: -problem.load_rps(t))
    if not all(is_sent_as_one(problem, solution, t) for t in problem.window_indices):
        # The closed form does not know who is sent where.
        return sorted(busiest[:_MOST_ROUTED])
    doubted: list[tuple[float, int]] = []
    for t in sorted(busiest[:_MOST_PREDICTED]):
        window = forecast.windows[t]
        said = predict_window(spec, problem, solution, window, t=t, slo=strictest(slos))
        spare = min((c.spare_ratio for c in said.prediction.classes), default=None)
        if spare is not None and (spare < 0 or said.doubts):
            doubted.append((spare, t))
    worst = [t for _, t in sorted(doubted)[:most_doubted]]
    telling = {
        t
        for among in (judged, problem.window_indices)
        for t in telling_windows(problem, solution, among)
    }
    return sorted({*telling, *worst})


def _kept_share(spec: Spec, forecast: Forecast, last: Round, slos: Slos) -> float:
    """How much of the demand the proposal would keep its promise for, in its worst window.

    Found by halving, so that the next proposal is about as large as it has to be.
    """
    worst = min(last.replays, key=lambda r: r.spare_ratio)
    low, high = _LEAST_SHARE, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        seen = replay(
            spec,
            last.problem,
            last.solution,
            forecast.windows[worst.window],
            t=worst.window,
            slos=slos,
            demand_ratio=middle,
            until_clear=False,
        )
        kept = seen is None or seen.spare_ratio >= 0
        low, high = (middle, high) if kept else (low, middle)
    return low


def _status(final: Round, rounds: list[Round]) -> PlanStatus:
    if not final.holds:
        return PlanStatus.INFEASIBLE
    if len(rounds) > 1 or final.exhausted or final.nothing_confirmed:
        # Proven to serve; that nothing cheaper would is proven for the discounted capacity only.
        # Or not even that.
        return PlanStatus.FEASIBLE
    return final.solution.status


def _reached(final: Round) -> str:
    """What the best fleet found reaches, where no single change was found to help."""
    seen = [c for r in final.replays for c in r.prediction.classes]
    if not seen:
        return "nothing that was tried alone: relax the objectives and the limits together"
    worst = min(seen, key=lambda c: c.spare_ratio)
    names = {c.request_class for c in seen}
    of = f" of class {worst.request_class}" if len(names) > 1 else ""
    return f"attainment_ratio {worst.attainment_ratio:.3f}{of}, which the best fleet found reaches"

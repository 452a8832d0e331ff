"""The proof loop: propose a fleet, replay it in the twin, tighten what missed, propose again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import numpy as np

from planner.domain.errors import OutsideProfileError, SolverError, SpecError
from planner.domain.fleet import Fleet, Role
from planner.domain.forecast import Forecast
from planner.domain.plan import Plan, PlanStatus, RejectedAlternative
from planner.domain.spec import Spec
from planner.optimize.assemble import Proof, assemble, plan_id_of
from planner.optimize.check import check
from planner.optimize.clock import watching
from planner.optimize.coefficients import Taken, build_problem
from planner.optimize.demand_level import with_demand_level
from planner.optimize.doubtful import doubtful_classes, leaves_some
from planner.optimize.helpful import helpful
from planner.optimize.inputs import Integers
from planner.optimize.loads import promises, strictest
from planner.optimize.problem import Discounted, Problem
from planner.optimize.proposal import Round, within
from planner.optimize.relax import Rebuild
from planner.optimize.remembered import remembering
from planner.optimize.replay import LOOKS, Replay, replay
from planner.optimize.robustness import trusting_the_profiles
from planner.optimize.rounded_up import gap_to_relaxation
from planner.optimize.rounds import Slos, merit_of, replayed, rounds_of
from planner.optimize.savings import MOST_WINDOWS, Twin, is_better, win_back
from planner.optimize.shadow import shadow_prices
from planner.optimize.solve import attempt
from planner.optimize.unconfirmed import costs_less
from planner.optimize.unoffered import other_way_alternative
from planner.optimize.ways import balancing, beside, not_chosen


def plan(
    spec: Spec,
    forecast: Forecast,
    fleet: Fleet | None,
    *,
    made_at: datetime,
    explain: bool = False,
    compare_unchanged: bool = True,
    advise: bool = True,
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
    compare_unchanged : bool
        Also plan the way that the spec does not offer where nothing is to change now. A loop that
        asks every minute spares half of its time without: nobody decides on such a plan.
    advise : bool
        Also search for what would help where the plan is infeasible (`Plan.relaxations`), several
        times the work of the plan itself; for nothing if an infeasible one is thrown away.
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
    with watching() as clock, remembering():
        made = _plan(
            spec,
            forecast,
            fleet,
            made_at=made_at,
            compare=True,
            compare_unchanged=compare_unchanged,
            explain=explain,
            advise=advise,
            taken=taken,
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
    compare_unchanged: bool = True,
    explain: bool = False,
    advise: bool = True,
    taken: Taken | None = None,
) -> Plan:
    given = with_demand_level(spec, forecast)
    spec = given.cautious
    slos = promises(
        spec, forecast.model, (d.request_class for w in forecast.windows for d in w.demands)
    )

    whole = partial(build_problem, forecast=forecast, fleet=fleet, made_at=made_at, taken=taken)

    def way_of(routed: Spec, *, rebuild: Rebuild = whole) -> _Way:
        return _way(routed, forecast, slos, rebuild)

    way, others = _cheaper(spec, way_of)
    if way.problem.sheds and not way.confirmed:
        cut = partial(whole, cut_long=True)
        way, others = _without_long(spec, (way, others), cut, partial(way_of, rebuild=cut))
    if way.problem.sheds and not (way.confirmed and not leaves_some(way.final)):
        cuts = bool(_long_streams(way.problem))
        way, others = _without_doubtful(
            spec,
            (way, others),
            [slo.request_class for slo in slos],
            without=lambda names: partial(whole, cut_long=cuts, left_out=names),
            way_of=lambda rebuild: partial(way_of, rebuild=rebuild),
        )
    final, rebuild, problem = way.final, way.tightened_again, way.problem.tightened(way.factors)
    status = _status(final, way.rounds)
    proof = Proof(
        problem=replace(final.problem, best_effort=final.exhausted),
        solution=final.solution,
        status=status,
        replays=(*final.replays, *final.helpless),
        unproven=final.unproven(forecast) if final.holds else (),
        wall_s=sum(r.solution.wall_s for r in way.rounds),
        relaxations=_relaxations(way, forecast, slos, prove=compare)
        if advise and status is PlanStatus.INFEASIBLE
        else (),
        slo=strictest(slos),
        unoffered=(
            *others,
            *trusting_the_profiles(
                replace(given, routing=way.spec.routing), rebuild, final.problem, final.solution
            ),
            *(
                other_way_alternative(
                    spec,
                    model=forecast.model,
                    chosen=(final.problem, final.solution),
                    kept=status is not PlanStatus.INFEASIBLE,
                    plan_for=lambda o: _plan(o, forecast, None, made_at=made_at, taken=taken),
                )
                if compare_unchanged or not _as_it_is(final)
                else ()
            ),
        )
        if compare
        else (),
        shadow_prices=shadow_prices(
            final.problem if final.problem.stretched else problem,
            way.spec,
            rebuild,
            kept=status is not PlanStatus.INFEASIBLE,
        )
        if explain
        else (),
    )
    return assemble(way.spec, forecast, fleet, proof, made_at=made_at)


def _relaxations(way: "_Way", forecast: Forecast, slos: Slos, *, prove: bool) -> tuple[str, ...]:
    """What would help where no fleet keeps the objectives."""
    return helpful(
        way.problem.tightened(way.factors),
        way.spec,
        forecast,
        way.rebuild,
        classes=[slo.request_class for slo in slos],
        final=way.final,
        discounted=way.tightened_again,
        prove=prove,
    )


def _as_it_is(last: Round) -> bool:
    """Whether the first window has the replicas that run now, so that nothing is to be done."""
    running = [option.initial_replicas for option in last.problem.options]
    return np.array_equal(last.solution.replicas[:, 0], running)


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

    @property
    def confirmed(self) -> bool:
        """Whether the twin found it to keep the objectives."""
        return self.kept and not (self.final.unconfirmed or self.final.nothing_confirmed)

    def tightened_again(self, spec: Spec) -> Problem:
        """The problem for another spec, with the same factors."""
        return self.rebuild(spec).tightened(self.factors)


def _way(spec: Spec, forecast: Forecast, slos: Slos, rebuild: Rebuild) -> _Way:
    problem = rebuild(spec)
    rounds, factors = rounds_of(spec, forecast, problem, slos, rebuild)
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

    def propose(problem: Problem, best: Round) -> Round | None:
        solution = attempt(problem)
        if solution is None or not solution.feasible or not is_better(problem, solution, best):
            return None
        return replayed(
            spec,
            forecast,
            problem,
            solution,
            slos,
            most_doubted=MOST_WINDOWS,
            until_refuted=True,
        )

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
        key=lambda ways: (not ways[0].kept, *merit_of(ways[0].final)),
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


def _without_long(
    spec: Spec,
    found: tuple[_Way, tuple[RejectedAlternative, ...]],
    rebuild: Rebuild,
    way_of: Callable[[Spec], _Way],
) -> tuple[_Way, tuple[RejectedAlternative, ...]]:
    """The better of what was found and of leaving what is too long unserved.

    Where almost as much is too long as may miss, next to nothing of what fits may be late.

    Parameters
    ----------
    rebuild, way_of : function of spec
        Without what is too long.
    """
    now = found[0]
    try:
        if _long_streams(rebuild(now.spec)) == _long_streams(now.problem):
            return found
        cut, others = _cheaper(spec, way_of)
    except (OutsideProfileError, SolverError, SpecError):  # nothing fits, or not in time
        return found
    if cut.kept and (not now.kept or merit_of(cut.final) < merit_of(now.final)):
        return replace(cut, rounds=[*now.rounds, *cut.rounds]), others
    return found


def _without_doubtful(
    spec: Spec,
    found: tuple[_Way, tuple[RejectedAlternative, ...]],
    names: Sequence[str],
    *,
    without: Callable[[frozenset[str]], Rebuild],
    way_of: Callable[[Rebuild], Callable[[Spec], _Way]],
) -> tuple[_Way, tuple[RejectedAlternative, ...]]:
    """The better of what was found and of leaving out the classes that the twin never confirms.

    Better is what is confirmed; but an unconfirmed fleet stays where it costs less, with all that
    is late at the price of what is unserved.
    """
    now = last = found[0]
    out, others = frozenset[str](), found[1]
    while last is now or not last.confirmed:
        try:
            less = {name: without(out | {name})(last.spec) for name in names if name not in out}
            more = doubtful_classes(last.rounds, less)
            if not more:
                return found
            out |= more
            last, others = _cheaper(spec, way_of(without(out)))
        except (OutsideProfileError, SolverError, SpecError):  # nothing else is served
            return found
    if now.confirmed:
        better = merit_of(last.final) < merit_of(now.final)
    else:
        better = not now.kept or now.final.nothing_confirmed or costs_less(last.final, now.final)
    return (replace(last, rounds=[*now.rounds, *last.rounds]), others) if better else found


def _long_streams(problem: Problem) -> int:
    return sum(bool(stream.beyond) for stream in problem.streams)


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
            rounds, factors = rounds_of(spec, forecast, way, slos, _same(way))
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
        if not kept or merit_of(whole) < merit_of(best[0][-1]):
            best, kept = ([*mixed[0], whole], factors), True
    return best


def _same(problem: Problem) -> Rebuild:
    """One way alone is not asked what softer objectives would do."""
    return lambda _: problem


def _status(final: Round, rounds: list[Round]) -> PlanStatus:
    if not final.holds:
        return PlanStatus.INFEASIBLE
    if len(rounds) > 1 or final.exhausted or final.nothing_confirmed:
        # Proven to serve; that nothing cheaper would is proven for the discounted capacity only.
        # Or not even that.
        return PlanStatus.FEASIBLE
    return final.solution.status

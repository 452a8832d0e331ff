"""Rounds of the proof loop: propose a fleet, replay it in the twin, tighten what missed, again."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from planner.domain.forecast import Forecast, ForecastWindow
from planner.domain.slo import Slo
from planner.domain.spec import Spec
from planner.optimize.blame import missed
from planner.optimize.explain import fullness, telling_windows
from planner.optimize.loads import strictest
from planner.optimize.predicted import predict_window
from planner.optimize.problem import Discounted, Problem
from planner.optimize.proposal import Round, judged_windows
from planner.optimize.relax import Rebuild
from planner.optimize.remembered import doubted
from planner.optimize.replay import Replay, question_of, replay
from planner.optimize.solution import Solution, is_sent_as_one, nothing_solves
from planner.optimize.solve import attempt, optimize
from planner.optimize.stretch import attainable
from planner.optimize.unconfirmed import best_unconfirmed
from planner.optimize.ways import worth

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

MOST_DOUBTED = 4
"""Windows that are replayed because the closed form doubts them, per round."""

_NO_BETTER = 0.002
"""An attainment that rose by less than this was not held back by what was tightened."""


Slos = tuple[Slo, ...]
"""What each class is promised."""


def rounds_of(
    spec: Spec, forecast: Forecast, problem: Problem, slos: Slos, rebuild: Rebuild
) -> tuple[list[Round], dict[Discounted, float]]:
    """Proposals in order, the last one the best, and the factors it was made with."""
    rounds, made_with = _until_kept(spec, forecast, problem, slos, rebuild)
    kept = best_unconfirmed(rounds)
    if kept is not None:
        again = replace(rounds[kept].solution, wall_s=0.0)
        return [*rounds, replace(rounds[kept], solution=again, unconfirmed=True)], made_with[kept]
    if len(rounds) == 1 or not rounds[-1].holds:
        return rounds, made_with[-1]
    too_small, best, high = made_with[-2], made_with[-1], made_with[-1]
    for _ in range(_HALVINGS_BACK):
        between = {r: math.sqrt(f * too_small.get(r, 1.0)) for r, f in high.items()}
        # Of what does not hold, or does not serve all, nothing else is asked.
        tried = _propose(
            spec,
            forecast,
            problem.tightened(between),
            slos,
            rebuild,
            serve_all=True,
            until_refuted=True,
        )
        if tried.exhausted:
            high = between
        elif not tried.holds:
            too_small = between
        elif rounds[-1].exhausted or worth_of(tried) <= worth_of(rounds[-1]):
            rounds.append(tried)
            best = high = between
        else:
            break
    return rounds, best


def rounds_that_serve(
    spec: Spec, forecast: Forecast, problem: Problem, slos: Slos, rebuild: Rebuild, *, most: int
) -> list[Round]:
    """The first proposals as `rounds_of` makes them, `most` of them; none beyond what all serves.

    Where the last one proves its promise, a plan of the same problem is kept too: it goes through
    the same proposals. It is `exhausted`, without a replay, where nothing serves all.
    """
    return _until_kept(spec, forecast, problem, slos, rebuild, most=most, serve_all=True)[0]


def _until_kept(
    spec: Spec,
    forecast: Forecast,
    problem: Problem,
    slos: Slos,
    rebuild: Rebuild,
    *,
    most: int = MAX_ROUNDS,
    serve_all: bool = False,
) -> tuple[list[Round], list[dict[Discounted, float]]]:
    """Proposals up to one that holds, and the factors that each was made with."""
    factors: dict[Discounted, float] = {}
    made_with: list[dict[Discounted, float]] = []
    rounds: list[Round] = []
    for number in range(most):
        tightened = problem.tightened(factors)
        made_with.append(dict(factors))
        known = [one.solution for one in rounds]
        rounds.append(
            _propose(spec, forecast, tightened, slos, rebuild, serve_all=serve_all, known=known)
        )
        last = rounds[-1]
        if last.exhausted or last.holds or number == most - 1:
            break
        stuck = len(rounds) > 1 and (last.spare_ratio < rounds[-2].spare_ratio + _NO_BETTER)
        least = max(_TIGHTENING[number], 1 / _kept_share(spec, forecast, last, slos))
        for what, factor in missed(last, least=least, every=stuck, wide=number > 1).items():
            factors[what] = factors.get(what, 1.0) * factor
    return rounds, made_with


def worth_of(proposal: Round) -> tuple[float, float, float]:
    """What is to be least, of a proposal."""
    return worth(proposal.problem, proposal.solution)


def merit_of(proposal: Round) -> tuple[float, ...]:
    """Smaller is better: a fleet that the twin confirmed before one that it did not confirm.

    One that it could not judge comes last.
    """
    doubt = 2.0 if proposal.nothing_confirmed else float(proposal.unconfirmed)
    return doubt, *worth_of(proposal)


def _propose(
    spec: Spec,
    forecast: Forecast,
    problem: Problem,
    slos: Slos,
    rebuild: Rebuild,
    *,
    serve_all: bool = False,
    known: Sequence[Solution] = (),
    until_refuted: bool = False,
) -> Round:
    """A proposal, replayed.

    Parameters
    ----------
    known : sequence of Solution
        Fleets that were proposed before, to be taken where the search ends without a better one.
    serve_all : bool
        Where nothing serves all, nothing is proposed instead.
    until_refuted : bool
        As in `replayed`.
    """
    solution = attempt(problem, patient=True, known=known)
    exhausted = solution is None or not solution.feasible
    if exhausted and serve_all:
        nothing = nothing_solves(problem, solver_name="", wall_s=0.0)
        return Round(problem=problem, solution=nothing, replays=(), exhausted=True)
    if solution is None or exhausted:  # nothing serves all, or nothing was found in time
        problem = replace(attainable(problem, spec, forecast, rebuild), best_effort=True)
        solution = optimize(problem)
    seen = replayed(spec, forecast, problem, solution, slos, until_refuted=until_refuted)
    return replace(seen, exhausted=exhausted)


def replayed(
    spec: Spec,
    forecast: Forecast,
    problem: Problem,
    solution: Solution,
    slos: Slos,
    *,
    most_doubted: int = MOST_DOUBTED,
    until_refuted: bool = False,
) -> Round:
    """What the twin says of a solution.

    Parameters
    ----------
    most_doubted : int
        Windows that are replayed because the closed form doubts them, at the most.
    until_refuted : bool
        No further window once one is not proven: for those who only ask whether the solution holds.
    """
    judged = judged_windows(problem, solution)
    windows = _to_replay(
        spec, forecast, problem, solution, slos, judged=judged, most_doubted=most_doubted
    )
    if until_refuted:
        windows = _likeliest_refuted(problem, solution, windows, judged)
    seen: list[Replay] = []
    for t in windows:
        said = replay(spec, problem, solution, forecast.windows[t], t=t, slos=slos)
        if said is not None:
            seen.append(said)
            if until_refuted and t in judged and not said.proves:
                break
    seen.sort(key=lambda r: r.window)
    return Round(
        problem=problem,
        solution=solution,
        replays=tuple(r for r in seen if r.window in judged),
        helpless=tuple(r for r in seen if r.window not in judged),
        exhausted=False,
    )


def _likeliest_refuted(
    problem: Problem, solution: Solution, windows: Sequence[int], judged: Sequence[int]
) -> list[int]:
    """The windows that count first, and of these those whose demand comes closest to the most."""
    return sorted(windows, key=lambda t: (t not in judged, -fullness(problem, solution, t), t))


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
    doubts: list[tuple[float, int]] = []
    for t in sorted(busiest[:_MOST_PREDICTED]):
        window = forecast.windows[t]
        question = question_of(spec, problem, solution, window, t=t, slos=slos)
        look = partial(_doubt, spec, problem, solution, window, t=t, slos=slos)
        spare = doubted(question, look)
        if spare is not None:
            doubts.append((spare, t))
    worst = [t for _, t in sorted(doubts)[:most_doubted]]
    telling = {
        t
        for among in (judged, problem.window_indices)
        for t in telling_windows(problem, solution, among)
    }
    return sorted({*telling, *worst})


def _doubt(
    spec: Spec, problem: Problem, solution: Solution, window: ForecastWindow, *, t: int, slos: Slos
) -> float | None:
    """Attainment less target by the closed form, where it is below or not sure; else None."""
    said = predict_window(spec, problem, solution, window, t=t, slo=strictest(slos))
    spare = min((c.spare_ratio for c in said.prediction.classes), default=None)
    return spare if spare is not None and (spare < 0 or said.doubts) else None


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

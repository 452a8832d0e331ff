"""Once a fleet is proven, cheaper ones are asked of the twin, and the best proven one is kept."""

from dataclasses import replace

from planner.domain.fleet import Role
from planner.domain.forecast import Forecast
from planner.domain.plan import ClassAttainment, PlanStatus, Prediction
from planner.optimize import build_problem, optimize, plan
from planner.optimize.inputs import Integers
from planner.optimize.problem import Discounted, Problem
from planner.optimize.proposal import Round
from planner.optimize.replay import Replay
from planner.optimize.savings import MOST_LOOKS, MOST_TRIES, MOST_WINDOWS, Twin, is_better, win_back
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.scenarios import NOW, forecast, spec

PREFILL, DECODE = Role.PREFILL, Role.DECODE


def seen(attainment_ratio: float) -> Replay:
    only = ClassAttainment(
        request_class="default",
        target_ratio=0.95,
        attainment_ratio=attainment_ratio,
        low_ratio=attainment_ratio - 0.01,
        requests=10_000,
    )
    predicted = Prediction(attainment_ratio=attainment_ratio, source="twin", classes=(only,))
    return Replay(window=0, prediction=predicted, missed_ratio={})


class Asked:
    """A twin by a rule: a fleet is proven from so many prefill and decode replicas on."""

    def __init__(self, least: tuple[int, int], *, looks_too_well: bool = False) -> None:
        self.least, self.looks_too_well = least, looks_too_well
        self.looks, self.tries = 0, 0

    def _says(self, case: Problem, usable: Integers, t: int = 0) -> Replay:
        have = [int(usable[list(case.in_role(role)), t].sum()) for role in (PREFILL, DECODE)]
        enough = all(n >= least for n, least in zip(have, self.least, strict=True))
        return seen(0.98 if enough else 0.9)

    def look(self, last: Round, usable: Integers, t: int) -> Replay:
        self.looks += 1
        return seen(0.98) if self.looks_too_well else self._says(last.problem, usable, t)

    def propose(self, case: Problem, best: Round | None = None) -> Round | None:
        self.tries += 1
        found = optimize(case)
        if not found.feasible or (best is not None and not is_better(case, found, best)):
            return None
        says = self._says(case, found.usable)
        return Round(problem=case, solution=found, replays=(says,), exhausted=False)

    @property
    def twin(self) -> Twin:
        return Twin(look=self.look, propose=self.propose)


def case(windows: int = 1) -> Problem:
    """By the closed form 10 prefill and 5 decode replicas are needed."""
    options = [option(PREFILL, "h100", 4.0), option(DECODE, "a100", 2.0)]
    return problem(options, [1.0, 2.0], [10.0] * windows, inventory=40)


def start(asked: Asked, of: Problem, factors: dict[Discounted, float]) -> Round:
    best = asked.propose(of.tightened(factors))
    assert best is not None
    return best


def fleet(of: Round) -> list[int]:
    return of.solution.replicas[:, 0].tolist()


def test_discounts_that_were_too_large_are_won_back() -> None:
    asked, factors = Asked((11, 5)), {PREFILL: 1.3, DECODE: 1.2}
    best = start(asked, case(), dict(factors))
    assert fleet(best) == [13, 6]
    found = win_back(case(), best, dict(factors), asked.twin)
    assert fleet(found[-1][0]) == [11, 5]


def test_a_closed_form_that_is_too_careful_is_corrected_upwards() -> None:
    asked = Asked((8, 5))
    found = win_back(case(), start(asked, case(), {}), {}, asked.twin)
    last, factors = found[-1]
    assert fleet(last) == [8, 5]
    assert factors[PREFILL] < 1
    assert DECODE not in factors
    assert [fleet(r) for r, _ in found] == [[9, 5], [8, 5]]


def test_only_what_is_proven_is_kept() -> None:
    """One look says that anything goes; the proof says that nothing does."""
    asked = Asked((10, 5), looks_too_well=True)
    best = start(asked, case(), {})
    asked.tries = 0
    assert win_back(case(), best, {}, asked.twin) == []
    # One prefill or one decode replica less, and one for the other: refuted once, not tried again.
    assert 0 < asked.tries <= 3


def test_nothing_is_solved_for_what_a_look_refutes() -> None:
    asked = Asked((10, 5))
    best = start(asked, case(), {})
    asked.tries = 0
    assert win_back(case(), best, {}, asked.twin) == []
    assert (asked.looks > 0, asked.tries) == (True, 0)


def test_the_search_is_bounded() -> None:
    options = [option(PREFILL, "h100", 4.0), option(DECODE, "a100", 2.0)]
    large = problem(options, [1.0, 2.0], [60.0], inventory=200)
    asked = Asked((1, 1))
    best = start(asked, large, {})
    asked.tries = 0
    assert len(win_back(large, best, {}, asked.twin)) == MOST_TRIES == asked.tries
    assert asked.looks <= MOST_LOOKS


def test_a_dear_replica_is_exchanged_for_a_cheaper_one() -> None:
    """9 dear prefill and 6 cheap decode replicas do what 10 and 5 do; 9 and 5 do not."""

    class Either(Asked):
        def _says(self, case: Problem, usable: Integers, t: int = 0) -> Replay:
            prefill, decode = (
                int(usable[list(case.in_role(r)), t].sum()) for r in (PREFILL, DECODE)
            )
            return seen(0.98 if prefill + decode >= 15 and prefill >= 9 else 0.9)

    asked = Either((0, 0))
    found = win_back(case(), start(asked, case(), {}), {}, asked.twin)
    assert fleet(found[-1][0]) == [9, 6]


def test_the_last_aggregated_replica_is_given_up_where_the_pair_does_without() -> None:
    options = [
        option(PREFILL, "h100", 4.0),
        option(DECODE, "a100", 2.0),
        option(Role.AGGREGATED, "l40s", 3.0),
    ]
    mixed = problem(options, [1.0, 2.0, 0.5], [9.5], inventory=40)
    asked = Asked((9, 5))
    best = start(asked, mixed, {})
    assert fleet(best) == [9, 5, 1]
    found = win_back(mixed, best, {}, asked.twin)
    assert fleet(found[-1][0]) == [9, 5, 0]


def test_the_last_pair_is_given_up_where_aggregated_replicas_do_without() -> None:
    class Alone(Asked):
        def _says(self, case: Problem, usable: Integers, t: int = 0) -> Replay:
            alike = list(case.in_role(Role.AGGREGATED))
            return seen(0.98 if int(usable[alike, t].sum()) >= 9 else 0.9)

    options = [
        option(PREFILL, "h100", 1.0),
        option(DECODE, "a100", 1.0),
        option(Role.AGGREGATED, "l40s", 3.0),
    ]
    mixed = problem(options, [[0.5], [0.5], 1.0], [9.5], inventory=40)
    asked = Alone((0, 0))
    best = start(asked, mixed, {})
    assert fleet(best) == [1, 1, 9]
    found = win_back(mixed, best, {}, asked.twin)
    assert fleet(found[-1][0]) == [0, 0, 9]


def test_nothing_is_sought_where_nothing_was_judged_or_there_are_too_many_windows() -> None:
    asked = Asked((1, 1))
    best = start(asked, case(), {})
    assert win_back(case(), replace(best, replays=()), {}, asked.twin) == []
    assert win_back(case(), replace(best, exhausted=True), {}, asked.twin) == []
    long = case(MOST_WINDOWS + 1)
    assert win_back(long, start(asked, long, {}), {}, asked.twin) == []


def even(rate_rps: float) -> Forecast:
    """Five minutes of Poisson arrivals."""
    return forecast([rate_rps], isl=1500.0, window_s=300.0)


def test_a_plan_takes_less_than_the_closed_form_asks_where_the_twin_proves_it() -> None:
    """By the closed form 6 prefill replicas are needed; 5 are proven as well."""
    given = spec(inventory=200, ttft_s=0.5, tpot_s=0.03)
    given = replace(given, loop=replace(given.loop, seed=1))
    made = plan(given, even(22.0), None, made_at=NOW)
    (window,) = made.windows
    assert optimize(build_problem(given, even(22.0), None)).replicas[0, 0] == 6
    assert window.replicas(PREFILL) == 5
    assert (window.predicted.attainment_low_ratio or 0) >= 0.95
    assert made.unproven == ()
    assert made.status is PlanStatus.FEASIBLE  # that none is cheaper is not known

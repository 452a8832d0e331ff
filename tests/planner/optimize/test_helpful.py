"""What is offered as a way out is one: a plan of the relaxed spec is kept in the twin."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from planner.domain.fleet import Role
from planner.domain.forecast import Forecast
from planner.domain.plan import Plan, PlanStatus
from planner.domain.spec import Spec
from planner.optimize import helpful, plan
from planner.optimize.helpful import NOT_PROVEN
from tests.planner.optimize.scenarios import NOW, fleet, forecast, spec
from tests.planner.optimize.test_unproven import bursty, slow_to_start

Case = tuple[Spec, Forecast]


def short_of_accelerators() -> Case:
    """So uneven arrivals that the closed form thinks too well of small pools."""
    return spec(inventory=8, ttft_s=0.5, tpot_s=0.03), bursty([30.0])


def short_of_money() -> Case:
    return spec(inventory=20, usd_per_hour=6.0, ttft_s=0.5, tpot_s=0.03), bursty([14.0])


def taken(case: Case, text: str) -> Case:
    """The case after what a relaxation says."""
    given, load = case
    first, second, *_ = text.split()
    if "more cpu" in text:
        (cpu,) = given.accelerators
        more = replace(cpu, inventory=cpu.inventory + int(first))
        return replace(given, accelerators=(more,)), load
    if "of the requests" in text:
        ratio = float(first.rstrip("%")) / 100
        return given, replace(load, windows=tuple(w.times(ratio) for w in load.windows))
    if text.startswith("a budget of"):
        budget = replace(given.budget, usd_per_hour=float(text.split()[3]))
        return replace(given, budget=budget), load
    return replace(
        given, slos=tuple(replace(s, **{first: float(second.rstrip(","))}) for s in given.slos)
    ), load


def answer(case: Case) -> Plan:
    made = plan(*case, None, made_at=NOW)
    assert made.status is PlanStatus.INFEASIBLE
    return made


@pytest.mark.parametrize("case", [short_of_accelerators, short_of_money])
def test_whatever_is_offered_as_proven_gives_a_plan_that_the_twin_confirms(
    case: Callable[[], Case],
) -> None:
    told = [text for text in answer(case()).relaxations if NOT_PROVEN not in text]
    assert told
    for text in told:
        made = plan(*taken(case(), text), None, made_at=NOW)
        assert (text, made.status is PlanStatus.INFEASIBLE) == (text, False)
        assert (text, made.unproven) == (text, ())


@pytest.mark.parametrize("promised_s", [0.001, 0.0002])
def test_a_promise_that_is_far_too_short_gets_the_figure_that_is_needed(promised_s: float) -> None:
    """85 and 430 times as long."""
    case = spec(roles=(Role.AGGREGATED,), ttft_s=promised_s), forecast([5.0])
    (told,) = (text for text in answer(case).relaxations if text.startswith("ttft_s"))
    assert NOT_PROVEN not in told
    assert float(told.split()[1]) > 30 * promised_s
    made = plan(*taken(case, told), None, made_at=NOW)
    assert (made.status is PlanStatus.INFEASIBLE, made.unproven) == (False, ())


def test_where_no_promise_of_a_spec_is_long_enough_that_is_said() -> None:
    snail = spec(roles=(Role.AGGREGATED,), accelerators=(("cpu", 1.0, 1e-4),))
    (told,) = answer((snail, forecast([0.001]))).relaxations
    assert "no request is in time, whatever the fleet" in told
    assert "up to 120 s TTFT or 10 s a token, the longest that a spec may hold" in told


def test_the_same_relaxations_are_told_every_time() -> None:
    assert answer(short_of_money()).relaxations == answer(short_of_money()).relaxations


def test_what_could_not_be_tried_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpful, "_MOST_PROPOSALS", 0)
    given = spec(inventory=2)
    told = answer((given, forecast([60.0]))).relaxations
    assert told
    assert all(NOT_PROVEN in text for text in told)


def test_a_plan_that_is_kept_pays_for_no_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refused(*_: object, **__: object) -> tuple[str, ...]:
        tried.append("trial")
        return ()

    monkeypatch.setattr("planner.optimize.prove.helpful", refused)
    made = plan(spec(), forecast([10.0]), None, made_at=NOW)
    assert made.status is not PlanStatus.INFEASIBLE
    assert tried == []


def test_beside_a_running_fleet_the_smallest_change_is_offered() -> None:
    """All that runs serves in time, and what is started is ready after the last window only."""
    given = replace(slow_to_start(), pools=spec(roles=[Role.AGGREGATED]).pools)
    (pool,) = given.pools
    asked = replace(given, pools=(replace(pool, min_replicas=6, max_starts=1),))
    made = plan(asked, forecast([5.0]), fleet(aggregated=4), made_at=NOW)
    assert made.status is PlanStatus.INFEASIBLE
    told = [text for text in made.relaxations if NOT_PROVEN not in text]
    assert any(text.startswith("min_replicas 5 instead of 6") for text in told)
    assert any(text.startswith("max_starts 2 instead of 1") for text in told)

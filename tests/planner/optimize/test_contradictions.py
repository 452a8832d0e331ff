"""Bounds that contradict each other, beside what runs: named in a sentence, with a way out."""

from dataclasses import replace

import pytest

from planner.domain.plan import Plan, PlanStatus
from planner.domain.spec import Budget, PlanningSettings, Spec
from planner.optimize import plan
from tests.planner.optimize.scenarios import NOW, fleet, forecast, spec


def bounded(prefill: dict[str, int], decode: dict[str, int] | None = None, **more: int) -> Spec:
    """A spec with other bounds for its prefill and decode pool."""
    given = spec(**more)
    first, second = given.pools
    return replace(given, pools=(replace(first, **prefill), replace(second, **(decode or {}))))


CASES = {
    "inventory": (
        bounded({"max_stops": 0}, inventory=3),
        ("max_stops 0 of prefill:cpu:tp1", "3 cpu in the inventory"),
    ),
    "max_replicas": (
        bounded({"max_stops": 0, "max_replicas": 2}),
        ("max_stops 0 of prefill:cpu:tp1", "max_replicas 2 of prefill:cpu:tp1"),
    ),
    "min_replicas": (
        bounded({"max_starts": 1, "min_replicas": 6}),
        ("max_starts 1 of prefill:cpu:tp1", "min_replicas 6 of prefill:cpu:tp1"),
    ),
    "budget": (
        replace(bounded({"max_stops": 0}), budget=Budget(usd_per_hour=3.0)),
        ("max_stops 0 of prefill:cpu:tp1", "budget.usd_per_hour 3.00"),
    ),
    "ratio": (
        replace(
            bounded({"max_stops": 0}, {"max_replicas": 1}),
            planning=PlanningSettings(max_prefill_per_decode=1.0),
        ),
        ("max_replicas 1 of decode:cpu:tp1", "planning.max_prefill_per_decode 1"),
    ),
}


def made(given: Spec) -> Plan:
    return plan(given, forecast([4.0]), fleet(prefill=4, decode=1), made_at=NOW)


@pytest.mark.parametrize("name", CASES)
def test_a_sentence_names_the_bounds_that_contradict_each_other_and_what_runs(name: str) -> None:
    given, (one, other) = CASES[name]
    found = made(given)
    assert found.status is PlanStatus.INFEASIBLE
    sentences = [row.sentence for row in found.binding]
    assert any(text.startswith(f"{one} cannot be kept together with") for text in sentences)
    assert any(other in text and "4 x prefill:cpu:tp1 run now" in text for text in sentences)
    assert all("For every" not in text for text in sentences)
    assert any("change one of them" in text for text in sentences)
    assert found.relaxations


@pytest.mark.parametrize("name", CASES)
def test_what_the_running_fleet_does_not_keep_is_said_in_words(name: str) -> None:
    (current,) = (r for r in made(CASES[name][0]).rejected if r.name == "current fleet")
    assert current.reason.startswith("does not keep ")
    assert CASES[name][1][1] in current.reason


def test_a_limit_that_leaves_room_for_nothing_is_told_alone() -> None:
    found = made(spec(inventory=1))
    (row,) = (r for r in found.binding if r.row.startswith("keep_inventory"))
    assert row.sentence.startswith("1 cpu in the inventory leaves room for no fleet, as ")
    assert row.sentence.endswith(": change it")


def test_a_way_that_keeps_what_no_fleet_keeps_has_no_price_beside_the_plan() -> None:
    found = made(spec(inventory=1))
    (other,) = (r for r in found.rejected if "does not offer" in r.name)
    assert "keeps the objectives, which no fleet of the spec's pools does" in other.reason
    assert "more" not in other.reason

"""Where no pool keeps a promise, what is told is told for the stretched one, and says so."""

from dataclasses import replace

import pytest

from planner.autoscale.slow import decide
from planner.domain.fleet import Role
from planner.domain.plan import Plan, PlanStatus, StretchedPromise
from planner.domain.spec import PlanningSettings, Routing
from planner.optimize import build_problem, plan
from planner.optimize.stretch import attainable
from planner.service.documents.plan import plan_document, plan_of
from tests.planner.optimize.scenarios import ALL_ROLES, NOW, fleet, forecast, spec
from tests.planner.optimize.test_classes import promising, two_classes

HOPELESS_S = 0.02
"""Shorter than any prompt of the forecast takes by itself."""


def made() -> Plan:
    given = spec(roles=ALL_ROLES, ttft_s=HOPELESS_S)
    running = fleet(prefill=1, decode=1)
    return plan(given, forecast([4.0]), running, made_at=NOW, explain=True)


def test_only_the_objective_that_is_in_the_way_is_stretched() -> None:
    (one,) = made().stretched
    assert one == StretchedPromise(
        request_class="", objective="ttft_s", promised_s=HOPELESS_S, planned_s=one.planned_s
    )
    assert one.planned_s > 0.05


def test_every_row_alternative_and_price_says_which_promise_it_is_for() -> None:
    found = made()
    (one,) = found.stretched
    said = f"(for ttft_s {one.planned_s:.4g} instead of the promised 0.02, which no pool keeps)"
    sentences = [row.sentence for row in found.binding]
    sentences += [other.reason for other in found.rejected]
    sentences += [price.sentence for price in found.shadow_prices]
    assert found.binding
    assert len(found.rejected) > 1
    assert len(found.shadow_prices) > 3
    assert [text for text in sentences if said not in text] == []


def test_small_changes_are_of_the_stretched_promise() -> None:
    found = made()
    (one,) = found.stretched
    (shorter,) = (p for p in found.shadow_prices if p.change.startswith("-") and "TTFT" in p.change)
    assert shorter.change.endswith(f"({0.95 * one.planned_s:g} s)")
    assert all("refutes" not in price.sentence for price in found.shadow_prices)


def test_what_is_in_time_is_judged_by_the_promise_itself() -> None:
    found = made()
    assert found.status is PlanStatus.INFEASIBLE
    assert found.windows[0].predicted.attainment_ratio == 0.0
    (text,) = found.not_kept
    assert "instead of the promised 0.02" in text
    assert "judged by what was promised" in text


def test_a_promise_that_is_kept_is_not_said_to_be_stretched() -> None:
    small = plan(spec(inventory=2), forecast([60.0]), None, made_at=NOW, explain=True)
    assert small.status is PlanStatus.INFEASIBLE
    assert not small.stretched
    assert not small.not_kept
    assert not any("no pool keeps" in row.sentence for row in small.binding)


@pytest.mark.parametrize("routing", [Routing(), Routing(by_class=True)], ids=["balanced", "apart"])
def test_only_the_class_that_no_pool_keeps_is_stretched(routing: Routing) -> None:
    asked = promising({"chat": 2.0, "batch": 0.05}, routing=routing)
    found = plan(asked, two_classes(), None, made_at=NOW)
    assert {one.request_class for one in found.stretched} == {"batch"}
    assert any("of class batch instead of the promised 0.05" in r.sentence for r in found.binding)


def test_two_hopeless_classes_are_stretched_together() -> None:
    """One that is served at a shorter stretch stays stretched while the other needs more."""
    asked = promising({"chat": 0.02, "batch": 0.05}, routing=Routing(by_class=True))
    given = build_problem(asked, two_classes(), None, made_at=NOW)
    found = attainable(
        given, asked, two_classes(), lambda s: build_problem(s, two_classes(), None, made_at=NOW)
    )
    assert {one.request_class for one in found.stretched} == {"chat", "batch"}
    assert all(found.serving(k, Role.PREFILL) for k in found.stream_indices)


def test_the_plan_says_so_in_its_document() -> None:
    found = made()
    document = plan_document(found)
    assert [one.objective for one in document.stretched] == ["ttft_s"]
    assert plan_of(document, where="test") == found


def test_reasons_of_pools_say_for_which_promise_they_are_sized() -> None:
    asked = spec(ttft_s=HOPELESS_S)
    decision = decide(asked, forecast([4.0]), fleet(prefill=1, decode=1), now=NOW)
    reasons = [one.reason for one in decision.recommendations]
    assert all("instead of the promised 0.02, which no pool keeps" in text for text in reasons)
    assert not any("with one less" in text for text in reasons)


def test_an_end_to_end_time_is_stretched_by_itself() -> None:
    given = spec(ttft_s=1.0)
    given = replace(given, slos=tuple(replace(slo, e2e_s=0.05) for slo in given.slos))
    found = plan(given, forecast([4.0]), None, made_at=NOW)
    assert [one.objective for one in found.stretched] == ["e2e_s"]


def test_where_requests_may_stay_unserved_the_promise_is_not_stretched() -> None:
    priced = replace(
        spec(ttft_s=HOPELESS_S), planning=PlanningSettings(shortfall_usd_per_request=0.01)
    )
    found = plan(priced, forecast([4.0]), None, made_at=NOW)
    assert found.stretched == ()
    assert found.windows[0].shortfall_rps == pytest.approx(4.0)

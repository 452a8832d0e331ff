"""Every class is held to its own promise, whoever the router can tell apart."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.forecast import Demand, Forecast, ForecastWindow
from planner.domain.plan import Plan, PlanStatus
from planner.domain.slo import Slo
from planner.domain.spec import PlanningSettings, PoolBounds, Routing, Spec
from planner.domain.workload import Shape
from planner.optimize import build_problem, check, optimize, plan
from planner.optimize.solution import admitted
from planner.service.documents.plan import plan_document, plan_of
from tests.fakes.profiles import linear_profile
from tests.planner.optimize.scenarios import (
    MODEL,
    NOW,
    PAIR,
    forecast,
    replica_shape,
    spec,
)

TOLERANCE = 1 + 3e-4
"""Twice the gap within which an answer counts as optimal, and a little."""

ROUTINGS = (Routing(), Routing(by_class=True))


def of_class(name: str, rate_rps: float, *, isl: float, osl: float = 40.0) -> Demand:
    """Requests of about `isl` tokens, the longest half as long again."""
    demand = forecast([rate_rps], isl=isl, osl=osl).windows[0].demands[0]
    shape = Shape(
        input_tokens=np.array([0.75, 1.0, 1.5]) * isl,
        output_tokens=np.full(3, osl),
        cached_tokens=np.zeros(3),
        weight=np.array([0.25, 0.5, 0.25]),
    )
    return replace(demand, request_class=name, shape=shape)


def two_classes(chat_rps: float = 20.0, batch_rps: float = 1.5) -> Forecast:
    """Many short prompts, and a few that take a second by themselves."""
    whole = forecast([chat_rps])
    demands = of_class("chat", chat_rps, isl=400), of_class("batch", batch_rps, isl=6_000)
    window = replace(whole.windows[0], demands=demands)
    return replace(whole, windows=(window,))


def promising(
    ttft_s: Mapping[str, float], *, routing: Routing = ROUTINGS[0], **more: float
) -> Spec:
    base = spec(roles=PAIR, inventory=60)
    slos = tuple(
        Slo(model=MODEL, request_class=name, ttft_s=s, tpot_s=0.05, attainment_ratio=0.9)
        for name, s in ttft_s.items()
    )
    return replace(base, slos=slos, routing=routing, planning=PlanningSettings(**more))


def made(given: Spec, load: Forecast | None = None) -> Plan:
    return plan(given, load or two_classes(), None, made_at=NOW)


def attained(found: Plan) -> dict[str, tuple[float, float]]:
    return {
        c.request_class: (c.attainment_ratio, c.target_ratio)
        for c in found.windows[0].predicted.classes
    }


@pytest.mark.parametrize("routing", ROUTINGS, ids=["balanced", "by class"])
def test_a_plan_that_holds_keeps_the_promise_to_every_class(routing: Routing) -> None:
    found = made(promising({"chat": 1.0, "batch": 4.0}, routing=routing))
    assert found.status is not PlanStatus.INFEASIBLE
    assert set(attained(found)) == {"chat", "batch"}
    assert all(ratio >= target for ratio, target in attained(found).values())


@pytest.mark.parametrize("routing", ROUTINGS, ids=["balanced", "by class"])
def test_a_class_that_cannot_be_in_time_is_not_outvoted_by_the_others(routing: Routing) -> None:
    """Nearly all requests are in time, but none of one class."""
    found = made(promising({"chat": 2.0, "batch": 0.3}, routing=routing))
    assert found.status is PlanStatus.INFEASIBLE
    assert any("for class batch" in text for text in found.relaxations)
    assert attained(found)["batch"][0] < 0.9
    assert (found.windows[0].predicted.attainment_ratio or 0) > 0.9


def test_a_class_that_no_pool_can_hold_in_time_still_has_pools() -> None:
    found = made(promising({"chat": 2.0, "batch": 0.3}, routing=ROUTINGS[1]))
    assert {part.request_class for part in found.windows[0].traffic} == {"chat", "batch"}


def test_what_is_named_to_relax_helps() -> None:
    found = made(promising({"chat": 2.0, "batch": 0.3}, routing=ROUTINGS[1]))
    (text,) = (t for t in found.relaxations if t.startswith("ttft_s") and "class batch" in t)
    softer = float(text.split()[1])
    assert (
        made(promising({"chat": 2.0, "batch": softer}, routing=ROUTINGS[1])).status
        is not PlanStatus.INFEASIBLE
    )


def test_a_class_that_goes_unserved_for_its_price_is_counted() -> None:
    priced = promising(
        {"chat": 2.0, "batch": 0.3}, routing=ROUTINGS[1], shortfall_usd_per_request=0.01
    )
    first = made(priced).windows[0]
    assert first.shortfall_rps == pytest.approx(1.5)
    assert [c.request_class for c in first.predicted.classes] == ["chat"]


def test_only_the_stream_that_goes_unserved_is_taken_from_the_demand() -> None:
    priced = promising(
        {"chat": 2.0, "batch": 0.3}, routing=ROUTINGS[1], shortfall_usd_per_request=0.01
    )
    load = two_classes()
    problem = build_problem(priced, load, None, made_at=NOW)
    kept: ForecastWindow = admitted(problem, optimize(problem), load.windows[0], 0)
    assert [d.request_class for d in kept.demands] == ["chat"]
    assert kept.request_rate_rps(0.9) == pytest.approx(20.0)


def test_a_pool_that_sustains_no_class_is_left_out_with_its_reason() -> None:
    given = promising({"chat": 1.0, "batch": 4.0}, routing=ROUTINGS[1])
    slow = linear_profile(profile_id="slow", accelerator="slow", speed=0.001)
    snail = replace(given.accelerators[0], name="slow")
    given = replace(
        given,
        accelerators=(*given.accelerators, snail),
        profiles=(*given.profiles, slow),
        pools=(
            *given.pools,
            *(PoolBounds(shape=replica_shape(role, "slow")) for role in PAIR),
        ),
    )
    reasons = {r.name: r.reason for r in made(given).rejected}
    assert "promise of none of the streams" in reasons["prefill:slow:tp1"]


def test_attainment_by_class_survives_the_document() -> None:
    found = made(promising({"chat": 1.0, "batch": 4.0}))
    assert plan_of(plan_document(found), where="here") == found


def test_a_rare_class_is_judged_by_what_was_seen_of_it() -> None:
    """Of one request in twenty thousand no replay sees enough for a verdict."""
    found = made(promising({"chat": 1.0, "batch": 4.0}), two_classes(batch_rps=0.001))
    assert found.status is not PlanStatus.INFEASIBLE


def usd(given: Spec, load: Forecast) -> float:
    problem = build_problem(given, load, None, made_at=NOW)
    solution = optimize(problem)
    assert check(problem, solution) == ()
    return solution.usd if solution.feasible else float("inf")


@settings(max_examples=12, deadline=None)
@given(
    routing=st.sampled_from(ROUTINGS),
    chat_s=st.floats(0.3, 3.0),
    batch_s=st.floats(0.3, 6.0),
    tighter=st.floats(0.1, 1.0),
    batch_rps=st.floats(0.2, 4.0),
)
def test_a_tighter_promise_to_one_class_never_costs_less(
    routing: Routing,
    chat_s: float,
    batch_s: float,
    tighter: float,
    batch_rps: float,
) -> None:
    load = two_classes(batch_rps=batch_rps)
    loose, tight = (
        promising({"chat": chat_s, "batch": s}, routing=routing)
        for s in (batch_s, batch_s * tighter)
    )
    assert usd(loose, load) <= usd(tight, load) * TOLERANCE

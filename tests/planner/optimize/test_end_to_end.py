"""An end-to-end objective is shared out between first and later tokens, not set aside twice."""

from dataclasses import replace

import numpy as np
import pytest

from planner.capacity.end_to_end import SPLITS, Split, limits_of, met_jointly
from planner.domain.fleet import Role
from planner.domain.plan import PlanStatus
from planner.domain.slo import Slo
from planner.domain.spec import Spec
from planner.domain.workload import Shape
from planner.optimize import plan
from planner.optimize.capacity_tables import pool_rps
from planner.optimize.loads import load_of
from tests.fakes.profiles import linear_profile
from tests.planner.optimize.scenarios import MODEL, NOW, PAIR, forecast, spec

DEMAND = forecast([20.0])


def promising(e2e_s: float | None, *, ttft_s: float = 5.0, roles: tuple[Role, ...] = PAIR) -> Spec:
    slo = Slo(model=MODEL, ttft_s=ttft_s, tpot_s=0.05, attainment_ratio=0.9, e2e_s=e2e_s)
    return replace(spec(roles=roles, inventory=60), slos=(slo,))


def test_an_end_to_end_time_hardly_longer_than_the_first_token_s_is_kept() -> None:
    tighter = plan(promising(5.5, ttft_s=1.0), DEMAND, None, made_at=NOW)
    made = plan(promising(5.5), DEMAND, None, made_at=NOW)
    assert tighter.status is PlanStatus.OPTIMAL
    assert made.status is PlanStatus.OPTIMAL
    assert made.usd_per_hour <= tighter.usd_per_hour


@pytest.mark.parametrize("ttft_s", [2.0, 0.6, 0.3])
def test_a_tighter_first_token_costs_no_less(ttft_s: float) -> None:
    made = plan(promising(2.2), DEMAND, None, made_at=NOW)
    tighter = plan(promising(2.2, ttft_s=ttft_s), DEMAND, None, made_at=NOW)
    assert made.usd_per_hour <= tighter.usd_per_hour


@pytest.mark.parametrize("roles", [PAIR, (Role.AGGREGATED,)])
def test_a_longer_end_to_end_time_costs_no_more(roles: tuple[Role, ...]) -> None:
    costs = []
    for e2e_s in (1.2, 2.0, 5.2, None):
        made = plan(promising(e2e_s, roles=roles), DEMAND, None, made_at=NOW)
        assert made.status is not PlanStatus.INFEASIBLE
        costs.append(made.usd_per_hour)
    assert costs == sorted(costs, reverse=True)


def test_what_keeps_both_parts_keeps_the_whole() -> None:
    shape = forecast([1.0], osl=200.0).windows[0].demands[0].shape
    slo = Slo(model=MODEL, ttft_s=5.0, tpot_s=0.05, e2e_s=6.0)
    for split in SPLITS:
        first, token = limits_of(slo, shape, split=split)
        whole = first + (shape.output_tokens - 1) * token
        assert np.all(whole <= 6.0 + 1e-9)
        assert np.all(first <= 5.0)
        assert np.all(token <= 0.05 + 1e-12)


def test_jointly_is_the_integral_from_below() -> None:
    shape = Shape(
        input_tokens=np.array([100.0, 100.0]),
        output_tokens=np.array([1.0, 101.0]),
        cached_tokens=np.zeros(2),
        weight=np.array([0.5, 0.5]),
    )
    slo = Slo(model=MODEL, ttft_s=2.0, tpot_s=0.02, e2e_s=2.0)
    met = met_jointly(
        slo,
        shape,
        ttft_met=lambda limit: np.clip(limit / 2.0, 0.0, 1.0),
        tpot_met=lambda limit: np.array([1.0, np.clip(limit[1] / 0.02, 0.0, 1.0)]),
    )
    assert met[0] == 1.0
    assert 0.45 <= met[1] <= 0.5  # P(U + V <= 1) of two uniform shares


def test_an_end_to_end_time_that_cannot_be_is_what_to_relax() -> None:
    made = plan(promising(0.1), DEMAND, None, made_at=NOW)
    assert made.status is PlanStatus.INFEASIBLE
    assert any(text.startswith("e2e_s ") for text in made.relaxations)


def test_an_end_to_end_time_has_its_price() -> None:
    made = plan(promising(1.2), DEMAND, None, made_at=NOW, explain=True)
    told = {p.change for p in made.shadow_prices}
    assert {"-60 ms end to end (1.14 s)", "+60 ms end to end (1.26 s)"} <= told


def test_a_pool_sustains_more_at_the_pace_that_leaves_it_more_time() -> None:
    load = load_of(DEMAND.windows[0], 0.5)
    assert load is not None
    slos = promising(1.2).slos
    for role, sign in ((Role.PREFILL, -1), (Role.DECODE, 1)):
        rates = [
            pool_rps(linear_profile(), role, load, slos, replicas=2, split=Split(pace))
            for pace in (0.2, 0.4, 0.6)
        ]
        assert rates == sorted(rates, reverse=sign < 0)

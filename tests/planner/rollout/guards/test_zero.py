from dataclasses import replace
from datetime import timedelta

from planner.domain.plan import Plan
from tests.planner.rollout.cases import NOW, D, P, fleet, plan
from tests.planner.rollout.guards.situations import CALM, guarded, rolled_out

ZERO = guarded(scale_to_zero=True, zero_after_idle_s=600.0, activation_rps=0.1)
PAIR = fleet({P: 1, D: 1})


def forecast(rate_rps: float) -> Plan:
    """One pair, for so many requests/s; the optimizer itself never plans none."""
    made = plan({P: 1, D: 1})
    return replace(made, windows=(replace(made.windows[0], request_rate_rps=rate_rps),))


def idle(seconds: float):
    return replace(CALM, observed_at=NOW, idle_since=NOW - timedelta(seconds=seconds))


def test_both_pools_go_to_zero_together_after_the_cooldown() -> None:
    assert rolled_out(PAIR, forecast(0.0), ZERO, idle(600)) == {}


def test_before_the_cooldown_both_stay() -> None:
    assert rolled_out(PAIR, forecast(0.0), ZERO, idle(599)) == {P: 1, D: 1}


def test_an_idle_time_that_nobody_has_seen_does_not_count() -> None:
    blind = replace(idle(900), observed_at=NOW - timedelta(seconds=800))
    assert rolled_out(PAIR, forecast(0.0), ZERO, blind) == {P: 1, D: 1}


def test_without_scale_to_zero_an_idle_service_stays_up() -> None:
    assert rolled_out(PAIR, forecast(0.0), guarded(), idle(1e6)) == {P: 1, D: 1}


def test_it_comes_back_together_above_the_activation_and_not_before() -> None:
    nothing = fleet({})
    assert rolled_out(nothing, forecast(0.05), ZERO, idle(900)) == {}
    assert rolled_out(nothing, forecast(0.2), ZERO, idle(900)) == {P: 1, D: 1}


def test_it_comes_back_when_a_request_has_arrived() -> None:
    assert rolled_out(fleet({}), forecast(0.05), ZERO, idle(5)) == {P: 1, D: 1}


def test_without_activation_noise_starts_it() -> None:
    eager = guarded(scale_to_zero=True, zero_after_idle_s=600.0)
    assert rolled_out(fleet({}), forecast(0.05), eager, idle(900)) == {P: 1, D: 1}

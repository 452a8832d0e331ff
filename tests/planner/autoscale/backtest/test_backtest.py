"""What policies are compared by: rules, schedules, hours, and who would be in time anyway."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from planner.autoscale.backtest import (
    Foresight,
    LastValue,
    PoolPair,
    Run,
    Static,
    attainable,
    figures,
    frontier,
    hours,
    rates,
    replay,
    schedule,
)
from planner.domain.errors import SpecError
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.workload import Workload
from tests.planner.autoscale.backtest.cases import group, minute
from tests.planner.optimize.scenarios import MODEL, NOW, spec

PAIR = PoolPair.of(spec(inventory=16), MODEL)


def workload(rates_rps: tuple[float, ...], each_s: float, *, isl: int, osl: int) -> Workload:
    """Equal requests at equal distances; each rate lasts equally long."""
    arrival = np.concatenate(
        [each_s * i + np.arange(0.0, each_s, 1 / rate) for i, rate in enumerate(rates_rps)]
    )
    count = len(arrival)
    return Workload(
        start_at=NOW,
        arrival_offset_s=arrival,
        input_tokens=np.full(count, isl),
        output_tokens=np.full(count, osl),
        cached_tokens=np.zeros(count, dtype=np.int64),
        request_class=np.full(count, DEFAULT_CLASS),
        duration_s=each_s * len(rates_rps),
    )


def test_headroom_divides_the_load_by_what_a_replica_does() -> None:
    policy = LastValue(pair=PAIR, warm_s=0.0, utilization_ratio=0.5)
    able = rates(PAIR, isl=4000, osl=200)
    got = policy.on_tick(minute(group(), group(), t_s=60.0, arrived=600, isl=4000, osl=200))
    assert got.replicas == (
        int(np.ceil(10 * 4000 / able.prefill_tokens_per_s / 0.5)),
        int(np.ceil(10 * 200 / able.decode_tokens_per_s / 0.5)),
    )


def test_a_schedule_orders_one_start_up_ahead_and_keeps_what_is_needed_again() -> None:
    load = workload((2.0, 14.0, 2.0), 400.0, isl=5000, osl=100)
    plan = Foresight(margin=(0.1, 0.0), smoothed_s=20.0)
    ahead = schedule(plan, PAIR, load, warm_s=100.0)
    grown_s = next(t for t, (prefill, _) in ahead.steps if prefill >= 3)
    assert 325.0 <= grown_s <= 345.0
    unaware = schedule(plan, PAIR, load, warm_s=100.0, unannounced_s=400.0)
    assert next(t for t, (prefill, _) in unaware.steps if prefill >= 3) >= 400.0


def test_the_frontier_is_what_no_other_point_beats() -> None:
    points = [(0.9, 5.0), (0.95, 4.0), (0.99, 8.0), (0.95, 6.0)]
    assert frontier(points) == [1, 2]


def test_hours_are_counted_between_two_instants() -> None:
    paid = [(0.0, 2, 1), (1800.0, 4, 1), (3000.0, 1, 1)]
    assert hours(paid, from_s=900.0, to_s=3600.0) == pytest.approx((2.0, 0.75))


def test_a_role_with_two_pools_is_refused():
    two = spec(accelerators=(("cpu", 1.0, 1.0), ("gpu", 2.0, 2.0)))
    with pytest.raises(SpecError, match="one prefill and one decode pool"):
        PoolPair.of(two, MODEL)


def test_bounds_and_inventory_limit_what_a_policy_gets():
    assert PoolPair.of(spec(inventory=16), MODEL).most_replicas == (16, 16)
    assert PoolPair.of(spec(inventory=16, max_replicas=3), MODEL).most_replicas == (3, 3)


def test_what_no_fleet_serves_in_time_is_not_attainable():
    load = workload((1.0,), 20.0, isl=1000, osl=10)
    prompts = load.input_tokens.copy()
    prompts[::2] = 16_000
    able = attainable(PAIR, replace(load, input_tokens=prompts))
    assert able.tolist() == [i % 2 == 1 for i in range(20)]


def test_a_constant_fleet_costs_its_hours_and_decisions_are_timed():
    load = workload((1.0,), 120.0, isl=500, osl=20)
    run = replay(
        PAIR,
        load,
        Static(replicas=(2, 1), warm_s=60.0),
        first=(1, 1),
        clock=map(float, itertools.count()).__next__,
    )
    got = figures(
        run,
        load,
        slo=PAIR.slo,
        able=np.ones(len(load), dtype=bool),
        accelerators=(1, 4),
        warm_s=60.0,
    )
    assert got.attainment_ratio == got.attainable_ratio == 1.0
    assert got.by_role == pytest.approx((2 / 60, 4 / 60), rel=0.02)
    assert got.most_decided_s == 1.0
    assert got.requests == 60


def test_nobody_to_judge_is_nobody_late():
    load = workload((1.0,), 30.0, isl=500, osl=20)
    late = np.full(len(load), math.inf)
    run = Run(ttft_s=late, tpot_s=late, paid=((0.0, 1, 1),), end_s=30.0)
    none = np.zeros(len(load), dtype=bool)
    got = figures(run, load, slo=PAIR.slo, able=none, accelerators=(1, 1), warm_s=0.0)
    assert (got.attainment_ratio, got.attainable_ratio) == (0.0, 1.0)

"""The closed loop benchmark: what policies see, what they ask for, and how runs are judged."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.closed_loop import in_twin, mocker
from benchmarks.closed_loop.judging import attainable, figures
from benchmarks.closed_loop.kept import Results, key_of
from benchmarks.closed_loop.production import Tuning, production
from benchmarks.closed_loop.reactive import Keda, QueueHpa, Stabilized
from benchmarks.closed_loop.settings import SETTINGS
from benchmarks.closed_loop.workloads import START_AT, poisson
from planner.autoscale import backtest
from planner.autoscale.backtest import Run, Static, rates
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.workload import Workload
from planner.simulate.policy import Targets
from tests.planner.autoscale.backtest.cases import group, minute

SETTING = SETTINGS["qwen-60"]


def workload(rates_rps: tuple[float, ...], each_s: float, *, isl: int, osl: int) -> Workload:
    """Poisson arrivals of equal requests; each rate lasts equally long."""
    rate = np.array(rates_rps)

    def rate_rps(t_s: np.ndarray) -> np.ndarray:
        return rate[np.minimum((t_s / each_s).astype(int), len(rate) - 1)]

    duration_s = each_s * len(rates_rps)
    arrival_s = poisson(rate_rps, duration_s, seed=5)
    count = len(arrival_s)
    return Workload(
        start_at=START_AT,
        arrival_offset_s=np.rint(arrival_s * 1e3) / 1e3,
        input_tokens=np.full(count, isl),
        output_tokens=np.full(count, osl),
        cached_tokens=np.zeros(count, dtype=np.int64),
        request_class=np.full(count, DEFAULT_CLASS),
        duration_s=duration_s,
    )


def test_llm_ds_rule_is_its_formula() -> None:
    policy = Keda(pair=SETTING.pair, warm_s=0.0)
    prefill = group(ready=2, queued_prompt_tokens=30_000, running_requests=2)
    got = policy.on_tick(
        minute(prefill, group(ready=2, kv_usage_ratio=0.9), t_s=60.0, arrived=60, isl=4000, osl=200)
    )
    rate = rates(SETTING.pair, isl=4000, osl=200).prefill_tokens_per_s
    assert got.replicas == (int(np.ceil(38_000 / rate / (1.0 - 4000 / rate))), 3)


def test_an_hpa_holds_within_its_tolerance_and_shrinks_late() -> None:
    policy = QueueHpa(pair=SETTING.pair, warm_s=0.0, waiting=2.0, running=100.0)
    busy = group(ready=3, waiting_requests=6), group(ready=1, running_requests=105)
    assert policy.on_tick(minute(*busy, t_s=60.0, arrived=9, isl=9, osl=9)).replicas == (3, 1)
    idle = group(ready=3), group(ready=1)
    assert policy.on_tick(minute(*idle, t_s=75.0, arrived=9, isl=9, osl=9)).replicas == (3, 1)
    assert policy.on_tick(minute(*idle, t_s=390.0, arrived=9, isl=9, osl=9)).replicas == (1, 1)


def test_stabilization_keeps_the_most_of_its_window() -> None:
    kept = Stabilized(100.0)
    assert kept.apply(0.0, (3, 1)) == (3, 1)
    assert kept.apply(50.0, (1, 2)) == (3, 2)
    assert kept.apply(120.0, (1, 1)) == (1, 2)


def test_requests_that_no_fleet_serves_in_time_are_not_attainable() -> None:
    load = workload((1.0,), 30.0, isl=1000, osl=10)
    prompts = load.input_tokens.copy()
    prompts[::2] = 40_000
    load = replace(load, input_tokens=prompts)
    able = attainable(SETTING, load)
    assert not able[::2].any()
    assert able[1::2].all()
    assert np.array_equal(able, backtest.attainable(SETTING.pair, load))
    nan = np.full(len(load), np.nan)
    run = Run(ttft_s=np.where(able, 0.5, 3.0), tpot_s=nan, paid=((0.0, 1, 1),), end_s=30.0)
    got = figures(run, SETTING, load, warm_s=0.0)
    assert got.attainable_ratio == 1.0
    assert got.attainment_ratio == pytest.approx(able.mean())


def test_the_same_run_has_the_same_key_and_another_load_another_one(tmp_path: Path) -> None:
    load = workload((1.0,), 30.0, isl=1000, osl=10)
    other = replace(load, input_tokens=load.input_tokens + 1)
    code = ("benchmarks/closed_loop",)
    key = key_of(SETTING, load, "static", simulator="twin", code=code)
    assert key == key_of(SETTING, load, "static", simulator="twin", code=code)
    assert key != key_of(SETTING, other, "static", simulator="twin", code=code)
    run = Run(ttft_s=np.zeros(len(load)), tpot_s=np.zeros(len(load)), paid=((0.0, 1, 1),), end_s=30)
    got = figures(run, SETTING, load, warm_s=0.0)
    results = Results(tmp_path)
    assert results.find(key) is None
    results.keep(key, "a run", got)
    assert results.find(key) == got


def test_a_frontend_counts_arrivals_and_takes_those_that_end_first() -> None:
    load = workload((2.0,), 60.0, isl=1000, osl=100)
    answers = load.output_tokens.copy()
    answers[0] = 5_000
    frontend = mocker.Frontend(workload=replace(load, output_tokens=answers), setting=SETTING)
    counts = {
        f"{state}_{role}_count": 1
        for state in ("active", "starting", "draining")
        for role in ("prefill", "decode")
    }
    snapshot = counts | {
        "now_ms": 60_000.0,
        "prefill_fpm_snapshots": [],
        "decode_fpm_snapshots": [],
        "traffic": {"shape_count": 3, "avg_ttft_ms": 100.0, "avg_itl_ms": 20.0},
    }
    got = frontend.observe(json.loads(json.dumps(snapshot)))
    assert len(got.arrived_input_tokens) == len(load)
    assert got.finished_output_tokens.tolist() == [100, 100, 100]
    assert got.groups[0].ready == got.groups[0].starting == 1


def test_targets_are_told_as_the_mocker_takes_them() -> None:
    told = mocker.answer_of(Targets(replicas=(3, 99), next_tick_s=10.0))
    assert told == {"target_prefill": 3, "target_decode": 24, "next_tick_ms": 10_000.0}
    assert mocker.answer_of(Targets(replicas=None, next_tick_s=np.inf))["next_tick_ms"] is None


def test_poolwise_grows_with_the_load_and_shrinks_after_it() -> None:
    load = workload((3.0, 9.0, 2.0), 480.0, isl=4000, osl=100)
    policy = production(SETTING, Tuning(attainment_ratio=0.95), warm_s=240.0)
    run = in_twin.replay(SETTING, load, policy, first=(2, 1))
    prefill = {t: p for t, p, _ in run.paid}
    assert prefill[235.0] == 2
    assert max(prefill.values()) >= 4
    assert run.paid[-1][1] < max(prefill.values())
    got = figures(run, SETTING, load, warm_s=240.0)
    assert got.attainable_ratio > 0.8
    still = in_twin.replay(SETTING, load, Static(replicas=(2, 1), warm_s=240.0), first=(2, 1))
    assert figures(still, SETTING, load, warm_s=240.0).attainable_ratio < got.attainable_ratio

"""The twin against queueing theory, and what must hold for any deployment."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.capacity.queueing import erlang_c
from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.slo import Slo
from planner.domain.workload import Workload
from planner.simulate import ReplicaGroup, RouterPolicy, Scenario, simulate
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import START_AT, poisson_workload

SLO = Slo(model="tiny", ttft_s=0.5, tpot_s=0.02)


def pools(prefill: int, decode: int, **changes: float) -> tuple[ReplicaGroup, ...]:
    profile = linear_profile(**changes)
    return (
        ReplicaGroup(profile=profile, role=Role.PREFILL, replicas=prefill),
        ReplicaGroup(profile=profile, role=Role.DECODE, replicas=decode),
    )


def aggregated(replicas: int, **changes: float) -> tuple[ReplicaGroup, ...]:
    profile = linear_profile(**changes)
    return (ReplicaGroup(profile=profile, role=Role.AGGREGATED, replicas=replicas),)


def mean_and_error(values: np.ndarray, batches: int = 20) -> tuple[float, float]:
    """Mean, and four standard errors of it by batch means (neighbours are correlated)."""
    means = np.array([b.mean() for b in np.array_split(values, batches)])
    return float(means.mean()), 4 * float(means.std(ddof=1)) / batches**0.5


def waits(workload: Workload, replicas: int, **changes: float) -> np.ndarray:
    """Waits for a prefill replica: TTFT without everything that has a known length.

    One slot a replica: prompts are computed one after another, as the textbook queues serve.
    """
    changes = {
        "transfer_base_s": 0.0,
        "transfer_bandwidth_bytes_per_s": 1e30,
        "max_num_seqs": 1,
        **changes,
    }
    groups = pools(replicas, 1, decode_base_s=1e-9, decode_sequence_s=0.0, **changes)
    result = simulate(Scenario(groups=groups, workload=workload))
    table = groups[0].profile.prefill
    return result.ttft_s - table.at(workload.input_tokens.astype(float), 0.0)


def test_constant_prompts_wait_as_in_md1() -> None:
    workload = poisson_workload(requests=60_000, rate_rps=7.0, osl=1, lengths="constant")
    wait_s = waits(workload, 1, prefill_base_s=0.1, prefill_token_s=0.0)
    mean, error = mean_and_error(wait_s)
    assert abs(mean - 0.1 * 0.7 / (2 * 0.3)) < error + 1e-6


def test_spread_prompts_wait_as_pollaczek_khinchine_says() -> None:
    workload = poisson_workload(requests=80_000, rate_rps=7.0, isl=1000, osl=1, seed=2)
    wait_s = waits(workload, 1, prefill_base_s=1e-6, prefill_token_s=1e-4)
    service_s = 1e-6 + 1e-4 * workload.input_tokens
    load = 7.0 * service_s.mean()
    expected = 7.0 * (service_s**2).mean() / (2 * (1 - load))
    mean, error = mean_and_error(wait_s)
    assert abs(mean - expected) < error + 0.02 * expected


def test_a_pool_of_prefill_replicas_waits_as_in_mmc() -> None:
    workload = poisson_workload(requests=80_000, rate_rps=24.0, isl=1000, osl=1, seed=4)
    wait_s = waits(workload, 3, prefill_base_s=1e-6, prefill_token_s=1e-4)
    load = 24.0 * float((1e-6 + 1e-4 * workload.input_tokens).mean())
    expected = erlang_c(3, load)
    mean, error = mean_and_error((wait_s > 1e-6).astype(float))
    assert abs(mean - expected) < error + 0.01


def test_sequences_in_decode_obey_littles_law() -> None:
    workload = poisson_workload(requests=20_000, rate_rps=10.0, isl=10, osl=100, seed=3)
    groups = pools(1, 1, decode_sequence_s=0.0, decode_base_s=0.01, max_num_seqs=256)
    result = simulate(Scenario(groups=groups, workload=workload))
    series = result.series
    middle = (series.t_s > 0.1 * result.end_s) & (series.t_s < 0.9 * result.end_s)
    present = float(series.running[1][middle].mean())
    assert present == pytest.approx(10.0 * 0.01 * workload.output_tokens.mean(), rel=0.1)


def test_processor_sharing_is_insensitive_to_answer_lengths() -> None:
    # step = s x batch: M/M/1-PS, mean time in system E[work] / (1 - load) for any lengths.
    for lengths in ("constant", "exponential"):
        workload = poisson_workload(
            requests=60_000, rate_rps=6.0, isl=10, osl=100, lengths=lengths, seed=6
        )
        groups = pools(
            1,
            1,
            prefill_base_s=1e-6,
            prefill_token_s=0.0,
            transfer_base_s=0.0,
            decode_base_s=1e-9,
            decode_sequence_s=1e-3,
            max_num_seqs=256,
        )
        result = simulate(Scenario(groups=groups, workload=workload))
        work_s = 1e-3 * workload.output_tokens.mean()
        mean, error = mean_and_error(result.e2e_s)
        assert abs(mean - work_s / (1 - 6.0 * work_s)) < error + 0.02 * mean


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    groups = draw(
        st.sampled_from(
            [
                pools(1, 1),
                pools(3, 2, max_num_seqs=4),
                pools(2, 2, kv_capacity_tokens=900),
                aggregated(2, max_num_batched_tokens=128),
                (*aggregated(1, speed=0.3), *pools(1, 2, max_model_len=1_000)),
            ]
        )
    )
    workload = poisson_workload(
        requests=draw(st.integers(1, 200)),
        rate_rps=draw(st.floats(0.1, 500.0)),
        osl=draw(st.floats(1.0, 120.0)),
        seed=draw(st.integers(0, 2**20)),
    )
    return Scenario(groups=groups, workload=workload, router=draw(st.sampled_from(RouterPolicy)))


@given(scenario=scenarios())
@settings(max_examples=80, deadline=None)
def test_no_request_is_lost_and_time_runs_forwards(scenario: Scenario) -> None:
    result = simulate(scenario)
    assert result.finished_requests + result.rejected_requests == len(scenario.workload)
    answered = np.isfinite(result.e2e_s)
    assert np.all(result.ttft_s[answered] > 0)
    assert np.all(result.e2e_s[answered] >= result.ttft_s[answered])
    gaps = (scenario.workload.output_tokens - 1)[answered].sum()
    assert int(result.gap_counts.sum()) == gaps
    assert all(0 <= u <= 1 + 1e-9 for u in result.utilization_ratio)
    assert result.series.waiting.min() >= 0
    assert not result.series.running[:, -1].any()


@given(seed=st.integers(0, 2**20), factor=st.floats(1.2, 8.0), fleet=st.sampled_from([0, 1]))
@settings(max_examples=25, deadline=None)
def test_compressing_time_never_shortens_the_mean_latency(
    seed: int, factor: float, fleet: int
) -> None:
    groups = (pools(2, 1), aggregated(2))[fleet]
    slow = poisson_workload(requests=400, rate_rps=6.0, seed=seed)
    fast = dataclasses.replace(slow, arrival_offset_s=slow.arrival_offset_s / factor)
    calm = simulate(Scenario(groups=groups, workload=slow))
    busy = simulate(Scenario(groups=groups, workload=fast))
    assert busy.e2e_s.mean() >= calm.e2e_s.mean() * (1 - 0.02)


def test_equal_scenarios_give_equal_results() -> None:
    scenario = Scenario(
        groups=pools(2, 2), workload=poisson_workload(requests=2_000, rate_rps=20.0)
    )
    first, second = simulate(scenario), simulate(scenario)
    np.testing.assert_array_equal(first.e2e_s, second.e2e_s)
    np.testing.assert_array_equal(first.gap_counts, second.gap_counts)


def test_prompts_stall_decoding_on_aggregated_replicas_only() -> None:
    workload = poisson_workload(requests=3_000, rate_rps=4.0, isl=1500, osl=100, seed=1)
    together = simulate(Scenario(groups=aggregated(2), workload=workload))
    apart = simulate(Scenario(groups=pools(1, 1), workload=workload))
    assert together.itl_quantile_s(0.99) > 0.1
    assert apart.itl_quantile_s(0.99) < 0.03


def test_requests_that_fit_nowhere_are_rejected_and_miss() -> None:
    workload = poisson_workload(requests=300, rate_rps=1.0, isl=1000, osl=20, seed=1)
    result = simulate(Scenario(groups=pools(1, 1, max_model_len=1_500), workload=workload))
    too_long = workload.input_tokens + workload.output_tokens > 1_500
    np.testing.assert_array_equal(np.isnan(result.ttft_s), too_long)
    assert not result.met([SLO])[too_long].any()


def test_replicas_that_start_later_take_nothing_before() -> None:
    groups = tuple(
        dataclasses.replace(g, start_delay_s=delay)
        for g, delay in zip(pools(1, 1), (5.0, 8.0), strict=True)
    )
    workload = poisson_workload(requests=50, rate_rps=50.0, isl=100, osl=5)
    result = simulate(Scenario(groups=groups, workload=workload))
    assert (result.arrival_s + result.ttft_s).min() > 8.0
    assert result.finished_requests == 50


def test_what_lies_beyond_the_profile_is_counted() -> None:
    workload = poisson_workload(requests=500, rate_rps=5.0, isl=800, osl=20, seed=1)
    groups = pools(1, 1, max_prompt_tokens=1_000, max_context_tokens=2_000)
    result = simulate(Scenario(groups=groups, workload=workload))
    beyond = (workload.input_tokens > 1_000) | (
        workload.input_tokens + workload.output_tokens > 2_000
    )
    assert result.extrapolated_requests == int(beyond.sum())


def test_batches_beyond_the_profile_are_counted() -> None:
    workload = poisson_workload(requests=500, rate_rps=20.0, isl=50, osl=100, seed=1)
    inside = simulate(Scenario(groups=pools(1, 1), workload=workload))
    outside = simulate(Scenario(groups=pools(1, 1, max_batch=4), workload=workload))
    assert inside.extrapolated_requests == 0
    assert outside.extrapolated_requests > 400


@pytest.mark.parametrize("groups", [pools(1, 0), pools(0, 1), aggregated(0), ()])
def test_a_deployment_that_can_serve_nothing_is_refused(groups: tuple[ReplicaGroup, ...]) -> None:
    with pytest.raises(InputError, match="nothing can serve"):
        Scenario(groups=groups, workload=poisson_workload(requests=1, rate_rps=1.0))


def test_a_class_without_objectives_is_refused_by_name() -> None:
    workload = poisson_workload(requests=5, rate_rps=1.0)
    result = simulate(Scenario(groups=aggregated(1), workload=workload))
    other = dataclasses.replace(SLO, request_class="batch")
    with pytest.raises(InputError, match="'default'"):
        result.met([other])


def test_each_class_is_held_to_its_own_objectives() -> None:
    workload = dataclasses.replace(
        poisson_workload(requests=40, rate_rps=1.0, osl=20),
        request_class=np.array(["default", "batch"] * 20),
    )
    result = simulate(Scenario(groups=aggregated(1), workload=workload))
    never = dataclasses.replace(SLO, request_class="batch", ttft_s=1e-6)
    met = result.met([dataclasses.replace(SLO, ttft_s=60.0, tpot_s=10.0), never])
    np.testing.assert_array_equal(met, workload.request_class == "default")


def test_an_empty_workload_says_nothing() -> None:
    none = np.zeros(0, dtype=np.int64)
    workload = Workload(
        start_at=START_AT,
        arrival_offset_s=np.zeros(0),
        input_tokens=none,
        output_tokens=none,
        cached_tokens=none,
        request_class=np.zeros(0, dtype=np.str_),
        duration_s=60.0,
    )
    result = simulate(Scenario(groups=pools(1, 1), workload=workload))
    assert result.prediction([SLO]).attainment_ratio is None
    assert result.itl_quantile_s(0.95) is None
    assert result.utilization_ratio == (0.0, 0.0)


def test_the_interval_holds_the_attainment() -> None:
    workload = poisson_workload(requests=2_000, rate_rps=12.0, isl=1000, osl=60, seed=1)
    said = simulate(Scenario(groups=pools(1, 1), workload=workload)).prediction([SLO])
    assert said.source == "twin"
    assert said.attainment_low_ratio < said.attainment_ratio < said.attainment_high_ratio

"""Futures: reproducible, honest about their uncertainty, and no more of them than needed."""

import math
from dataclasses import replace

import numpy as np
import pytest

from planner.domain.fleet import Role
from planner.domain.forecast import Demand, ForecastWindow, Quantiles
from planner.domain.slo import Slo
from planner.simulate import Outcome, ReplicaGroup, Scenario
from planner.simulate.digest import ClassCount, digest, together
from planner.simulate.futures import (
    FutureSource,
    Kept,
    Stopping,
    attainment_interval,
    judge,
    one_by_one,
    play,
    sample_futures,
)
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import START_AT, point_shape, poisson_workload

SLO = Slo(model="tiny", ttft_s=0.2, tpot_s=0.05, attainment_ratio=0.9)


def demand(rps, *, name="default"):
    rate = Quantiles(levels=(0.1, 0.9), values=(0.8 * rps, 1.2 * rps))
    return Demand(
        request_class=name,
        request_rate_rps=rate,
        input_tokens_per_s=rate,
        output_tokens_per_s=rate,
        shape=point_shape(isl=600, osl=20),
    )


def source(*, rps=8.0, replicas=1, seed=0, duration_s=60.0, **scenario):
    group = ReplicaGroup(profile=linear_profile(), role=Role.AGGREGATED, replicas=replicas)
    window = ForecastWindow(start_at=START_AT, window_s=duration_s, demands=(demand(rps),))
    return FutureSource(
        scenario=Scenario(
            groups=(group,), workload=poisson_workload(requests=0, rate_rps=1.0), **scenario
        ),
        window=window,
        duration_s=duration_s,
        slos=(SLO,),
        seed=seed,
    )


def figures(futures):
    total = futures.total
    return futures.count, futures.attainment, total.met, total.requests, total.usd, total.end_s


def test_a_future_is_the_same_whenever_and_in_whatever_order_it_is_played():
    def backwards(function, items):
        done = {i: function(i) for i in reversed(list(items))}
        return iter([done[i] for i in sorted(done)])

    forwards = sample_futures(source(), Stopping(most_futures=5))
    assert figures(forwards) == figures(
        sample_futures(source(), Stopping(most_futures=5), each=backwards)
    )
    assert figures(forwards) != figures(sample_futures(source(seed=1), Stopping(most_futures=5)))


def test_figures_add_up_over_futures():
    runs = [play(source(), Kept.ALL, i) for i in range(3)]
    total = together([run.digest for run in runs])
    assert total.requests == sum(run.result.requests for run in runs)
    assert total.count(Outcome.FINISHED) == sum(run.result.finished_requests for run in runs)
    assert total.end_s == pytest.approx(sum(run.result.end_s for run in runs))
    exact = np.concatenate([run.result.ttft_s for run in runs])
    assert total.summary().ttft_p95_s == pytest.approx(np.quantile(exact, 0.95), rel=0.02)


def test_only_what_was_asked_for_is_kept():
    assert len(sample_futures(source(), Stopping(most_futures=3)).results) == 1
    assert len(sample_futures(source(), Stopping(most_futures=3), kept=Kept.ALL).results) == 3


def test_requests_that_never_arrived_in_a_run_that_was_stopped_count_as_missed():
    patient = replace(SLO, ttft_s=4.0, tpot_s=1.0)
    drowned = source(rps=20.0, duration_s=400.0, unstable_wait_s=5.0)
    run = play(replace(drowned, slos=(patient,)), Kept.FIRST, 0)
    assert run.result.stopped is not None
    never = run.digest.count(Outcome.NOT_ARRIVED)
    assert never > 0
    assert run.digest.requests == run.result.requests + never
    met = int(run.result.met([patient]).sum())
    assert run.digest.summary().attainment_ratio == met / run.digest.requests > 0
    assert run.digest.stopped == (run.result.stopped,)


def test_one_future_has_no_interval():
    futures = sample_futures(source(), Stopping(most_futures=1))
    assert futures.attainment.low_ratio is None
    assert futures.holds is None


def test_futures_that_all_agree_leave_an_interval_that_shrinks_with_their_requests():
    few = attainment_interval(np.full(8, 100), np.full(8, 100), miss_ratio=0.05)
    many = attainment_interval(np.full(8, 9000), np.full(8, 9000), miss_ratio=0.05)
    assert few.low_ratio < many.low_ratio < 1.0 == few.high_ratio


def test_futures_that_differ_widen_the_interval_beyond_that_of_independent_requests():
    met, requests = np.array([500, 1000] * 8), np.full(16, 1000)
    wide = attainment_interval(met, requests, miss_ratio=0.05)
    ratio, t = 0.75, 2.1314  # Student's 97.5 % quantile with 15 degrees of freedom, from a table
    half = t * np.std(met / requests, ddof=1) / math.sqrt(16)
    assert wide.ratio == ratio
    assert wide.half_width_ratio == pytest.approx(half, rel=0.1)


def test_the_sequential_run_stops_when_the_verdict_is_clear():
    idle = sample_futures(source(rps=2.0), Stopping(most_futures=64, until_clear=True))
    assert (idle.holds, idle.ended_by, idle.count) == (True, "clear", 8)
    drowned = sample_futures(source(rps=25.0), Stopping(most_futures=64, until_clear=True))
    assert (drowned.holds, drowned.ended_by) == (False, "clear")


def test_the_sequential_run_stops_at_its_precision_or_its_end():
    coarse = Stopping(most_futures=128, precision_ratio=0.2)
    seen = sample_futures(source(rps=11.0), coarse)
    assert seen.ended_by == "precision"
    assert seen.attainment.half_width_ratio <= 0.2
    assert seen.count in coarse.looks()
    fine = sample_futures(source(rps=11.0), Stopping(most_futures=20, precision_ratio=1e-6))
    assert (fine.count, fine.looks, fine.ended_by) == (20, 3, "count")


def test_looks_share_the_permitted_error():
    stopping = Stopping(most_futures=128, until_clear=True)
    assert stopping.looks() == (8, 16, 32, 64, 128)
    assert stopping.miss_ratio == pytest.approx(0.01)
    assert Stopping(most_futures=20).looks() == (20,)
    assert Stopping(most_futures=3, until_clear=True).looks() == (3,)


@pytest.mark.parametrize(("mean", "spread"), [(0.9, 0.05), (0.97, 0.03), (0.7, 0.2)])
def test_the_interval_of_a_run_that_stops_early_still_covers_the_truth(mean, spread):
    """Futures with a beta-distributed attainment; stopped at precision or a clear verdict."""
    rng = np.random.default_rng(7)
    size = mean * (1 - mean) / spread**2 - 1
    stopping = Stopping(most_futures=128, precision_ratio=0.03, until_clear=True)
    slo = replace(SLO, attainment_ratio=0.95)
    covered, trials = 0, 600
    for _ in range(trials):
        requests = rng.poisson(800, 128) + 1
        met = rng.binomial(requests, rng.beta(mean * size, (1 - mean) * size, 128))
        for until in stopping.looks():
            counts = [
                (ClassCount(request_class="default", requests=int(n), met=int(m)),)
                for n, m in zip(requests[:until], met[:until], strict=True)
            ]
            seen, (verdict,) = judge(counts, [slo], miss_ratio=stopping.miss_ratio)
            if seen.half_width_ratio <= 0.03 or verdict.holds is not None:
                break
        covered += seen.low_ratio <= mean <= seen.high_ratio
    assert covered / trials >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / trials)


def test_every_class_is_held_to_its_own_promise():
    strict = replace(SLO, request_class="gold", attainment_ratio=0.999)
    counts = [
        (
            ClassCount(request_class="bulk", requests=1000, met=930 + i),
            ClassCount(request_class="gold", requests=500, met=480 + i),
        )
        for i in range(8)
    ]
    _, (bulk, gold) = judge(counts, [SLO, strict], miss_ratio=0.05)
    assert (bulk.target_ratio, bulk.holds) == (0.9, True)
    assert (gold.target_ratio, gold.holds) == (0.999, False)


def test_progress_counts_futures():
    told = []
    sample_futures(source(), Stopping(most_futures=3), progress=lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    "wrong",
    [{"most_futures": 0}, {"most_futures": 10**9}, {"most_futures": 9, "precision_ratio": 0.0}],
)
def test_impossible_stopping_rules_are_refused(wrong):
    with pytest.raises(ValueError, match="between"):
        Stopping(**wrong)


def test_impatient_clients_leave_in_every_future():
    patient = source(rps=25.0)
    hasty = replace(patient, scenario=replace(patient.scenario, patience_s=1.0))
    total = sample_futures(hasty, Stopping(most_futures=2)).total
    assert total.count(Outcome.ABORTED) > 0


def test_a_digest_of_nothing_is_empty():
    nothing = replace(source(), level=0.0, window=replace(source().window, demands=()))
    run = play(nothing, Kept.FIRST, 0)
    assert run.digest.requests == 0
    assert digest(run.result, [SLO]).summary().attainment_ratio is None
    assert list(one_by_one(lambda i: run, range(2))) == [run, run]

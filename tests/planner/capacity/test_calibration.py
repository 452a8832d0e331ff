"""Observed beside predicted: the factor is found through queues, drift counts, noise does not."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from planner.capacity.calibration import (
    LEAST_TICKS,
    Calibration,
    Observed,
    Watch,
    calibrated,
    first_calibration,
    implied,
    limit_of,
    means_with,
)
from planner.capacity.means import predict_means
from planner.capacity.split import PoolLoad
from planner.domain.calibration import CalibrationSettings, Leg
from planner.domain.fleet import Role
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import point_shape

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
PROFILE = linear_profile()
PAIR = (
    PoolLoad(profile=PROFILE, role=Role.PREFILL, replicas=2),
    PoolLoad(profile=PROFILE, role=Role.DECODE, replicas=2),
)
ALONE = (PoolLoad(profile=PROFILE, role=Role.AGGREGATED, replicas=2),)
SHAPE = point_shape(isl=500, osl=50)
SETTINGS = CalibrationSettings()


def seen(pools, rate_rps: float, **slower: float) -> Observed:
    """What would be observed of replicas that are so much slower, if the closed form were right."""
    observed = Observed(seconds=300.0, request_rate_rps=rate_rps, shape=SHAPE)
    factors = {Leg(name): factor for name, factor in slower.items()}
    means = means_with(pools, observed, factors)
    return replace(observed, ttft_mean_s=means.ttft_s, itl_mean_s=means.itl_s)


@pytest.mark.parametrize("pools", [PAIR, ALONE], ids=["disaggregated", "aggregated"])
@pytest.mark.parametrize("rate_rps", [2.0, 12.0, 22.0])
def test_the_factor_behind_a_queue_is_found(pools, rate_rps) -> None:
    found = implied(pools, seen(pools, rate_rps, prefill=1.3, decode=1.2), {Leg.PREFILL: 1.3})
    assert found.decode == pytest.approx(1.2, rel=0.03)
    assert found.prefill == pytest.approx(1.3, rel=0.03)


def test_a_ratio_of_times_would_have_said_much_more() -> None:
    plain, slow = seen(PAIR, 30.0), seen(PAIR, 30.0, prefill=1.2)
    assert slow.ttft_mean_s / plain.ttft_mean_s > 1.4
    assert implied(PAIR, slow, {}).prefill == pytest.approx(1.2, rel=0.03)


def test_means_agree_with_little_and_with_a_table_read_by_hand() -> None:
    light = predict_means(PAIR, SHAPE, request_rate_rps=0.01)
    # prompt 5 ms + 500 x 0.1 ms, transfer 2 ms + 500 x 4096 B at 1 GB/s, a step of 10.2 ms
    assert light.ttft_s == pytest.approx(0.055 + 0.002 + 0.002048 + 0.0102, rel=0.02)
    assert light.itl_s == pytest.approx(0.0102, rel=0.02)
    assert light.output_tokens_per_s == pytest.approx(0.5, rel=1e-6)


def test_beyond_saturation_no_more_tokens_come() -> None:
    rates = [predict_means(PAIR, SHAPE, request_rate_rps=r).output_tokens_per_s for r in (60, 600)]
    assert rates[1] == pytest.approx(rates[0], rel=0.05)
    assert rates[1] < 600 * 50


def after_ticks(factors, settings: CalibrationSettings = SETTINGS) -> Calibration:
    now = first_calibration("p-1", Leg.DECODE, at=NOON)
    for factor in factors:
        now = calibrated(now, factor, settings, at=NOON)
    return now


def noisy(mean: float, ticks: int, *, spread: float = 0.05, seed: int = 0):
    rng = np.random.default_rng(seed)
    return mean * np.exp(rng.normal(0.0, spread, ticks))


def test_a_lasting_drift_of_a_fifth_is_followed_within_a_dozen_ticks() -> None:
    now = after_ticks(noisy(1.2, 12))
    assert now.correction.factor == pytest.approx(1.2, rel=0.05)
    assert now.correction.ticks >= LEAST_TICKS
    assert now.profile_again
    assert "1.2" in now.correction.sentence
    assert "profile again" in now.correction.sentence


def test_one_slow_moment_is_no_drift() -> None:
    assert after_ticks([1.0] * 20 + [2.5] * (LEAST_TICKS - 1)).correction.factor == 1.0


def test_noise_around_the_profile_changes_nothing_for_weeks() -> None:
    now = after_ticks(noisy(1.0, 4_000))
    assert now.correction.factor == 1.0
    assert not now.profile_again


def test_a_profile_that_is_right_to_less_than_the_tolerance_is_left_alone() -> None:
    assert after_ticks(noisy(1.04, 2_000)).correction.factor == 1.0


def test_the_correction_stops_at_its_bound_and_says_so() -> None:
    now = after_ticks(noisy(2.0, 40), CalibrationSettings(max_slower_ratio=0.3))
    assert now.correction.factor == pytest.approx(1.3)
    assert now.correction.at_bound
    assert "the most that calibration allows" in now.correction.sentence


def test_faster_replicas_are_not_believed_unless_the_settings_allow_it() -> None:
    assert after_ticks(noisy(0.8, 40)).correction.factor == 1.0
    allowed = after_ticks(noisy(0.8, 40), CalibrationSettings(max_faster_ratio=0.3))
    assert allowed.correction.factor == pytest.approx(0.8, rel=0.05)


def test_what_was_corrected_is_taken_back_when_replicas_are_as_fast_as_before() -> None:
    now = after_ticks([*noisy(1.25, 30), *noisy(1.0, 30, seed=1)])
    assert now.correction.factor == 1.0
    assert not now.profile_again


def test_switched_off_drift_is_told_and_nothing_is_corrected() -> None:
    now = after_ticks(noisy(1.3, 40), CalibrationSettings(enabled=False))
    assert now.correction.factor == 1.0
    assert now.profile_again


@pytest.mark.parametrize("noise", [0.03, 0.1])
def test_false_alarms_are_as_seldom_as_stated(noise) -> None:
    """Mean time between alarms of a known noise, over 400 runs: at least 0.7 of what is stated."""
    wanted, allowance = 500.0, math.log1p(0.1) / 2
    limit = limit_of(noise, allowance, wanted)
    rng = np.random.default_rng(7)
    lengths = []
    for _ in range(400):
        watch, ticks = Watch(), 0
        for value in rng.normal(0.0, noise, 6_000):
            watch = watch.add(float(value), allowance)
            ticks += 1
            if max(watch.high, watch.low) > limit:
                break
        lengths.append(ticks)
    assert np.mean(lengths) > 0.7 * wanted


@pytest.mark.parametrize(
    "wrong", [{"max_slower_ratio": -0.1}, {"tolerance_ratio": 0}, {"false_alarm_ticks": 3}]
)
def test_impossible_settings_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CalibrationSettings(**wrong)


def test_what_was_not_observed_corrects_nothing() -> None:
    both = seen(PAIR, 12.0, prefill=1.3, decode=1.2)
    gaps_only = implied(PAIR, replace(both, ttft_mean_s=None), {})
    first_only = implied(PAIR, replace(both, itl_mean_s=None), {Leg.DECODE: 1.2})
    assert gaps_only.of(Leg.PREFILL) is None
    assert gaps_only.of(Leg.DECODE) == pytest.approx(1.2, rel=0.03)
    assert first_only.of(Leg.DECODE) is None
    assert first_only.of(Leg.PREFILL) == pytest.approx(1.3, rel=0.03)


def test_drift_is_the_mean_of_what_has_piled_up() -> None:
    above = Watch(high=1.0, high_ticks=4, high_total=4 * math.log(1.2))
    below = Watch(low=1.0, low_ticks=5, low_total=5 * math.log(0.8))
    known = first_calibration("p", Leg.DECODE, at=NOON)
    assert replace(known, watch=Watch()).drift == 1.0
    assert replace(known, watch=above).drift == pytest.approx(1.2)
    assert replace(known, watch=below).drift == pytest.approx(0.8)

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from forecaster.drift import drift_of
from forecaster.length_distance import energy_distance
from forecaster.recent_lengths import (
    FEWEST_COMPARED,
    WINDOWS,
    RecentLengths,
    expected_lengths,
    recent_lengths,
)
from planner.domain.workload import ObservedWindow
from tests.forecaster.histories import history, minute


def in_turn(isls: list[int]) -> list[ObservedWindow]:
    return [replace(history([30], isl=isl)[0], start_at=minute(i)) for i, isl in enumerate(isls)]


def found(windows: list[ObservedWindow], at=None, before=None) -> RecentLengths:
    recent = recent_lengths(windows, at=at or windows[-1].end_at, before=before)
    assert recent is not None
    return recent


def expected_isl(isls: list[int]) -> float:
    return expected_lengths(found(in_turn(isls)))[0].isl_mean


def test_lengths_that_jump_and_stay_are_followed_at_once():
    steps = [200] * 6 + [900] * 6 + [300] * 6 + [1200] * 6 + [400] * 2
    assert expected_isl(steps) == pytest.approx(400, rel=0.1)


def test_lengths_that_go_to_and_fro_are_averaged_over_a_long_time():
    rng = np.random.default_rng(0)
    isls = rng.choice([200, 1800], 36).tolist()
    assert expected_isl([*isls, 1800, 1800]) < 1400


def test_windows_that_end_later_are_not_used():
    windows = in_turn([100] * 10 + [900])
    assert expected_lengths(found(windows, minute(10)))[0].isl_mean == pytest.approx(100)


def test_a_class_without_requests_has_no_lengths():
    assert recent_lengths(history([0, 0]), at=minute(2)) is None


@pytest.mark.parametrize("count", [1, FEWEST_COMPARED, 3 * FEWEST_COMPARED])
def test_lengths_that_never_change_are_expected_as_they_were(count):
    windows = in_turn([500] * count)
    shape = expected_lengths(found(windows, minute(count) + timedelta(hours=1)))[0]
    one = expected_lengths(found(windows[:1]))[0]
    assert energy_distance(shape, one) < 0.05
    assert shape.isl_mean == pytest.approx(500)


@pytest.mark.parametrize("steps", [0, 1, 5, WINDOWS + 3])
def test_only_new_windows_are_compared_and_nothing_else_changes(steps):
    isls = np.random.default_rng(0).integers(100, 2000, WINDOWS + 20 + steps).tolist()
    windows = in_turn(isls)
    before = found(windows[: WINDOWS + 20])
    again = found(windows, before=before)
    alone = found(windows)
    np.testing.assert_allclose(again.apart, alone.apart, rtol=1e-12)
    assert again.windows == alone.windows


def test_a_window_that_was_altered_is_compared_again():
    windows = in_turn([100] * 12)
    altered = [*windows[:5], replace(windows[5], input_tokens=30 * 900), *windows[6:]]
    again = found(altered, before=found(windows))
    np.testing.assert_allclose(again.apart, found(altered).apart, rtol=1e-12)


def uncounted(windows: list[ObservedWindow]) -> list[ObservedWindow]:
    return [replace(w, output_tokens=0) for w in windows]


@pytest.mark.parametrize("since", [4, 20, WINDOWS + 10])
def test_windows_without_counted_answers_still_tell_their_prompts(since):
    windows = in_turn([800] * 20 + [3200] * since)
    windows = windows[:20] + uncounted(windows[20:])
    shape = expected_lengths(found(windows))[0]
    assert shape.isl_mean == pytest.approx(3200, rel=0.15)
    assert shape.osl_mean == pytest.approx(20.0)


def test_windows_before_the_first_counted_answers_have_those_that_follow():
    windows = in_turn([800] * 12)
    recent = found(uncounted(windows[:8]) + windows[8:])
    assert len(recent.windows) == 12
    np.testing.assert_allclose([s.osl_mean for s in recent.shapes], 20.0)


def test_longer_prompts_are_a_drift_where_answers_are_not_counted():
    windows = in_turn([800] * 26 + [3200] * 10)
    drift = drift_of("chat", found(windows[:20] + uncounted(windows[20:])))
    assert drift is not None
    assert drift.since == minute(26)
    assert "prompts 4 times, answers 1 times" in drift.what
    steady = in_turn([800] * 36)
    assert drift_of("chat", found(steady[:20] + uncounted(steady[20:]))) is None


@pytest.mark.parametrize("altered", [15, 19])
def test_answers_taken_from_a_window_that_was_altered_are_taken_again(altered):
    windows = in_turn([800] * (20 + WINDOWS))
    windows = windows[:20] + uncounted(windows[20:])
    changed = list(windows)
    changed[altered] = replace(changed[altered], output_tokens=30 * 500)
    again = found(changed, before=found(windows))
    assert expected_lengths(again)[0].osl_mean == pytest.approx(100.0)
    np.testing.assert_allclose(again.apart, found(changed).apart, rtol=1e-12)

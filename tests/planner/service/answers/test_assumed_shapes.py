"""Totals get lengths that could have come from the engines that were measured."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from planner.domain.workload import ObservedWindow
from planner.service.answers.assumed_shapes import with_assumed_shapes
from tests.fakes.profiles import linear_profile
from tests.planner.optimize import scenarios

WINDOW = ObservedWindow(
    start_at=datetime(2026, 1, 1, tzinfo=UTC),
    window_s=60,
    requests=100,
    input_tokens=40_000,
    output_tokens=1_500,
    cached_tokens=4_000,
)


def assumed(window: ObservedWindow, *, max_prompt_tokens: int) -> ObservedWindow:
    profile = linear_profile(max_prompt_tokens=max_prompt_tokens)
    spec = scenarios.spec(profiles=(profile,))
    (filled,) = with_assumed_shapes(spec, [window], model=scenarios.MODEL)
    return filled


@pytest.mark.parametrize("longest", [600, 1_000, 4_000])
def test_no_assumed_prompt_is_longer_than_what_was_measured(longest: int) -> None:
    shape = assumed(WINDOW, max_prompt_tokens=longest).shape
    assert shape is not None
    assert shape.uncached_tokens.max() <= longest
    assert shape.isl_mean == pytest.approx(400)
    assert shape.osl_mean == pytest.approx(15)


def test_spread_is_narrowed_only_as_far_as_needed() -> None:
    wide = assumed(WINDOW, max_prompt_tokens=16_000).shape
    narrow = assumed(WINDOW, max_prompt_tokens=600).shape
    assert wide is not None
    assert narrow is not None
    assert np.ptp(wide.input_tokens) > np.ptp(narrow.input_tokens)


def test_mean_that_was_never_measured_is_left_for_planning_to_refuse() -> None:
    shape = assumed(WINDOW, max_prompt_tokens=100).shape
    assert shape is not None
    assert shape.isl_mean == pytest.approx(400)


def test_observed_shapes_and_empty_windows_stay_as_they_are() -> None:
    seen = assumed(WINDOW, max_prompt_tokens=4_000)
    assert assumed(seen, max_prompt_tokens=10).shape is seen.shape
    empty = replace(WINDOW, requests=0, input_tokens=0, output_tokens=0, cached_tokens=0)
    assert assumed(empty, max_prompt_tokens=10).shape is None

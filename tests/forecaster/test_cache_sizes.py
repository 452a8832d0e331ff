"""Reuse is forecast for the caches that there will be, not for those that there were."""

from dataclasses import replace

import numpy as np
import pytest

from forecaster.cache_sizes import at_cache_size
from forecaster.forecast import forecast
from forecaster.memory import Memory
from planner.domain.errors import HistoryError
from planner.domain.prefix_cache import CacheReuse, PrefixCache
from planner.domain.workload import ObservedWindow, Shape
from tests.forecaster.histories import minute, window

REUSE = tuple(
    CacheReuse(cache_tokens=size, reuse_ratio=ratio)
    for size, ratio in ((10_000, 0.1), (20_000, 0.3), (40_000, 0.6))
)


def met(size: int | None, *, found: float, at: float) -> ObservedWindow:
    """A window of 100 prompts of 100 tokens that met caches of this size."""
    caches = None if size is None else PrefixCache(cache_tokens=size, reuse=REUSE)
    return replace(window(at, 100), cached_tokens=round(10_000 * found), prefix_cache=caches)


def expected(history, *, cache_tokens=None, memory=None) -> tuple[float, float]:
    """Median share of cached tokens in the next window, and uncached tokens of a request."""
    made = forecast(
        history,
        model="m",
        made_at=minute(len(history)),
        window_s=60.0,
        horizon_windows=1,
        cache_tokens=cache_tokens,
        memory=memory,
    )
    (demand,) = made.windows[0].demands
    uncached = float(demand.shape.uncached_tokens @ demand.shape.weight)
    return demand.reuse_ratio.median, uncached


STEADY = [met(20_000, found=0.24, at=i) for i in range(30)]


def test_twice_the_cache_is_forecast_to_find_what_was_measured_for_it() -> None:
    ratio, uncached = expected(STEADY)
    assert (ratio, uncached) == (pytest.approx(0.24), pytest.approx(76))
    ratio, uncached = expected(STEADY, cache_tokens=40_000)
    assert (ratio, uncached) == (pytest.approx(0.48), pytest.approx(52))
    ratio, uncached = expected(STEADY, cache_tokens=10_000)
    assert (ratio, uncached) == (pytest.approx(0.08), pytest.approx(92))


def test_one_window_with_more_replicas_lifts_all_that_came_before_it() -> None:
    grown = [*STEADY, met(40_000, found=0.48, at=30)]
    ratio, uncached = expected(grown)
    assert (ratio, uncached) == (pytest.approx(0.48, abs=0.01), pytest.approx(52, abs=1))
    memory = Memory()
    expected(STEADY, memory=memory)
    assert expected(grown, memory=memory) == pytest.approx(expected(grown))


def test_what_was_seen_live_tells_its_size_and_leaves_the_change_by_size_to_what_measured_it() -> (
    None
):
    def live(size: int, *, found: float, at: float) -> ObservedWindow:
        one = CacheReuse(cache_tokens=size, reuse_ratio=found)
        caches = PrefixCache(cache_tokens=size, reuse=(one,))
        return replace(met(None, found=found, at=at), prefix_cache=caches)

    grown = [*STEADY, live(40_000, found=0.48, at=30)]
    ratio, uncached = expected(grown)
    assert (ratio, uncached) == (pytest.approx(0.48, abs=0.01), pytest.approx(52, abs=1))
    alone = [live(20_000, found=0.24, at=0), live(40_000, found=0.48, at=1)]
    assert at_cache_size({"default": alone}) == {"default": alone}
    with pytest.raises(HistoryError, match="several sizes"):
        at_cache_size({"default": alone}, 40_000)


def test_a_window_that_tells_no_cache_had_that_of_the_next_one_that_does() -> None:
    history = [
        met(None, found=0.24, at=0),
        met(20_000, found=0.24, at=1),
        met(None, found=0.48, at=2),
        met(40_000, found=0.48, at=3),
        met(None, found=0.48, at=4),
    ]
    found = at_cache_size({"default": history})["default"]
    assert [w.cached_tokens for w in found] == [4_800] * 5


def test_joint_lengths_go_with_the_totals() -> None:
    shape = Shape(
        input_tokens=np.array([100.0]),
        output_tokens=np.array([20.0]),
        cached_tokens=np.array([24.0]),
        weight=np.array([1.0]),
    )
    (found,) = at_cache_size({"default": [replace(STEADY[0], shape=shape)]}, 40_000)["default"]
    assert found.shape is not None
    assert found.shape.cached_tokens[0] == pytest.approx(48.0)


def test_without_any_measurement_windows_stay_and_a_size_is_refused() -> None:
    plain = {"default": [window(0, 100)]}
    assert at_cache_size(plain) == plain
    with pytest.raises(HistoryError, match="poolwise kv --json"):
        at_cache_size(plain, 40_000)

"""Where lengths last changed: found at once, not found in noise, looked for on both sides."""

from dataclasses import replace

import numpy as np
import pytest

from forecaster.length_change import FALSE_ALARM_RATIO, last_change
from forecaster.shapes import shape_of_lengths
from planner.domain.workload import Shape


def shapes_of(
    rng: np.random.Generator,
    means: list[tuple[float, float]],
    *,
    requests: int = 200,
    wobble: float = 0.0,
) -> tuple[tuple[Shape, ...], np.ndarray]:
    """Lognormal prompts and answers of these means, one window each; means wobble by a share."""
    none = np.zeros(requests, dtype=np.int64)

    def drawn(mean: float) -> np.ndarray:
        mean *= rng.lognormal(0.0, wobble)
        return np.maximum(np.rint(mean * rng.lognormal(-0.5, 1.0, requests)), 1).astype(np.int64)

    shapes = tuple(shape_of_lengths(drawn(isl), drawn(osl), none) for isl, osl in means)
    return shapes, np.full(len(means), float(requests))


@pytest.mark.parametrize("ago", [1, 2, 5])
@pytest.mark.parametrize("now", [(700.0, 120.0), (2000.0, 600.0)])
def test_a_change_is_found_in_the_first_window_after_it(ago, now):
    means = [(2000.0, 120.0)] * 30 + [now] * ago
    assert last_change(*shapes_of(np.random.default_rng(1), means)) == 30


def test_windows_in_the_middle_of_a_change_are_left_behind():
    means = [(5000.0, 120.0)] * 30 + [(3000.0, 500.0)] + [(700.0, 1500.0)] * 2
    assert last_change(*shapes_of(np.random.default_rng(2), means)) == 31


@pytest.mark.parametrize("wobble", [0.0, 0.3])
def test_what_windows_differ_by_anyway_is_no_change(wobble):
    rng = np.random.default_rng(3)
    alarms = [
        last_change(*shapes_of(rng, [(2000.0, 200.0)] * 36, requests=60, wobble=wobble)) > 0
        for _ in range(20)
    ]
    assert sum(alarms) <= 1 + 20 * FALSE_ALARM_RATIO


def test_a_change_within_the_wobble_of_the_past_is_none():
    rng = np.random.default_rng(4)
    means = [(2000.0, 200.0)] * 30 + [(3600.0, 200.0)]
    assert last_change(*shapes_of(rng, means, wobble=0.4)) == 0
    assert last_change(*shapes_of(rng, means, requests=400)) == 30


@pytest.mark.parametrize("count", [1, 3, 6])
def test_too_few_windows_tell_nothing(count):
    means = [(2000.0, 200.0)] * (count - 1) + [(9000.0, 900.0)]
    assert last_change(*shapes_of(np.random.default_rng(5), means)) == 0


def test_one_odd_request_is_no_change():
    shapes, requests = shapes_of(np.random.default_rng(6), [(2000.0, 200.0)] * 30)
    odd = shape_of_lengths(np.array([9000]), np.array([900]), np.array([0]))
    assert last_change((*shapes, odd), np.append(requests, 1.0)) == 0


def test_equal_lengths_that_change_are_seen():
    one = shape_of_lengths(np.array([500]), np.array([50]), np.array([0]))
    other = replace(one, input_tokens=np.array([900.0]))
    assert last_change((one,) * 12 + (other,), np.full(13, 40.0)) == 12

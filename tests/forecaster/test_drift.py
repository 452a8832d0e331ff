import numpy as np
import pytest

from forecaster.drift import drift_of
from forecaster.length_distance import energy_distance
from forecaster.recent_lengths import RecentLengths, recent_lengths
from forecaster.shapes import shape_of_lengths
from planner.domain.workload import ObservedWindow, Shape
from tests.forecaster.histories import minute


def shape(isl: float, *, requests: int = 40, seed: int = 0) -> Shape:
    rng = np.random.default_rng(seed)
    inputs = np.maximum(rng.lognormal(np.log(isl), 0.8, requests), 1).astype(np.int64)
    outputs = np.maximum(rng.lognormal(np.log(100), 0.6, requests), 1).astype(np.int64)
    return shape_of_lengths(inputs, outputs, np.zeros_like(inputs))


def recent(*isl: float) -> RecentLengths:
    shapes = [shape(mean, seed=i) for i, mean in enumerate(isl)]
    windows = [
        ObservedWindow(
            start_at=minute(i),
            window_s=60.0,
            requests=40,
            input_tokens=round(40 * s.isl_mean),
            output_tokens=round(40 * s.osl_mean),
            cached_tokens=0,
            shape=s,
        )
        for i, s in enumerate(shapes)
    ]
    found = recent_lengths(windows, at=windows[-1].end_at)
    assert found is not None
    return found


def test_longer_prompts_are_a_drift_that_says_what_changed():
    found = drift_of("chat", recent(*[1000.0] * 30, *[3000.0] * 6))
    assert found is not None
    assert found.request_class == "chat"
    assert found.since == minute(30)
    assert found.distance > 2 * found.usual
    ratio = float(found.what.split()[1])
    assert ratio == pytest.approx(3.0, rel=0.3)


def test_lengths_that_differ_as_always_are_no_drift():
    flagged = [
        drift_of("chat", recent(*rng.uniform(700, 1400, 36))) is not None
        for rng in map(np.random.default_rng, range(40))
    ]
    assert sum(flagged) <= 2


def test_little_history_says_nothing():
    assert drift_of("chat", recent(*[1000.0] * 8, *[9000.0] * 6)) is None


def test_the_energy_distance_is_that_of_its_definition():
    one, other = shape(500.0), shape(900.0, seed=1)
    points = [np.log2(np.stack([s.input_tokens, s.output_tokens], axis=1)) for s in (one, other)]

    def mean_apart(a: int, b: int) -> float:
        weights = (one.weight, other.weight)
        apart = np.linalg.norm(points[a][:, None] - points[b][None], axis=2)
        return float(weights[a] @ apart @ weights[b])

    expected = 2 * mean_apart(0, 1) - mean_apart(0, 0) - mean_apart(1, 1)
    assert energy_distance(one, other) == pytest.approx(expected, rel=1e-6)
    assert energy_distance(one, one) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("ago", [6, 12, 20])
def test_a_change_some_time_ago_is_still_told_with_its_instant(ago):
    found = drift_of("chat", recent(*[1000.0] * (36 - ago), *[4000.0] * ago))
    assert found is not None
    assert abs((found.since - minute(36 - ago)).total_seconds()) <= 120


@pytest.mark.parametrize(("ago", "young"), [(2, True), (6, True), (12, False)])
def test_a_young_change_is_said_to_lie_within_the_last_windows(ago, young):
    found = drift_of("chat", recent(*[1000.0] * (36 - ago), *[16000.0] * ago))
    assert found is not None
    assert ("within the last 6 windows" in found.what) is young

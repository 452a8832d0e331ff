"""A future along a path has the path's rates, window by window and class by class."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from planner.domain.forecast import ClassPaths, Paths
from planner.simulate.paths import MOST_STRETCHED, sample_path
from tests.fakes.workloads import START_AT
from tests.planner.simulate.test_sample import SHAPE, demand, window_of

WINDOW_S = 2_000.0
RATES = np.array(
    [
        [[10.0, 10 * SHAPE.isl_mean, 10 * SHAPE.osl_mean], [2.0, 4 * SHAPE.isl_mean, 60.0]],
        [[0.0, 0.0, 0.0], [5.0, 5 * SHAPE.isl_mean, 5 * SHAPE.osl_mean]],
    ]
)


def paths_of(*names, rates=RATES):
    windows = tuple(
        replace(
            window_of(*(demand(name=name) for name in names)),
            start_at=START_AT + timedelta(seconds=index * WINDOW_S),
            window_s=WINDOW_S,
        )
        for index in range(2)
    )
    classes = [
        ClassPaths(request_class=name, levels=np.full(rates.shape, 0.5), rates=rates)
        for name in names
    ]
    return Paths(windows=windows, classes=tuple(classes), rule="given")


def drawn(paths, path, seed=1):
    return sample_path(paths, path, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("index", [0, 1])
def test_each_window_has_the_rates_of_the_path(index):
    workload = drawn(paths_of("default"), 0)
    assert workload.duration_s == 2 * WINDOW_S
    part = workload.between(index * WINDOW_S, (index + 1) * WINDOW_S)
    requests, prompts, answers = RATES[0, index]
    assert len(part) / WINDOW_S == pytest.approx(requests, rel=0.05)
    assert part.input_tokens.sum() / WINDOW_S == pytest.approx(prompts, rel=0.1)
    assert part.output_tokens.sum() / WINDOW_S == pytest.approx(answers, rel=0.1)
    assert part.cached_tokens.sum() / part.input_tokens.sum() == pytest.approx(
        SHAPE.reuse_ratio, rel=0.1
    )


def test_a_window_of_a_path_may_be_empty():
    workload = drawn(paths_of("default"), 1)
    assert workload.arrival_offset_s.min() >= WINDOW_S


def test_every_class_follows_its_own_path():
    paths = paths_of("a", "b")
    paths = replace(paths, classes=(paths.classes[0], replace(paths.classes[1], rates=3 * RATES)))
    workload = drawn(paths, 0)
    counts = {name: int((workload.request_class == name).sum()) for name in ("a", "b")}
    assert counts["b"] / counts["a"] == pytest.approx(3.0, rel=0.05)
    assert (np.diff(workload.arrival_offset_s) >= 0).all()


def test_lengths_are_not_stretched_beyond_what_requests_have():
    wild = np.array([[[1.0, 1e6, 1e-3], [1.0, 1e6, 1e-3]]])
    workload = drawn(paths_of("default", rates=wild), 0)
    longest = MOST_STRETCHED * SHAPE.input_tokens.max()
    assert workload.input_tokens.max() <= longest + 1
    assert workload.output_tokens.min() >= 1


def test_equal_generators_give_equal_futures():
    one, other = (drawn(paths_of("default"), 0, seed=7) for _ in range(2))
    assert np.array_equal(one.arrival_offset_s, other.arrival_offset_s)
    assert np.array_equal(one.input_tokens, other.input_tokens)


@pytest.mark.parametrize("path", [-1, 2])
def test_a_path_that_was_not_drawn_is_refused(path):
    with pytest.raises(ValueError, match="paths are 0 to 1"):
        drawn(paths_of("default"), path)

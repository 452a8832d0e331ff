"""Whether a class's request lengths have changed beyond what its windows differ by anyway."""

from collections.abc import Sequence

import numpy as np

from forecaster.recent_lengths import window_shape
from planner.domain.forecast import Drift
from planner.domain.workload import Floats, Integers, ObservedWindow, Shape

RECENT_WINDOWS = 6
WINDOWS_BEFORE = 30
FEWEST_GROUPS = 8
"""Fewer earlier groups to compare with say too little about what is usual."""

USUAL_LEVEL = 0.95
SMALLEST_DISTANCE = 0.02
"""In doublings of length: a change of a few percent moves no plan."""


def drift_of(request_class: str, windows: Sequence[ObservedWindow]) -> Drift | None:
    """The change of lengths of the last six busy windows against the thirty before; None: usual.

    Energy distances between mixtures of windows, of the logarithms (base 2) of input and output
    length. Usual is what groups of six windows among the thirty differ from the rest; a drift is
    further than 95 % of them and clearly further than the furthest.

    References
    ----------
    Energy distance: Szekely and Rizzo, JSPI 143 (2013).
    """
    busy = [w for w in windows if w.requests > 0][-(RECENT_WINDOWS + WINDOWS_BEFORE) :]
    before = len(busy) - RECENT_WINDOWS
    if before - RECENT_WINDOWS + 1 < FEWEST_GROUPS:
        return None
    shapes = [window_shape(w) for w in busy]
    requests = np.array([w.requests for w in busy], dtype=np.float64)
    apart = _distances(shapes)
    recent = np.arange(before, len(busy))
    distance = _energy(apart, requests, recent, np.arange(before))
    usual = np.array([_apart_from_rest(apart, requests, k, before) for k in _groups(before)])
    most = float(np.quantile(usual, USUAL_LEVEL))
    if distance <= max(1.5 * float(usual.max()), most, SMALLEST_DISTANCE):
        return None
    return Drift(
        request_class=request_class,
        since=busy[before].start_at,
        distance=distance,
        usual=most,
        what=_what(shapes, requests, before),
    )


def _groups(before: int) -> range:
    """First windows of all runs of six among the windows before."""
    return range(before - RECENT_WINDOWS + 1)


def _apart_from_rest(apart: Floats, requests: Floats, first: int, before: int) -> float:
    group = np.arange(first, first + RECENT_WINDOWS)
    return _energy(apart, requests, group, np.setdiff1d(np.arange(before), group))


def _what(shapes: Sequence[Shape], requests: Floats, before: int) -> str:
    rows = np.array([(s.isl_mean, s.osl_mean) for s in shapes])
    totals = rows * requests[:, None]
    recent = totals[before:].sum(axis=0) / requests[before:].sum()
    isl, osl = recent / (totals[:before].sum(axis=0) / requests[:before].sum())
    return f"prompts {isl:.2g} times, answers {osl:.2g} times as long on average as before"


def energy_distance(one: Shape, other: Shape) -> float:
    """Energy distance of two joint length distributions, in doublings of length."""
    apart = _distances([one, other])
    return _energy(apart, np.ones(2), np.array([0]), np.array([1]))


def _distances(shapes: Sequence[Shape]) -> Floats:
    """(shapes, shapes) mean distance between a request of one and a request of another."""
    points = np.concatenate(
        [np.log2(np.stack([s.input_tokens, s.output_tokens], axis=1)) for s in shapes]
    )
    weights = np.concatenate([s.weight for s in shapes])
    owner = np.repeat(np.arange(len(shapes)), [len(s.weight) for s in shapes])
    square = (points**2).sum(axis=1)
    apart = np.sqrt(np.maximum(square[:, None] + square[None, :] - 2 * points @ points.T, 0.0))
    member = np.zeros((len(shapes), len(weights)))
    member[owner, np.arange(len(weights))] = weights
    between: Floats = member @ apart @ member.T
    return between


def _energy(apart: Floats, requests: Floats, one: Integers, other: Integers) -> float:
    a = np.zeros(len(requests))
    b = np.zeros(len(requests))
    a[one] = requests[one] / requests[one].sum()
    b[other] = requests[other] / requests[other].sum()
    distance = 2 * float(a @ apart @ b) - float(a @ apart @ a) - float(b @ apart @ b)
    return max(distance, 0.0)

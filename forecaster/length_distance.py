"""How far joint length distributions lie apart."""

from collections.abc import Sequence

import numpy as np

from planner.domain.workload import Floats, Integers, Shape


def energy_distance(one: Shape, other: Shape) -> float:
    """Energy distance of two joint length distributions, in doublings of length.

    2 E|X - Y| - E|X - X'| - E|Y - Y'| with |.| the distance of (log2 input, log2 output) tokens; 0
    for equal distributions only.

    References
    ----------
    Szekely and Rizzo, Journal of Statistical Planning and Inference 143 (2013).
    """
    apart = mean_distances([one, other], [one, other])
    return energy_of(apart, np.array([1.0, 0.0]), np.array([0.0, 1.0]))


def mean_distances(rows: Sequence[Shape], columns: Sequence[Shape]) -> Floats:
    """(rows, columns) mean distance between a request of one shape and a request of another."""
    points, weight, first = _columns(rows)
    others, other_weight, other_first = _columns(columns)
    apart = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * points @ others.T
    np.sqrt(np.maximum(apart, 0.0, out=apart), out=apart)
    apart *= other_weight
    apart *= weight[:, None]
    by_row = np.add.reduceat(apart, first, axis=0)
    between: Floats = np.add.reduceat(by_row, other_first, axis=1)
    return between


def _columns(shapes: Sequence[Shape]) -> tuple[Floats, Floats, Integers]:
    points = np.concatenate(
        [np.log2(np.stack([s.input_tokens, s.output_tokens], axis=1)) for s in shapes]
    )
    weight = np.concatenate([s.weight for s in shapes])
    return points, weight, np.cumsum([0, *(len(s.weight) for s in shapes[:-1])])


def energy_of(apart: Floats, one: Floats, other: Floats) -> float:
    """Energy distance between two mixtures of the shapes whose mean distances are `apart`.

    Parameters
    ----------
    one, other : (shapes,) float
        Shares; each sums to 1.
    """
    distance = 2 * float(one @ apart @ other) - float(one @ apart @ one)
    return max(distance - float(other @ apart @ other), 0.0)

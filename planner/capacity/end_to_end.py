"""An end-to-end objective, shared out between the first token and those after it.

A request of m gaps is in time end to end when TTFT + m x TPOT <= e2e. Where one pool or a whole
deployment is looked at, that is judged jointly (`met_jointly`). Prefill and decode pools are sized
apart, so there the time is split: with at most f seconds for the first token, at a pace of p
seconds a token, a request may spend min(f, e2e - m p) on its first token and what is then left on
the others. What keeps both parts keeps the whole, however it is split; which split costs least is
for the planner to find.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.domain.slo import Slo
from planner.domain.workload import Shape

Floats = NDArray[np.float64]


class Split(NamedTuple):
    """How prefill and decode share an end-to-end objective.

    Parameters
    ----------
    pace_ratio : float
        Pace p, as a share of the TPOT objective, 0..1.
    first_ratio : float
        The most for a first token f, as a share of the TTFT objective, 0..1.
    """

    pace_ratio: float = 0.0
    first_ratio: float = 1.0


WHOLE = Split()
"""The first token has all the time that TTFT and end-to-end objective leave it."""

SPLITS = (
    *(Split(pace_ratio=0.75**n) for n in range(10)),
    *(Split(first_ratio=0.75**n) for n in range(10)),
)
"""Splits worth comparing: the same pace for all, or the same time for every first token."""

_STRIPS = 24
"""TPOT is cut into so many strips, each taken at its slower end."""


def limits_of(slo: Slo, shape: Shape, *, split: Split = WHOLE) -> tuple[Floats, Floats]:
    """(buckets,) TTFT, and TPOT, within which a request keeps every objective, seconds."""
    first = np.full(len(shape.weight), slo.ttft_s)
    token = np.full(len(shape.weight), slo.tpot_s)
    if slo.e2e_s is None:
        return first, token
    gaps = np.maximum(shape.output_tokens - 1, 1e-9)
    left = slo.e2e_s - gaps * split.pace_ratio * slo.tpot_s
    first = np.minimum(split.first_ratio * first, left)
    return first, np.minimum(token, (slo.e2e_s - first) / gaps)


def met_jointly(
    slo: Slo,
    shape: Shape,
    *,
    ttft_met: Callable[[Floats], Floats],
    tpot_met: Callable[[Floats], Floats],
) -> Floats:
    """(buckets,) P(TTFT, TPOT and end-to-end time are all in time), TTFT and TPOT independent.

    A sum over strips of TPOT, which is never too high.

    Parameters
    ----------
    ttft_met, tpot_met : function of (buckets,) seconds
        P(TTFT <= limit) and P(TPOT <= limit), per bucket.
    """
    first, token = limits_of(slo, shape)
    if slo.e2e_s is None:
        return ttft_met(first) * tpot_met(token)
    gaps = np.maximum(shape.output_tokens - 1, 1e-9)
    slowest = np.minimum(slo.tpot_s, slo.e2e_s / gaps)
    met, before = np.zeros(len(shape.weight)), np.zeros(len(shape.weight))
    for pace in np.linspace(0.0, 1.0, _STRIPS + 1):
        within = tpot_met(pace * slowest)
        left = np.minimum(slo.ttft_s, slo.e2e_s - gaps * pace * slowest)
        met = met + (within - before) * ttft_met(left)
        before = within
    return np.minimum(met, 1.0)

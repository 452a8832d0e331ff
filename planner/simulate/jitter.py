"""Steps of equal work do not take equal time: the spread of gaps around the twin's mean steps.

The twin takes every step at its measured mean. Queues hardly notice that real steps vary, since a
request sees many of them, but single gaps between tokens do. So the measured ratios of a step to
its mean (`Profile.step_ratios`) are laid over the gaps afterwards, each gap spread on its own.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planner.simulate.scenario import ReplicaGroup
from planner.simulate.state import GAP_RATIO

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def spread_gaps(gap_counts: Integers, groups: Sequence[ReplicaGroup], tokens: Floats) -> Floats:
    """(bins,) gaps between tokens, with the spread that the groups' profiles measured.

    Parameters
    ----------
    gap_counts : (bins,) int
        By mean steps.
    groups : sequence of ReplicaGroup
    tokens : (groups,) float
        Tokens that each group wrote; where profiles differ, their ratios are mixed by these.
    """
    counts = gap_counts.astype(np.float64)
    written = float(tokens.sum())
    if written <= 0 or not any(group.profile.step_ratios for group in groups):
        return counts
    spread = np.zeros_like(counts)
    for group, share in zip(groups, tokens / written, strict=True):
        spread += share * _convolved(counts, np.array(group.profile.step_ratios or (1.0,)))
    return spread


def _convolved(counts: Floats, ratios: Floats) -> Floats:
    """The counts, each moved by every ratio's number of bins; those pushed out stay at the ends."""
    moves = np.rint(np.log(ratios) / np.log(GAP_RATIO)).astype(np.int64)
    reach = int(np.abs(moves).max())
    kernel = np.bincount(moves + reach, minlength=2 * reach + 1) / len(ratios)
    full = np.convolve(counts, kernel)
    inside = full[reach : reach + len(counts)].copy()
    inside[0] += full[:reach].sum()
    inside[-1] += full[reach + len(counts) :].sum()
    return inside

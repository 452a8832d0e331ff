"""Request lengths as a description gives them, and how they are drawn."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import ndtr, ndtri

from planner.domain.forecast import Quantiles
from planner.domain.workload import Floats, Integers, Workload

CELLS_PER_DOUBLING = 4
"""Fineness of a joint histogram made of a trace: 19 % from cell to cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LognormalLengths:
    """Request lengths known by two percentiles, tokens."""

    p50: float
    p99: float

    def __post_init__(self) -> None:
        if not 1 <= self.p50 <= self.p99 < math.inf:
            raise ValueError(
                f"lengths need 1 <= p50 <= p99, got p50 {self.p50:g} and p99 {self.p99:g}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramLengths:
    """Request lengths by how often each occurs.

    Parameters
    ----------
    tokens : tuple of int
        Increasing, at least 1.
    weight : tuple of float
        Relative frequencies, not all 0.
    """

    tokens: tuple[int, ...]
    weight: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.tokens or len(self.tokens) != len(self.weight):
            raise ValueError("tokens and weight must be equally many, at least one")
        if self.tokens[0] < 1 or bool(np.any(np.diff(self.tokens) <= 0)):
            raise ValueError("tokens must be at least 1 and increase")
        if min(self.weight) < 0 or not 0 < sum(self.weight) < math.inf:
            raise ValueError("weight must be at least 0 and not all 0")


Lengths = LognormalLengths | Quantiles | HistogramLengths
"""Lengths by two percentiles, by a table of quantiles (log-linear between its levels), or by a
histogram."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointHistogram:
    """Prompt and answer lengths together, as cells of both.

    Parameters
    ----------
    input_low, input_high, output_low, output_high : (cells,) int
        Shortest and longest lengths in the cell, tokens.
    weight : (cells,) float
        Share of requests, sums to 1.
    """

    input_low: Integers
    input_high: Integers
    output_low: Integers
    output_high: Integers
    weight: Floats

    @classmethod
    def of(cls, workload: Workload) -> Self:
        """The lengths of a trace's requests, in cells of a quarter of a doubling."""
        columns = (workload.input_tokens, workload.output_tokens)
        cells = [
            np.floor(np.log2(tokens) * CELLS_PER_DOUBLING).astype(np.int64) for tokens in columns
        ]
        _, group = np.unique(cells[0] * 1000 + cells[1], return_inverse=True)
        count = int(group.max()) + 1
        bounds = []
        for tokens in columns:
            low = np.full(count, np.iinfo(np.int64).max)
            high = np.zeros(count, dtype=np.int64)
            np.minimum.at(low, group, tokens)
            np.maximum.at(high, group, tokens)
            bounds += [low, high]
        return cls(
            input_low=bounds[0],
            input_high=bounds[1],
            output_low=bounds[2],
            output_high=bounds[3],
            weight=np.bincount(group, minlength=count) / len(workload),
        )

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Integers, Integers]:
        """(count,) prompt and answer tokens, even within a cell."""
        cell = rng.choice(len(self.weight), size=count, p=self.weight)
        inputs = rng.integers(self.input_low[cell], self.input_high[cell], endpoint=True)
        outputs = rng.integers(self.output_low[cell], self.output_high[cell], endpoint=True)
        return inputs, outputs


def tokens_at(lengths: Lengths, levels: Floats) -> Integers:
    """Lengths at these levels of a distribution, 0..1, whole tokens, at least 1."""
    if isinstance(lengths, HistogramLengths):
        cumulative = np.cumsum(lengths.weight)
        place = np.searchsorted(cumulative, levels * cumulative[-1], side="right")
        found: Integers = np.array(lengths.tokens)[np.minimum(place, len(cumulative) - 1)]
        return found
    if isinstance(lengths, LognormalLengths):
        log_sd = math.log(lengths.p99 / lengths.p50) / float(ndtri(0.99))
        logs = math.log(lengths.p50) + log_sd * ndtri(levels)
    else:
        logs = np.interp(levels, lengths.levels, np.log(np.maximum(lengths.values, 1.0)))
    tokens: Integers = np.maximum(np.rint(np.exp(logs)), 1.0).astype(np.int64)
    return tokens


def draw_lengths(
    isl: Lengths, osl: Lengths, correlation: float, count: int, rng: np.random.Generator
) -> tuple[Integers, Integers]:
    """(count,) prompt and answer tokens with this rank correlation (Spearman's).

    References
    ----------
    Gaussian copula: a normal correlation of 2 sin(pi r / 6) gives the rank correlation r
    (K. Pearson, 1907).
    """
    if correlation == 0:
        return tokens_at(isl, rng.random(count)), tokens_at(osl, rng.random(count))
    normal = 2.0 * math.sin(math.pi * correlation / 6.0)
    one = rng.standard_normal(count)
    other = normal * one + math.sqrt(max(1.0 - normal**2, 0.0)) * rng.standard_normal(count)
    return tokens_at(isl, ndtr(one)), tokens_at(osl, ndtr(other))

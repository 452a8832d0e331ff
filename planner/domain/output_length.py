"""How long answers will be, and how much is still to come of one that is being written."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.domain.workload import Floats, Integers, Shape

BINS_PER_DOUBLING = 8
"""Lengths are told apart to 9 %."""

_LONGEST_DOUBLINGS = 24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutputLengths:
    """The distribution of one class's answer lengths.

    Parameters
    ----------
    upper : (bins,) float, tokens
        Increasing; a bin holds the lengths above the bin before, up to and including this.
    share : (bins,) float
        Of requests; sums to 1.
    """

    upper: Floats
    share: Floats

    @classmethod
    def of(cls, lengths: Integers, weight: Floats | None = None) -> "OutputLengths":
        """The distribution of observed lengths.

        Parameters
        ----------
        lengths : (requests,) int, tokens
        weight : (requests,) float or None
            None: all count alike.

        Raises
        ------
        ValueError
            When there is none, or one is below 1.
        """
        if len(lengths) == 0:
            raise ValueError("a distribution of lengths needs at least one")
        if lengths.min() < 1:
            raise ValueError(f"answers have at least 1 token, got {lengths.min()}")
        weights = np.ones(len(lengths)) if weight is None else weight
        edges = _edges()
        kept = int(np.searchsorted(edges, lengths.max())) + 1
        counts = np.bincount(np.searchsorted(edges, lengths), weights, kept)
        return cls(upper=edges[:kept], share=counts / counts.sum())

    @classmethod
    def mixed(cls, parts: "Sequence[OutputLengths]", weights: Floats) -> "OutputLengths":
        """The lengths of answers drawn from several distributions in proportion to `weights`."""
        longest = max(parts, key=lambda part: len(part.upper))
        share = np.zeros(len(longest.upper))
        for part, weight in zip(parts, weights, strict=True):
            share[: len(part.share)] += weight * part.share
        return cls(upper=longest.upper, share=share / share.sum())

    @property
    def mean(self) -> float:
        """Mean length, tokens."""
        return self.remaining_mean()

    @classmethod
    def of_shape(cls, shape: Shape) -> "OutputLengths":
        """The distribution of a shape, whose buckets are means: between them it is spread evenly.

        Coarser than from the lengths themselves.
        """
        order = np.argsort(shape.output_tokens)
        values, weight = shape.output_tokens[order], shape.weight[order]
        middle = np.cumsum(weight) - weight / 2
        levels = (np.arange(2000) + 0.5) / 2000
        lengths = np.interp(levels, middle, np.log(values))
        return cls.of(np.maximum(np.rint(np.exp(lengths)), 1).astype(np.int64))

    def longer_than(self, tokens: float) -> float:
        """Share of answers with more tokens; inside a bin lengths are spread evenly."""
        edges = np.concatenate([[0.0], self.upper])
        below = np.concatenate([[0.0], np.cumsum(self.share)])
        return float(max(1.0 - np.interp(tokens, edges, below), 0.0))

    def quantile(self, level: float, *, so_far: int = 0) -> float:
        """The length, tokens, that a share `level` of answers past `so_far` does not exceed."""
        return so_far + self.remaining_quantile(level, so_far=so_far)

    def remaining_quantile(self, level: float, *, so_far: int = 0) -> float:
        """Tokens to come that a share `level` of requests with `so_far` tokens does not exceed.

        Beyond the longest answer seen nothing is known; there an answer is taken to go on for as
        long again as it did (half of them end within it): lengths are heavy-tailed.
        """
        left = self.longer_than(so_far)
        if left <= _NOTHING_LEFT:
            return float(so_far * -np.log2(max(1.0 - level, 1e-9)))
        edges = np.concatenate([[0.0], self.upper])
        below = np.concatenate([[0.0], np.cumsum(self.share)])
        wanted = 1.0 - left * (1.0 - level)
        return float(max(np.interp(wanted, below, edges) - so_far, 0.0))

    def remaining_mean(self, *, so_far: int = 0) -> float:
        """Mean tokens to come of requests that have written `so_far`."""
        left = self.longer_than(so_far)
        if left <= _NOTHING_LEFT:
            return float(so_far)
        edges = np.concatenate([[so_far], self.upper[self.upper > so_far]])
        survival = np.array([self.longer_than(edge) for edge in edges])
        return float(np.sum(np.diff(edges) * (survival[1:] + survival[:-1]) / 2) / left)

    def remaining_total(self, so_far: Sequence[int]) -> float:
        """Mean tokens to come of several requests in flight together."""
        return float(sum(self.remaining_mean(so_far=tokens) for tokens in so_far))


_NOTHING_LEFT = 1e-9


def _edges() -> Floats:
    powers = 2.0 ** (np.arange(_LONGEST_DOUBLINGS * BINS_PER_DOUBLING + 1) / BINS_PER_DOUBLING)
    return np.unique(np.floor(powers))

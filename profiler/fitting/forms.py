"""Forms that step times can have: physical ones, interpolation, and one corrected by the other.

A form is fitted to scattered points (x, y, seconds) by relative error, so that a prompt of 50
tokens counts as much as one of 5,000. For prompts x = new tokens and y = cached tokens; for decode
steps x = sequences and y = context tokens of each.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from scipy.optimize import nnls

Floats = NDArray[np.float64]

LENGTH_UNIT_TOKENS = 128.0
"""Lengths count as log(1 + tokens / 128): below this they differ little in what they cost."""
CORRECTION_REACH = 1.0
"""How far a correction reaches, in units of log x and log y: a factor of e."""
HINGE_EVERY = 3
"""A hinge in batch for so many batches measured: fewer would let it follow the noise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scatter:
    """Measured points.

    Parameters
    ----------
    x, y : (points,) float
    seconds : (points,) float, above 0
    noise_ratio : (points,) float
        Standard error of each over the value itself.
    """

    x: Floats
    y: Floats
    seconds: Floats
    noise_ratio: Floats

    def __len__(self) -> int:
        return len(self.x)

    def without(self, point: int) -> "Scatter":
        """All points but one."""
        return self.only(np.arange(len(self)) != point)

    def only(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> "Scatter":
        """Some of the points."""
        return Scatter(
            x=self.x[chosen],
            y=self.y[chosen],
            seconds=self.seconds[chosen],
            noise_ratio=self.noise_ratio[chosen],
        )


class Fitted(Protocol):
    """A form with its coefficients."""

    @property
    def coefficients(self) -> dict[str, float]:
        """By name; empty where the form has none."""

    def seconds(self, x: Floats, y: Floats) -> Floats:
        """(points,) predicted seconds."""


class Form(Protocol):
    """A way to describe step times."""

    @property
    def name(self) -> str:
        """As it stands in profiles."""

    @property
    def least_points(self) -> int:
        """Fewer points do not determine it."""

    def fit(self, points: Scatter) -> Fitted:
        """Fit it to at least `least_points` points."""


Terms = Callable[[Floats, Floats], dict[str, Floats]]
"""Named terms of a sum over (x, y)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sum:
    coefficients: dict[str, float]
    terms: Terms

    def seconds(self, x: Floats, y: Floats) -> Floats:
        terms = self.terms(np.asarray(x, float), np.asarray(y, float))
        total = sum(c * terms[name] for name, c in self.coefficients.items())
        return np.maximum(np.asarray(total, dtype=np.float64), 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalPrompt:
    """Seconds of a prompt: a + b n + c n (m + n / 2) + d m + e (steps - 1).

    n new and m cached tokens: weights are multiplied with every new token (b), every new token
    attends to what came before it (c), cached keys are read (d), and a prompt longer than a
    step's token budget takes several steps, each with its fixed part (e). No coefficient is
    negative. The form of DistServe (OSDI 2024, appendix A: C1 t + C2 t^2 / b + C3) with a prefix
    cache and chunked prefill.

    Parameters
    ----------
    step_tokens : int
        Prompt tokens computed in one step at the most.
    """

    step_tokens: int
    name: str = "physical"
    least_points: int = 3

    def fit(self, points: Scatter) -> Fitted:
        """Non-negative least squares of the relative error."""
        return _fit_sum(points, self._terms)

    def _terms(self, x: Floats, y: Floats) -> dict[str, Floats]:
        return {
            "fixed_s": np.ones_like(x),
            "per_new_token_s": x,
            "per_attended_pair_s": x * (y + x / 2),
            "per_cached_token_s": y,
            "per_further_step_s": np.ceil(x / self.step_tokens) - 1,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalStep:
    """Seconds of a decode step: a + b B + c B L + hinges in B.

    B sequences of L tokens: weights are read once (a), each sequence is computed (b), its keys
    and values are read (c). Hinges (B - k)+ let the price of a sequence grow where computing
    overtakes reading, min(B, k) where a fixed part is shared: DistServe's two regimes of batch
    sizes (OSDI 2024, appendix A), with the knots between measured batches. No coefficient is
    negative.
    """

    name: str = "physical"
    least_points: int = 3

    def fit(self, points: Scatter) -> Fitted:
        """Non-negative least squares of the relative error."""
        batches = np.unique(points.x)
        inner = batches[1:-1]
        count = min(len(batches) // HINGE_EVERY, len(inner))
        knots = inner[np.linspace(0, len(inner) - 1, count + 2).astype(int)[1:-1]] if count else []

        def terms(x: Floats, y: Floats) -> dict[str, Floats]:
            named = {
                "fixed_s": np.ones_like(x),
                "per_sequence_s": x,
                "per_context_token_s": x * y,
            }
            for knot in knots:
                named[f"per_sequence_up_to_{knot:g}_s"] = np.minimum(x, knot)
                named[f"per_sequence_above_{knot:g}_s"] = np.maximum(x - knot, 0.0)
            return named

        return _fit_sum(points, terms)


def _fit_sum(points: Scatter, terms: Terms) -> Fitted:
    named = terms(points.x, points.y)
    rows = np.stack(list(named.values()), axis=1) / points.seconds[:, None]
    scale = np.maximum(np.abs(rows).max(axis=0), 1e-300)
    found, _residual = nnls(rows / scale, np.ones(len(points)))
    coefficients = dict(zip(named, (found / scale).tolist(), strict=True))
    return _Sum(coefficients=coefficients, terms=terms)


def placed(x: Floats, y: Floats) -> Floats:
    """(points, 2) positions in which distances mean relative differences."""
    return np.stack([np.log(np.maximum(x, 1.0)), np.log1p(y / LENGTH_UNIT_TOKENS)], axis=1)


def tokens_at(place: Floats) -> Floats:
    """Tokens (y) whose second position of `placed` this is."""
    return np.asarray(np.expm1(place) * LENGTH_UNIT_TOKENS, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Surface:
    surface: RBFInterpolator
    coefficients: dict[str, float] = field(default_factory=dict)

    def seconds(self, x: Floats, y: Floats) -> Floats:
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        flat = self.surface(placed(x.ravel(), y.ravel()))
        return np.asarray(np.exp(flat).reshape(x.shape), dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpolated:
    """Radial basis functions through the logarithms, bent only where the points say so."""

    name: str = "interpolated"
    least_points: int = 4

    def fit(self, points: Scatter) -> Fitted:
        """Solve for the surface; noisy points are passed by at a distance."""
        at = placed(points.x, points.y)
        level = 1 if np.linalg.matrix_rank(np.column_stack([at, np.ones(len(at))])) > 2 else 0
        surface = RBFInterpolator(
            at,
            np.log(points.seconds),
            kernel="linear",
            degree=level,
            smoothing=points.noise_ratio**2,
        )
        return _Surface(surface=surface)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Corrected:
    physical: Fitted
    correction: _Surface

    @property
    def coefficients(self) -> dict[str, float]:
        return self.physical.coefficients

    def seconds(self, x: Floats, y: Floats) -> Floats:
        return np.asarray(self.physical.seconds(x, y) * self.correction.seconds(x, y))


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """A physical form times a smooth correction that fades away from the measured points."""

    physical: Form
    name: str = "corrected"

    @property
    def least_points(self) -> int:
        """One more than the physical form, so that something is left to correct."""
        return self.physical.least_points + 2

    def fit(self, points: Scatter) -> Fitted:
        """Fit the physical form, then what is left of the logarithms."""
        physical = self.physical.fit(points)
        left = np.log(points.seconds / physical.seconds(points.x, points.y))
        surface = RBFInterpolator(
            placed(points.x, points.y),
            left,
            kernel="gaussian",
            epsilon=1.0 / CORRECTION_REACH,
            degree=-1,
            smoothing=np.maximum(points.noise_ratio**2 / max(float(np.mean(left**2)), 1e-12), 0.05),
        )
        return _Corrected(physical=physical, correction=_Surface(surface=surface))

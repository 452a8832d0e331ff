"""Lengths for windows of which only totals are known, no longer than what was measured.

A history of totals says nothing of how lengths spread. The usual spread (see
`forecaster.windows.shape_from_totals`) puts a few prompts at many times the mean, which may lie
beyond the profiles or the engine's limit, where such requests could not have come from. So the
spread is narrowed until the longest bucket fits; means stay as observed. A mean that does not fit
itself stays as it is, and planning refuses it by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from forecaster.windows import shape_from_totals
from planner.domain.profile import Profile, TimeTable
from planner.domain.spec import Spec
from planner.domain.workload import ObservedWindow, Shape

LENGTH_CVS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
"""Coefficients of variation that are tried, the usual one first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Longest:
    """The longest request that a profile speaks of, tokens."""

    new_tokens: float
    cached_tokens: float
    context_tokens: float
    total_tokens: float

    def holds(self, shape: Shape) -> bool:
        total = shape.input_tokens + shape.output_tokens
        return bool(
            np.all(shape.uncached_tokens <= self.new_tokens)
            and np.all(shape.cached_tokens <= self.cached_tokens)
            and np.all(shape.input_tokens + shape.output_tokens / 2 <= self.context_tokens)
            and np.all(total <= self.total_tokens)
        )


def with_assumed_shapes(
    spec: Spec, windows: Sequence[ObservedWindow], *, model: str
) -> tuple[ObservedWindow, ...]:
    """Give every busy window without a shape one that some profile of the model covers."""
    limits = [_longest(p) for p in spec.profiles if p.model == model]
    return tuple(
        window
        if window.shape is not None or window.requests == 0
        else replace(window, shape=_assumed(window, limits))
        for window in windows
    )


def _assumed(window: ObservedWindow, limits: Sequence[_Longest]) -> Shape:
    shapes = (_from_totals(window, length_cv) for length_cv in LENGTH_CVS)
    fitting = (s for s in shapes if any(limit.holds(s) for limit in limits))
    return next(fitting, None) or _from_totals(window, LENGTH_CVS[0])


def _from_totals(window: ObservedWindow, length_cv: float) -> Shape:
    return shape_from_totals(
        requests=window.requests,
        input_tokens=window.input_tokens,
        output_tokens=window.output_tokens,
        cached_tokens=window.cached_tokens,
        length_cv=length_cv,
    )


def _longest(profile: Profile) -> _Longest:
    return _Longest(
        new_tokens=float(profile.prefill.x[-1]),
        cached_tokens=_end_of_y(profile.prefill),
        context_tokens=_end_of_y(profile.decode_step),
        total_tokens=float(profile.limits.max_model_len),
    )


def _end_of_y(table: TimeTable) -> float:
    """The last measured y; a table with one y holds for all."""
    return float(table.y[-1]) if len(table.y) > 1 else np.inf

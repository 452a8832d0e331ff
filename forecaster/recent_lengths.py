"""The lengths that requests of the next windows will have, from those of recent ones."""

from collections.abc import Sequence
from datetime import datetime

from forecaster.shapes import mix_shapes, shape_from_totals
from planner.domain.workload import ObservedWindow, Shape

HALF_LIFE_STEPS = 6.0
WINDOWS = 48
"""Eight half-lives: what is older weighs less than 0.4 %."""


def expected_shape(windows: Sequence[ObservedWindow], *, at: datetime) -> Shape | None:
    """The mixture of recent windows' lengths, by requests and age; None without any request.

    Parameters
    ----------
    windows : sequence of ObservedWindow
        Of one class, in order of time, ended by `at`.
    """
    busy = [w for w in windows if w.requests > 0 and w.end_at <= at][-WINDOWS:]
    if not busy:
        return None
    last, step_s = windows[-1], min(w.window_s for w in busy)
    ages = [(last.end_at - w.end_at).total_seconds() / step_s for w in busy]
    youngest = min(ages)
    return mix_shapes(
        [window_shape(w) for w in busy],
        [
            w.requests * 0.5 ** ((age - youngest) / HALF_LIFE_STEPS)
            for w, age in zip(busy, ages, strict=True)
        ],
    )


def window_shape(window: ObservedWindow) -> Shape:
    """The lengths of a window's requests, from its totals where they were not seen one by one."""
    return window.shape or shape_from_totals(
        requests=window.requests,
        input_tokens=window.input_tokens,
        output_tokens=window.output_tokens,
        cached_tokens=window.cached_tokens,
    )

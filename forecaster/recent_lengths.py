"""The lengths that requests of the next windows will have, from those of recent ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import numpy as np

from forecaster.length_distance import mean_distances
from forecaster.shapes import mix_shapes, shape_from_totals
from planner.domain.output_length import OutputLengths
from planner.domain.workload import Floats, ObservedWindow, Shape

HALF_LIVES = (0.25, 1.0, 3.0, 6.0, 12.0, 36.0)
"""In windows: from next to nothing but the last one to nearly all alike."""

COLD_START_HALF_LIFE = 6.0
WINDOWS = 36
FEWEST_COMPARED = 6
"""With fewer windows to compare with, memories cannot be told apart."""

_MEMORY_OF_SCORES = 24.0
"""A comparison counts half when so many newer ones are known."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecentLengths:
    """The lengths of a class's last windows with requests.

    Parameters
    ----------
    windows : tuple of ObservedWindow
        In order of time, at most `WINDOWS`.
    shapes : tuple of Shape
    requests : (windows,) float
    apart : (windows, windows) float
        Mean distances between a request of one window and a request of another.
    """

    windows: tuple[ObservedWindow, ...]
    shapes: tuple[Shape, ...]
    requests: Floats
    apart: Floats

    @property
    def ages(self) -> Floats:
        """(windows,) age of each in windows, the newest 0."""
        step_s = min(w.window_s for w in self.windows)
        last = self.windows[-1].end_at
        return np.array([(last - w.end_at).total_seconds() / step_s for w in self.windows])


def recent_lengths(
    windows: Sequence[ObservedWindow], *, at: datetime, before: RecentLengths | None = None
) -> RecentLengths | None:
    """The lengths of the last windows with requests; None without any request.

    Windows whose answers were not counted only tell where no others do.

    Parameters
    ----------
    windows : sequence of ObservedWindow
        Of one class, in order of time.
    at : datetime
        Windows that end later are not used.
    before : RecentLengths or None
        What was found earlier: windows that are still among the last are not compared again.
    """
    newest = [w for w in reversed(windows) if w.requests > 0 and w.end_at <= at]
    counted = (w for w in newest if w.has_answers_counted)
    busy = (tuple(islice(counted, WINDOWS)) or tuple(newest[:WINDOWS]))[::-1]
    if not busy:
        return None
    kept = _kept(busy, before)
    fresh = [window_shape(w) for w in busy[kept:]]
    shapes = (*(before.shapes[-kept:] if before is not None and kept else ()), *fresh)
    apart = np.empty((len(busy), len(busy)))
    if before is not None and kept:
        apart[:kept, :kept] = before.apart[-kept:, -kept:]
    if fresh:
        apart[kept:] = mean_distances(fresh, shapes)
        apart[:, kept:] = apart[kept:].T
    return RecentLengths(
        windows=busy,
        shapes=shapes,
        requests=np.array([w.requests for w in busy], dtype=np.float64),
        apart=apart,
    )


def _kept(windows: tuple[ObservedWindow, ...], before: RecentLengths | None) -> int:
    """How many of the first windows are the last ones of before."""
    if before is None:
        return 0
    for count in range(min(len(windows), len(before.windows)), 0, -1):
        pairs = zip(windows[:count], before.windows[-count:], strict=True)
        if all(_same(one, other) for one, other in pairs):
            return count
    return 0


def _same(one: ObservedWindow, other: ObservedWindow) -> bool:
    return one is other or (
        one.start_at == other.start_at
        and one.requests == other.requests
        and one.input_tokens == other.input_tokens
        and one.output_tokens == other.output_tokens
        and one.cached_tokens == other.cached_tokens
        and _same_shape(one.shape, other.shape)
    )


def _same_shape(one: Shape | None, other: Shape | None) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or (
        np.array_equal(one.input_tokens, other.input_tokens)
        and np.array_equal(one.output_tokens, other.output_tokens)
        and np.array_equal(one.cached_tokens, other.cached_tokens)
        and np.array_equal(one.weight, other.weight)
    )


def window_shape(window: ObservedWindow) -> Shape:
    """The lengths of a window's requests, from its totals where they were not seen one by one."""
    return window.shape or shape_from_totals(
        requests=window.requests,
        input_tokens=window.input_tokens,
        output_tokens=window.output_tokens,
        cached_tokens=window.cached_tokens,
    )


def expected_lengths(recent: RecentLengths) -> tuple[Shape, OutputLengths | None]:
    """The mixture of recent windows' lengths, by requests and age.

    How fast older windows lose weight is the half-life whose mixtures lay nearest to the window
    that followed, by energy distance, so far.

    Returns
    -------
    Shape
        The joint lengths.
    OutputLengths or None
        The answers' alone, finer; None where a window only told totals.
    """
    weights = _weights(recent.requests, recent.ages, _best_half_life(recent))
    seen = [w.output_lengths for w in recent.windows]
    known = [lengths for lengths in seen if lengths is not None]
    answers = OutputLengths.mixed(known, weights) if len(known) == len(seen) else None
    return mix_shapes(recent.shapes, weights.tolist()), answers


def _weights(requests: Floats, ages: Floats, half_life: float) -> Floats:
    weights: Floats = requests * 0.5 ** (ages / half_life)
    return weights


def _best_half_life(recent: RecentLengths) -> float:
    compared = range(FEWEST_COMPARED, len(recent.shapes))
    if len(compared) < FEWEST_COMPARED:
        return COLD_START_HALF_LIFE
    ages = recent.ages
    scores = np.zeros(len(HALF_LIVES))
    for window in compared:
        scores *= 0.5 ** (1.0 / _MEMORY_OF_SCORES)
        age = ages[:window] - ages[window - 1]
        mixtures = recent.requests[:window] * 0.5 ** (age / np.array(HALF_LIVES)[:, None])
        mixtures /= mixtures.sum(axis=1, keepdims=True)
        among = np.einsum("hi,ij,hj->h", mixtures, recent.apart[:window, :window], mixtures)
        # The part of the window itself is the same for all.
        scores += 2 * mixtures @ recent.apart[:window, window] - among
    return HALF_LIVES[int(np.argmin(scores))]

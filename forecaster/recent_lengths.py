"""The lengths that requests of the next windows will have, from those of recent ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from forecaster.answers import CountedAnswers
from forecaster.length_change import last_change
from forecaster.length_distance import mean_distances
from forecaster.shapes import mix_shapes, shape_from_totals, with_answers
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
        In order of time, at most `WINDOWS`; where one did not count its answers, with the shape of
        its prompts and of the answers counted before.
    shapes : tuple of Shape
    requests : (windows,) float
    apart : (windows, windows) float
        Mean distances between a request of one window and a request of another.
    """

    windows: tuple[ObservedWindow, ...]
    shapes: tuple[Shape, ...]
    requests: Floats
    apart: Floats

    def since(self, first: int) -> "RecentLengths":
        """Its windows from one of them on."""
        return RecentLengths(
            windows=self.windows[first:],
            shapes=self.shapes[first:],
            requests=self.requests[first:],
            apart=self.apart[first:, first:],
        )

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

    Prompts are those of the last windows, whether or not these counted their answers. Answers that
    were not counted are taken from the windows before that counted theirs (before the first: from
    those after it); where none did, each has one token.

    Parameters
    ----------
    windows : sequence of ObservedWindow
        Of one class, in order of time.
    at : datetime
        Windows that end later are not used.
    before : RecentLengths or None
        What was found earlier: windows that are still among the last are not compared again.
    """
    past = [w for w in windows if w.requests > 0 and w.end_at <= at]
    busy = _answered(past[-WINDOWS:], past)
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


def _answered(
    last: Sequence[ObservedWindow], past: Sequence[ObservedWindow]
) -> tuple[ObservedWindow, ...]:
    """The last windows; those that did not count their answers with those of earlier ones."""
    if all(w.has_answers_counted for w in last):
        return tuple(last)
    counted = CountedAnswers(past)
    known: dict[datetime, tuple[Shape, OutputLengths | None]] = {}

    def answered(window: ObservedWindow) -> ObservedWindow:
        near = counted.near(window)
        if window.has_answers_counted or not near:
            return window
        if near[-1].end_at not in known:
            known[near[-1].end_at] = _together(near)
        joint, answers = known[near[-1].end_at]
        shape = with_answers(window_shape(window), joint)
        return replace(window, shape=shape, output_lengths=answers)

    return tuple(answered(w) for w in last)


def _together(windows: Sequence[ObservedWindow]) -> tuple[Shape, OutputLengths | None]:
    """The lengths of all requests of these windows."""
    requests = np.array([w.requests for w in windows], dtype=np.float64)
    shapes = [window_shape(w) for w in windows]
    return mix_shapes(shapes, requests.tolist()), _answers_of(windows, requests)


def _answers_of(windows: Sequence[ObservedWindow], weights: Floats) -> OutputLengths | None:
    """The answers' lengths alone, finer; None where a window only told totals."""
    seen = [w.output_lengths for w in windows]
    known = [lengths for lengths in seen if lengths is not None]
    return OutputLengths.mixed(known, weights) if len(known) == len(seen) else None


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
    """The mixture of recent windows' lengths, by requests and age, since they last changed.

    Windows before a clear change (`length_change.last_change`) have no weight. How fast older ones
    lose weight is the half-life whose mixtures lay nearest to the window that followed, by energy
    distance, so far.

    Returns
    -------
    Shape
        The joint lengths.
    OutputLengths or None
        The answers' alone, finer; None where a window only told totals.
    """
    recent = recent.since(last_change(recent.shapes, recent.requests))
    weights = _weights(recent.requests, recent.ages, _best_half_life(recent))
    answers = _answers_of(recent.windows, weights)
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

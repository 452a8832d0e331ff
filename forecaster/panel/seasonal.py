"""Methods that look a day or a week back."""

from dataclasses import dataclass

import numpy as np

from forecaster.panel.record import Integers, Record, Spans
from planner.domain.workload import Floats

DAY_S = 86_400.0
LEVEL_STEPS = 5
"""Steps that tell how today's level compares with the level a day or a week ago."""

NAMES = ("yesterday", "yesterday at today's level", "last week at this week's level")

_SMALLEST_SEASON_STEPS = 4
_LARGEST_LEVEL_RATIO = 5.0
_LEVEL = np.array([LEVEL_STEPS])


class Seasons:
    """How many steps a day and a week have; None where the record cannot hold them."""

    def __init__(self, *, step_s: float, most_steps: int) -> None:
        day = round(DAY_S / step_s)
        self.day = day if _SMALLEST_SEASON_STEPS <= day <= most_steps else None
        self.week = 7 * day if self.day is not None and 7 * day <= most_steps else None

    def kept_steps(self, furthest: int) -> int:
        """Steps that have to be kept for spans that end `furthest` steps ahead."""
        longest = self.week or self.day or 0
        return longest + furthest + 128


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Then:
    """What was seen a whole season before the last step; (spans, series) each, NaN: not known.

    Parameters
    ----------
    at : float
        That very step, gaps filled.
    before : float
        Mean of the `LEVEL_STEPS` steps that end with it.
    span : float
        Mean over the span, counted from that step.
    around : float
        The same with two steps more on either side.
    """

    at: Floats
    before: Floats
    span: Floats
    around: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A day and a week ago; None where the record cannot hold that much."""

    day: Then | None
    week: Then | None


def look_back(record: Record, seasons: Seasons, spans: Spans) -> Past:
    """What every method that looks back a season needs, read once."""
    day, week = seasons.day, seasons.week
    return Past(
        day=None if day is None else _then(record, whole_seasons_back(day, spans), spans),
        week=None if week is None else _then(record, whole_seasons_back(week, spans), spans),
    )


def _then(record: Record, back: Integers, spans: Spans) -> Then:
    then = record.steps - 1 - back
    first = (then, then - LEVEL_STEPS + 1, then + spans.first, then + spans.first - 2)
    last = (then, then, then + spans.last, then + spans.last + 2)
    means = record.filled_mean(np.concatenate(first), np.concatenate(last))
    at, before, span, around = means.reshape(len(first), len(spans), record.series)
    return Then(at=at, before=before, span=span, around=around)


def points(record: Record, past: Past, spans: Spans) -> Floats:
    """(3, spans, series) forecasts in the order of `NAMES`; NaN where too little is known."""
    out = np.full((len(NAMES), len(spans), record.series), np.nan)
    today, _ = record.recent_means(_LEVEL)
    if past.day is not None:
        out[0] = past.day.span
        out[1] = past.day.span * _grown(today, past.day)
    if past.week is not None:
        out[2] = past.week.span * _grown(today, past.week)
    return out


def _grown(today: Floats, then: Then) -> Floats:
    ratio = today / np.where(then.before > 0, then.before, np.nan)
    return np.minimum(np.maximum(ratio, 1.0 / _LARGEST_LEVEL_RATIO), _LARGEST_LEVEL_RATIO)


def whole_seasons_back(season: int, spans: Spans) -> Integers:
    """(spans,) steps to go back so that the whole span, two steps more included, is known."""
    whole: Integers = season * np.maximum(1, -(-(spans.last + 2) // season))
    return whole

"""Methods that look a day or a week back."""

import numpy as np

from forecaster.panel.record import Integers, Record, Spans
from planner.domain.workload import Floats

DAY_S = 86_400.0
LEVEL_STEPS = 5
"""Steps that tell how today's level compares with the level a day or a week ago."""

NAMES = ("yesterday", "yesterday at today's level", "last week at this week's level")

_SMALLEST_SEASON_STEPS = 4
_LARGEST_LEVEL_RATIO = 5.0


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


def points(record: Record, seasons: Seasons, spans: Spans) -> Floats:
    """(3, spans, series) forecasts in the order of `NAMES`; NaN where too little is known."""
    out = np.full((len(NAMES), len(spans), record.series), np.nan)
    now = record.steps - 1
    today, _ = record.recent_means(np.array([LEVEL_STEPS]))
    for row, season in ((1, seasons.day), (2, seasons.week)):
        if season is None:
            continue
        then = now - whole_seasons_back(season, spans)
        around = record.filled_mean(then + spans.first, then + spans.last)
        before = record.filled_mean(then - LEVEL_STEPS + 1, then)
        ratio = today / np.where(before > 0, before, np.nan)
        ratio = np.clip(ratio, 1.0 / _LARGEST_LEVEL_RATIO, _LARGEST_LEVEL_RATIO)
        out[row] = around * ratio
        if row == 1:
            out[0] = around
    return out


def whole_seasons_back(season: int, spans: Spans) -> Integers:
    """(spans,) steps to go back so that the whole span, two steps more included, is known."""
    whole: Integers = season * np.maximum(1, -(-(spans.last + 2) // season))
    return whole

"""Recursive least squares on lags and the calendar: a model that learns at every step."""

import numpy as np

from forecaster.panel.record import Integers, Record, Spans
from forecaster.panel.seasonal import DAY_S, Past
from planner.domain.workload import Flags, Floats

FORGETTING = (1.0, 0.995)
"""Weight of an error against one that is a step younger: never forgets, halves in 138 steps."""

RIDGE = 1.0
LAGS = 6
MEAN_STEPS = (6, 12, 24, 72)
DAY_HARMONICS = 4
LARGEST_LOG_CHANGE = 2.0
_FORGETTING = np.array(FORGETTING)[:, None, None]
"""A forecast is kept within a factor e^2 of the last value."""

NAMES = tuple(
    f"{what}{', forgetting' if weight < 1 else ''}"
    for what in ("lag regression", "lag and calendar regression")
    for weight in FORGETTING
)

_CALENDAR_SCALE = 0.3
"""Calendar columns and the constant are as large as typical changes, so that the ridge treats all
alike."""
_LARGEST_TRACE = 1e4
_LAG_COLUMNS = LAGS + len(MEAN_STEPS)
_SEASON_COLUMNS = 5
_CALENDAR_COLUMNS = 2 * DAY_HARMONICS + 2
_LAG_STEPS, _MEAN_STEPS = np.arange(1, LAGS + 1), np.array(MEAN_STEPS)
_DAILY_CYCLES = np.array([*range(1, DAY_HARMONICS + 1), 1 / 7])


def logs(values: Floats, offset: Floats) -> Floats:
    """ln(value + offset), never of a negative number."""
    return np.log(np.maximum(values, 0.0) + offset)


class Features:
    """What the regressions look at: logarithms relative to the last value.

    Columns: the last six changes; means of the last 6 to 72 steps; what the span had a day and a
    week ago; the time of the day and of the week at the middle of the span.
    """

    lag_columns = _LAG_COLUMNS + 1
    all_columns = _LAG_COLUMNS + _SEASON_COLUMNS + _CALENDAR_COLUMNS + 1

    def __init__(self, *, step_s: float) -> None:
        self._step_s = step_s

    def of(
        self, record: Record, past: Past, spans: Spans, offset: Floats, *, end_s: float
    ) -> tuple[Floats, Floats]:
        """((series, lag columns), (spans, series, all columns)); NaN: not known yet.

        Parameters
        ----------
        past : Past
            What was seen a day and a week before each of the spans.
        offset : (series,) float
            Added before logarithms are taken, in the series' unit.
        end_s : float
            End of the last step, seconds since 1970.
        """
        now = record.steps - 1
        current = logs(record.last, offset)
        before = now - _LAG_STEPS
        _, log_means = record.recent_means(_MEAN_STEPS)
        lags = np.full((record.series, self.lag_columns), _CALENDAR_SCALE)
        lags[:, :LAGS] = (logs(record.filled_mean(before, before), offset) - current).T
        lags[:, LAGS:_LAG_COLUMNS] = (log_means - current).T
        everything = np.empty((len(spans), record.series, self.all_columns))
        everything[:, :, : self.lag_columns] = lags
        calendar = everything[:, :, self.lag_columns :]
        calendar[:, :, :_SEASON_COLUMNS] = _season(past, offset, current, spans=len(spans))
        calendar[:, :, _SEASON_COLUMNS:] = self._calendar(spans, end_s)[:, None, :]
        return lags, everything

    def _calendar(self, spans: Spans, end_s: float) -> Floats:
        """(spans, columns) of the middle of each span."""
        middle_s = end_s + self._step_s * (spans.first + spans.last - 1) / 2
        phases = (2 * np.pi * middle_s / DAY_S)[:, None] * _DAILY_CYCLES
        return _CALENDAR_SCALE * np.concatenate([np.sin(phases), np.cos(phases)], axis=1)


def _season(past: Past, offset: Floats, current: Floats, *, spans: int) -> Floats:
    """(spans, series, 5) the day's three columns and the week's two."""
    day, week = past.day, past.week
    out = np.full((spans, len(current), _SEASON_COLUMNS), np.nan)
    if day is None:
        return out
    at_then = logs(day.at, offset)
    out[..., 0] = logs(day.span, offset) - at_then
    out[..., 1] = at_then - current
    out[..., 2] = logs(day.around, offset) - logs(day.before, offset)
    out[..., 3:] = 0.0
    if week is not None:
        at_then = logs(week.at, offset)
        # Before the first week has passed its columns say nothing.
        out[..., 3] = np.nan_to_num(logs(week.span, offset) - at_then)
        out[..., 4] = np.nan_to_num(at_then - current)
    return out


class Regression:
    """Ridge regressions of many spans and series, one per forgetting factor, updated at each step.

    Parameters
    ----------
    spans, series, columns : int

    References
    ----------
    Recursive least squares with exponential forgetting: Ljung and Soderstrom, "Theory and Practice
    of Recursive Identification" (1983), section 2.2; the trace is bounded against wind-up.
    """

    def __init__(self, *, spans: int, series: int, columns: int) -> None:
        self._weight = np.zeros((len(FORGETTING), spans, series, columns))
        self._inverse = np.broadcast_to(
            np.eye(columns) / RIDGE, (len(FORGETTING), spans, series, columns, columns)
        ).copy()
        self._columns = columns

    def learn(self, features: Floats, target: Floats) -> None:
        """Take the outcomes of earlier features.

        Parameters
        ----------
        features : (spans, series, columns) float
            NaN where not known.
        target : (spans, series) float
            ln(outcome + offset) less that of the last value then; NaN where not known.
        """
        known: Flags = np.isfinite(target) & np.isfinite(features).all(axis=-1)
        if not known.any():
            return
        x = np.where(known[..., None], features, 0.0)
        y = np.where(known, target, 0.0)
        forgetting = _FORGETTING
        gain = np.einsum("fhsij,hsj->fhsi", self._inverse, x)
        scale = forgetting + np.einsum("hsi,fhsi->fhs", x, gain)
        error = y - np.einsum("fhsi,hsi->fhs", self._weight, x)
        self._weight += gain * (error / scale)[..., None]
        updated = self._inverse - gain[..., :, None] * (gain / scale[..., None])[..., None, :]
        updated /= np.where(known, forgetting, 1.0)[..., None, None]
        trace = np.einsum("fhsii->fhs", updated) / self._columns
        updated *= np.minimum(1.0, _LARGEST_TRACE / np.maximum(trace, 1e-12))[..., None, None]
        self._inverse = updated

    def log_changes(self, features: Floats, anchors: Integers) -> Floats:
        """(forgetting, spans, series) forecast of the target; NaN where features are not known.

        `features` may lack the axis of spans when they are the same for all.
        """
        weight = self._weight[:, anchors]
        known = np.asarray(np.isfinite(features).all(axis=-1))
        change = (weight * np.where(known[..., None], features, 0.0)).sum(axis=-1)
        change = np.minimum(np.maximum(change, -LARGEST_LOG_CHANGE), LARGEST_LOG_CHANGE)
        return np.where(known, change, np.nan)

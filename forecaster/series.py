"""Observed windows as regular series of rates, with gaps masked."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median_low

import numpy as np

from forecaster.panel import MOST_STEPS, Span
from planner.domain.errors import HistoryError
from planner.domain.workload import Floats, ObservedWindow

_OVERLAP_TOLERANCE_S = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RateTable:
    """Several quantities of one request class over time.

    Parameters
    ----------
    values : (steps, quantities) float, per second
        Oldest first, the last step ends at `end_at`; NaN where nothing was observed.
    step_s : float
    """

    values: Floats
    step_s: float
    end_at: datetime

    @property
    def observed_s(self) -> Floats:
        """(quantities,) seconds that were observed."""
        seconds: Floats = self.step_s * (~np.isnan(self.values)).sum(axis=0).astype(np.float64)
        return seconds


Total = Callable[[ObservedWindow], float]
"""A quantity of a window, summed over its seconds; NaN where the window does not tell it."""


def usable_history(
    history: Sequence[ObservedWindow], made_at: datetime
) -> dict[str, list[ObservedWindow]]:
    """Windows that had ended by `made_at`, per request class, in order of time.

    Later windows are left out, so that no forecast knows its future.

    Raises
    ------
    HistoryError
        When no window is left, or windows of one class overlap (they would count twice).
    """
    if not history:
        raise HistoryError("the history holds no window; a forecast needs at least one")
    past = [w for w in history if w.end_at <= made_at]
    past.sort(key=lambda w: (w.request_class, w.start_at))
    if not past:
        first = min(w.end_at for w in history)
        raise HistoryError(
            f"no window of the history has ended by {made_at.isoformat()}: the first ends at "
            f"{first.isoformat()}; give earlier windows, or make the forecast later"
        )
    by_class: dict[str, list[ObservedWindow]] = {}
    for window in past:
        windows = by_class.setdefault(window.request_class, [])
        if windows and _overlap_s(windows[-1], window) > _OVERLAP_TOLERANCE_S:
            raise HistoryError(
                f"windows of class {window.request_class!r} overlap: the one of "
                f"{windows[-1].start_at.isoformat()} ({windows[-1].window_s:g} s) and the one of "
                f"{window.start_at.isoformat()}; give each second once"
            )
        windows.append(window)
    return by_class


def _overlap_s(earlier: ObservedWindow, later: ObservedWindow) -> float:
    return (earlier.end_at - later.start_at).total_seconds()


def rate_table(windows: Sequence[ObservedWindow], totals: Sequence[Total]) -> RateTable:
    """The rate of each total per step; the step is the median window.

    A window counts in the step that holds its middle. Steps without a window are NaN, never 0.
    """
    lengths = np.array([w.window_s for w in windows])
    step_s = float(median_low(lengths.tolist()))
    end_at = max(w.end_at for w in windows)
    # Offsets from the end, not from 1970: differences stay exact to the microsecond.
    starts = np.array([(w.start_at - end_at).total_seconds() for w in windows])
    ages = np.floor(-(starts + lengths / 2) / step_s).astype(np.int64)
    steps = min(int(ages.max()) + 1, MOST_STEPS)
    kept = ages < steps
    rows = steps - 1 - ages[kept]
    lengths = lengths[kept]
    columns = []
    for total in totals:
        amounts = np.array([float(total(w)) for w in windows])[kept]
        told = ~np.isnan(amounts)
        seconds = np.bincount(rows[told], lengths[told], steps)
        sums = np.bincount(rows[told], amounts[told], steps)
        values = np.full(steps, np.nan)
        np.divide(sums, seconds, out=values, where=seconds > 0)
        columns.append(values)
    return RateTable(values=np.stack(columns, axis=1), step_s=step_s, end_at=end_at)


def side_by_side(tables: Sequence[RateTable]) -> RateTable:
    """The quantities of several tables with the same steps; what one does not reach is NaN."""
    steps = max(len(table.values) for table in tables)
    columns = [
        np.concatenate(
            [np.full((steps - len(t.values), t.values.shape[1]), np.nan), t.values], axis=0
        )
        for t in tables
    ]
    return RateTable(
        values=np.concatenate(columns, axis=1), step_s=tables[0].step_s, end_at=tables[0].end_at
    )


def span_of(table: RateTable, start_at: datetime, window_s: float) -> Span:
    """The steps of `table` that [start_at, start_at + window_s) touches."""
    lead_s = (start_at - table.end_at).total_seconds()
    first = math.floor(lead_s / table.step_s + 1e-9) + 1
    last = math.ceil((lead_s + window_s) / table.step_s - 1e-9)
    return Span(first=max(first, 1), last=max(first, last, 1))

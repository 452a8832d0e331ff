"""Panels kept from one forecast to the next, so that a tick only takes the new steps."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock

import numpy as np

from forecaster.panel import METHODS, MOST_STEPS, Outlook, Panel, Span
from forecaster.recent_lengths import RecentLengths, recent_lengths
from forecaster.series import RateTable
from planner.domain.workload import Floats, ObservedWindow

MOST_PANELS = 256


@dataclass(slots=True, kw_only=True)
class _Kept:
    """A panel, and the last steps that it was given."""

    panel: Panel
    table: RateTable


class Memory:
    """The panels of earlier forecasts.

    A panel goes on where its history goes on: the same steps, then new ones. When the past was
    altered (a late window, another step length) it is built anew, so that a forecast with a memory
    equals one without, as far as the panel's steps reach back. May be shared by threads.
    """

    def __init__(self) -> None:
        self._panels: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()
        self._lengths: OrderedDict[tuple[str, ...], RecentLengths] = OrderedDict()
        self._lock = Lock()

    def outlook(
        self,
        key: tuple[str, ...],
        table: RateTable,
        spans: list[Span],
        methods: tuple[str, ...] = METHODS,
        *,
        noise_ratio: float,
    ) -> Outlook:
        """What is expected of the spans after the last step of the table.

        Parameters
        ----------
        key : tuple of str
            Whose table it is.
        """
        columns = table.values.shape[1]
        asked = (*key, methods, table.step_s, columns, *((s.first, s.last) for s in spans))
        with self._lock:
            kept = self._panels.pop(asked, None)
            fresh = None if kept is None else _steps_after(kept.table, table)
            if kept is None or fresh is None:
                panel = _new_panel(table, spans, methods)
                fresh = table.values
            else:
                panel = kept.panel
            for values in fresh:
                panel.observe(values)
            self._panels[asked] = _Kept(panel=panel, table=table)
            while len(self._panels) > MOST_PANELS:
                self._panels.popitem(last=False)
            return panel.outlook(spans, noise_ratio=noise_ratio)

    def lengths(
        self, key: tuple[str, ...], windows: Sequence[ObservedWindow], *, at: datetime
    ) -> RecentLengths | None:
        """As `recent_lengths`, comparing only windows that are new."""
        with self._lock:
            found = recent_lengths(windows, at=at, before=self._lengths.pop(key, None))
            if found is not None:
                self._lengths[key] = found
            while len(self._lengths) > MOST_PANELS:
                self._lengths.popitem(last=False)
            return found


def _new_panel(table: RateTable, spans: list[Span], methods: tuple[str, ...]) -> Panel:
    steps, series = table.values.shape
    return Panel(
        series=series,
        step_s=table.step_s,
        spans=spans,
        first_end_s=table.end_at.timestamp() - (steps - 1) * table.step_s,
        methods=methods,
    )


def _steps_after(before: RateTable, now: RateTable) -> Floats | None:
    """The steps of `now` that follow those of `before`; None when `now` does not go on from it."""
    moved_s = (now.end_at - before.end_at).total_seconds()
    count = round(moved_s / now.step_s)
    if count < 0 or abs(moved_s - count * now.step_s) > 1e-3 or count >= len(now.values):
        return None
    known = now.values[: len(now.values) - count]
    if len(known) > len(before.values) or (
        len(known) < len(before.values) and len(now.values) < MOST_STEPS
    ):
        return None
    if not np.array_equal(known, before.values[-len(known) :], equal_nan=True):
        return None
    return now.values[len(known) :]


def forgetful(
    table: RateTable,
    spans: list[Span],
    methods: tuple[str, ...] = METHODS,
    *,
    noise_ratio: float,
) -> Outlook:
    """What is expected of the spans, from this table alone."""
    panel = _new_panel(table, spans, methods)
    for values in table.values:
        panel.observe(values)
    return panel.outlook(spans, noise_ratio=noise_ratio)

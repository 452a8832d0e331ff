"""A trace cut into windows: what was observed, window by window and class by class."""

import math
from datetime import timedelta

import numpy as np

from forecaster.shapes import shape_from_totals, shape_of, shape_of_lengths
from planner.domain.errors import HistoryError
from planner.domain.output_length import OutputLengths
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.workload import Integers, ObservedWindow, Workload

__all__ = ["arrival_cv2_of", "observe_windows", "shape_from_totals", "shape_of"]

MOST_WINDOWS = 1_000_000
"""More windows than this are a wrong time stamp or a wrong unit (60 s windows: two years)."""

_FEWEST_GAPS = 10


def observe_windows(workload: Workload, window_s: float) -> tuple[ObservedWindow, ...]:
    """What arrived in each whole window, in order of time, then of class.

    Windows start at the workload's start. A window without requests is a real zero (the trace
    covers it) and is listed for every class; a trailing part of a window is left out.

    Raises
    ------
    HistoryError
        When `window_s` is not above 0 or cuts the trace into more than `MOST_WINDOWS`.
    """
    if not window_s > 0:
        raise HistoryError(f"window_s must be above 0 s, got {window_s:g}")
    # A tolerance, since 0.1 s * 600 is not exactly 60 s.
    count = workload.duration_s / window_s + 1e-9
    if not count <= MOST_WINDOWS:
        raise HistoryError(
            f"windows of {window_s:g} s cut {workload.duration_s:g} s of trace into more than "
            f"{MOST_WINDOWS} pieces; use longer windows, or look for a wrong time stamp"
        )
    classes = sorted(str(name) for name in np.unique(workload.request_class)) or [DEFAULT_CLASS]
    edges = np.searchsorted(workload.arrival_offset_s, np.arange(math.floor(count) + 1) * window_s)
    rows_of = {name: np.flatnonzero(workload.request_class == name) for name in classes}
    bounds_of = {name: np.searchsorted(rows, edges) for name, rows in rows_of.items()}
    return tuple(
        _window(workload, window_s, index, name, rows_of[name][first:last])
        for index in range(len(edges) - 1)
        for name in classes
        for first, last in [bounds_of[name][index : index + 2]]
    )


def _window(
    workload: Workload, window_s: float, index: int, request_class: str, rows: Integers
) -> ObservedWindow:
    input_tokens = workload.input_tokens[rows]
    output_tokens = workload.output_tokens[rows]
    cached_tokens = workload.cached_tokens[rows]
    return ObservedWindow(
        start_at=workload.start_at + timedelta(seconds=index * window_s),
        window_s=window_s,
        requests=len(rows),
        input_tokens=int(input_tokens.sum()),
        output_tokens=int(output_tokens.sum()),
        cached_tokens=int(cached_tokens.sum()),
        request_class=request_class,
        shape=shape_of_lengths(input_tokens, output_tokens, cached_tokens) if len(rows) else None,
        output_lengths=OutputLengths.of(output_tokens) if len(rows) else None,
    )


def arrival_cv2_of(workload: Workload) -> float:
    """Squared coefficient of variation of the gaps between arrivals; 1 is Poisson.

    1.0 when there are fewer than ten gaps. Spread the ticks of a coarse clock first
    (`rescale.spread_ticks`), or they count as bursts.
    """
    gaps = np.diff(workload.arrival_offset_s)
    if len(gaps) < _FEWEST_GAPS or not gaps.mean() > 0:
        return 1.0
    return float(gaps.var() / gaps.mean() ** 2)

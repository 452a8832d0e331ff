"""A description fitted to a trace: so that more of the same can be drawn."""

import math
from itertools import pairwise

import numpy as np

from forecaster.arrivals import LARGEST_CV
from forecaster.lengths import JointHistogram
from forecaster.pace_profiles import WindowRates
from forecaster.rescale import spread_ticks
from forecaster.synthesize import TraceDescription
from planner.domain.errors import TraceError
from planner.domain.wording import counted
from planner.domain.workload import Floats, Workload, class_names

REQUESTS_PER_WINDOW = 200
"""Mean of a fitted window: its rate is then known to about 7 % where arrivals are Poisson."""
SHORTEST_WINDOW_S = 10.0
MOST_WINDOWS = 2000
_FEWEST_GAPS = 20
_LARGEST_REUSE = 0.99


def fitted(workload: Workload, *, tick_s: float | None, name: str) -> tuple[TraceDescription, ...]:
    """Describe each request class of a trace: rate and CV by window, joint lengths, reuse.

    Arrivals on a coarse clock are spread inside each tick first. A class is cut into windows of
    about `REQUESTS_PER_WINDOW` requests; a window with fewer than twenty gaps gets the CV of the
    whole class. What joins requests besides shared prefixes is not fitted: neither sessions, nor
    lengths that change over time.

    Raises
    ------
    TraceError
        When the trace has fewer than two requests.
    """
    if len(workload) < 2:
        raise TraceError("a trace of one request tells no rate: nothing can be fitted to it")
    spread = workload
    if tick_s is not None:
        spread = spread_ticks(workload, tick_s=tick_s, rng=np.random.default_rng(0))
    descriptions = []
    for request_class in class_names(workload.request_class):
        rows = np.flatnonzero(workload.request_class == request_class)
        arrival_s = spread.arrival_offset_s[rows]
        inputs = int(workload.input_tokens[rows].sum())
        reuse = int(workload.cached_tokens[rows].sum()) / inputs
        part = Workload(
            start_at=workload.start_at,
            arrival_offset_s=arrival_s,
            input_tokens=workload.input_tokens[rows],
            output_tokens=workload.output_tokens[rows],
            cached_tokens=workload.cached_tokens[rows],
            request_class=workload.request_class[rows],
            duration_s=spread.duration_s,
        )
        descriptions.append(
            TraceDescription(
                name=name,
                source=f"fitted to {counted(len(rows), 'request')}",
                request_rate_rps=len(rows) / spread.duration_s,
                duration_s=spread.duration_s,
                lengths=JointHistogram.of(part),
                profile=window_rates(arrival_s, spread.duration_s),
                reuse_ratio=min(reuse, _LARGEST_REUSE),
                block_tokens=512 if workload.prefix is None else workload.prefix.block_tokens,
                request_class=request_class,
            )
        )
    return tuple(descriptions)


def window_rates(arrival_s: Floats, duration_s: float) -> WindowRates:
    """Rates and CVs of windows of equal length that hold about `REQUESTS_PER_WINDOW` requests.

    The gap that leads into a window counts to it: leaving it out would hide the silences of
    bursty arrivals, which lie between bursts.
    """
    wanted = min(len(arrival_s) // REQUESTS_PER_WINDOW, MOST_WINDOWS)
    count = max(min(wanted, math.floor(duration_s / SHORTEST_WINDOW_S)), 1)
    window_s = duration_s / count
    edges = np.searchsorted(arrival_s, np.arange(count) * window_s)
    bounds = [*edges.tolist(), len(arrival_s)]
    whole = _cv(np.diff(arrival_s))
    cvs = []
    for first, last in pairwise(bounds):
        gaps = np.diff(arrival_s[max(first - 1, 0) : last])
        cvs.append(_cv(gaps) if len(gaps) >= _FEWEST_GAPS else whole)
    return WindowRates(
        window_s=window_s,
        rate_rps=tuple((np.diff(bounds) / window_s).tolist()),
        arrival_cv=tuple(cvs),
    )


def _cv(gaps: Floats) -> float:
    mean_s = float(gaps.mean()) if len(gaps) else 0.0
    return min(float(gaps.std()) / mean_s, LARGEST_CV) if mean_s > 0 else 1.0

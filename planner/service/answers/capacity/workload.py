"""What was seen of the requests, as the report's figures: pace, lengths, reuse, patterns."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from forecaster.shapes import mix_shapes
from planner.domain.workload import ObservedWindow, Shape
from planner.service.answers.capacity.seen import DAY_S, HOUR_S, Seen
from planner.service.documents.capacity_report import (
    ClassShareDocument,
    LengthsDocument,
    PaceDocument,
    PatternDocument,
    WorkloadDocument,
)

MOST_PACES = 144
"""Points of the plot over time; more windows are put together."""
_WEEK_S = 7 * DAY_S
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sum:
    """What arrived in some seconds, all classes together."""

    start_at: datetime
    window_s: float
    requests: int
    input_tokens: int
    output_tokens: int


def workload_document(seen: Seen) -> WorkloadDocument:
    """The figures of the windows that were seen."""
    sums = _all_classes(seen.windows)
    duration_s = math.fsum(s.window_s for s in sums)
    requests = sum(s.requests for s in sums)
    inputs = sum(s.input_tokens for s in sums)
    cached = sum(w.cached_tokens for w in seen.windows)
    rate = requests / duration_s
    busiest = max(sums, key=lambda s: s.requests / s.window_s)
    peak = busiest.requests / busiest.window_s
    shape = _shape(seen.windows)
    return WorkloadDocument(
        source=seen.source,
        described=seen.described,
        start_at=seen.start_at,
        end_at=seen.ended_at,
        duration_s=duration_s,
        windows=len(sums),
        requests=requests,
        request_rate_rps=rate,
        peak_rps=peak,
        peak_window_s=busiest.window_s,
        peak_to_mean=peak / rate if rate > 0 else 1.0,
        input_tokens_per_s=inputs / duration_s,
        output_tokens_per_s=sum(s.output_tokens for s in sums) / duration_s,
        isl=None if shape is None else _lengths(shape.isl_mean, shape.isl_quantile),
        osl=None if shape is None else _lengths(shape.osl_mean, shape.osl_quantile),
        reuse_ratio=cached / inputs if seen.reuse_known and inputs else None,
        arrival_cv=math.sqrt(seen.arrival_cv2),
        arrivals_known=seen.arrivals_known,
        uncovered_s=_uncovered_s(sums),
        classes=_classes(seen.windows, requests),
        pace=_paces(sums),
        day=_day(sums, duration_s),
        week=_week(sums, duration_s),
        notes=list(seen.notes),
    )


def _uncovered_s(sums: Sequence[_Sum]) -> float:
    """Between the first and the last window, in none of them, seconds."""
    holes_s, until = [], sums[0].start_at
    for one in sums:
        holes_s.append(max(0.0, (one.start_at - until).total_seconds()))
        until = max(until, one.start_at + timedelta(seconds=one.window_s))
    return math.fsum(holes_s)


def _all_classes(windows: Sequence[ObservedWindow]) -> list[_Sum]:
    """Classes put together, in order of time; windows that overlap only in part stay apart."""
    together: dict[tuple[datetime, float], list[ObservedWindow]] = {}
    for window in windows:
        together.setdefault((window.start_at, window.window_s), []).append(window)
    return [
        _Sum(
            start_at=start_at,
            window_s=window_s,
            requests=sum(w.requests for w in of_time),
            input_tokens=sum(w.input_tokens for w in of_time),
            output_tokens=sum(w.output_tokens for w in of_time),
        )
        for (start_at, window_s), of_time in sorted(together.items())
    ]


def _shape(windows: Sequence[ObservedWindow]) -> Shape | None:
    known = [w for w in windows if w.shape is not None and w.requests > 0]
    shapes = [w.shape for w in known if w.shape is not None]
    return mix_shapes(shapes, [w.requests for w in known]) if known else None


def _lengths(mean: float, quantile: Callable[[float], float]) -> LengthsDocument:
    return LengthsDocument(mean=mean, p50=quantile(0.5), p95=quantile(0.95), p99=quantile(0.99))


def _classes(windows: Sequence[ObservedWindow], requests: int) -> list[ClassShareDocument]:
    counts: dict[str, int] = {}
    for window in windows:
        counts[window.request_class] = counts.get(window.request_class, 0) + window.requests
    return [
        ClassShareDocument(
            request_class=name,
            requests=count,
            request_ratio=count / requests if requests else 0.0,
        )
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _paces(sums: Sequence[_Sum]) -> list[PaceDocument]:
    step = math.ceil(len(sums) / MOST_PACES)
    groups = [
        run[first : first + step] for run in _runs(sums) for first in range(0, len(run), step)
    ]
    return [_pace(group) for group in groups]


def _runs(sums: Sequence[_Sum]) -> list[list[_Sum]]:
    """Windows that follow each other without a hole."""
    runs: list[list[_Sum]] = []
    for one in sums:
        if runs and one.start_at <= _end(runs[-1][-1]):
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _end(one: _Sum) -> datetime:
    return one.start_at + timedelta(seconds=one.window_s)


def _pace(group: Sequence[_Sum]) -> PaceDocument:
    seconds = math.fsum(s.window_s for s in group)
    return PaceDocument(
        start_at=group[0].start_at,
        window_s=(_end(group[-1]) - group[0].start_at).total_seconds(),
        request_rate_rps=_rounded(sum(s.requests for s in group) / seconds),
        input_tokens_per_s=_rounded(sum(s.input_tokens for s in group) / seconds),
        output_tokens_per_s=_rounded(sum(s.output_tokens for s in group) / seconds),
    )


def _rounded(value: float) -> float:
    """Five figures are enough for a plot, and keep the page small."""
    return float(f"{value:.5g}")


def _day(sums: Sequence[_Sum], duration_s: float) -> list[PatternDocument]:
    if duration_s < DAY_S or max(s.window_s for s in sums) > HOUR_S:
        return []
    rates = _mean_rates(sums, lambda moment: moment.hour)
    return [
        PatternDocument(name=f"{hour:02}:00", request_rate_rps=_rounded(rates[hour]))
        for hour in range(24)
        if hour in rates
    ]


def _week(sums: Sequence[_Sum], duration_s: float) -> list[PatternDocument]:
    if duration_s < _WEEK_S or max(s.window_s for s in sums) > DAY_S:
        return []
    rates = _mean_rates(sums, lambda moment: moment.weekday())
    return [
        PatternDocument(name=name, request_rate_rps=_rounded(rates[day]))
        for day, name in enumerate(_DAYS)
        if day in rates
    ]


def _mean_rates(sums: Sequence[_Sum], place: Callable[[datetime], int]) -> dict[int, float]:
    """Mean requests/s by hour or day, in UTC."""
    totals: dict[int, tuple[int, float]] = {}
    for s in sums:
        key = place(s.start_at.astimezone(UTC))
        requests, seconds = totals.get(key, (0, 0.0))
        totals[key] = (requests + s.requests, seconds + s.window_s)
    return {key: requests / seconds for key, (requests, seconds) in totals.items()}

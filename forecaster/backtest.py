"""How good the forecaster would have been on a history: rolling origin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.forecast import forecast
from planner.domain.errors import HistoryError
from planner.domain.forecast import Demand, Quantiles
from planner.domain.workload import Floats, ObservedWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesScore:
    """Accuracy of one series of one class.

    Parameters
    ----------
    series : str
        The name of the `Demand` field that was scored.
    origins : int
        Forecasts scored.
    mae_ratio : float or None
        Mean absolute error of the median over that of the last value; below 1 is better than
        the last value. None when the last value was always right.
    q90_coverage_ratio : float
        Share of the actual values at or below the forecast's 0.9 quantile.
    """

    request_class: str
    series: str
    origins: int
    mae_ratio: float | None
    q90_coverage_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestResult:
    """Scores of all series, one horizon."""

    horizon_windows: int
    window_s: float
    scores: tuple[SeriesScore, ...]


_SERIES: tuple[tuple[str, Callable[[Demand], Quantiles], Callable[[ObservedWindow], int]], ...] = (
    ("request_rate_rps", lambda d: d.request_rate_rps, lambda w: w.requests),
    ("input_tokens_per_s", lambda d: d.input_tokens_per_s, lambda w: w.input_tokens),
    ("output_tokens_per_s", lambda d: d.output_tokens_per_s, lambda w: w.output_tokens),
)


def backtest_forecast(
    history: Sequence[ObservedWindow], *, horizon_windows: int = 1, first_origin: int | None = None
) -> BacktestResult:
    """Forecast every later window of a history from the windows before it, and compare.

    Parameters
    ----------
    history : sequence of ObservedWindow
        Windows of one length, any order; missing ones are not scored.
    horizon_windows : int
        The window scored is the `horizon_windows`-th after the origin.
    first_origin : int or None
        Windows of each class that only serve as history; by default the first half.

    Raises
    ------
    HistoryError
        When window lengths differ, or nothing is left to score.
    """
    if horizon_windows < 1:
        raise ValueError(f"horizon_windows must be at least 1, got {horizon_windows}")
    lengths = {window.window_s for window in history}
    if len(lengths) > 1:
        raise HistoryError(f"a backtest needs windows of one length, got {sorted(lengths)} s")
    scores = [
        score
        for name in sorted({window.request_class for window in history})
        for score in _class_scores(
            sorted((w for w in history if w.request_class == name), key=lambda w: w.start_at),
            horizon_windows,
            first_origin,
        )
    ]
    if not scores:
        raise HistoryError(
            f"{len(history)} windows leave no origin to score {horizon_windows} ahead; give more"
        )
    return BacktestResult(
        horizon_windows=horizon_windows, window_s=lengths.pop(), scores=tuple(scores)
    )


def _class_scores(
    windows: Sequence[ObservedWindow], horizon_windows: int, first_origin: int | None
) -> list[SeriesScore]:
    first = max(len(windows) // 2 if first_origin is None else first_origin, 1)
    at = {window.start_at: window for window in windows}
    cases: list[tuple[Demand, ObservedWindow, ObservedWindow]] = []
    for origin in range(first, len(windows)):
        last = windows[origin - 1]
        made = forecast(
            windows[:origin],
            model="backtest",
            made_at=last.end_at,
            window_s=last.window_s,
            horizon_windows=horizon_windows,
        )
        actual = at.get(made.windows[-1].start_at)
        if actual is not None:
            cases.append((made.windows[-1].demands[0], last, actual))
    return [
        _score(windows[0].request_class, name, cases, quantiles, total)
        for name, quantiles, total in _SERIES
        if cases
    ]


def _score(
    request_class: str,
    series: str,
    cases: Sequence[tuple[Demand, ObservedWindow, ObservedWindow]],
    quantiles: Callable[[Demand], Quantiles],
    total: Callable[[ObservedWindow], int],
) -> SeriesScore:
    actual = _rates([case[2] for case in cases], total)
    last = _rates([case[1] for case in cases], total)
    median = np.array([quantiles(case[0]).median for case in cases])
    q90 = np.array([quantiles(case[0]).at(0.9) for case in cases])
    last_error = float(np.abs(last - actual).mean())
    return SeriesScore(
        request_class=request_class,
        series=series,
        origins=len(cases),
        mae_ratio=float(np.abs(median - actual).mean()) / last_error if last_error > 0 else None,
        q90_coverage_ratio=float(np.mean(actual <= q90)),
    )


def _rates(windows: Sequence[ObservedWindow], total: Callable[[ObservedWindow], int]) -> Floats:
    return np.array([total(w) / w.window_s for w in windows])

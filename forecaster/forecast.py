"""Expected demand of the next windows, from observed ones."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from forecaster.conformal import LEVELS, log_offsets
from forecaster.methods import Panel
from forecaster.series import RateSeries, rate_series, span_of, usable_history
from forecaster.shapes import mix_shapes, shape_from_totals
from planner.domain.forecast import Demand, Forecast, ForecastWindow, Quantiles
from planner.domain.workload import Floats, ObservedWindow, Shape

LOG_OFFSET_RATIO = 0.05
"""Offset inside logarithms, as a share of the mean: a window of zero counts as 5 % of the mean."""

SHAPE_HALF_LIFE_STEPS = 6.0
SHAPE_WINDOWS = 48
"""Eight half-lives: what is older weighs less than 0.4 %."""


def forecast(
    history: Sequence[ObservedWindow],
    *,
    model: str,
    made_at: datetime,
    window_s: float,
    horizon_windows: int,
    arrival_cv2: float = 1.0,
) -> Forecast:
    """What will arrive in the windows that follow `made_at`.

    Each series (request rate, input and output tokens per second, of each class) follows the
    method with the least error so far at the distance of each window; quantiles come from the
    errors that this made, in log space. Lengths are the recent windows' lengths, weighted by
    requests and age.

    Parameters
    ----------
    history : sequence of ObservedWindow
        Any order and window length, gaps allowed (masked, never zero). Windows that end after
        `made_at` are ignored: nothing after `made_at` is used.
    window_s : float
        Length of the forecast windows, seconds; the first starts at `made_at`.
    arrival_cv2 : float
        Squared coefficient of variation of the gaps between arrivals, where it was measured.

    Raises
    ------
    HistoryError
        When no window ended by `made_at`, or windows of one class overlap.
    ValueError
        When `made_at` has no time zone, or a number is out of range.
    """
    _check(made_at, window_s, horizon_windows, arrival_cv2)
    by_class = usable_history(history, made_at)
    outlooks = [
        _ClassOutlook(name, windows, _recent_shape(windows) or _shape_of_others(by_class))
        for name, windows in sorted(by_class.items())
    ]
    windows = tuple(
        _forecast_window(outlooks, made_at + timedelta(seconds=k * window_s), window_s, arrival_cv2)
        for k in range(horizon_windows)
    )
    method = "; ".join(outlook.method(made_at, window_s) for outlook in outlooks)
    return Forecast(
        forecast_id=_content_id(model, made_at, windows, method),
        model=model,
        made_at=made_at,
        windows=windows,
        method=method,
    )


def _check(made_at: datetime, window_s: float, horizon_windows: int, arrival_cv2: float) -> None:
    if made_at.tzinfo is None:
        raise ValueError("made_at needs a time zone")
    if not 0 < window_s < math.inf:
        raise ValueError(f"window_s must be above 0 s and finite, got {window_s:g}")
    if horizon_windows < 1:
        raise ValueError(f"horizon_windows must be at least 1, got {horizon_windows}")
    if not 0 <= arrival_cv2 < math.inf:
        raise ValueError(f"arrival_cv2 must be at least 0 and finite, got {arrival_cv2:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quantity:
    """One forecast quantity of a class.

    `per_request` is what one more request would add; it bounds what may come after a history of
    zeros.
    """

    label: str
    total: Callable[[ObservedWindow], int]
    per_request: Callable[[Shape], float]


_REQUESTS = _Quantity(label="requests", total=lambda w: w.requests, per_request=lambda _: 1.0)
_INPUT = _Quantity(
    label="input tokens", total=lambda w: w.input_tokens, per_request=lambda s: s.isl_mean
)
_OUTPUT = _Quantity(
    label="output tokens", total=lambda w: w.output_tokens, per_request=lambda s: s.osl_mean
)
_QUANTITIES = (_REQUESTS, _INPUT, _OUTPUT)


class _QuantityOutlook:
    """Quantiles of one quantity at any distance."""

    def __init__(self, quantity: _Quantity, windows: list[ObservedWindow], shape: Shape) -> None:
        self._series = rate_series(windows, quantity.total)
        self._panel = Panel(self._series.values)
        self._mean = float(np.nanmean(self._series.values))
        self._per_request = quantity.per_request(shape)

    def quantiles(self, start_at: datetime, window_s: float) -> tuple[Quantiles, str]:
        """Quantiles of the mean rate over [start_at, start_at + window_s), and the method."""
        if self._mean == 0:
            return _idle_quantiles(self._series, self._per_request), "no traffic so far"
        span = span_of(self._series, start_at, window_s)
        offset = LOG_OFFSET_RATIO * self._mean
        choice = self._panel.follow_the_leader(span, log_offset=offset)
        # Errors were seen on steps; a shorter window averages less noise away.
        noise_ratio = max(1.0, math.sqrt(self._series.step_s / window_s))
        factors = np.exp(noise_ratio * log_offsets(choice.log_residuals, steps_ahead=span.last))
        return _increasing((choice.point + offset) * factors - offset), choice.method


class _ClassOutlook:
    """Everything that is forecast of one request class."""

    def __init__(self, name: str, windows: list[ObservedWindow], shape: Shape) -> None:
        self._name = name
        self._shape = shape
        self._of = {q.label: _QuantityOutlook(q, windows, shape) for q in _QUANTITIES}

    def demand(self, start_at: datetime, window_s: float, arrival_cv2: float) -> Demand:
        """The class's demand in one window."""
        requests, input_tokens, output_tokens = (
            self._of[quantity.label].quantiles(start_at, window_s)[0] for quantity in _QUANTITIES
        )
        return Demand(
            request_class=self._name,
            request_rate_rps=requests,
            input_tokens_per_s=input_tokens,
            output_tokens_per_s=output_tokens,
            shape=self._shape,
            arrival_cv2=arrival_cv2,
        )

    def method(self, start_at: datetime, window_s: float) -> str:
        """Which method leads in the first window, for people."""
        chosen = ", ".join(
            f"{label} by {outlook.quantiles(start_at, window_s)[1]}"
            for label, outlook in self._of.items()
        )
        return f"{self._name}: {chosen}"


def _forecast_window(
    outlooks: Sequence[_ClassOutlook], start_at: datetime, window_s: float, arrival_cv2: float
) -> ForecastWindow:
    return ForecastWindow(
        start_at=start_at,
        window_s=window_s,
        demands=tuple(outlook.demand(start_at, window_s, arrival_cv2) for outlook in outlooks),
    )


def _increasing(values: Floats) -> Quantiles:
    kept = np.maximum.accumulate(np.maximum(values, 0.0))
    return Quantiles(levels=LEVELS, values=tuple(kept.tolist()))


def _idle_quantiles(series: RateSeries, per_request: float) -> Quantiles:
    """What may come when nothing came in T seconds: rate r keeps silent with exp(-r T).

    Level 0.95 gives 3 / T, the "rule of three" (Hanley and Lippman-Hand, JAMA 1983).
    """
    rate = -np.log1p(-np.array(LEVELS)) / series.observed_s
    return _increasing(rate * per_request)


def _recent_shape(windows: Sequence[ObservedWindow]) -> Shape | None:
    """Lengths of the class's recent requests; None when it had none."""
    busy = [w for w in windows if w.requests > 0][-SHAPE_WINDOWS:]
    if not busy:
        return None
    last, step_s = windows[-1], min(w.window_s for w in busy)
    ages = [(last.end_at - w.end_at).total_seconds() / step_s for w in busy]
    youngest = min(ages)
    return mix_shapes(
        [w.shape or _totals_shape(w) for w in busy],
        [
            w.requests * 0.5 ** ((age - youngest) / SHAPE_HALF_LIFE_STEPS)
            for w, age in zip(busy, ages, strict=True)
        ],
    )


def _totals_shape(window: ObservedWindow) -> Shape:
    return shape_from_totals(
        requests=window.requests,
        input_tokens=window.input_tokens,
        output_tokens=window.output_tokens,
        cached_tokens=window.cached_tokens,
    )


def _shape_of_others(by_class: dict[str, list[ObservedWindow]]) -> Shape:
    """Lengths for a class that had no request: those of the other classes.

    Without any request at all: one token in, one out, the least that a request can be; its rate
    is close to zero anyway.
    """
    everyone = sorted((w for ws in by_class.values() for w in ws), key=lambda w: w.end_at)
    return _recent_shape(everyone) or shape_from_totals(
        requests=1, input_tokens=1, output_tokens=1, cached_tokens=0, length_cv=0.0
    )


def _content_id(
    model: str, made_at: datetime, windows: Sequence[ForecastWindow], method: str
) -> str:
    digest = hashlib.sha256(f"{model}\n{made_at.isoformat()}\n{method}\n".encode())
    for window in windows:
        digest.update(f"{window.start_at.isoformat()} {window.window_s!r}\n".encode())
        for demand in window.demands:
            digest.update(
                f"{demand.request_class} {demand.arrival_cv2!r} {demand.request_rate_rps!r} "
                f"{demand.input_tokens_per_s!r} {demand.output_tokens_per_s!r}\n".encode()
            )
            shape = demand.shape
            for column in (
                shape.input_tokens,
                shape.output_tokens,
                shape.cached_tokens,
                shape.weight,
            ):
                digest.update(column.astype("<f8").tobytes())
    return f"forecast-{digest.hexdigest()[:16]}"

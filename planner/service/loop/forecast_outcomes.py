"""What came of what was forecast: observed rates of forecast windows, kept once they are whole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from planner.domain.forecast import Demand, Forecast, ForecastWindow
from planner.domain.workload import ObservedWindow
from planner.service.store import ForecastOutcome, Store

LATEST_S = 3_600.0
"""Observations that come in later than this after a window no longer tell what came of it."""

MOST_AT_ONCE = 200
"""Outcomes that one tick takes in; the next one goes on."""

COVERED_RATIO = 1.0 - 1e-6
"""A window counts as observed when so much of it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedRates:
    """What arrived of one class in an interval, per second.

    Parameters
    ----------
    reuse_ratio : float or None
        Share of prompt tokens that was cached, 0..1; None when no prompt arrived.
    """

    request_class: str
    request_rate_rps: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    reuse_ratio: float | None


def observed_rates(
    windows: Sequence[ObservedWindow], *, start_at: datetime, window_s: float
) -> tuple[ObservedRates, ...]:
    """What arrived in [start_at, start_at + window_s), of every class that was observed throughout.

    An observed window that reaches over an end counts by the part inside, as if its requests were
    spread evenly.
    """
    end_at = start_at + timedelta(seconds=window_s)
    rates = []
    for name in sorted({w.request_class for w in windows}):
        parts = [
            (window, overlap_s)
            for window in windows
            if window.request_class == name
            for overlap_s in [_overlap_s(window, start_at, end_at)]
            if overlap_s > 0
        ]
        covered_s = sum(overlap_s for _, overlap_s in parts)
        if covered_s >= COVERED_RATIO * window_s:
            rates.append(_rates(name, parts, covered_s))
    return tuple(rates)


def _overlap_s(window: ObservedWindow, start_at: datetime, end_at: datetime) -> float:
    return (min(window.end_at, end_at) - max(window.start_at, start_at)).total_seconds()


def _rates(
    name: str, parts: Sequence[tuple[ObservedWindow, float]], covered_s: float
) -> ObservedRates:
    shares = [(window, overlap_s / window.window_s) for window, overlap_s in parts]
    prompt = sum(share * w.input_tokens for w, share in shares)
    cached = sum(share * w.cached_tokens for w, share in shares)
    return ObservedRates(
        request_class=name,
        request_rate_rps=sum(share * w.requests for w, share in shares) / covered_s,
        input_tokens_per_s=prompt / covered_s,
        output_tokens_per_s=sum(share * w.output_tokens for w, share in shares) / covered_s,
        reuse_ratio=cached / prompt if prompt > 0 else None,
    )


def take_outcomes(
    store: Store,
    deployment: str,
    model: str,
    windows: Sequence[ObservedWindow],
    *,
    observed_at: datetime,
) -> tuple[ForecastOutcome, ...]:
    """Keep what came of the first and the last window of earlier forecasts; the new outcomes.

    Parameters
    ----------
    windows : sequence of ObservedWindow
        All that is known; they end by `observed_at`.
    """
    found: list[ForecastOutcome] = []
    for made_at, ahead in _due(store, deployment, model, observed_at):
        if len(found) >= MOST_AT_ONCE:
            break
        forecast = store.newest_forecast(deployment, model, by=made_at)
        if forecast is not None and forecast.made_at == made_at:
            found += _outcomes(forecast, ahead, windows)
    return store.add_forecast_outcomes(deployment, model, found)


def _due(
    store: Store, deployment: str, model: str, observed_at: datetime
) -> Iterator[tuple[datetime, int]]:
    """Forecast and window (from 1) that ended lately and whose outcome is not known."""
    newest = store.newest_forecast(deployment, model)
    if newest is None:
        return
    first, last = newest.windows[0], newest.windows[-1]
    reach = (last.start_at - first.start_at).total_seconds() + 2 * last.window_s + LATEST_S
    since = observed_at - timedelta(seconds=reach)
    for made, known in store.forecasts_since(deployment, model, since=since):
        for ahead in sorted({1, made.windows} - known):
            end_at = made.made_at + timedelta(seconds=ahead * made.window_s)
            late_s = (observed_at - end_at).total_seconds()
            if 0 <= late_s <= LATEST_S + made.window_s:
                yield made.made_at, ahead


def _outcomes(
    forecast: Forecast, ahead: int, windows: Sequence[ObservedWindow]
) -> Iterator[ForecastOutcome]:
    window = forecast.windows[ahead - 1]
    observed = observed_rates(windows, start_at=window.start_at, window_s=window.window_s)
    demands = {demand.request_class: demand for demand in window.demands}
    for rates in observed:
        if rates.request_class in demands:
            yield _outcome(forecast, ahead, window, demands[rates.request_class], rates)


def _outcome(
    forecast: Forecast, ahead: int, window: ForecastWindow, demand: Demand, rates: ObservedRates
) -> ForecastOutcome:
    requests, prompts, answers = demand.rates
    return ForecastOutcome(
        request_class=rates.request_class,
        made_at=forecast.made_at,
        windows_ahead=ahead,
        start_at=window.start_at,
        window_s=window.window_s,
        request_rate_rps=rates.request_rate_rps,
        request_rate_median_rps=requests.median,
        request_rate_q90_rps=requests.at(0.9),
        input_tokens_per_s=rates.input_tokens_per_s,
        input_tokens_median_per_s=prompts.median,
        input_tokens_q90_per_s=prompts.at(0.9),
        output_tokens_per_s=rates.output_tokens_per_s,
        output_tokens_median_per_s=answers.median,
        output_tokens_q90_per_s=answers.at(0.9),
    )

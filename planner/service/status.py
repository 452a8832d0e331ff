"""What `poolwise status` is made of: what to ask, what it is held against, what was forecast."""

from collections.abc import Callable
from dataclasses import replace

from planner.domain.errors import StoreError
from planner.domain.forecast import Forecast
from planner.service.store import Store, open_store
from serving.telemetry.signals import DeploymentSignals, ForecastBeside, LedBy, Signal
from serving.telemetry.whole import Promised

HIGH_LEVEL = 0.9


def with_forecast(
    signals: DeploymentSignals, promised: Promised, open_stored: Callable[[], Store | None]
) -> DeploymentSignals:
    """The signals with what the control loop had forecast for now, and who leads it.

    Parameters
    ----------
    open_stored : callable
        The service's database, or None where there is none; it is closed here.
    """
    try:
        store = open_stored()
        if store is None:
            return _beside(signals, "no service has kept a forecast here (poolwise serve does)")
        try:
            name = promised.spec.name
            newest = store.newest_forecast(name, promised.model, by=signals.looked_at)
            leader = store.lease(name).leader()
        finally:
            store.close()
    except StoreError as error:
        return _beside(signals, str(error))
    if leader is not None:
        signals = replace(
            signals,
            led_by=LedBy(holder=leader.holder, term=leader.term, since_at=leader.since_at),
        )
    if newest is None:
        return _beside(signals, f"no forecast of {promised.model} is stored")
    return _expected(signals, newest)


def _expected(signals: DeploymentSignals, forecast: Forecast) -> DeploymentSignals:
    """The demand of all classes in the forecast's window that holds this instant."""
    now = signals.looked_at
    window = next((w for w in forecast.windows if w.start_at <= now < w.end_at), None)
    if window is None:
        made = f"{forecast.made_at:%Y-%m-%d %H:%M} UTC"
        return _beside(signals, f"the newest forecast, of {made}, does not reach to now")
    rates = [demand.request_rate_rps for demand in window.demands]
    return replace(
        signals,
        forecast=ForecastBeside(
            expected_rps=Signal(value=sum(rate.median for rate in rates), metric=forecast.method),
            expected_high_rps=Signal(
                value=sum(rate.at(HIGH_LEVEL) for rate in rates), metric=forecast.method
            ),
            observed_rps=signals.requests_per_s,
        ),
    )


def _beside(signals: DeploymentSignals, reason: str) -> DeploymentSignals:
    lacking = Signal.lacking(reason)
    return replace(
        signals,
        forecast=ForecastBeside(
            expected_rps=lacking,
            expected_high_rps=lacking,
            observed_rps=signals.requests_per_s,
        ),
    )


def stored_at(url: str) -> Store | None:
    """The database behind a URL; None where it is a file that is not there, which is not made."""
    from sqlalchemy import make_url

    where = make_url(url)
    if where.get_backend_name() == "sqlite" and not _file_is_there(where.database):
        return None
    return open_store(url)


def _file_is_there(path: str | None) -> bool:
    from pathlib import Path

    return path is not None and Path(path).exists()

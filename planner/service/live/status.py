"""What `poolwise status` is made of: what is seen, what it is held against, what was forecast."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from planner.domain.errors import StoreError
from planner.domain.forecast import Forecast, Quantiles
from planner.domain.plan import Bottleneck
from planner.service.loop.calibrating import corrections_of
from planner.service.store import Store, open_store
from serving.diagnosis.conclude import diagnose
from serving.diagnosis.finding import Finding
from serving.diagnosis.pool import LEAST_LOOKS
from serving.diagnosis.watched import Watch, Yardsticks
from serving.diagnosis.watching import watch_of
from serving.telemetry.reader import Reading
from serving.telemetry.signals import DeploymentSignals, ForecastBeside, LedBy, Signal
from serving.telemetry.whole import Promised

HIGH_LEVEL = 0.9
MOST_EVIDENCE = 2
_LONGER = "`poolwise diagnose` watches for longer, and can add load to find it"


def with_bottleneck(
    signals: DeploymentSignals, reading: Reading, promised: Promised | None
) -> DeploymentSignals:
    """The signals with what the deployment is short of, as far as this reading's looks tell it."""
    against = Yardsticks()
    if promised is not None:
        spec, model = promised.spec, promised.model
        against = Yardsticks.of(
            (s for s in spec.slos if s.model == model),
            [p for p in spec.profiles if p.model == model],
        )
    watch = watch_of(reading.looks, seconds=reading.seconds, yardsticks=against)
    unseen = _too_little(watch)
    if unseen:
        return replace(signals, bottleneck_why=f"{unseen}; {_LONGER}")
    finding = diagnose(watch)
    return replace(signals, bottleneck=finding.bottleneck, bottleneck_why=_why(finding, watch))


def _too_little(watch: Watch) -> str:
    """Why there is nothing to judge from; empty: there is."""
    if not any(w.signals.answers for w in watch.workers):
        return "no engine answers: their queues and batches tell it"
    most = max(len(w.looks) for w in watch.workers)
    if most < LEAST_LOOKS:
        return (
            f"engines told their queues {most} times in {watch.seconds:.0f} s, "
            f"{LEAST_LOOKS} are needed"
        )
    return ""


def _why(finding: Finding, watch: Watch) -> str:
    """The finding with its first figures, in one line."""
    if finding.bottleneck is None:
        return f"{finding.summary}; {_LONGER}"
    figures = "; ".join(e.text for e in finding.evidence[:MOST_EVIDENCE])
    shown = f" ({figures})" if figures else ""
    sure = f"{finding.confidence} confidence, over {watch.seconds:.0f} s"
    more = "" if finding.bottleneck is Bottleneck.NONE else f"; to do: {finding.action}"
    return f"{finding.summary}{shown}; {sure}{more}"


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
    except StoreError as error:
        return _beside(signals, str(error))
    if store is None:
        return _beside(signals, "no service has kept a forecast here (poolwise serve does)")
    try:
        return beside_forecast(signals, promised, store)
    finally:
        store.close()


def beside_forecast(
    signals: DeploymentSignals, promised: Promised, store: Store
) -> DeploymentSignals:
    """The same from a store that is open."""
    name = promised.spec.name
    try:
        newest = store.newest_forecast(name, promised.model, by=signals.looked_at)
        leader = store.lease(name).leader()
        ordered = store.directives(name).in_force(at=signals.looked_at)
        corrections = corrections_of(store.calibrations(name).all())
    except StoreError as error:
        return _beside(signals, str(error))
    signals = replace(signals, ordered=tuple(one.sentence for one in ordered))
    if leader is not None:
        signals = replace(
            signals,
            led_by=LedBy(holder=leader.holder, term=leader.term, since_at=leader.since_at),
        )
    signals = replace(signals, corrections=tuple(c.sentence for c in corrections))
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

    def both(of_each: Iterable[Quantiles]) -> tuple[Signal, Signal]:
        rates = tuple(of_each)
        return (
            Signal(value=sum(rate.median for rate in rates), metric=forecast.method),
            Signal(value=sum(rate.at(HIGH_LEVEL) for rate in rates), metric=forecast.method),
        )

    requests = both(demand.request_rate_rps for demand in window.demands)
    inputs = both(demand.input_tokens_per_s for demand in window.demands)
    outputs = both(demand.output_tokens_per_s for demand in window.demands)
    return replace(
        signals,
        forecast=ForecastBeside(
            expected_rps=requests[0],
            expected_high_rps=requests[1],
            expected_input_tokens_per_s=inputs[0],
            expected_high_input_tokens_per_s=inputs[1],
            expected_output_tokens_per_s=outputs[0],
            expected_high_output_tokens_per_s=outputs[1],
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
            expected_input_tokens_per_s=lacking,
            expected_high_input_tokens_per_s=lacking,
            expected_output_tokens_per_s=lacking,
            expected_high_output_tokens_per_s=lacking,
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

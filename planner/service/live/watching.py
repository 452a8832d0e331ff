"""What the service sees of its running deployment: a thread that reads the metrics of its parts.

Nothing depends on it: where no part is named, or none answers, the loop goes on with what is
handed in, and what is not known is not exported.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from planner.domain.errors import EngineError, InputError, PoolwiseError
from planner.service.deployment import utc_now
from planner.service.live.recent import RecentSignals
from planner.service.live.status import beside_forecast, with_bottleneck
from planner.service.live.targets import Asked, Through, server_of, targets_of
from planner.service.settings import Settings
from planner.service.store import Store
from planner.service.telemetry.observability import WatchSettings
from serving.fleet.endpoints import read_endpoints
from serving.telemetry import targets
from serving.telemetry.reader import PrometheusReader, Reading, StraightReader
from serving.telemetry.signals import DeploymentSignals
from serving.telemetry.targets import Target
from serving.telemetry.whole import Promised, deployment_signals

LOG = logging.getLogger("poolwise.live")
DEADLINE_S = 5.0
"""Given to each part by itself, seconds."""
STALE_INTERVALS = 4
"""Signals that are older than so many intervals are not of now."""
MOST_KEPT = 1_000
"""Readings kept for whoever takes them once a tick."""

ReadSource = Callable[[float], Reading]


def source_of(
    settings: Settings, *, sleep: Callable[[float], object], here: bool = True
) -> ReadSource | None:
    """Reads what the settings name; None: nothing is to be watched.

    Parameters
    ----------
    here : bool
        Whether it may be the deployment that runs from the state directory, where none is named.

    Raises
    ------
    InputError
        When an address cannot be used.
    """
    watch = settings.watch
    if watch.interval_s <= 0:
        return None
    through = Through(
        url=watch.prometheus_url,
        selector=watch.prometheus_selector or None,
        window_s=None,
        role_labels=(),
        headers=(),
    )
    server = server_of(through)
    if server is not None:
        return _ThroughPrometheus(PrometheusReader(server, DEADLINE_S), sleep)
    if watch.targets:
        try:
            named = targets_of(asked_of(watch))
        except InputError as error:
            raise InputError(f"POOLWISE_WATCH: {error}") from error
        return _Straight(lambda: named, sleep)
    if not here:
        return None
    state_dir = settings.storage.state_dir
    return _Straight(lambda: _running_here(state_dir), sleep)


def asked_of(watch: WatchSettings) -> Asked:
    """The addresses of POOLWISE_WATCH as the command line has them."""
    pairs = [text.partition("=")[::2] for text in watch.targets]
    roles = ("prefill", "decode", "aggregated")
    gates = [url for name, url in pairs if name == "gate"]
    return Asked(
        workers=[f"{name}={url}" for name, url in pairs if name in roles],
        routers=[
            f"{name}={url}" for name, url in pairs if name not in (*roles, "gate", "hardware")
        ],
        gate=gates[-1] if gates else None,
        hardware=[url for name, url in pairs if name == "hardware"],
    )


def _running_here(state_dir: Path) -> tuple[Target, ...]:
    return targets.targets_of(read_endpoints(state_dir))


@dataclass(slots=True)
class _Straight:
    """Reads the parts' pages; begins anew where there are other parts."""

    parts: Callable[[], tuple[Target, ...]]
    sleep: Callable[[float], object]
    _known: tuple[Target, ...] = field(default=(), init=False)
    _reader: StraightReader | None = field(default=None, init=False)

    def __call__(self, interval_s: float) -> Reading:
        parts = self.parts()
        if self._reader is None or parts != self._known:
            self._known = parts
            self._reader = StraightReader(parts, DEADLINE_S, sleep=self._wait)
        return self._reader.read(interval_s)

    def _wait(self, seconds: float) -> None:
        self.sleep(seconds)


@dataclass(slots=True)
class _ThroughPrometheus:
    """Asks a Prometheus server once an interval."""

    reader: PrometheusReader
    sleep: Callable[[float], object]

    def __call__(self, interval_s: float) -> Reading:
        self.sleep(interval_s)
        return self.reader.read()


@dataclass(slots=True)
class LiveSignals:
    """The newest signals of a deployment, read in a thread of its own.

    Parameters
    ----------
    source : callable or None
        Takes an interval to read; None: nothing is watched.
    interval_s : float
    store : Store
        Of forecasts and leaders.
    clock : callable
    on_signals : list of callable
        Get every reading, in the reading thread; what they raise ends nothing.
    recent : RecentSignals
        A few numbers of each reading of the last hour.
    """

    source: ReadSource | None
    interval_s: float
    promised: Promised
    store: Store
    clock: Callable[[], datetime] = utc_now
    stopped: threading.Event = field(default_factory=threading.Event)
    on_signals: list[Callable[[DeploymentSignals], None]] = field(default_factory=list)
    recent: RecentSignals = field(default_factory=RecentSignals, init=False)
    _newest: DeploymentSignals | None = field(default=None, init=False)
    _untaken: deque[DeploymentSignals] = field(
        default_factory=lambda: deque(maxlen=MOST_KEPT), init=False
    )
    _complained: str = field(default="", init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin to read, where there is anything."""
        if self.source is not None:
            self._thread = threading.Thread(target=self._run, name="live-signals", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End reading; a read under way is not waited for longer than its deadline."""
        self.stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * DEADLINE_S)

    def newest(self) -> DeploymentSignals | None:
        """The newest signals, None where there are none or they are not of now."""
        found = self._newest
        if found is None:
            return None
        oldest = self.clock() - timedelta(seconds=STALE_INTERVALS * max(self.interval_s, 1.0))
        return found if found.looked_at >= oldest else None

    def take(self) -> tuple[DeploymentSignals, ...]:
        """Every reading since this was asked last, oldest first; they are given once."""
        taken = []
        while self._untaken:
            taken.append(self._untaken.popleft())
        return tuple(taken)

    def put(self, signals: DeploymentSignals) -> None:
        """Make these the newest signals."""
        self._newest = signals
        self._untaken.append(signals)
        self.recent.add(signals)
        for tell in self.on_signals:
            try:
                tell(signals)
            except Exception:
                LOG.exception("signals could not be passed on")

    def read_once(self) -> None:
        """One reading; what goes wrong is logged once, and again when it is something else."""
        if self.source is None:
            return
        try:
            reading = self.source(self.interval_s)
            signals = self._signals(reading)
        except PoolwiseError as error:
            if str(error) != self._complained:
                self._complained = str(error)
                level = logging.INFO if isinstance(error, EngineError) else logging.WARNING
                LOG.log(level, "the deployment's metrics cannot be read: %s", error)
            self.stopped.wait(self.interval_s)
            return
        self._complained = ""
        self.put(signals)

    def _signals(self, reading: Reading) -> DeploymentSignals:
        signals = deployment_signals(
            reading.targets, looked_at=self.clock(), promised=self.promised
        )
        signals = with_bottleneck(signals, reading, self.promised)
        return beside_forecast(signals, self.promised, self.store)

    def _run(self) -> None:
        while not self.stopped.is_set():
            began_s = time.monotonic()
            try:
                self.read_once()
            except Exception:  # a fault here must end neither the thread nor the loop
                LOG.exception("reading the deployment's metrics failed unexpectedly")
                self.stopped.wait(self.interval_s)
            if time.monotonic() - began_s < 0.01:  # never spin, whatever a source does
                self.stopped.wait(0.1)

"""Runs the service: store, deployment, loop and API in one process."""

import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from actuators.actuator import Actuator
from actuators.metrics import DesiredReplicas, MetricsActuator
from planner.domain.errors import InputError, NoFreePortError
from planner.domain.spec import Spec, Stage, TargetKind
from planner.service.answers.planning import sole_model
from planner.service.api import Service, create_app
from planner.service.api.service import LOOPBACK
from planner.service.deployment import Deployment, StoreObserver, utc_now
from planner.service.election.choosing import make_election
from planner.service.election.leadership import Election, Leadership, Reign
from planner.service.fleet.exported import ExportedFleetActuator
from planner.service.fleet.orders import taking_orders
from planner.service.fleet.recorded import RecordedFleetActuator
from planner.service.live.sight import Sight
from planner.service.live.watching import LiveSignals, source_of
from planner.service.loop.scheduler import follow_loop, start_scheduler, take_over_soon
from planner.service.loop.tidying import schedule_tidying
from planner.service.security.authentication import noting_uses
from planner.service.security.redaction import redact_logs
from planner.service.security.tls import Tls, renewing, tls_context, tls_files
from planner.service.security.tokens import hash_of, new_token
from planner.service.settings import ServerSettings, Settings, read_settings
from planner.service.spec.catalogue import read_catalogue
from planner.service.spec.file import read_spec
from planner.service.spec.versions import SpecReader, Specs, in_force, supersede_foreign
from planner.service.store import Store, open_store
from planner.service.store.profiles import StoredProfiles
from planner.service.telemetry.events import EventWatch
from planner.service.telemetry.logs import log_to
from planner.service.telemetry.metrics import Metrics
from planner.service.telemetry.notifying import Notifier, channels_of
from planner.service.telemetry.observability import LogFormat
from planner.service.telemetry.tracing import Tracing, make_tracing, no_span
from serving.telemetry.whole import Promised

if TYPE_CHECKING:
    from actuators.keda.scaler import Listener as KedaListener

LOG = logging.getLogger("poolwise.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What the command line says; None: as in the settings."""

    spec: Path
    host: str | None = None
    port: int | None = None
    keda_port: int | None = None
    dry_run: bool = False
    insecure_local: bool = False
    anonymous_reads: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    new_token: bool = False
    model: str | None = None
    allow_estimates: bool = False
    as_json: bool = False
    log_format: LogFormat | None = None


def run(options: ServeOptions) -> None:
    """Serve until a signal ends it.

    Raises
    ------
    PoolwiseError
        When the spec, the store or the port is not usable.
    """
    settings = read_settings(os.environ)
    known = read_catalogue(settings.catalogue.path)
    spec = read_spec(options.spec, allow_estimates=options.allow_estimates, catalogue=known)
    if options.dry_run:
        spec = replace(spec, target=TargetKind.DRY_RUN)
    host = options.host or settings.server.host
    if options.insecure_local and host not in LOOPBACK:
        raise InputError(f"--insecure-local goes with a loopback address only, not with {host}")
    port = settings.server.port if options.port is None else options.port
    tls = _tls(options, settings.server)
    log_to(None, options.log_format or settings.log_format)
    redact_logs()
    _warn_of_plain_text(host, tls)
    tracing = make_tracing(os.environ)
    keda_port = settings.server.keda_port if options.keda_port is None else options.keda_port
    with (
        listening(host, port) as listener,
        _keda_listening(spec, host, keda_port) as keda,
        _opened(settings) as store,
    ):
        election = make_election(settings.election, spec, store)
        reader = SpecReader(
            profiles=StoredProfiles(access=store.access),
            catalogue=known,
            dry_run=options.dry_run,
            model=options.model,
        )
        version, spec = in_force(
            options.spec, spec, store, reader, allow_estimates=options.allow_estimates
        )
        desired = _desired(spec, election)
        hands = Hands(spec=spec, desired=desired)
        live = _live(spec, store, settings, model=options.model)
        deployment = make_deployment(spec, store, hands, model=options.model)
        deployment = replace(
            deployment, readings=live.take, span=no_span if tracing is None else tracing.span
        )
        token = None if options.insecure_local else _token(store, renew=options.new_token)
        _tell_head(store)
        leadership = Leadership(election, deployment, hands.on)
        specs = Specs(
            store=store,
            reader=reader,
            given=version.given,
            hands=lambda new: Hands(spec=new, desired=desired).on,
            leadership=leadership,
            now=version,
        )
        supersede_foreign(deployment, by=version.put_by)
        if keda is not None and desired is not None:
            keda.start(desired.current)
        _announce(options, spec, listener, token, keda, scheme="https" if tls else "http")
        sight = Sight(leadership, live)
        service = _service(specs, desired, settings, options, tracing=tracing)
        service.metrics.show(deployment, live)
        _serve(service, specs, sight, listener, tls, settings=settings)
        if tracing is not None:
            tracing.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What moves the fleet of a spec's target.

    Parameters
    ----------
    desired : DesiredReplicas or None
        Counts that an autoscaler of the cluster follows, where it moves the fleet.
    """

    spec: Spec
    desired: DesiredReplicas | None

    def on(self, store: Store, reign: Reign | None = None) -> Actuator:
        """An actuator that writes to a store; one that waits gives up with its reign."""
        spec = self.spec
        if spec.target is TargetKind.KUBERNETES:
            from planner.service.fleet.kubernetes_target import kubernetes_actuator

            actuator = kubernetes_actuator(spec, instance=store.instance())
            if reign is not None:
                actuator.sleep = partial(reign.sleep_then_check, actuator.sleep)
                actuator.before_write = reign.check
            return actuator
        if spec.target is TargetKind.LOCAL:
            from planner.service.fleet.deploying import client_of
            from planner.service.fleet.local_target import RunningDeployment

            running = RunningDeployment(control=client_of(os.environ, LOG.info), spec=spec)
            if reign is not None:
                running.before_write = reign.check
            return running
        if self.desired is None:
            return RecordedFleetActuator(store=store, spec=spec)
        record = ExportedFleetActuator(store=store, spec=spec)
        return MetricsActuator(record=record, desired=self.desired)


def _desired(spec: Spec, election: Election) -> DesiredReplicas | None:
    if spec.target is not TargetKind.METRICS:
        return None
    return DesiredReplicas(
        deployment=spec.name,
        valid_for_s=_valid_for_s(spec),
        speaks=lambda: election.term() is not None,
    )


def _valid_for_s(spec: Spec) -> float:
    """Two ticks in a row may fail before an autoscaler is left to hold what it has."""
    return 3 * spec.loop.slow_interval_s


def make_deployment(
    spec: Spec, store: Store, hands: Hands, *, model: str | None = None
) -> Deployment:
    """The deployment of a spec, with eyes and hands that its target has.

    Raises
    ------
    InputError
        When this version has none for the target.
    """
    name = sole_model(spec, model)
    return Deployment(
        spec=spec,
        model=name,
        observer=StoreObserver(store=store, deployment=spec.name, model=name),
        actuator=hands.on(store),
        store=store,
    )


def _service(
    specs: Specs,
    desired: DesiredReplicas | None,
    settings: Settings,
    options: ServeOptions,
    *,
    tracing: Tracing | None,
) -> Service:
    leadership, server = specs.leadership, settings.server
    deployment = leadership.deployment
    metrics = Metrics(desired=desired, stale_after_s=deployment.spec.guards.stale_observation_s)
    metrics.watch(deployment.spec.name, leadership.election)
    return Service(
        deployment=deployment,
        metrics=metrics,
        leadership=leadership,
        specs=specs,
        insecure_local=options.insecure_local,
        anonymous_reads=options.anonymous_reads,
        requests_per_s=server.requests_per_s,
        max_body_bytes=server.max_body_bytes,
        answer_within_s=server.answer_within_s,
        tracing=tracing,
    )


def _serve(
    service: Service,
    specs: Specs,
    sight: Sight,
    listener: socket.socket,
    tls: Tls | None,
    *,
    settings: Settings,
) -> None:
    app = create_app(service)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    config.load()
    config.ssl = None if tls is None else tls.context
    redact_logs()  # now that all handlers are there
    leadership, live = specs.leadership, sight.live
    deployment, election = leadership.deployment, leadership.election
    notifier = Notifier(
        channels_of(settings.notifications),
        service.metrics.registry,
        deployment=deployment.spec.name,
        repeat_s=settings.notifications.repeat_s,
    )
    events = EventWatch(
        deployment,
        notifier,
        lambda: election.term() is not None,
        burn_ratio=settings.notifications.burn_ratio,
    )
    live.on_signals.append(events.take)
    live.start()
    if notifier.senders:
        notifier.start()
        events.start()
    scheduler = start_scheduler(leadership, service.metrics, before_tick=specs.follow)
    schedule_tidying(scheduler, leadership, settings.keeping)

    def follow(made: Deployment) -> None:
        sight.follow(made)
        events.follow(made)
        follow_loop(scheduler, leadership, service.metrics, before_tick=specs.follow)
        if service.metrics.desired is not None:
            service.metrics.desired.valid_for_s = _valid_for_s(made.spec)

    specs.watchers.append(follow)
    election.start(lambda: take_over_soon(scheduler, leadership))
    # uvicorn stops on SIGTERM and then raises it again; by then everything is to be closed.
    signal.signal(signal.SIGTERM, _ignore)
    try:
        with (
            taking_orders(leadership),
            noting_uses(app.state.authenticator),
            renewing(tls),
        ):
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        scheduler.shutdown(wait=True)
        leadership.deployment.stages.finish(Stage.APPLY)  # a rollout that outlasted its tick
        election.stop()
        for part in (events, notifier, live):
            part.stop()


def _live(spec: Spec, store: Store, settings: Settings, *, model: str | None) -> LiveSignals:
    """What the service sees of its running deployment; reading begins with `start`."""
    stopped = threading.Event()
    return LiveSignals(
        source=source_of(settings, sleep=stopped.wait),
        interval_s=settings.watch.interval_s,
        promised=Promised(spec=spec, model=sole_model(spec, model)),
        store=store,
        stopped=stopped,
    )


def _tls(options: ServeOptions, settings: ServerSettings) -> Tls | None:
    """TLS by the command line, else by the settings; None: plain HTTP."""
    files = tls_files(
        options.tls_cert or settings.tls_cert,
        options.tls_key or settings.tls_key,
        options.tls_client_ca or settings.tls_client_ca,
    )
    return None if files is None else Tls(files=files, context=tls_context(files))


def _warn_of_plain_text(host: str, tls: Tls | None) -> None:
    if tls is None and host not in LOOPBACK:
        LOG.warning(
            "tokens sent to %s can be read on the way: give --tls-cert and --tls-key, or let "
            "nothing but a proxy that speaks TLS reach this port",
            host,
        )


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    """Do nothing: the signal has had its effect."""


@contextmanager
def _keda_listening(spec: Spec, host: str, port: int | None) -> "Iterator[KedaListener | None]":
    """The port that KEDA asks, taken; None where none is wanted."""
    if port is None:
        yield None
        return
    if spec.target is not TargetKind.METRICS:
        raise InputError(
            f"--keda-port (or POOLWISE_KEDA_PORT) goes with target.kind metrics, not with "
            f"{spec.target}: KEDA is told the counts that this target exports"
        )
    try:
        from actuators.keda import scaler
    except ImportError as error:
        raise InputError(
            "--keda-port needs gRPC, which is not installed: `pip install poolwise[keda]`"
        ) from error
    # gRPC cannot be handed a socket, and says on standard error what is wrong with a port.
    listening(host, port, option="--keda-port").close()
    with scaler.listening(host, port) as listener:
        yield listener


def listening(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """A bound socket, so that a taken port is told before anything starts.

    Raises
    ------
    PoolwiseError
        When the address is not this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small pieces at once (TCP_NODELAY); else streams stall.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except socket.gaierror as error:
        listener.close()
        raise InputError(f"--host {host} is no address of this machine") from error
    except OSError as error:
        listener.close()
        raise NoFreePortError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another one with "
            f"{option}, or any free one with {option} 0"
        ) from error
    return listener


@contextmanager
def _opened(settings: Settings) -> Iterator[Store]:
    store = open_store(settings.storage.database_url)
    try:
        yield store
    finally:
        store.close()


def _token(store: Store, *, renew: bool) -> str | None:
    """A new token where there was none or a new one is wanted; it is never seen again."""
    token, now = new_token(), utc_now()
    if renew:
        store.tokens().replace_all(hash_of(token), name="admin", at=now)
        return token
    return token if store.tokens().add_first(hash_of(token), name="admin", at=now) else None


def _tell_head(store: Store) -> None:
    """Leave the head of the audit log where logs are kept: `poolwise audit verify --expect`."""
    for last in store.audit(limit=1):
        LOG.info("the audit log ends at line %d, head %s", last.seq, last.hash)


def _announce(
    options: ServeOptions,
    spec: Spec,
    listener: socket.socket,
    token: str | None,
    keda: "KedaListener | None",
    *,
    scheme: str,
) -> None:
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    url, scaler = f"{scheme}://{name}:{port}", f"{name}:{keda.port}" if keda else None
    if options.as_json:
        facts = {"url": url, "deployment": spec.name, "mode": spec.loop.mode, "token": token}
        sys.stdout.write(json.dumps(facts | {"keda": scaler}) + "\n")
    else:
        sys.stdout.write(f"Poolwise plans {spec.name} on {url} (mode {spec.loop.mode})\n")
        if scaler:
            sys.stdout.write(f"KEDA may ask for desired replicas at {scaler} (external-push)\n")
        if token:
            sys.stdout.write(f"Bearer token of admin, shown only now: {token}\n")
    sys.stdout.flush()

"""Runs the service: store, deployment, loop and API in one process."""

import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from planner.domain.errors import InputError
from planner.domain.hardware import Catalogue
from planner.domain.spec import Spec, TargetKind
from planner.service.api import Service
from planner.service.api.service import LOOPBACK
from planner.service.dashboard.app import create_site
from planner.service.deployment import utc_now
from planner.service.election.choosing import lease_of, make_election
from planner.service.fleet.orders import OrderTaker, taking_orders
from planner.service.hosting.host import Host, Shared
from planner.service.hosting.overlaps import check_apart
from planner.service.listening import listening
from planner.service.loop.scheduler import make_scheduler, take_over_soon
from planner.service.security.authentication import noting_uses
from planner.service.security.redaction import redact_logs
from planner.service.security.tls import Tls, renewing, tls_context, tls_files
from planner.service.security.tokens import hash_of, new_token
from planner.service.settings import ServerSettings, Settings, read_settings
from planner.service.spec.catalogue import read_catalogue
from planner.service.spec.file import read_spec
from planner.service.spec.versions import SpecReader, in_force
from planner.service.store import Store, open_store
from planner.service.store.profiles import StoredProfiles
from planner.service.telemetry.logs import log_to
from planner.service.telemetry.metrics import Metrics
from planner.service.telemetry.notifying import Notifier, channels_of
from planner.service.telemetry.observability import LogFormat
from planner.service.telemetry.tracing import Tracing, make_tracing, no_span

if TYPE_CHECKING:
    from actuators.keda.scaler import Listener as KedaListener

LOG = logging.getLogger("poolwise.serve")
GRACE_S = 5.0
"""So long a tick that only looks or computes may take to its end when the server is to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What the command line says; None: as in the settings.

    Parameters
    ----------
    specs : tuple of Path
        Files, and folders that hold some.
    """

    specs: tuple[Path, ...]
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
        When a spec, the store or the port is not usable.
    """
    settings = read_settings(os.environ)
    known = read_catalogue(settings.catalogue.path)
    given = _read_specs(options, known)
    if len(given) > 1:
        settings.watch.check_several()
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
        _keda_listening(tuple(given.values()), host, keda_port) as keda,
        _opened(settings) as store,
    ):
        reader = SpecReader(
            profiles=StoredProfiles(access=store.access),
            catalogue=known,
            dry_run=options.dry_run,
            model=options.model,
        )
        shared = _shared(given, store, settings, reader, tracing)
        deployments = Host(shared)
        try:
            _open_all(deployments, given, allow_estimates=options.allow_estimates)
            token = None if options.insecure_local else _token(store, renew=options.new_token)
            _tell_head(store)
            if keda is not None:
                keda.start(deployments.registry.desired)
            scheme = "https" if tls else "http"
            _announce(
                options, deployments, _address(listener), scheme=scheme, token=token, keda=keda
            )
            _serve(_service(deployments, options, tracing), deployments, listener, tls)
        finally:
            deployments.stop()
            shared.notifier.stop()
        if tracing is not None:
            tracing.stop()


def _read_specs(options: ServeOptions, known: Catalogue) -> dict[Path, Spec]:
    """The spec of every file; names and targets of all of them differ."""
    paths = spec_files(options.specs)
    if options.model is not None and len(paths) > 1:
        raise InputError("--model goes with one spec: of several, let each list the one it plans")
    specs: dict[Path, Spec] = {}
    for path in paths:
        spec = read_spec(path, allow_estimates=options.allow_estimates, catalogue=known)
        if options.dry_run:
            spec = replace(spec, target=TargetKind.DRY_RUN)
        same = [other for other, one in specs.items() if one.name == spec.name]
        if same:
            raise InputError(
                f"{same[0]} and {path} both name deployment {spec.name}: give each its own `name`"
            )
        check_apart(spec, tuple(specs.values()))
        specs[path] = spec
    return specs


def spec_files(given: Sequence[Path]) -> tuple[Path, ...]:
    """The files that are meant: a folder stands for all specs in it.

    Raises
    ------
    InputError
        When a folder holds none.
    """
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())
        if not inside:
            raise InputError(f"--spec {path}: the folder holds no spec (*.yaml)")
        found += inside
    return tuple(dict.fromkeys(found))


def _shared(
    given: Mapping[Path, Spec],
    store: Store,
    settings: Settings,
    reader: SpecReader,
    tracing: Tracing | None,
) -> Shared:
    specs = tuple(given.values())
    lease = lease_of([spec.name for spec in specs], settings.election)
    in_cluster = (spec for spec in specs if spec.target is TargetKind.KUBERNETES)
    metrics = Metrics()
    return Shared(
        store=store,
        settings=settings,
        reader=reader,
        election=make_election(settings.election, next(in_cluster, specs[0]), store, lease=lease),
        lease=lease,
        metrics=metrics,
        scheduler=make_scheduler(metrics),
        notifier=Notifier(
            channels_of(settings.notifications),
            metrics.registry,
            repeat_s=settings.notifications.repeat_s,
        ),
        span=no_span if tracing is None else tracing.span,
    )


def _open_all(host: Host, given: Mapping[Path, Spec], *, allow_estimates: bool) -> None:
    """Serve those of the files, and those that were added while the server ran earlier."""
    shared, members = host.shared, host.shared.members
    members.adopt(spec.name for spec in given.values())
    known = members.all()
    for number, (path, file_spec) in enumerate(given.items(), 1):
        version, spec = in_force(
            path, file_spec, shared.store, shared.reader, allow_estimates=allow_estimates
        )
        member = known.pop(spec.name, None)
        if member is not None and member.retired and member.given == version.given:
            LOG.warning(
                "deployment=%s was retired by %s and is not served: take %s out of --spec, or "
                "put it again",
                spec.name,
                member.changed_by,
                path,
            )
            continue
        if member is not None:
            members.forget(spec.name)
        host.check_apart(spec)
        host.open(version, spec, alone=len(given) == 1, first_ratio=number / len(given))
    for member in known.values():
        if not member.retired:
            host.open_member(member)


def _service(host: Host, options: ServeOptions, tracing: Tracing | None) -> Service:
    shared, server = host.shared, host.shared.settings.server
    return Service(
        registry=host.registry,
        store=shared.store,
        lease=shared.lease,
        host=host,
        metrics=shared.metrics,
        election=shared.election,
        insecure_local=options.insecure_local,
        anonymous_reads=options.anonymous_reads,
        requests_per_s=server.requests_per_s,
        max_body_bytes=server.max_body_bytes,
        answer_within_s=server.answer_within_s,
        tracing=tracing,
    )


def _serve(service: Service, host: Host, listener: socket.socket, tls: Tls | None) -> None:
    app = create_site(service)
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
    shared = host.shared
    scheduler, election, registry = shared.scheduler, shared.election, host.registry

    def take_over_all() -> None:
        for served in registry.all():
            take_over_soon(scheduler, served.leadership)

    if shared.notifier.senders:
        shared.notifier.start()
    scheduler.start()
    election.start(take_over_all)
    taker = OrderTaker(shared.store.access, lambda: [one.leadership for one in registry.all()])
    gc.freeze()  # what is there by now stays: no collection is to look through all of it again
    # uvicorn stops on SIGTERM and then raises it again; by then everything is to be closed.
    signal.signal(signal.SIGTERM, _ignore)
    try:
        with taking_orders(taker), noting_uses(app.state.authenticator), renewing(tls):
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        given_up = threading.Timer(GRACE_S, shared.slots.ending.set)
        given_up.start()
        scheduler.shutdown(wait=True)
        given_up.cancel()
        host.finish()
        election.stop()


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
def _keda_listening(
    specs: Sequence[Spec], host: str, port: int | None
) -> "Iterator[KedaListener | None]":
    """The port that KEDA asks, taken; None where none is wanted."""
    if port is None:
        yield None
        return
    if not any(spec.target is TargetKind.METRICS for spec in specs):
        raise InputError(
            f"--keda-port (or POOLWISE_KEDA_PORT) goes with target.kind metrics, not with "
            f"{specs[0].target}: KEDA is told the counts that this target exports"
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


def _address(listener: socket.socket) -> str:
    """As it stands in a URL."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _announce(
    options: ServeOptions,
    host: Host,
    address: str,
    *,
    scheme: str,
    token: str | None,
    keda: "KedaListener | None",
) -> None:
    url = f"{scheme}://{address}"
    scaler = f"{address.rpartition(':')[0]}:{keda.port}" if keda else None
    specs = [one.deployment.spec for one in host.registry.all()]
    told = [{"deployment": spec.name, "mode": spec.loop.mode} for spec in specs]
    if options.as_json:
        first = told[0] if told else {"deployment": None, "mode": None}
        facts = {"url": url, **first, "deployments": told, "token": token, "keda": scaler}
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        what = ", ".join(f"{spec.name} (mode {spec.loop.mode})" for spec in specs) or "nothing yet"
        if len(specs) == 1:
            what = specs[0].name
        mode = f" (mode {specs[0].loop.mode})" if len(specs) == 1 else ""
        sys.stdout.write(f"Poolwise plans {what} on {url}{mode}\n")
        sys.stdout.write(f"Dashboard: {url}/\n")
        if scaler:
            sys.stdout.write(f"KEDA may ask for desired replicas at {scaler} (external-push)\n")
        if token:
            sys.stdout.write(f"Bearer token of admin, shown only now: {token}\n")
    sys.stdout.flush()

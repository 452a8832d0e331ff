"""Puts a gate together from a spec, the running deployment, a file of keys and the store."""

import json
import logging
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.domain.spec import Spec
from planner.service.answers.planning import sole_model
from planner.service.api.service import LOOPBACK
from planner.service.listening import listening
from planner.service.settings import read_settings
from planner.service.spec.catalogue import read_catalogue
from planner.service.spec.file import read_spec
from planner.service.store import Store, open_store
from serving.gate.app import Gate, GateSettings
from serving.gate.cells import Cells
from serving.gate.costs import Prices, replica_usd_per_s
from serving.gate.exchange import Books
from serving.gate.keys import Keys, read_keys
from serving.gate.records import RecordWriter, RequestRecord
from serving.gate.server import Serving
from serving.gate.server import run as serve

DEFAULT_PORT = 8766
KEYS_FILE = "gate-keys.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """What the command line says; None: as in the settings.

    Parameters
    ----------
    routers : tuple of str
        Base URLs; empty: those of the deployment that runs from the state directory.
    listen_fd : int or None
        An open socket that listens already; host and port are not looked at.
    record : bool
        Whether requests are recorded in the store.
    drain_s : float
        Answers under way may take so long after a signal to stop, seconds.
    """

    spec: Path
    model: str | None = None
    routers: tuple[str, ...] = ()
    keys: Path | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    listen_fd: int | None = None
    anonymous: bool = False
    admission: bool = True
    direct: bool = True
    record: bool = True
    drain_s: float = 30.0
    allow_estimates: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSink:
    """Keeps what a gate saw in the store (a `RequestSink`)."""

    store: Store
    deployment: str
    retention_s: float

    def add_requests(self, records: Sequence[RequestRecord]) -> None:
        """Keep records; those older than the retention go."""
        self.store.add_gate_requests(
            self.deployment, records, now=datetime.now(UTC), retention_s=self.retention_s
        )


def keys_path(keys: Path | None) -> Path:
    """The file of keys: the one given, or the one in the state directory."""
    return keys or read_settings(os.environ).storage.state_dir / KEYS_FILE


def run_gate(options: GateOptions) -> None:
    """Serve until a signal ends it.

    Raises
    ------
    PoolwiseError
        When the spec, the keys, the store or the port is not usable.
    """
    settings = read_settings(os.environ)
    known = read_catalogue(settings.catalogue.path)
    spec = read_spec(options.spec, allow_estimates=options.allow_estimates, catalogue=known)
    path, keys = keys_path(options.keys), check_access(options)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    state_dir = settings.storage.state_dir
    opened = closing(open_store(settings.storage.database_url)) if options.record else nullcontext()
    with _listener(options) as listener, opened as store:
        sink = None
        if store is not None:
            retention_s = settings.gate_records.retention_s
            sink = StoreSink(store=store, deployment=spec.name, retention_s=retention_s)
        gate = make_gate(
            spec,
            replace(options, routers=_cleaned(options.routers)),
            state_dir=state_dir,
            keys=keys,
            records=RecordWriter(sink),
            max_body_bytes=settings.server.max_body_bytes,
        )
        url = _url_of(listener)
        serve(
            gate,
            Serving(listener=listener, keys=path, drain_s=options.drain_s),
            ready=lambda: _announce(options, spec, url),
        )


def make_gate(
    spec: Spec,
    options: GateOptions,
    *,
    state_dir: Path | None,
    keys: Keys,
    records: RecordWriter,
    max_body_bytes: int,
) -> Gate:
    """The gate of one model of a spec.

    Raises
    ------
    InputError
        When the spec has several models and none is chosen.
    """
    model = sole_model(spec, options.model)
    profiles = [p for p in spec.profiles if p.model == model]
    settings = GateSettings(
        models=(model,),
        slos={slo.request_class: slo for slo in spec.slos if slo.model == model},
        anonymous=options.anonymous,
        admission=options.admission,
        direct=options.direct,
        max_body_bytes=max_body_bytes,
    )
    cells = Cells(model=model, profiles=profiles, routers=options.routers, state_dir=state_dir)
    prices = prices_of(spec, profiles)
    books = Books(records=records, prices={} if prices is None else {model: prices})
    return Gate(settings, cells, books, keys)


def prices_of(spec: Spec, profiles: Sequence[Profile]) -> Prices | None:
    """What a second of prefill and of decode costs, by the first profile of each role."""
    usd = {}
    names = {accelerator.name for accelerator in spec.accelerators}
    for role in (Role.AGGREGATED, Role.PREFILL, Role.DECODE):
        fitting = [p for p in profiles if role in p.roles and p.accelerator in names]
        if fitting:
            usd[role] = replica_usd_per_s(spec.accelerator(fitting[0].accelerator), fitting[0])
    prefill, decode = (usd.get(r, usd.get(Role.AGGREGATED)) for r in (Role.PREFILL, Role.DECODE))
    if prefill is None or decode is None:
        return None
    return Prices(prefill_usd_per_s=prefill, decode_usd_per_s=decode)


def check_access(options: GateOptions) -> Keys:
    """The keys that the gate would have.

    Raises
    ------
    InputError
        When nobody could use it, or everybody on a network.
    """
    path = keys_path(options.keys)
    keys = read_keys(path)
    if options.anonymous and options.host not in LOOPBACK:
        raise InputError(
            f"--anonymous goes with a loopback address only, not with {options.host}: give keys "
            "instead (`poolwise gate key add`)"
        )
    if not keys.keys and not options.anonymous:
        raise InputError(
            f"{path} holds no API key, so that nobody could use the gate: make one with `poolwise "
            "gate key add NAME`, or let everybody on this machine in with --anonymous"
        )
    return keys


def _cleaned(routers: Sequence[str]) -> tuple[str, ...]:
    """Base URLs without the /v1 that clients append.

    Raises
    ------
    InputError
        When one is no HTTP address.
    """
    for url in routers:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"--router {url} is no address: write it as http://127.0.0.1:30000")
    return tuple(url.rstrip("/").removesuffix("/v1") for url in routers)


def _listener(options: GateOptions) -> AbstractContextManager[socket.socket]:
    """The socket to serve on.

    Raises
    ------
    InputError, OperationError
        When the port is taken, or the inherited file is no listening socket.
    """
    if options.listen_fd is None:
        return listening(options.host, options.port)
    try:
        given = socket.socket(fileno=options.listen_fd)
        listens = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise InputError(
            f"--listen-fd {options.listen_fd} is no open socket ({error.strerror}): it is for "
            "programs that start a gate; people take --port"
        ) from error
    if not listens:
        raise InputError(f"--listen-fd {options.listen_fd} is a socket that does not listen")
    return given


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce(options: GateOptions, spec: Spec, url: str) -> None:
    if options.as_json:
        sys.stdout.write(json.dumps({"url": url, "deployment": spec.name}) + "\n")
    else:
        sys.stdout.write(f"The gate of {spec.name} is {url}/v1 (metrics: {url}/metrics)\n")
    sys.stdout.flush()

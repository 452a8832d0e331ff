"""Settings of the process, read once from the environment and passed down as values.

==========================  ===============================================================
variable                    meaning (default)
==========================  ===============================================================
POOLWISE_STATE_DIR          folder of the database, logs and engines' state
                            ($XDG_STATE_HOME/poolwise or ~/.local/state/poolwise)
POOLWISE_DATABASE_URL       SQLAlchemy URL (SQLite file `poolwise.db` in the state folder)
POOLWISE_ENGINE_PYTHON      Python that has vLLM; Poolwise only starts it (none)
POOLWISE_HOST               address that `poolwise serve` listens on (127.0.0.1)
POOLWISE_PORT               its port, 0 for any free one (8765)
POOLWISE_KEDA_PORT          port on which it answers KEDA, 0 for any free one (none: it does not)
POOLWISE_MAX_BODY_BYTES     largest request body, bytes (16777216)
POOLWISE_ANSWER_WITHIN_S    plans, forecasts and simulations that take longer are answered with a
                            job, seconds (30)
POOLWISE_REQUESTS_PER_S     requests of one token's name, a second; twice as many may come at once;
                            0 for as many as come (200)
POOLWISE_TLS_CERT           certificate chain of the server, PEM; with it HTTPS is spoken (none)
POOLWISE_TLS_KEY            its private key, PEM (none)
POOLWISE_TLS_CLIENT_CA      only clients with a certificate of these are let in, PEM (none)
POOLWISE_SERVER_CA          commands trust a server whose certificate one of these signed, PEM
                            (those that the system trusts)
POOLWISE_CLIENT_CERT        certificate that commands show to the server, PEM (none)
POOLWISE_CLIENT_KEY         its private key, PEM (none)
POOLWISE_PROMETHEUS_AUTHORIZATION
                            value of the Authorization header for a Prometheus server (none)
POOLWISE_CATALOGUE          file of accelerators that adds to and overrides those shipped (none)
POOLWISE_GATE_RETENTION_S   records of requests through the gate are kept so long, seconds; then
                            their hours (604800)
POOLWISE_KEEP_WINDOWS_S     observed windows stay as they came in so long, seconds; then they are
                            summed up to hours (604800, 7 days)
POOLWISE_KEEP_HOURS_S       those hours, and the gate's, are kept so long (34560000, 400 days)
POOLWISE_KEEP_DECISIONS_S   what ticks did is kept so long (7776000, 90 days)
POOLWISE_KEEP_PLANS_S       plans that never moved the fleet are kept so long (604800, 7 days)
POOLWISE_KEEP_ROLLOUTS_S    plans that did are kept so long (34560000, 400 days)
POOLWISE_LEADER_ELECTION    where the lease is kept of which only the holder moves the fleet:
                            database, kubernetes, or off for a process that is alone (database)
POOLWISE_LEASE_DURATION_S   a lease that is not renewed for so long may be taken, seconds (15)
POOLWISE_RENEW_DEADLINE_S   a leader that cannot renew for so long stops acting, seconds (10)
POOLWISE_LEASE_RETRY_S      between two tries to renew or take the lease, seconds (2)
POOLWISE_LEASE_NAME         name of the Lease in the cluster (poolwise-NAME of the spec)
POOLWISE_LEASE_NAMESPACE    its namespace (the pod's own)
POOLWISE_WATCH              parts whose metrics `poolwise serve` reads, as in
                            `prefill=http://10.0.0.7:8000,decode=http://10.0.0.8:8000,
                            smg=http://10.0.0.9:29000,gate=URL,hardware=URL`
                            (the deployment that runs from the state directory)
POOLWISE_WATCH_INTERVAL_S   over which it takes rates and quantiles, seconds; 0: it watches
                            nothing (15)
POOLWISE_PROMETHEUS_URL     read through this server instead (none)
POOLWISE_PROMETHEUS_SELECTOR
                            which of its series, as in PromQL (all)
POOLWISE_LOG_FORMAT         key-value, or json for one document a line (key-value)
POOLWISE_WEBHOOK_URL        address that gets signed notifications (none)
POOLWISE_WEBHOOK_SECRET     key of their signature; needed with the address
POOLWISE_SLACK_URL          Slack-compatible address that gets them as text (none)
POOLWISE_NOTIFY_REPEAT_S    the same is not told again for so long, seconds (3600)
POOLWISE_NOTIFY_BURN_RATIO  told when an error budget is used up so many times too fast (14.4)
==========================  ===============================================================

POOLWISE_WEBHOOK_URL, POOLWISE_WEBHOOK_SECRET and POOLWISE_SLACK_URL may each be in a file that
the variable with `_FILE` behind its name points to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path

from planner.domain.errors import InputError
from planner.service.election.lease import (
    LEASE_DURATION_S,
    RENEW_DEADLINE_S,
    RETRY_S,
    Timing,
)
from planner.service.environment import number, whole_number
from planner.service.keeping import Keeping
from planner.service.telemetry.observability import (
    LogFormat,
    NotificationSettings,
    WatchSettings,
    read_log_format,
    read_notifications,
    read_watch,
)

DEFAULT_PORT = 8765
DEFAULT_BODY_BYTES = 16 * 1024 * 1024
DEFAULT_ANSWER_S = 30.0
DEFAULT_REQUESTS_PER_S = 200
DEFAULT_RETENTION_S = 7 * 86_400
LONGEST_LEASE_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """Where state is kept.

    Parameters
    ----------
    state_dir : Path
        Made when first needed.
    database_url : str
        SQLAlchemy URL; may hold a password.
    """

    state_dir: Path
    database_url: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """The engine that is started as a process.

    Parameters
    ----------
    python : Path or None
        Interpreter that has vLLM; None: `make engine` has not named one.
    """

    python: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What `poolwise serve` listens on.

    Parameters
    ----------
    host : str
    port : int
        0: any free port.
    keda_port : int or None
        Of KEDA's external scaler, 0: any free port. None: not served.
    max_body_bytes : int
        Larger request bodies are refused with 413.
    answer_within_s : float
        Plans, forecasts and simulations that take longer become jobs, seconds.
    requests_per_s : int
        Of one token's name; more are refused with 429. 0: as many as come.
    tls_cert, tls_key, tls_client_ca : Path or None
        PEM files; without the first two HTTP is spoken.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    keda_port: int | None = None
    max_body_bytes: int = DEFAULT_BODY_BYTES
    answer_within_s: float = DEFAULT_ANSWER_S
    requests_per_s: int = DEFAULT_REQUESTS_PER_S
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueSettings:
    """The accelerators that are known.

    Parameters
    ----------
    path : Path or None
        The user's own file beside the one shipped.
    """

    path: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """How metrics are read.

    Parameters
    ----------
    prometheus_authorization : str or None
        Value of the header that a Prometheus server wants, as `Bearer ...`.
    """

    prometheus_authorization: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRecordSettings:
    """What is kept of requests that went through the gate.

    Parameters
    ----------
    retention_s : float
        Older records are deleted, seconds.
    """

    retention_s: float = DEFAULT_RETENTION_S


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """The server that commands talk to.

    Parameters
    ----------
    server : str
        Its address.
    token : str or None
        Lets one write there.
    token_file : Path or None
        Holds the token, where it is not given itself.
    server_ca, cert, key : Path or None
        PEM files: who may have signed the server's certificate, and what is shown to it.
    """

    server: str = f"http://127.0.0.1:{DEFAULT_PORT}"
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    server_ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


class ElectionCarrier(StrEnum):
    """Where the lease is kept of which only the holder moves the fleet."""

    DATABASE = "database"
    KUBERNETES = "kubernetes"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionSettings:
    """How several processes on one database find the one that acts.

    Parameters
    ----------
    carrier : ElectionCarrier
        OFF: this process believes that it is alone.
    lease_name, lease_namespace : str
        Of the Lease in a cluster; empty: after the spec, and the pod's own namespace.
    """

    carrier: ElectionCarrier = ElectionCarrier.DATABASE
    timing: Timing = field(default_factory=Timing)
    lease_name: str = ""
    lease_namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All groups together."""

    storage: StorageSettings
    engine: EngineSettings = field(default_factory=EngineSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    catalogue: CatalogueSettings = field(default_factory=CatalogueSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    gate_records: GateRecordSettings = field(default_factory=GateRecordSettings)
    election: ElectionSettings = field(default_factory=ElectionSettings)
    watch: WatchSettings = field(default_factory=WatchSettings)
    log_format: LogFormat = LogFormat.KEY_VALUE
    notifications: NotificationSettings = field(default_factory=NotificationSettings)
    keeping: Keeping = field(default_factory=Keeping)
    client: ClientSettings = field(default_factory=ClientSettings)


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Settings from environment variables.

    Raises
    ------
    InputError
        When a variable is not a number where one is needed, or a lease could be held by two.
    """
    state_dir = _state_dir(environ)
    engine_python = environ.get("POOLWISE_ENGINE_PYTHON")
    catalogue = environ.get("POOLWISE_CATALOGUE")
    return Settings(
        storage=StorageSettings(
            state_dir=state_dir,
            database_url=environ.get("POOLWISE_DATABASE_URL")
            or f"sqlite:///{state_dir / 'poolwise.db'}",
        ),
        engine=EngineSettings(python=Path(engine_python) if engine_python else None),
        server=_server(environ),
        catalogue=CatalogueSettings(path=Path(catalogue).expanduser() if catalogue else None),
        telemetry=TelemetrySettings(
            prometheus_authorization=environ.get("POOLWISE_PROMETHEUS_AUTHORIZATION") or None
        ),
        gate_records=GateRecordSettings(
            retention_s=whole_number(
                environ, "POOLWISE_GATE_RETENTION_S", DEFAULT_RETENTION_S, most=10**9
            )
        ),
        election=_election(environ),
        watch=read_watch(environ),
        log_format=read_log_format(environ),
        notifications=read_notifications(environ),
        keeping=_keeping(environ),
        client=_client(environ),
    )


def _keeping(environ: Mapping[str, str]) -> Keeping:
    """Each of `Keeping`'s seconds by the variable of its name."""
    return Keeping(
        **{
            one.name: whole_number(
                environ,
                f"POOLWISE_KEEP_{one.name.upper()}",
                int(getattr(Keeping(), one.name)),
                most=10**9,
            )
            for one in fields(Keeping)
        }
    )


def _client(environ: Mapping[str, str]) -> ClientSettings:
    return ClientSettings(
        server=environ.get("POOLWISE_SERVER", "").strip() or ClientSettings().server,
        token=environ.get("POOLWISE_TOKEN", "").strip() or None,
        token_file=_file(environ, "POOLWISE_TOKEN_FILE"),
        server_ca=_file(environ, "POOLWISE_SERVER_CA"),
        cert=_file(environ, "POOLWISE_CLIENT_CERT"),
        key=_file(environ, "POOLWISE_CLIENT_KEY"),
    )


def _server(environ: Mapping[str, str]) -> ServerSettings:
    keda_port = None
    if environ.get("POOLWISE_KEDA_PORT", "").strip():
        keda_port = whole_number(environ, "POOLWISE_KEDA_PORT", 0, most=65535)
    return ServerSettings(
        host=environ.get("POOLWISE_HOST", "127.0.0.1"),
        port=whole_number(environ, "POOLWISE_PORT", DEFAULT_PORT, most=65535),
        keda_port=keda_port,
        max_body_bytes=whole_number(
            environ, "POOLWISE_MAX_BODY_BYTES", DEFAULT_BODY_BYTES, most=2**40
        ),
        answer_within_s=_seconds(environ, "POOLWISE_ANSWER_WITHIN_S", DEFAULT_ANSWER_S),
        requests_per_s=whole_number(
            environ, "POOLWISE_REQUESTS_PER_S", DEFAULT_REQUESTS_PER_S, most=10**6
        ),
        tls_cert=_file(environ, "POOLWISE_TLS_CERT"),
        tls_key=_file(environ, "POOLWISE_TLS_KEY"),
        tls_client_ca=_file(environ, "POOLWISE_TLS_CLIENT_CA"),
    )


def _file(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(name, "").strip()
    return Path(text).expanduser() if text else None


def _election(environ: Mapping[str, str]) -> ElectionSettings:
    named = environ.get("POOLWISE_LEADER_ELECTION", "").strip() or ElectionCarrier.DATABASE
    try:
        carrier = ElectionCarrier(named)
    except ValueError as error:
        known = ", ".join(ElectionCarrier)
        raise InputError(
            f"POOLWISE_LEADER_ELECTION must be one of {known}, got {named!r}"
        ) from error
    return ElectionSettings(
        carrier=carrier,
        timing=Timing(
            lease_duration_s=_seconds(environ, "POOLWISE_LEASE_DURATION_S", LEASE_DURATION_S),
            renew_deadline_s=_seconds(environ, "POOLWISE_RENEW_DEADLINE_S", RENEW_DEADLINE_S),
            retry_s=_seconds(environ, "POOLWISE_LEASE_RETRY_S", RETRY_S),
        ),
        lease_name=environ.get("POOLWISE_LEASE_NAME", "").strip(),
        lease_namespace=environ.get("POOLWISE_LEASE_NAMESPACE", "").strip(),
    )


def _state_dir(environ: Mapping[str, str]) -> Path:
    """The XDG base directory for state: https://specifications.freedesktop.org/basedir-spec/."""
    given = environ.get("POOLWISE_STATE_DIR")
    if given:
        return Path(given).expanduser().resolve()
    xdg = environ.get("XDG_STATE_HOME")
    if xdg and Path(xdg).is_absolute():
        return Path(xdg) / "poolwise"
    home = environ.get("HOME")
    return (Path(home) if home else Path.home()) / ".local" / "state" / "poolwise"


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    return number(environ, name, default, most=LONGEST_LEASE_S, above_zero=True)

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
POOLWISE_PROMETHEUS_AUTHORIZATION
                            value of the Authorization header for a Prometheus server (none)
POOLWISE_CATALOGUE          file of accelerators that adds to and overrides those shipped (none)
POOLWISE_GATE_RETENTION_S   records of requests through the gate are kept so long, seconds (604800)
==========================  ===============================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from planner.domain.errors import InputError

DEFAULT_PORT = 8765
DEFAULT_BODY_BYTES = 16 * 1024 * 1024
DEFAULT_RETENTION_S = 7 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """Where state is kept.

    Parameters
    ----------
    state_dir : Path
        Made when first needed.
    database_url : str
        SQLAlchemy URL.
    """

    state_dir: Path
    database_url: str


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
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    keda_port: int | None = None
    max_body_bytes: int = DEFAULT_BODY_BYTES


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
class Settings:
    """All groups together."""

    storage: StorageSettings
    engine: EngineSettings = field(default_factory=EngineSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    catalogue: CatalogueSettings = field(default_factory=CatalogueSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    gate_records: GateRecordSettings = field(default_factory=GateRecordSettings)


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Settings from environment variables.

    Raises
    ------
    InputError
        When a variable is not a number where one is needed.
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
        server=ServerSettings(
            host=environ.get("POOLWISE_HOST", "127.0.0.1"),
            port=_whole(environ, "POOLWISE_PORT", DEFAULT_PORT, largest=65535),
            keda_port=(
                _whole(environ, "POOLWISE_KEDA_PORT", 0, largest=65535)
                if environ.get("POOLWISE_KEDA_PORT", "").strip()
                else None
            ),
            max_body_bytes=_whole(
                environ, "POOLWISE_MAX_BODY_BYTES", DEFAULT_BODY_BYTES, largest=2**40
            ),
        ),
        catalogue=CatalogueSettings(path=Path(catalogue).expanduser() if catalogue else None),
        telemetry=TelemetrySettings(
            prometheus_authorization=environ.get("POOLWISE_PROMETHEUS_AUTHORIZATION") or None
        ),
        gate_records=GateRecordSettings(
            retention_s=_whole(
                environ, "POOLWISE_GATE_RETENTION_S", DEFAULT_RETENTION_S, largest=10**9
            )
        ),
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


def _whole(environ: Mapping[str, str], name: str, default: int, *, largest: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) > largest:
        raise InputError(f"{name} must be a whole number from 0 to {largest}, got {text!r}")
    return int(text)

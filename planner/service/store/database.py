"""Opening the database, and the migrations."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, func, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, SQLAlchemyError

from planner.domain.errors import InputError, StoreError
from planner.service.security.redaction import redact
from planner.service.store.sqlite import sqlite_engine
from planner.service.store.writes import last_write_error, remember_writes

MIGRATIONS = Path(__file__).parent / "migrations"
POSTGRESQL = "postgresql+psycopg"
POSTGRESQL_LIMITS = {
    "connect_timeout": 5,
    # A server that is gone without a word is noticed after so many ms, and after 5 + 3 x 2 s.
    "tcp_user_timeout": 8_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    # A process that was stopped in the middle of a write must not hold up all others.
    "options": "-c idle_in_transaction_session_timeout=8000 -c lock_timeout=15000",
}
"""Of every connection; what the URL says itself goes before. Less than a lease lasts."""
LONGEST_WORK = "10min"
"""What migrations, backups and restores may take between two statements, or wait for each other."""
WRITERS = 7265362
"""Any fixed number: the advisory lock that writers queue up for."""


def open_engine(url: str) -> Engine:
    """An engine on a database of the newest schema; makes the database when it is not there.

    Parameters
    ----------
    url : str
        SQLAlchemy URL. SQLite gets a write-ahead log, so that readers never wait for a writer.
        `postgresql://` means psycopg 3, which the extra `postgres` installs.

    Raises
    ------
    StoreError
        When it cannot be opened, or was written by a newer Poolwise.
    """
    engine = bare_engine(url)
    _make_folder(engine.url)
    try:
        with translated(shown(engine)), engine.begin() as connection:
            migrate(connection)
    except BaseException:
        engine.dispose()
        raise
    return engine


def bare_engine(url: str) -> Engine:
    """An engine on a database as it is; nothing is looked at or changed yet.

    Raises
    ------
    StoreError
        When the URL cannot be one, or its driver is not installed.
    """
    try:
        engine = _engine(make_url(url))
    except ImportError as error:
        raise StoreError(
            f"the database's driver is not installed ({error}): "
            "pip install 'poolwise[postgres]' has the one for PostgreSQL"
        ) from error
    except ArgumentError as error:
        raise StoreError(redact(f"database URL is not usable: {error}")) from error
    except ValueError:  # its text holds what stands after a colon, which may be a password
        raise StoreError(
            "database URL is not usable: what follows the host's last colon is no port; write @, "
            ": and / in a password as %40, %3A and %2F"
        ) from None
    remember_writes(engine)
    return engine


def shown(engine: Engine) -> str:
    """The URL for people, without a password."""
    return redact(engine.url.render_as_string(hide_password=True))


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what the database library raises into `StoreError`, but what no column can hold.

    That is an `InputError`: to ask for it again is of no use.
    """
    try:
        yield
    except DataError as error:  # of PostgreSQL, which minds NUL, lengths and ranges
        reason = str(error.orig or error).splitlines()[0]
        raise InputError(
            redact(f"what was given can be neither kept nor looked for in the database: {reason}")
        ) from error
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        told = f"database {where}: {reason}"
        raise StoreError(
            f"{redact(told)}; check that its folder exists, is writable and has space"
        ) from error
    except CommandError as error:
        raise StoreError(
            f"database {where} was written by another version of Poolwise, most likely a newer one "
            f"({error}): update Poolwise, or name another database by POOLWISE_DATABASE_URL"
        ) from error


def queue_up(connection: Connection) -> None:
    """Let writers write one after another, as SQLite does by itself: what one read stays true."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(WRITERS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A database for the parts of the store that have tables of their own.

    Parameters
    ----------
    where : str
        The database as errors name it.
    """

    engine: Engine
    where: str

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads. Raises StoreError."""
        with translated(self.where), self.engine.connect() as raw:
            connection = raw.execution_options(reads_only=True)
            with connection.begin():
                yield connection

    def shared_now(self, at: datetime) -> datetime:
        """An instant by the one clock of all processes on the database. Raises StoreError.

        Of PostgreSQL that of its server, since the machines' own may differ; a SQLite file is for
        processes of one machine, whose clock says `at`.
        """
        if self.engine.dialect.name != "postgresql":
            return at
        with self.reading() as connection:
            told: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return told

    def check_written(self) -> None:
        """Look at how the last write of this process ended, without writing.

        Raises
        ------
        StoreError
            When it failed, as on a full disk, and none has succeeded since.
        """
        reason = last_write_error(self.engine)
        if reason is not None:
            told = f"database {self.where} cannot be written: {reason}"
            raise StoreError(
                f"{redact(told)}; check that its folder exists, is writable and has space"
            )

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction of the one writer at a time. Raises StoreError."""
        with translated(self.where), self.engine.begin() as connection:
            queue_up(connection)
            yield connection


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        return sqlite_engine(url)
    if url.drivername in ("postgresql", "postgres", POSTGRESQL):
        limits = {name: v for name, v in POSTGRESQL_LIMITS.items() if name not in url.query}
        return create_engine(
            url.set(drivername=POSTGRESQL), connect_args=limits, pool_pre_ping=True
        )
    return create_engine(url)


def _make_folder(url: URL) -> None:
    """The folder of a SQLite file."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return
    folder = Path(str(url.database)).expanduser().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"folder {folder} cannot be made: {error.strerror}") from error


def migrate(connection: Connection, revision: str = "head") -> None:
    """Bring the schema to a version, by default the newest; of two openers the second waits."""
    take_time(connection)
    if connection.dialect.name == "postgresql":
        # Any fixed number: an advisory lock of this transaction serialises openers.
        connection.execute(text("SELECT pg_advisory_xact_lock(7265361)"))
    config = _migrations()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def newest_revision() -> str:
    """The version of the schema that this version of Poolwise works on."""
    head = ScriptDirectory.from_config(_migrations()).get_current_head()
    if head is None:
        raise StoreError(f"no migrations are in {MIGRATIONS}: install Poolwise again")
    return head


def take_time(connection: Connection) -> None:
    """Let this one transaction be slow where all others must be quick."""
    if connection.dialect.name == "postgresql":
        for limit in ("idle_in_transaction_session_timeout", "lock_timeout"):
            connection.execute(text(f"SET LOCAL {limit} = '{LONGEST_WORK}'"))


def revision_of(connection: Connection) -> str | None:
    """The version of the schema; None: there are no tables of Poolwise."""
    return MigrationContext.configure(connection).get_current_revision()

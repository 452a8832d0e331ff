"""SQLite files: write-ahead log, one writer at a time, and what to do when the file is away.

A process that has a file open writes on after it was moved away or deleted, and nobody sees again
what it wrote. So every transaction first looks whether the file still is the one at its path;
once a file was there, none is made anew by itself; and a connection that met a file that could not
be written is closed, with all others, since SQLite would leave it read-only for ever.
"""

import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

BUSY_S = 15
"""How long a writer waits for another one, seconds."""
DRAIN_S = 2.0
"""So long no connection is opened while old ones are in use that met a file they cannot write."""
_LASTING = ("readonly", "disk I/O error", "unable to open", "malformed", "not a database")
"""Words of errors after which a connection is not used again."""


def sqlite_engine(url: URL) -> Engine:
    """An engine on a SQLite file, or on memory."""
    if url.database in (None, "", ":memory:"):
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = create_engine(url, connect_args={"timeout": BUSY_S})
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    if not isinstance(engine.pool, StaticPool):
        _watch(engine, _Place(Path(str(url.database))))
    return engine


def _watch(engine: Engine, place: "_Place") -> None:
    event.listen(engine, "do_connect", place.before_connect)
    event.listen(engine, "connect", place.connected)
    event.listen(engine, "checkout", place.before_use)
    event.listen(engine, "checkin", place.after_use)
    event.listen(engine, "close", place.closed)

    def give_up(context: ExceptionContext) -> None:
        if any(word in str(context.original_exception) for word in _LASTING):
            context.is_disconnect = True
            place.give_up_all()

    event.listen(engine, "handle_error", give_up)


@dataclass(slots=True, kw_only=True, eq=False)
class _Opened:
    """A connection, the device and number of its file, and whether anybody uses it."""

    connection: DBAPIConnection
    file: tuple[int, int] | None
    used: bool
    given_up: bool = False


class _Place:
    """Where a database file is, and which connections to it are open.

    SQLite keeps one view of a file for all connections of a process: as long as one that opened it
    read-only is open, so are all later ones. After such an error none is opened until all are shut.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = False
        self._lock = threading.Lock()
        self._open: dict[int, _Opened] = {}
        self._drains_until_s = 0.0

    def before_connect(self, *_: object) -> None:
        """Refuse to make a file anew: an empty one in place of a lost one looks like no data."""
        if self._known and not self._path.exists():
            raise sqlite3.OperationalError(f"{self._path} was there and is gone")
        if self._open and time.monotonic() < self._drains_until_s:
            raise sqlite3.OperationalError(
                f"{self._path} could not be used: it is opened again once nobody has it open"
            )
        self._drains_until_s = 0.0

    def connected(self, connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        """Remember which file it is; its first use begins at once."""
        opened = _Opened(connection=connection, file=self._file(), used=True)
        with self._lock:
            self._open[id(connection)] = opened
        self._known = opened.file is not None

    def before_use(self, connection: DBAPIConnection, _: ConnectionPoolEntry, __: object) -> None:
        """Whether the file that it has open still is the one at its path."""
        with self._lock:
            opened = self._open.get(id(connection))
            if opened is None or opened.given_up:
                raise DisconnectionError("it was given up")
            if opened.file != self._file():
                raise DisconnectionError(f"{self._path} is not the file that was opened any more")
            opened.used = True

    def after_use(self, connection: DBAPIConnection | None, _: ConnectionPoolEntry) -> None:
        """Shut it where it was given up meanwhile."""
        with self._lock:
            opened = None if connection is None else self._open.get(id(connection))
            if opened is not None:
                opened.used = False
                self._shut_given_up()

    def closed(self, connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        """It is not open any more."""
        with self._lock:
            self._open.pop(id(connection), None)

    def give_up_all(self) -> None:
        """Have all that are open shut, those in use after it."""
        with self._lock:
            self._drains_until_s = time.monotonic() + DRAIN_S
            for opened in self._open.values():
                opened.given_up = True
            self._shut_given_up()

    def _shut_given_up(self) -> None:
        """The pool finds them shut when it wants to use them, and opens others."""
        for number, opened in tuple(self._open.items()):
            if opened.given_up and not opened.used:
                opened.connection.close()
                del self._open[number]

    def _file(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _set_pragmas(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # pysqlite would begin transactions by itself, too late for BEGIN IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    _write_ahead(cursor)
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _write_ahead(cursor: DBAPICursor) -> None:
    """Switch a new database to the write-ahead log.

    For this SQLite does not wait as it does for a writer: of two processes that open a new
    database at once, the second is told at once that it is locked.
    """
    until_s = time.monotonic() + BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until_s:
                raise
            time.sleep(0.02)
        else:
            return


def _begin(connection: Connection) -> None:
    """Writers queue up when they begin: two that read first and then write would deadlock."""
    reads = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

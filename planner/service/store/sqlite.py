"""SQLite files: write-ahead log, one writer at a time, and what to do when the file is away.

A process that has a file open writes on after it was moved away or deleted, and nobody sees again
what it wrote. So every transaction first looks whether the file still is the one at its path;
once a file was there, none is made anew by itself; and a connection that met a file that could not
be used is not used again. What was opened read-only stays so while the process has the file open:
SQLite keeps one view of it for all connections. Writes are refused until a restart then.
"""

import sqlite3
import time
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

BUSY_S = 15
"""How long a writer waits for another one, seconds."""
_LASTING = ("readonly", "unable to open", "malformed", "not a database")
"""Words of errors after which a connection is not used again.

A full disk (an I/O error, too) is not among them: what is open goes on reading, and a new
connection could not even be opened.
"""


def sqlite_engine(url: URL) -> Engine:
    """An engine on a SQLite file, or on memory."""
    if url.database in (None, "", ":memory:"):
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = create_engine(url, connect_args={"timeout": BUSY_S})
        place = _Place(Path(str(url.database)))
        event.listen(engine, "do_connect", place.refuse_to_make_anew)
        event.listen(engine, "connect", place.note)
        event.listen(engine, "checkout", place.check)
        event.listen(engine, "handle_error", _give_up_connection)
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


class _Place:
    """Where a database file is, and whether there was one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = False

    def refuse_to_make_anew(self, *_: object) -> None:
        """Before a connection: an empty file in the place of a lost one would look like no data."""
        if self._known and not self._path.exists():
            raise sqlite3.OperationalError(f"{self._path} was there and is gone")

    def note(self, _: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        """Once connected: which file it is."""
        entry.info["file"] = self._file()
        self._known = entry.info["file"] is not None

    def check(self, _: DBAPIConnection, entry: ConnectionPoolEntry, __: object) -> None:
        """Before use: whether the file that it has open still is the one at its path."""
        if entry.info.get("file") != self._file():
            raise DisconnectionError(f"{self._path} is not the file that was opened any more")

    def _file(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _give_up_connection(context: ExceptionContext) -> None:
    if any(word in str(context.original_exception) for word in _LASTING):
        context.is_disconnect = True


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

"""Whether a database can be written, by how the last write of this process ended.

A full disk still reads: a look at it says nothing of writes. Nothing is written to find out, since
every process writes every few seconds that it lives (`loop.presence`).
"""

import sqlite3

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExecutionContext
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError
from sqlalchemy.pool import ConnectionPoolEntry

_OPTION = "poolwise_writes"
_CHANGED, _COMMITTED = "poolwise_changed", "poolwise_committed"
_OF_THE_STATEMENT = (DataError, IntegrityError, ProgrammingError)
"""Errors of what was asked for; the database itself could have been written."""
_SQLITE_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_POSTGRESQL_BUSY = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available (PostgreSQL documentation, appendix A)."""


class _Writes:
    """How the last write through an engine ended; a transaction that changed nothing is none."""

    def __init__(self) -> None:
        self.failed: str | None = None

    def executed(
        self,
        connection: Connection,
        cursor: DBAPICursor,
        _statement: str,
        _parameters: object,
        context: ExecutionContext | None,
        _many: bool,
    ) -> None:
        """Note that a statement changed something."""
        if not isinstance(context, DefaultExecutionContext):
            return
        changes = context.isinsert or context.isupdate or context.isdelete
        if changes and cursor.rowcount != 0:
            connection.info[_CHANGED] = True

    @staticmethod
    def committing(connection: Connection) -> None:
        """Note that it is about to be kept."""
        connection.info[_COMMITTED] = connection.info.get(_CHANGED, False)

    def failing(self, context: ExceptionContext) -> None:
        """Note an error, but for one that a reader is told as well."""
        connection = context.connection
        if connection is None or connection.closed or connection.invalidated:
            return  # not even opened
        connection.info.pop(_COMMITTED, None)
        if connection.get_execution_options().get("reads_only", False):
            return
        if not (
            isinstance(context.sqlalchemy_exception, _OF_THE_STATEMENT)
            or _of_another_writer(context.original_exception)
        ):
            self.failed = str(context.original_exception).splitlines()[0]

    def returned(self, _: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        """Once a transaction is over: whether it was kept."""
        changed = entry.info.pop(_CHANGED, False)
        if entry.info.pop(_COMMITTED, False) and changed:
            self.failed = None


def _of_another_writer(error: BaseException) -> bool:
    """Whether others were writing just then, which shows that the database can be written."""
    code = getattr(error, "sqlite_errorcode", None)
    return (code is not None and code & 0xFF in _SQLITE_BUSY) or (
        getattr(error, "sqlstate", None) in _POSTGRESQL_BUSY
    )


def remember_writes(engine: Engine) -> None:
    """Have an engine remember how its last write ended."""
    writes = _Writes()
    event.listen(engine, "after_cursor_execute", writes.executed)
    event.listen(engine, "commit", writes.committing)
    event.listen(engine, "handle_error", writes.failing)
    event.listen(engine, "checkin", writes.returned)
    engine.update_execution_options(**{_OPTION: writes})


def last_write_error(engine: Engine) -> str | None:
    """What the last write failed by; None: it did not, or there was none yet."""
    writes = engine.get_execution_options().get(_OPTION)
    return writes.failed if isinstance(writes, _Writes) else None

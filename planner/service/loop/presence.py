"""That this process lives, said on the database every few seconds; and what is due then."""

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from datetime import datetime

import psutil

from planner.domain.errors import PoolwiseError
from planner.service.store.database import Access
from planner.service.store.processes import identities, say_alive, say_farewell

LOG = logging.getLogger("poolwise.presence")
EVERY_S = 5.0
"""Between two signs of life, seconds; well below `processes.SILENT_S`."""


class Presence:
    """A process among those on one database.

    Parameters
    ----------
    clock : callable
        Gives the instant of a sign of life, where the database has no clock of its own.
    """

    def __init__(
        self, access: Access, clock: Callable[[], datetime], *, every_s: float = EVERY_S
    ) -> None:
        self.identity = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._access = access
        self._clock = clock
        self._every_s = every_s
        self._chores: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def add_chore(self, chore: Callable[[], None]) -> None:
        """Have something done with every sign of life."""
        self._chores.append(chore)

    def begin(self) -> None:
        """Say that this process lives, and go on saying it; again is once. Raises StoreError."""
        with self._lock:
            if self._thread is not None:
                return
            self._bury_neighbours()
            self._say()
            self._thread = threading.Thread(target=self._go_on, name="presence", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Say that it is gone, where the database can be told."""
        self._stopped.set()
        if self._thread is None:
            return
        self._thread.join()
        try:
            with self._access.writing() as connection:
                say_farewell(connection, self.identity)
        except PoolwiseError as error:
            LOG.warning("the others are not told that this process is gone: %s", error)

    def _bury_neighbours(self) -> None:
        """Say farewell for processes of this machine that are gone; nobody else uses its SQLite."""
        if self._access.engine.dialect.name != "sqlite":
            return
        with self._access.writing() as connection:
            for identity in identities(connection):
                host, pid, _ = identity.rsplit(":", 2)
                if host == socket.gethostname() and _is_gone(int(pid)):
                    say_farewell(connection, identity)

    def _say(self) -> None:
        at = self._access.shared_now(self._clock())
        with self._access.writing() as connection:
            say_alive(connection, self.identity, at=at)

    def _go_on(self) -> None:
        while not self._stopped.is_set():
            for chore in (self._say, *self._chores):
                try:
                    chore()
                except PoolwiseError as error:
                    LOG.warning("%s", error)
                except Exception:
                    LOG.exception("a chore failed; it is tried again")
            self._stopped.wait(self._every_s)


def _is_gone(pid: int) -> bool:
    """Whether no process has this number; another one than this has none that this one has."""
    return pid == os.getpid() or not psutil.pid_exists(pid)

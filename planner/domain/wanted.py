"""Whether a calculation is still wanted: whoever asked may give it up while it runs.

Long calculations look now and then (`go_on`), and lend whatever stops a solver (`stopped_by`).
Kept per thread, so that nothing between asker and calculation has to hand it down.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock

from planner.domain.errors import NotWantedError


class Wanted:
    """Some work, and whether it is still wanted; safe to use from several threads."""

    def __init__(self) -> None:
        self._given_up = False
        self._lock = Lock()
        self._stops: list[Callable[[], object]] = []

    @property
    def given_up(self) -> bool:
        """Whether nobody wants it any more."""
        return self._given_up

    def give_up(self) -> None:
        """Stop the solver that runs, and let the work end at its next look.

        Again does so again: a solver that was just about to begin has not heard it.
        """
        with self._lock:
            self._given_up = True
            stops = tuple(self._stops)
        for stop in stops:
            stop()

    @contextmanager
    def lend(self, stop: Callable[[], object]) -> Iterator[None]:
        """Have `give_up` call this meanwhile."""
        with self._lock:
            self._stops.append(stop)
        try:
            yield
        finally:
            with self._lock:
                self._stops.remove(stop)


_asked: ContextVar[Wanted | None] = ContextVar("asked", default=None)


@contextmanager
def working_for(wanted: Wanted) -> Iterator[None]:
    """All that this thread calculates meanwhile is this work. Raises NotWantedError."""
    token = _asked.set(wanted)
    try:
        go_on()
        yield
    finally:
        _asked.reset(token)


def can_be_given_up() -> bool:
    """Whether anybody may give up what this thread calculates."""
    return _asked.get() is not None


def go_on() -> None:
    """Look whether the work is still wanted.

    Raises
    ------
    NotWantedError
        When it is not.
    """
    asked = _asked.get()
    if asked is not None and asked.given_up:
        raise NotWantedError("nobody wants this any more: it was broken off")


@contextmanager
def stopped_by(stop: Callable[[], object]) -> Iterator[None]:
    """Run something long that `stop`, called from another thread, ends early.

    Raises
    ------
    NotWantedError
        Before it begins or after it has ended, when the work is not wanted.
    """
    asked = _asked.get()
    if asked is None:
        yield
        return
    go_on()
    with asked.lend(stop):
        yield
    go_on()


def same_work() -> Callable[[], object]:
    """What makes another thread, where it is called first, work for the same."""
    asked = _asked.get()
    return lambda: _asked.set(asked)

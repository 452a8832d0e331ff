"""Whether the wall clock ended any search: then another run may end elsewhere.

Every solver call reports here, so that no search is forgotten on the way up to the plan.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Watch:
    """Of the searches while it is watched.

    Parameters
    ----------
    ended_some : bool
        The clock, and not its work limit or a proof, ended at least one.
    """

    ended_some: bool = False


_watched: ContextVar[Watch | None] = ContextVar("watched", default=None)


@contextmanager
def watching() -> Iterator[Watch]:
    """Watch the searches of this thread; what is seen counts for whoever watches outside, too."""
    outer, own = _watched.get(), Watch()
    token = _watched.set(own)
    try:
        yield own
    finally:
        _watched.reset(token)
        if outer is not None:
            outer.ended_some |= own.ended_some


def report(*, timed_out: bool) -> None:
    """A search is over."""
    watch = _watched.get()
    if watch is not None and timed_out:
        watch.ended_some = True


def same_watch() -> Callable[[], object]:
    """What makes searches of another thread, where it is called first, count for this one."""
    watch = _watched.get()
    return lambda: _watched.set(watch)

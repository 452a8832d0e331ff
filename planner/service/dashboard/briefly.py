"""What many viewers ask for at the same time is found out once."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

KEPT_S = 2.0
"""Pages renew themselves every 5 s: nobody sees what is older than two looks."""
Found = TypeVar("Found")


@dataclass(slots=True)
class _Entry(Generic[Found]):
    at_s: float
    found: Found


@dataclass(slots=True)
class Briefly(Generic[Found]):
    """Keeps an answer for a moment; who asks while it is found out waits for it.

    Only for what does not depend on who asks, and that nobody expects to change by a click.

    Parameters
    ----------
    clock : callable
        Seconds that pass.
    """

    clock: Callable[[], float]
    kept_s: float = KEPT_S
    _entries: dict[Hashable, _Entry[Found]] = field(default_factory=dict)
    _asking: dict[Hashable, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Hashable, find: Callable[[], Found]) -> Found:
        """The answer, at most `kept_s` old. What `find` raises is raised, and not kept."""
        with self._lock:
            asking = self._asking.setdefault(key, threading.Lock())
        with asking:
            entry = self._entries.get(key)
            if entry is None or self.clock() - entry.at_s >= self.kept_s:
                entry = self._entries[key] = _Entry(at_s=self.clock(), found=find())
            return entry.found

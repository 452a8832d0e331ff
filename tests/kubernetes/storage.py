"""What the server keeps: objects, one revision counter, and the history that watches read."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.kubernetes.plain import copied

Object = dict[str, Any]
KindKey = tuple[str, str]
"""Group and plural."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry of the history; `before` is what the object was, if it was there."""

    revision: int
    type: str
    key: KindKey
    object: Object
    before: Object | None


class Store:
    """All objects by kind, namespace and name; hold `lock` around a read and its write."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.revision = 1
        self.compacted = 0
        self.history: list[Change] = []
        self._objects: dict[KindKey, dict[tuple[str, str], Object]] = {}

    def get(self, key: KindKey, namespace: str, name: str) -> Object | None:
        """A copy of the object."""
        with self.lock:
            found = self._objects.get(key, {}).get((namespace, name))
            return copied(found)

    def all(
        self,
        key: KindKey,
        namespace: str = "",
        having: Callable[[Object], bool] = lambda _metadata: True,
    ) -> list[Object]:
        """Copies of the objects of a kind whose metadata passes, by namespace and name."""
        with self.lock:
            kept = self._objects.get(key, {})
            return [
                copied(kept[at])
                for at in sorted(kept)
                if (not namespace or at[0] == namespace) and having(kept[at]["metadata"])
            ]

    def metadata(self) -> Iterator[tuple[KindKey, Object]]:
        """The metadata of every object, not copied: to read only."""
        with self.lock:
            for key, kept in self._objects.items():
                yield from ((key, one["metadata"]) for one in list(kept.values()))

    def kind_keys(self) -> list[KindKey]:
        with self.lock:
            return list(self._objects)

    def put(self, key: KindKey, stored: Object) -> Object:
        """Write an object; returns it with its new resourceVersion."""
        with self.lock:
            self.revision += 1
            stored = copied(stored)
            metadata = stored["metadata"]
            metadata["resourceVersion"] = str(self.revision)
            at = (metadata.get("namespace", ""), metadata["name"])
            kind = self._objects.setdefault(key, {})
            before = kind.get(at)
            kind[at] = stored
            self._remember("ADDED" if before is None else "MODIFIED", key, stored, before)
            return copied(stored)

    def remove(self, key: KindKey, namespace: str, name: str) -> Object:
        """Remove an object; returns it as it was last, with the revision of its removal."""
        with self.lock:
            self.revision += 1
            before = self._objects[key].pop((namespace, name))
            last = copied(before)
            last["metadata"]["resourceVersion"] = str(self.revision)
            self._remember("DELETED", key, last, before)
            return copied(last)

    def _remember(self, what: str, key: KindKey, stored: Object, before: Object | None) -> None:
        self.history.append(
            Change(revision=self.revision, type=what, key=key, object=stored, before=before)
        )
        self.changed.notify_all()

    def compact(self) -> None:
        """Forget the history, as a real cluster does after some minutes."""
        with self.lock:
            self.compacted = self.revision
            self.history.clear()
            self.changed.notify_all()

    def since(self, revision: int, key: KindKey) -> list[Change]:
        """The changes of a kind after a revision. Raises LookupError when they were compacted."""
        with self.lock:
            if revision < self.compacted:
                raise LookupError(self.compacted)
            found: list[Change] = []
            for change in reversed(self.history):
                if change.revision <= revision:
                    break
                if change.key == key:
                    found.append(change)
            return found[::-1]

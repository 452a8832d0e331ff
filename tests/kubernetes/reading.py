"""Getting, listing in pages, and watching objects."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.kubernetes import errors, scaling
from tests.kubernetes.kinds import Kind, Registry
from tests.kubernetes.routing import Request
from tests.kubernetes.selectors import field_matcher, label_matcher
from tests.kubernetes.storage import Change, Store

Object = dict[str, Any]
Matches = Callable[[Object], bool]

BOOKMARK_LEAD_S = 2.0
"""How long before the end of a watch its last bookmark goes out, as in the real watch cache."""


class Reading:
    """The verbs that change nothing."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._pages: dict[str, list[Object]] = {}

    def get(self, request: Request) -> Object:
        kind = request.served
        stored = self._store.get(kind.key, request.namespace, request.name)
        if stored is None:
            raise errors.not_found(kind.plural, kind.group, request.name)
        obj = self._registry.converted(kind, stored, kind.version)
        return scaling.scale_of(kind, obj) if request.subresource == "scale" else obj

    def page(self, request: Request) -> Object:
        """A list, or a page of one: later pages show the state of the first."""
        kind = request.served
        limit = int(request.query.get("limit") or 0)
        token = request.query.get("continue", "")
        with self._store.lock:
            self._check_not_future(request)
            if token:
                revision, found = self._continued(token)
            else:
                revision = self._store.revision
                found = self._matching(request)
            page, rest = (found[:limit], found[limit:]) if limit else (found, [])
            metadata: Object = {"resourceVersion": str(revision)}
            if rest:
                last = page[-1]["metadata"]
                start = f"{last.get('namespace', '')}/{last['name']}"
                made = {"v": "meta.k8s.io/v1", "rv": revision, "start": start}
                encoded = base64.urlsafe_b64encode(json.dumps(made).encode()).decode().rstrip("=")
                self._pages[encoded] = rest
                metadata["continue"] = encoded
                if "labelSelector" not in request.query and "fieldSelector" not in request.query:
                    metadata["remainingItemCount"] = len(rest)
        return {
            "kind": f"{kind.kind}List",
            "apiVersion": kind.api_version,
            "metadata": metadata,
            "items": [_listed(kind, one) for one in page],
        }

    def _continued(self, token: str) -> tuple[int, list[Object]]:
        try:
            made = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            rest = self._pages[token]
        except (ValueError, KeyError) as error:
            raise errors.bad_request("continue key is not valid") from error
        if made["rv"] < self._store.compacted:
            raise errors.expired(
                "The provided continue parameter is too old to display a consistent list result. "
                "You can start a new list without the continue parameter."
            )
        return made["rv"], rest

    def _matching(self, request: Request) -> list[Object]:
        kind = request.served
        matches = matcher(request)
        converted = (
            self._registry.converted(kind, one, kind.version)
            for one in self._store.all(kind.key, request.namespace)
        )
        return [one for one in converted if matches(one)]

    def _check_not_future(self, request: Request) -> None:
        asked = request.query.get("resourceVersion", "")
        if not asked or asked == "0":
            return
        if not asked.isdigit():
            raise errors.invalid("ListOptions", "meta.k8s.io", "", [errors.wrong(
                "resourceVersion", f'"{asked}": strconv.ParseUint: parsing "{asked}": invalid '
                                   "syntax")])  # fmt: skip
        if int(asked) > self._store.revision:
            raise errors.future_resource_version(int(asked), self._store.revision)
        if (
            request.query.get("resourceVersionMatch") == "Exact"
            and int(asked) < self._store.compacted
        ):
            raise errors.expired("The resourceVersion for the provided list is too old.")

    def watch(self, request: Request, stopped: Callable[[], bool]) -> Iterator[Object | None]:
        """Events until the timeout; None now and then, to let the sender see a closed socket."""
        kind = request.served
        matches = matcher(request)
        timeout_s = float(request.query.get("timeoutSeconds") or 1800)
        bookmarks = request.query.get("allowWatchBookmarks") in {"1", "true"}
        ends_at = time.monotonic() + timeout_s
        bookmark_at = ends_at - min(BOOKMARK_LEAD_S, timeout_s / 2)
        asked = request.query.get("resourceVersion", "")
        with self._store.lock:
            self._check_not_future(request)
            revision = self._store.revision if asked in {"", "0"} else int(asked)
            first = self._matching(request) if asked in {"", "0"} else []
        for obj in first:
            yield {"type": "ADDED", "object": obj}
        if request.query.get("sendInitialEvents") == "true" and bookmarks:
            yield _bookmark(kind, revision, {"k8s.io/initial-events-end": "true"})
        while not stopped() and (left_s := ends_at - time.monotonic()) > 0:
            try:
                with self._store.lock:
                    changes = self._store.since(revision, kind.key)
                    now = self._store.revision
                    if not changes:
                        self._store.changed.wait(min(left_s, 0.25))
            except LookupError:
                message = f"too old resource version: {revision} ({self._store.compacted})"
                yield {"type": "ERROR", "object": errors.expired(message).status_body}
                return
            yield from self._events(request, kind, changes, matches)
            revision = now
            if not changes and bookmarks and time.monotonic() >= bookmark_at:
                yield _bookmark(kind, now, {})
                bookmark_at = ends_at + 1
            yield None

    def _events(
        self, request: Request, kind: Kind, changes: list[Change], matches: Matches
    ) -> Iterator[Object]:
        for change in changes:
            if request.namespace and change.object["metadata"]["namespace"] != request.namespace:
                continue
            after = self._registry.converted(kind, change.object, kind.version)
            before = change.before and self._registry.converted(kind, change.before, kind.version)
            was = before is not None and matches(before)
            is_now = change.type != "DELETED" and matches(after)
            if not was and not is_now:
                continue
            what = "MODIFIED" if was and is_now else ("ADDED" if is_now else "DELETED")
            yield {"type": what, "object": after}


def matcher(request: Request) -> Matches:
    """What the selectors of a list or watch let through."""
    labels = label_matcher(request.query.get("labelSelector", ""))
    fields = field_matcher(request.query.get("fieldSelector", ""), request.served.key)
    return lambda obj: labels(obj["metadata"].get("labels") or {}) and fields(obj)


def _listed(kind: Kind, obj: Object) -> Object:
    """Items of built-in lists carry no kind of their own; those of custom ones do."""
    if kind.custom:
        return obj
    return {field: value for field, value in obj.items() if field not in {"kind", "apiVersion"}}


def _bookmark(kind: Kind, revision: int, annotations: dict[str, str]) -> Object:
    metadata: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    return {"type": "BOOKMARK", "object": obj}

"""Reads and writes one count, by `/scale` where the kind has it, else as a field of the object.

Every write is bound to the resource version that was read, so that nobody's change is overwritten;
when one way is refused, no other is tried.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from kubernetes.client import ApiClient

from actuators.kinds import KINDS, count_path
from actuators.kubernetes.client import FIELD_MANAGER, MAX_TRIES, ClusterError
from actuators.kubernetes.resources import Json, at, get, number, patch, path_of, text
from planner.domain.target import CountTarget

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A count as it was read.

    Parameters
    ----------
    selector : str
        Labels of its pods, as the object says them; empty: it does not.
    path : str
        A JSON pointer to the count, for kinds without `/scale`.
    guards : tuple of (pointer, value)
        What must still hold when it is written, beside the version.
    generation : int or None
        Changes with what is wanted, not with the status; None: `/scale` does not say it.
    uid : str
        Of the object; another one of the same name has another.
    """

    replicas: int
    resource_version: str
    selector: str = ""
    path: str = ""
    guards: tuple[tuple[str, str], ...] = ()
    generation: int | None = None
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Counter:
    """One count in a namespace of a cluster.

    Parameters
    ----------
    parents : dict of str to (Json or None)
        By uid: who controls an object that was looked at.
    manager : str
        The name under which it is written; see `instances`.
    """

    api: ApiClient
    target: CountTarget
    namespace: str
    parents: dict[str, Json | None] = field(default_factory=dict, compare=False, repr=False)
    manager: str = FIELD_MANAGER

    @property
    def plural(self) -> str:
        """The resource, as in URLs."""
        return KINDS[self.target.kind].plural

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.target.api_version.rpartition("/")[0]

    @property
    def scales(self) -> bool:
        """Whether it is written through `/scale`."""
        return KINDS[self.target.kind].scale

    def object_path(self, part: str = "") -> str:
        """The URL path of the object, or of a part of it."""
        target = self.target
        return path_of(target.api_version, self.namespace, self.plural, target.name, part)

    def object(self) -> Json:
        """Read the whole object. Raises ClusterError."""
        return get(self.api, self.object_path(), f"read {self.target.label}")

    def read(self) -> Count:
        """Read the count.

        Raises
        ------
        ClusterError
            When it is refused, or the object has no such count.
        """
        if not self.scales:
            return self._field(self.object())
        found = get(self.api, self.object_path("scale"), f"read the scale of {self.target.label}")
        return Count(
            replicas=number(found, "spec", "replicas"),
            resource_version=text(found, "metadata", "resourceVersion"),
            selector=text(found, "status", "selector"),
            uid=text(found, "metadata", "uid"),
        )

    def write(
        self,
        read: Count,
        replicas: int,
        *,
        dry_run: bool = False,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Set the count if it is still what was read.

        Controllers write the status of an object at any time, which changes its version as well:
        after a conflict it is read again, and written where what is wanted of it has stayed.

        Parameters
        ----------
        before : callable
            Called before every try; what it raises ends them.

        Raises
        ------
        ClusterError
            Status 409 when somebody changed it since, or the object goes on changing; any other
            refusal; or a connection that broke.
        """
        for tries_left in reversed(range(MAX_TRIES)):
            before()
            try:
                return self._write(read, replicas, dry_run=dry_run)
            except ClusterError as error:
                if error.status != 409 or not tries_left:
                    raise
                now = self.read()
                if (now.replicas, now.generation) != (read.replicas, read.generation):
                    raise
                read = now
        raise AssertionError("unreachable: the last try returns or raises")

    def _write(self, read: Count, replicas: int, *, dry_run: bool) -> None:
        doing = f"scale {self.target.label} from {read.replicas} to {replicas}"
        if self.scales:
            body: object = {
                "metadata": {"resourceVersion": read.resource_version},
                "spec": {"replicas": replicas},
            }
            way, content = self.object_path("scale"), MERGE_PATCH
        else:
            body = [
                {"op": "test", "path": pointer, "value": value} for pointer, value in read.guards
            ] + [
                {"op": "test", "path": "/metadata/resourceVersion", "value": read.resource_version},
                {"op": "replace", "path": read.path, "value": replicas},
            ]
            way, content = self.object_path(), JSON_PATCH
        try:
            manager = self.manager
            patch(self.api, way, body, doing, content=content, dry_run=dry_run, manager=manager)
        except ClusterError as error:
            # A failed `test` of a JSON patch is a 422 that does not say so.
            moved = error.status == 422 and not self.scales and self._has_moved(read)
            if moved:
                raise ClusterError(
                    f"could not {doing}: someone else changed it meanwhile; plan again", status=409
                ) from error
            raise

    def _has_moved(self, read: Count) -> bool:
        return self.read().resource_version != read.resource_version

    def _field(self, document: Json) -> Count:
        target = self.target
        pointer, place, guards = "", document, []
        found: object = place
        for key in count_path(target.kind, target.api_version, target.part):
            if key.startswith("["):
                name = key.strip("[]")
                index = _index(found, name)
                if index is None:
                    raise ClusterError(
                        f"{target.label}: there is no {name} in it; correct the part in the spec"
                    )
                pointer += f"/{index}"
                guards.append((f"{pointer}/name", name))
                found = found[index] if isinstance(found, list) else None
            else:
                pointer += "/" + key.replace("~", "~0").replace("/", "~1")
                found = at(found, key)
        if not isinstance(found, int) or isinstance(found, bool):
            raise ClusterError(
                f"{target.label} has no count at {pointer}: write one there first; a missing one "
                "may be set by something else"
            )
        return Count(
            replicas=found,
            resource_version=text(document, "metadata", "resourceVersion"),
            path=pointer,
            guards=tuple(guards),
            generation=number(document, "metadata", "generation"),
            uid=text(document, "metadata", "uid"),
        )


def _index(items: object, name: str) -> int | None:
    if not isinstance(items, list):
        return None
    return next((i for i, x in enumerate(items) if at(x, "name") == name), None)

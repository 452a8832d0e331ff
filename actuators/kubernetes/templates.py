"""Pod templates that do not start: told from pods that only take long, and from one another."""

import hashlib
import json
from collections.abc import Iterable, Iterator

from actuators.kubernetes.pods import replica_of
from actuators.kubernetes.resources import Json, at, entries, text
from planner.domain.errors import DeadlineMissedError

BROKEN = frozenset(
    {
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "ErrImagePull",
        "ErrImageNeverPull",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
"""What a container waits for that waiting does not mend (kubelet, `images/types.go` and
`kuberuntime`)."""
_OF_ITS_PLACE = ("LWS_", "GROVE_", "ROLESET_", "ROLE_REPLICA_INDEX", "POD_GROUP_INDEX")
"""How variables begin in which controllers tell each pod its place: they differ in every pod of one
template (LeaderWorkerSet, `pkg/utils/pod`; Grove, `operator/api/common/constants`; AIBrix,
`pkg/controller/constants`)."""
_STARTED_WITH = ("name", "image", "command", "args", "env", "envFrom", "resources")


class BrokenTemplateError(DeadlineMissedError):
    """Replicas missed their deadline since what their pods are made of does not start.

    Attributes
    ----------
    pool : str
        Label of the pool.
    template : str
        Tells the template from others.
    why : str
        What the containers wait for, in the cluster's words.
    """

    def __init__(self, message: str, *, pool: str, template: str, why: str) -> None:
        super().__init__(message)
        self.pool, self.template, self.why = pool, template, why


def broken_in(pods: Iterable[Json]) -> tuple[str, str] | None:
    """The template of the first pod that does not start, and why; None: all may."""
    for pod in pods:
        if text(pod, "metadata", "deletionTimestamp"):
            continue
        for container in _statuses(pod):
            waiting = at(container, "state", "waiting")
            if text(waiting, "reason") in BROKEN:
                return template_of(pod), f"{text(container, 'name')}: {text(waiting, 'reason')}"
    return None


def newest_templates(pods: Iterable[Json], *, kind: str) -> frozenset[str]:
    """The templates of the replica that was made last: what the next one is made of.

    One for a replica that is a pod; leaders and workers of a group have theirs. Empty: no pod.
    """
    replicas: dict[tuple[str, ...], list[Json]] = {}
    for pod in pods:
        if not text(pod, "metadata", "deletionTimestamp"):
            replicas.setdefault(replica_of(pod, kind), []).append(pod)
    newest = max(replicas.values(), key=lambda one: max(map(_made, one)), default=[])
    return frozenset(map(template_of, newest))


def _made(pod: Json) -> tuple[str, str]:
    return text(pod, "metadata", "creationTimestamp"), text(pod, "metadata", "name")


def template_of(pod: Json) -> str:
    """What its containers are started with, as a short hash; not what the cluster added to it."""
    containers = [
        {key: found for key in _STARTED_WITH if (found := _told(one, key))}
        for kind in ("initContainers", "containers")
        for one in entries(pod, "spec", kind)
    ]
    written = json.dumps(containers, sort_keys=True, default=str)
    return hashlib.sha256(written.encode()).hexdigest()[:16]


def _told(container: Json, key: str) -> object:
    if key != "env":
        return container.get(key)
    variables = entries(container, key)
    return [one for one in variables if not text(one, "name").startswith(_OF_ITS_PLACE)]


def _statuses(pod: Json) -> Iterator[Json]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        yield from entries(pod, "status", kind)

"""Pod templates that do not start: told from pods that only take long, and from one another."""

import hashlib
import json
from collections.abc import Iterable, Iterator

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


def newest_template(pods: Iterable[Json]) -> str:
    """The template of the pod that was made last: what the next one is made of; empty: no pod."""
    made = [
        (text(pod, "metadata", "creationTimestamp"), text(pod, "metadata", "name"), pod)
        for pod in pods
        if not text(pod, "metadata", "deletionTimestamp")
    ]
    return template_of(max(made, key=lambda one: one[:2])[2]) if made else ""


def template_of(pod: Json) -> str:
    """What its containers are started with, as a short hash; not what the cluster added to it."""
    containers = [
        {key: one[key] for key in _STARTED_WITH if one.get(key)}
        for kind in ("initContainers", "containers")
        for one in entries(pod, "spec", kind)
    ]
    written = json.dumps(containers, sort_keys=True, default=str)
    return hashlib.sha256(written.encode()).hexdigest()[:16]


def _statuses(pod: Json) -> Iterator[Json]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        yield from entries(pod, "status", kind)

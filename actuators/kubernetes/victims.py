"""Chooses which pod of a Deployment leaves: the cheapest by `pod-deletion-cost`.

Other kinds take the highest index, whatever its cost (StatefulSet, LeaderWorkerSet). Where this
account may not patch pods, the cluster chooses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kubernetes.client import ApiClient

from actuators.kubernetes.access import may
from actuators.kubernetes.client import ClusterError
from actuators.kubernetes.counts import MERGE_PATCH, Count, Counter
from actuators.kubernetes.pods import Pods, is_ready, started_at
from actuators.kubernetes.resources import Json, at, patch, path_of, text
from planner.rollout.victims import Candidate, victims

_CHEAPEST = "-1000"
COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A pod that was made the cheapest one.

    Parameters
    ----------
    cost : str or None
        What it cost before; None: nobody had said.
    """

    pod: str
    cost: str | None


def mark_victim(api: ApiClient, counter: Counter, count: Count, pods: Pods) -> Mark | None:
    """Make the pod that should leave the cheapest one; None: the cluster chooses, or it is chosen.

    A mark that is not used up yet, as of a process that was killed before it wrote the count, is
    this step's.

    Raises
    ------
    ClusterError
        When the pod cannot be marked.
    """
    if counter.target.kind != "Deployment" or len(pods.all) < 2:
        return None
    if not may(api, counter.namespace, ("patch", "", "pods", "")):
        return None
    staying = [pod for pod in pods.all if not text(pod, "metadata", "deletionTimestamp")]
    unmarked = [pod for pod in staying if _cost(pod) != _CHEAPEST]
    going = max(len(staying) - count.replicas, 0)
    if len(staying) - len(unmarked) > going:
        return None
    for name in _chosen(unmarked):
        cost = next(_cost(pod) for pod in unmarked if text(pod, "metadata", "name") == name)
        mark = Mark(pod=name, cost=cost)
        try:
            _write(api, counter, name, _CHEAPEST, f"mark pod {name} as the one that leaves")
        except ClusterError as error:
            if error.status is None:  # it may have landed
                take_back(api, counter, mark)
            raise
        return mark
    return None


def take_back(api: ApiClient, counter: Counter, mark: Mark) -> str:
    """Give a pod the cost that it had, as it does not leave; what went wrong, or nothing."""
    doing = f"take back the mark of pod {mark.pod} as the one that leaves"
    try:
        _write(api, counter, mark.pod, mark.cost, doing)
    except ClusterError as error:
        return "" if error.status == 404 else f"{error}; its annotation {COST} is to be removed"
    return ""


def _write(api: ApiClient, counter: Counter, pod: str, cost: str | None, doing: str) -> None:
    path = path_of("v1", counter.namespace, "pods", pod)
    body = {"metadata": {"annotations": {COST: cost}}}
    patch(api, path, body, doing, content=MERGE_PATCH, manager=counter.manager)


def _chosen(pods: Sequence[Json]) -> tuple[str, ...]:
    candidates = [
        Candidate(
            name=text(pod, "metadata", "name"), ready=is_ready(pod), started_at=started_at(pod)
        )
        for pod in pods
    ]
    return tuple(victims(candidates, 1))


def _cost(pod: Json) -> str | None:
    notes = at(pod, "metadata", "annotations")
    return text(notes, COST) or None

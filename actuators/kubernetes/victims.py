"""Chooses which pod of a Deployment leaves: the cheapest by `pod-deletion-cost`.

Other kinds take the highest index, whatever its cost (StatefulSet, LeaderWorkerSet). Where this
account may not patch pods, the cluster chooses.
"""

from kubernetes.client import ApiClient

from actuators.kubernetes.access import may
from actuators.kubernetes.counts import MERGE_PATCH, Counter
from actuators.kubernetes.pods import Pods, is_ready, started_at
from actuators.kubernetes.resources import Json, at, patch, path_of, text
from planner.rollout.victims import Candidate, victims

_CHEAPEST = "-1000"
COST = "controller.kubernetes.io/pod-deletion-cost"


def mark_victim(api: ApiClient, counter: Counter, pods: Pods) -> None:
    """Make the pod that should leave the cheapest one. Raises ClusterError."""
    if counter.target.kind != "Deployment" or len(pods.all) < 2:
        return
    if not may(api, counter.namespace, ("patch", "", "pods", "")):
        return
    candidates = [
        Candidate(
            name=text(pod, "metadata", "name"), ready=is_ready(pod), started_at=started_at(pod)
        )
        for pod in pods.all
        if not text(pod, "metadata", "deletionTimestamp") and not _is_marked(pod)
    ]
    for name in victims(candidates, 1):
        path = path_of("v1", counter.namespace, "pods", name)
        body = {"metadata": {"annotations": {COST: _CHEAPEST}}}
        patch(api, path, body, f"mark pod {name} as the one that leaves", content=MERGE_PATCH)


def _is_marked(pod: Json) -> bool:
    """Whether an earlier step of the same rollout chose it."""
    notes = at(pod, "metadata", "annotations")
    return isinstance(notes, dict) and notes.get(COST) == _CHEAPEST

"""What could stand in the way, asked before the first write (guards 3, 12, 17, 18, 20)."""

from collections.abc import Mapping
from itertools import pairwise

from kubernetes.client import ApiClient

from actuators.kubernetes.access import missing_rights
from actuators.kubernetes.assignment import Key
from actuators.kubernetes.children import children_of, scaled_by_hand
from actuators.kubernetes.client import ClusterError
from actuators.kubernetes.counts import Count, Counter
from actuators.kubernetes.draining import cut_short
from actuators.kubernetes.instances import second_instance
from actuators.kubernetes.ownership import other_owners
from actuators.kubernetes.pods import is_ready, pods_of
from planner.domain.rollout import Diff, StepKind
from planner.domain.target import ClusterTarget


def objections_to(
    diff: Diff, counters: Mapping[Key, Counter], api: ApiClient, cluster: ClusterTarget
) -> tuple[str, ...]:
    """What stands in the way of a diff, one sentence each; nothing is stored."""
    objections = []
    for step in diff.steps:
        if step.kind is StepKind.FLIP:
            objections.append(
                f"step {step.index + 1} flips {step.shape.label}, but a pod's role cannot be "
                "changed in place on Kubernetes"
            )
        elif (step.shape, step.purchase_option) not in counters:
            objections.append(
                f"step {step.index + 1} is for {step.shape.label}, whose count no object holds: "
                "name one under target.objects"
            )
    changes = {key: _changes(diff, key) for key in counters}
    for key, counter in counters.items():
        if changes[key]:
            objections += objections_of(counter, api, cluster, changes=changes[key])
    return tuple(dict.fromkeys(objections))


def objections_of(
    counter: Counter, api: ApiClient, cluster: ClusterTarget, *, changes: tuple[int, ...] = ()
) -> list[str]:
    """What stands in the way of one count.

    Parameters
    ----------
    changes : tuple of int
        By how much it will differ from now, after each step; empty: nothing is tried.
    """
    try:
        lacking = missing_rights(api, counter)
        if lacking:
            return list(lacking)
        document = counter.object()
        count = counter.read()
        made = children_of(api, counter, count)
        objections = list(other_owners(api, counter, document, made))
        objections += filter(None, [second_instance(counter, document, cluster.take_over_from)])
        objections += scaled_by_hand(api, counter, count)
        if cluster.require_drain and any(now < before for before, now in pairwise((0, *changes))):
            objections += _drains(counter, api, count, cluster.drain_s)
        if not objections:
            for replicas in sorted({count.replicas + change for change in changes}):
                counter.write(count, max(replicas, 0), dry_run=True)
    except ClusterError as error:
        return [str(error)]
    return objections


def _changes(diff: Diff, key: Key) -> tuple[int, ...]:
    by, found = 0, []
    for step in diff.steps:
        if (step.shape, step.purchase_option) == key:
            by += {StepKind.START: 1, StepKind.DRAIN: -1}.get(step.kind, 0)
            found.append(by)
    return tuple(found)


def _drains(counter: Counter, api: ApiClient, count: Count, least_s: float) -> list[str]:
    # Any of them may be the one that goes; half-way through a roll-out they differ.
    serving = (pod for pod in pods_of(api, counter, count).all if is_ready(pod))
    told = (cut_short(pod, least_s=least_s) for pod in serving)
    problems = dict.fromkeys(filter(None, told))
    return [
        f"a pod of {counter.target.label} would not finish its requests: {problem} (or set "
        "target.require_drain: false)"
        for problem in problems
    ]

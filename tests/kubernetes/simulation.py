"""Controllers, scheduler and kubelets, simulated on a clock that the test moves.

Nothing here goes over HTTP: controllers write past access control, faults and the log of calls, and
status on the status subresource only, as the real ones do.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.kubernetes.adapters import ADAPTERS
from tests.kubernetes.cluster import FakeCluster
from tests.kubernetes.errors import ApiError
from tests.kubernetes.selectors import selects
from tests.kubernetes.workloads import WORKLOADS, is_ready, terminating

Object = dict[str, Any]
Seconds = float | Callable[[Object], float]
"""A fixed time, or one that depends on the pod."""

GPU = "nvidia.com/gpu"
PRODUCT = "nvidia.com/gpu.product"
_ROUNDS = 50


@dataclass(slots=True, kw_only=True)
class Fight:
    """A second controller: sets a count through `/scale` every so often."""

    plural: str
    name: str
    namespace: str
    replicas: int
    every_s: float
    manager: str
    next_at_s: float


class ControllerSimulation:
    """What makes pods of counts.

    Parameters
    ----------
    startup_s
        From a pod's placement on a node to its readiness.
    drain_s
        How long a pod goes on after it was told to stop; its terminationGracePeriodSeconds bounds
        it.
    stuck
        Pods for which this holds never become ready.

    Attributes
    ----------
    broken
        For a pod what its container waits for that will not come, as `ImagePullBackOff`; empty:
        it starts.
    idle
        Resources whose controllers do not run, as `dynamographdeployments`.
    """

    def __init__(
        self,
        cluster: FakeCluster,
        *,
        startup_s: Seconds = 0.0,
        drain_s: Seconds = 0.0,
        stuck: Callable[[Object], bool] = lambda _pod: False,
    ) -> None:
        self.cluster = cluster
        self.startup_s = startup_s
        self.drain_s = drain_s
        self.stuck = stuck
        self.idle: set[str] = set()
        self.broken: Callable[[Object], str] = lambda _pod: ""
        self.now_s = 0.0
        self.fights: list[Fight] = []
        self._since_s: dict[tuple[str, str], float] = {}

    # -- the clock ----------------------------------------------------------------------------

    def step(self, seconds: float = 0.0) -> None:
        """Move the clock, then let every controller act until nothing changes any more."""
        store = self.cluster.api.store
        with store.lock:
            self.now_s += seconds
            for _ in range(_ROUNDS):
                before = store.revision
                self._round()
                if store.revision == before:
                    return
        raise RuntimeError(f"controllers still change something after {_ROUNDS} rounds")

    @contextmanager
    def running(self, every_s: float = 0.02, speed: float = 1.0) -> Iterator[None]:
        """Step in a thread; `speed` seconds of the simulation per second of the clock."""
        stopped = threading.Event()
        failures: list[Exception] = []

        def loop() -> None:
            last = time.monotonic()
            while not stopped.wait(every_s):
                now = time.monotonic()
                try:
                    self.step((now - last) * speed)
                except Exception as error:
                    failures.append(error)
                    return
                last = now

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
        if failures:
            raise failures[0]

    def since(self, what: str, uid: str) -> float:
        """For how long something holds, seconds; starts counting at the first question."""
        return self.now_s - self._since_s.setdefault((what, uid), self.now_s)

    def forget(self, what: str, uid: str) -> None:
        self._since_s.pop((what, uid), None)

    # -- what a test sets ---------------------------------------------------------------------

    def gpus(self, accelerator: str, count: int) -> None:
        """Give the accelerator one node with so many GPUs; from the first call on, that is all."""
        name = "node-" + accelerator.lower().replace("_", "-")
        status = {"allocatable": {GPU: str(count)}, "capacity": {GPU: str(count)},
                  "conditions": [{"type": "Ready", "status": "True"}]}  # fmt: skip
        manifest = {"apiVersion": "v1", "kind": "Node", "status": status,
                    "metadata": {"name": name, "labels": {PRODUCT: accelerator}}}  # fmt: skip
        try:
            self.cluster.create(manifest)
        except ApiError:
            self.cluster.write_status(manifest)

    def fight(
        self, plural: str, name: str, replicas: int, *, every_s: float = 15.0,
        namespace: str = "default", manager: str = "kube-controller-manager",
    ) -> Fight:  # fmt: skip
        """Let a second controller, such as an HPA, hold a count; `fights` lists them."""
        made = Fight(plural=plural, name=name, namespace=namespace, replicas=replicas,
                     every_s=every_s, manager=manager, next_at_s=self.now_s + every_s)  # fmt: skip
        self.fights.append(made)
        return made

    # -- one round ----------------------------------------------------------------------------

    def _round(self) -> None:
        for fight in self.fights:
            if self.now_s >= fight.next_at_s:
                fight.next_at_s = self.now_s + fight.every_s
                self.cluster.scale(fight.plural, fight.name, fight.replicas, fight.namespace,
                                   manager=fight.manager)  # fmt: skip
        for plural, reconcile in (*ADAPTERS.items(), *WORKLOADS.items()):
            for obj in self._objects(plural) if plural not in self.idle else ():
                if not obj["metadata"].get("deletionTimestamp"):
                    reconcile(self, obj)
        self._collect_garbage()
        self._schedule()
        for pod in self._objects("pods"):
            self._run(pod)
        self._count_disruptions()

    def _objects(self, plural: str) -> list[Object]:
        try:
            return self.cluster.objects(plural)
        except KeyError:
            return []

    def _collect_garbage(self) -> None:
        """Delete what an object owned that is gone."""
        found = list(self.cluster.api.store.metadata())
        uids = {metadata["uid"] for _, metadata in found}
        for key, metadata in found:
            owners = metadata.get("ownerReferences", ())
            gone = owners and not any(owner["uid"] in uids for owner in owners)
            if gone and "deletionTimestamp" not in metadata:
                self.cluster.delete(f"{key[1]}.{key[0]}".rstrip("."), metadata["name"],
                                    metadata.get("namespace", ""))  # fmt: skip

    # -- scheduler ----------------------------------------------------------------------------

    def _schedule(self) -> None:
        pods = self._objects("pods")
        nodes = self._objects("nodes")
        used: dict[str, int] = {}
        for pod in pods:
            node = pod["spec"].get("nodeName", "")
            used[node] = used.get(node, 0) + gpus_of(pod)
        for pod in pods:
            if pod["spec"].get("nodeName") or terminating(pod):
                continue
            fitting, why = _fitting(pod, nodes, used)
            if fitting is None:
                self._unschedulable(pod, why)
                continue
            used[fitting] = used.get(fitting, 0) + gpus_of(pod)
            pod["spec"]["nodeName"] = fitting
            pod = self.cluster.update(pod, manager="kube-scheduler")  # noqa: PLW2901
            self._condition(pod, "PodScheduled", "True", "", "")

    def _unschedulable(self, pod: Object, why: str) -> None:
        metadata = pod["metadata"]
        if self._condition(pod, "PodScheduled", "False", "Unschedulable", why):
            self.cluster.create({
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"generateName": f"{metadata['name']}.",
                             "namespace": metadata["namespace"]},
                "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"],
                                   "namespace": metadata["namespace"], "uid": metadata["uid"]},
                "reason": "FailedScheduling",
                "message": why,
                "type": "Warning",
                "count": 1,
                "source": {"component": "default-scheduler"},
            }, metadata["namespace"])  # fmt: skip

    def _condition(self, pod: Object, what: str, status: str, reason: str, message: str) -> bool:
        """Set a condition of a pod; whether that changed it."""
        conditions = pod.setdefault("status", {}).setdefault("conditions", [])
        made = {"type": what, "status": status}
        made |= {"reason": reason, "message": message} if reason else {}
        if made in conditions:
            return False
        pod["status"]["conditions"] = [*(c for c in conditions if c["type"] != what), made]
        self.cluster.write_status(pod, manager="kube-scheduler")
        return True

    # -- kubelet ------------------------------------------------------------------------------

    def _run(self, pod: Object) -> None:
        metadata = pod["metadata"]
        if not pod["spec"].get("nodeName"):
            return
        if terminating(pod):
            grace_s = metadata.get("deletionGracePeriodSeconds", 30)
            if self.since("stopping", metadata["uid"]) >= min(grace_s, _of(self.drain_s, pod)):
                self.cluster.delete("pods", metadata["name"], metadata["namespace"], grace_s=0)
            return
        started = self.since("placed", metadata["uid"]) >= _of(self.startup_s, pod)
        waits_for = self.broken(pod)
        ready = "True" if started and not self.stuck(pod) and not waits_for else "False"
        containers = _waiting(pod, waits_for) if waits_for else []
        told = pod["status"].get("containerStatuses", []) == containers
        same = is_ready(pod) == (ready == "True")
        if told and same and pod["status"].get("phase") == "Running":
            return
        pod["status"]["containerStatuses"] = containers
        pod["status"]["phase"] = "Running"
        kept = [c for c in pod["status"].get("conditions", []) if c["type"] == "PodScheduled"]
        pod["status"]["conditions"] = [*kept, *(
            {"type": what, "status": ready} for what in ("Initialized", "ContainersReady", "Ready")
        )]  # fmt: skip
        pod["status"]["podIP"] = "10.0.0.1"
        self.cluster.write_status(pod, manager="kubelet")

    def _count_disruptions(self) -> None:
        for budget in self._objects("poddisruptionbudgets"):
            pods = [
                p
                for p in self.cluster.objects("pods", budget["metadata"]["namespace"])
                if selects(budget["spec"].get("selector"), p["metadata"].get("labels", {}))
            ]
            healthy = sum(is_ready(pod) and not terminating(pod) for pod in pods)
            spec = budget["spec"]
            if "minAvailable" in spec:
                desired = _amount(spec["minAvailable"], len(pods))
            else:
                desired = len(pods) - _amount(spec.get("maxUnavailable", 0), len(pods))
            budget["status"] = {
                "observedGeneration": budget["metadata"]["generation"],
                "currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": len(pods),
                "disruptionsAllowed": max(0, healthy - desired),
            }  # fmt: skip
            self.cluster.write_status(budget)


def _waiting(pod: Object, reason: str) -> list[Object]:
    """The status of containers that wait for what will not come."""
    return [
        {"name": one["name"], "image": one["image"], "imageID": "", "ready": False,
         "restartCount": 0, "state": {"waiting": {"reason": reason, "message": "it did not"}}}
        for one in pod["spec"]["containers"]
    ]  # fmt: skip


def _of(seconds: Seconds, pod: Object) -> float:
    return seconds(pod) if callable(seconds) else seconds


def _amount(value: int | str, whole: int) -> int:
    """A count, or a percentage of the whole rounded up."""
    if isinstance(value, int):
        return value
    return -(-whole * int(value.rstrip("%")) // 100)


def gpus_of(pod: Object) -> int:
    """How many GPUs a pod asks for."""
    total = 0
    for container in pod["spec"].get("containers", ()):
        resources = container.get("resources", {})
        asked = resources.get("requests", {}).get(GPU) or resources.get("limits", {}).get(GPU, 0)
        total += int(asked)
    return total


def _fitting(pod: Object, nodes: list[Object], used: dict[str, int]) -> tuple[str | None, str]:
    """A node with room for the pod, or why there is none. Without nodes there is always room."""
    if not nodes:
        return "node-0", ""
    short = 0
    for node in nodes:
        if not _accepts(pod["spec"], node["metadata"].get("labels", {})):
            continue
        name = node["metadata"]["name"]
        free = int(node.get("status", {}).get("allocatable", {}).get(GPU, 0)) - used.get(name, 0)
        if gpus_of(pod) <= free:
            return name, ""
        short += 1
    reasons = []
    if len(nodes) > short:
        reasons.append(f"{len(nodes) - short} node(s) didn't match Pod's node affinity/selector")
    if short:
        reasons.append(f"{short} Insufficient {GPU}")
    return None, f"0/{len(nodes)} nodes are available: {', '.join(reasons)}."


def _accepts(pod: Object, labels: dict[str, str]) -> bool:
    """Whether a pod's node selector and its required node affinity take a node."""
    if not selects({"matchLabels": pod.get("nodeSelector", {})}, labels):
        return False
    affinity = pod.get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(selects(term, labels) for term in required["nodeSelectorTerms"])

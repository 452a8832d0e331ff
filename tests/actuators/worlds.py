"""What the contract of actuators is checked on: a world that the test sees past the actuator.

Each begins with two prefill and two decode replicas that serve.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from kubernetes.client import ApiClient, AppsV1Api, CoreV1Api

from actuators.actuator import Actuator
from actuators.dry_run import DryRunActuator
from actuators.kubernetes.actuator import KubernetesActuator
from actuators.local import LocalActuator
from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role, version_of
from planner.domain.target import ClusterTarget
from serving.fleet.changes import Changes
from serving.fleet.deployment import LocalDeployment, RouterSettings, WorkerState
from serving.routers import RouterKind
from serving.workers.launcher import LocalSite
from tests.actuators.kubernetes import rig
from tests.kubernetes import FakeCluster
from tests.kubernetes.simulation import ControllerSimulation
from tests.serving import conftest as serving

ROLES = (Role.PREFILL, Role.DECODE)
Counts = tuple[int, int]
ANOTHER = ReplicaShape(role=Role.DECODE, model="another", accelerator="b200")
MIXED = replace(rig.DECODE, role=Role.AGGREGATED)


class World(Protocol):
    """A fleet to move.

    Attributes
    ----------
    shapes : (ReplicaShape, ReplicaShape)
        Of its prefill and of its decode pool.
    foreign : tuple of ReplicaShape
        Replicas that this target can never have.
    flips : bool
        Whether a replica's role can be changed in place.
    fails : bool
        Whether a replica that was asked for may not come.
    """

    shapes: tuple[ReplicaShape, ReplicaShape]
    foreign: tuple[ReplicaShape, ...]
    flips: bool
    fails: bool

    def actuator(self) -> Actuator:
        """A fresh one, as after a restart."""

    def serving(self) -> Counts:
        """How many prefill and decode replicas serve."""

    def somebody_adds(self) -> None:
        """One decode replica more, not by the actuator; it serves when this returns."""

    def nothing_comes(self) -> None:
        """From now on replicas that are asked for do not become ready."""

    def things_come(self) -> None:
        """That is over."""


@dataclass
class Imagined:
    """The fleet that a dry run keeps."""

    shapes: tuple[ReplicaShape, ReplicaShape] = (rig.PREFILL, rig.DECODE)
    foreign: tuple[ReplicaShape, ...] = ()
    flips: bool = True
    fails: bool = False
    hands: DryRunActuator = field(init=False)

    def __post_init__(self) -> None:
        self.hands = DryRunActuator(self._fleet(2, 2))

    def actuator(self) -> Actuator:
        return self.hands

    def serving(self) -> Counts:
        prefill, decode = (
            sum(p.ready for p in self.hands.fleet.pools if p.shape == shape)
            for shape in self.shapes
        )
        return prefill, decode

    def somebody_adds(self) -> None:
        prefill, decode = self.serving()
        self.hands.fleet = self._fleet(prefill, decode + 1)

    def nothing_comes(self) -> None:
        raise NotImplementedError

    def things_come(self) -> None:
        raise NotImplementedError

    def _fleet(self, *ready: int) -> Fleet:
        pools = tuple(
            Pool(shape=shape, ready=count) for shape, count in zip(self.shapes, ready, strict=True)
        )
        return Fleet(pools=pools, read_at=datetime.now(UTC), version=version_of(pools))


@dataclass
class Local:
    """Processes of a deployment behind a router; the engines are stubs."""

    deployment: LocalDeployment
    shapes: tuple[ReplicaShape, ReplicaShape] = (serving.PREFILL, serving.DECODE)
    foreign: tuple[ReplicaShape, ...] = (ANOTHER, serving.AGGREGATED)
    flips: bool = True
    fails: bool = True

    @classmethod
    @contextmanager
    def running(cls, site: LocalSite) -> Iterator["Local"]:
        routing = RouterSettings(kind=RouterKind.VLLM_ROUTER)
        with LocalDeployment(site, routing=routing) as deployment:
            yield cls(deployment)

    def begin(self) -> None:
        """Bring it to where every world begins, whatever a test left."""
        self.things_come()
        changes = Changes(self.deployment, self.shapes[0])
        for member in self.deployment.members:
            if member.state is not WorkerState.READY:
                self.deployment.forget(member.worker)
        for role in ROLES:
            for _ in range(2 - len(self._ready(role))):
                changes.add(role)
        for role in ROLES:
            for name in self._ready(role)[2:]:
                changes.remove(name)

    def actuator(self) -> Actuator:
        return LocalActuator(self.deployment)

    def serving(self) -> Counts:
        routed = [w for w in self.deployment.router.workers() if w.healthy]
        prefill, decode = (sum(w.role is role for w in routed) for role in ROLES)
        return prefill, decode

    def somebody_adds(self) -> None:
        Changes(self.deployment, self.shapes[0]).add(Role.DECODE)

    def nothing_comes(self) -> None:
        self._start_with("--stub-dies")

    def things_come(self) -> None:
        self._start_with()

    def _start_with(self, *options: str) -> None:
        site = self.deployment.site
        site = replace(site, flags=replace(site.flags, extra=options))
        self.deployment.site = self.deployment.launcher.site = site

    def _ready(self, role: Role) -> list[str]:
        found = [m for m in self.deployment.members if m.state is WorkerState.READY]
        return [m.name for m in found if m.role is role]


@dataclass
class Cluster:
    """Two Deployments on an API server; `wait` lets so many seconds pass there."""

    client: ApiClient
    namespace: str
    wait: Callable[[float], None]
    clock: Callable[[], float]
    nothing_comes: Callable[[], None]
    things_come: Callable[[], None]
    deadline_s: float
    poll_s: float
    shapes: tuple[ReplicaShape, ReplicaShape] = (rig.PREFILL, rig.DECODE)
    foreign: tuple[ReplicaShape, ...] = (ANOTHER, MIXED)
    flips: bool = False
    fails: bool = True

    def actuator(self) -> Actuator:
        return KubernetesActuator(
            api=self.client,
            cluster=ClusterTarget(namespace=self.namespace, progress_deadline_s=self.deadline_s),
            shapes=[(shape, rig.OPTION) for shape in self.shapes],
            objects=rig.PAIR,
            clock=self.clock,
            sleep=self.wait,
            poll_s=self.poll_s,
        )

    def serving(self) -> Counts:
        apps = AppsV1Api(self.client)
        prefill, decode = (
            apps.read_namespaced_deployment_status(role, self.namespace).status.ready_replicas or 0
            for role in ROLES
        )
        return prefill, decode

    def somebody_adds(self) -> None:
        prefill, decode = self.serving()
        body = {"spec": {"replicas": decode + 1}}
        AppsV1Api(self.client).patch_namespaced_deployment_scale("decode", self.namespace, body)
        self.await_serving((prefill, decode + 1))

    def await_serving(self, counts: Counts) -> None:
        """Let time pass until so many serve."""
        until_s = self.clock() + 2 * self.deadline_s
        while self.serving() != counts:
            assert self.clock() < until_s, f"{self.serving()} serve, not {counts}"
            self.wait(self.poll_s)


@contextmanager
def fake_cluster() -> Iterator[Cluster]:
    """The fake API server over HTTP, with controllers on a clock of their own."""
    with FakeCluster(crds="all") as fake:
        simulation = ControllerSimulation(fake, startup_s=90.0, drain_s=20.0)

        def stick(*, stuck: bool) -> None:
            known = {p["metadata"]["uid"] for p in fake.objects("pods", "default")}
            simulation.stuck = lambda pod: stuck and pod["metadata"]["uid"] not in known

        for name in ("prefill", "decode"):
            fake.load(rig.deployment(name, 2))
        world = Cluster(
            client=fake.client(),
            namespace="default",
            wait=simulation.step,
            clock=lambda: simulation.now_s,
            nothing_comes=lambda: stick(stuck=True),
            things_come=lambda: stick(stuck=False),
            deadline_s=600.0,
            poll_s=10.0,
        )
        world.await_serving((2, 2))
        yield world


@contextmanager
def real_cluster(client: ApiClient, namespace: str) -> Iterator[Cluster]:
    """A namespace of a real cluster; its pods only sleep, and new ones may ask for too much."""
    core, apps = CoreV1Api(client), AppsV1Api(client)

    def asking_for(memory: str) -> dict[str, object]:
        limit = {"type": "Container", "default": {"memory": memory}}
        return {"metadata": {"name": "each"}, "spec": {"limits": [limit]}}

    def come() -> None:
        core.patch_namespaced_limit_range("each", namespace, asking_for("64Mi"))
        pending = "status.phase=Pending"
        core.delete_collection_namespaced_pod(namespace, field_selector=pending)

    core.create_namespaced_limit_range(namespace, asking_for("64Mi"))
    for name in ("prefill", "decode"):
        apps.create_namespaced_deployment(namespace, rig.sleeping(name, 2))
    world = Cluster(
        client=client,
        namespace=namespace,
        wait=time.sleep,
        clock=time.monotonic,
        nothing_comes=lambda: core.patch_namespaced_limit_range(
            "each", namespace, asking_for("999Ti")
        ),
        things_come=come,
        deadline_s=60.0,
        poll_s=1.0,
    )
    world.await_serving((2, 2))
    yield world

"""A fake cluster with a prefill and a decode pool, and an actuator for it on a simulated clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import yaml

from actuators.kubernetes.actuator import KubernetesActuator
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.domain.rollout import Diff, Step, StepKind
from planner.domain.target import ClusterTarget, CountTarget
from tests.kubernetes import FakeCluster
from tests.kubernetes.simulation import ControllerSimulation

PREFILL = ReplicaShape(role=Role.PREFILL, model="m", accelerator="h100")
DECODE = replace(PREFILL, role=Role.DECODE)
OPTION = PurchaseOption.ON_DEMAND
PRODUCT = "NVIDIA-H100-80GB-HBM3"

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: default}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 130
      nodeSelector: {{nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}}
      containers:
      - name: engine
        image: vllm
        args: [serve, m, --shutdown-timeout, "{shutdown_s}"]
        resources: {{limits: {{nvidia.com/gpu: "1"}}}}
"""


def deployment(name: str, replicas: int, *, shutdown_s: int = 120) -> str:
    return DEPLOYMENT.format(name=name, replicas=replicas, shutdown_s=shutdown_s)


def sleeping(name: str, replicas: int) -> dict[str, object]:
    """A Deployment of pods that a cluster without GPUs can run; they end at once when told to."""
    made = yaml.safe_load(deployment(name, replicas))
    pod = made["spec"]["template"]["spec"]
    del pod["nodeSelector"]
    pod["containers"][0] |= {"image": "registry.k8s.io/pause:3.9", "resources": {}}
    return {**made, "metadata": {"name": name}}


def counted(role: Role, name: str, kind: str = "Deployment", **more: str) -> CountTarget:
    version = more.pop("api_version", "apps/v1")
    return CountTarget(role=role, kind=kind, api_version=version, name=name, **more)


PAIR = (counted(Role.PREFILL, "prefill"), counted(Role.DECODE, "decode"))


@dataclass
class Rig:
    cluster: FakeCluster
    simulation: ControllerSimulation
    objects: tuple[CountTarget, ...] = PAIR
    target: ClusterTarget = field(default_factory=lambda: ClusterTarget(progress_deadline_s=600.0))
    token: str | None = None

    def actuator(self, **more: object) -> KubernetesActuator:
        """A fresh one, as after a restart; waiting moves the cluster's clock."""
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds
            self.simulation.step(seconds)

        return KubernetesActuator(
            api=self.cluster.client(self.token) if self.token else self.cluster.client(),
            cluster=self.target,
            shapes=[(PREFILL, OPTION), (DECODE, OPTION)],
            objects=self.objects,
            clock=lambda: now[0],
            sleep=sleep,
            poll_s=10.0,
            **more,
        )

    def replicas(self, name: str) -> int:
        return self.cluster.get("deployments", name)["spec"]["replicas"]


@contextmanager
def rigged(
    prefill: int = 1, decode: int = 2, *, gpus: int | None = None, **more: object
) -> Iterator[Rig]:
    with FakeCluster(crds="all") as cluster:
        simulation = ControllerSimulation(cluster, startup_s=90.0, drain_s=20.0)
        if gpus is not None:
            simulation.gpus(PRODUCT, gpus)
        cluster.load(deployment("prefill", prefill))
        cluster.load(deployment("decode", decode))
        simulation.step()
        simulation.step(120.0)
        cluster.forget_calls()
        yield Rig(cluster, simulation, **more)


def step(index: int, kind: StepKind, shape: ReplicaShape, to: ReplicaShape | None = None) -> Step:
    return Step(
        index=index,
        kind=kind,
        shape=shape,
        to_shape=to,
        purchase_option=OPTION,
        expected_s=90.0,
        expected_usd=0.0,
        reason="a test",
    )


def grown(actuator: KubernetesActuator, *kinds: tuple[StepKind, ReplicaShape]) -> Diff:
    """A diff of these steps from what runs now."""
    steps = tuple(step(i, kind, shape) for i, (kind, shape) in enumerate(kinds))
    return Diff(plan_id="p", from_fleet=actuator.read_fleet(), steps=steps)

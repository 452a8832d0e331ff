"""A spec's Kubernetes target: its actuator, and what a look at the cluster finds."""

from dataclasses import dataclass

from actuators.kubernetes.actuator import KubernetesActuator
from actuators.kubernetes.connection import connect
from actuators.kubernetes.preflight import objections_of
from planner.domain.spec import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPool:
    """A pool as the cluster has it, and what stands in the way of scaling it."""

    pool: str
    model: str
    count: str
    ready: int
    starting: int
    draining: int
    problems: tuple[str, ...]


def kubernetes_actuator(spec: Spec) -> KubernetesActuator:
    """The hands of a spec whose target is a cluster. Nothing is asked yet.

    A pool is bought as the first price of its accelerator says: a cluster does not tell.

    Raises
    ------
    InputError
        When there is no usable kubeconfig, or a pool has not exactly one object.
    """
    shapes = [
        (pool.shape, spec.accelerator(pool.shape.accelerator).offers[0].purchase_option)
        for pool in spec.pools
    ]
    return KubernetesActuator(
        api=connect(spec.cluster),
        cluster=spec.cluster,
        shapes=shapes,
        objects=spec.cluster.objects,
    )


def look_at(spec: Spec) -> tuple[FoundPool, ...]:
    """Read every pool and try one more and one less replica as a server-side dry run.

    Raises
    ------
    InputError
        As `kubernetes_actuator`.
    ClusterError
        When the cluster cannot be asked.
    """
    actuator = kubernetes_actuator(spec)
    fleet = actuator.read_fleet()
    found = []
    for (shape, option), counter in actuator.counters.items():
        pool = fleet.pool(shape, option)
        changes = (1, -1) if pool.replicas > 1 else (1,)
        problems = objections_of(counter, actuator.api, spec.cluster, changes=changes)
        found.append(
            FoundPool(
                pool=shape.label,
                model=shape.model,
                count=counter.target.label,
                ready=pool.ready,
                starting=pool.starting,
                draining=pool.draining,
                problems=tuple(problems),
            )
        )
    return tuple(found)

"""A spec's Kubernetes target: its actuator, and what a look at the cluster finds."""

from dataclasses import dataclass

from kubernetes.client import ApiClient

from actuators.kubernetes.actuator import KubernetesActuator, pool_of
from actuators.kubernetes.assignment import Key, assigned
from actuators.kubernetes.client import ClusterError
from actuators.kubernetes.connection import connect
from actuators.kubernetes.counts import Counter
from actuators.kubernetes.discovery import Discovery, discover
from actuators.kubernetes.instances import holder_of
from actuators.kubernetes.pods import pods_of
from actuators.kubernetes.preflight import objections_of
from planner.domain.errors import InputError
from planner.domain.fleet import Pool
from planner.domain.spec import Spec

_UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPool:
    """A pool as the cluster has it, and what stands in the way of scaling it.

    Parameters
    ----------
    count : str
        The object that holds its count; empty: none does.
    found_by : str
        What told that; empty where the spec names the object.
    ready, starting, draining : int or None
        Replicas; None: they could not be read.
    notes : tuple of str
        What should be known of it and stands in nobody's way, one sentence each.
    """

    pool: str
    model: str
    count: str
    found_by: str
    ready: int | None
    starting: int | None
    draining: int | None
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a cluster has of a spec.

    Parameters
    ----------
    left_out : tuple of str
        What matches the selector and is no pool, one sentence each.
    problems : tuple of str
        What is wrong with objects that could not be told to be of a pool, one sentence each.
    """

    pools: tuple[FoundPool, ...]
    left_out: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def kubernetes_actuator(spec: Spec, *, instance: str = "") -> KubernetesActuator:
    """The hands of a spec whose target is a cluster.

    Nothing is asked yet where the spec lists its objects; a selector is looked up at once. A pool
    is bought as the first price of its accelerator says: a cluster does not tell.

    Parameters
    ----------
    instance : str
        The name of the database that it is steered from.

    Raises
    ------
    InputError
        When there is no usable kubeconfig, or a pool has not exactly one object.
    ClusterError
        When the cluster cannot be asked.
    """
    api = connect(spec.cluster)
    found = _discovered(api, spec)
    if found.problems:
        raise InputError("\n".join(found.problems))
    return KubernetesActuator(
        api=api,
        cluster=spec.cluster,
        shapes=_keys(spec),
        objects=tuple(target for target, _by in found.found),
        instance=instance,
    )


def look_at(spec: Spec) -> Look:
    """Read every pool and try one more and one less replica as a server-side dry run.

    A pool that cannot be read does not keep the others from being looked at.

    Raises
    ------
    InputError
        When there is no usable kubeconfig.
    ClusterError
        When the cluster cannot be asked at all.
    """
    api = connect(spec.cluster)
    found = _discovered(api, spec)
    by = dict(found.found)
    pools = []
    keys = _keys(spec)
    assignment = assigned(api, spec.cluster, keys, tuple(by))
    for key in keys:
        counter = assignment.counters.get(key)
        pool, problems, notes = (
            _looked_at(api, spec, key, counter)
            if counter is not None
            else (None, () if found.problems else (assignment.problems[key],), ())
        )
        pools.append(
            FoundPool(
                pool=key[0].label,
                model=key[0].model,
                count=counter.target.label if counter else "",
                found_by=by[counter.target] if counter else "",
                ready=pool.ready if pool else None,
                starting=pool.starting if pool else None,
                draining=pool.draining if pool else None,
                problems=problems,
                notes=notes,
            )
        )
    return Look(pools=tuple(pools), left_out=found.left_out, problems=found.problems)


def _keys(spec: Spec) -> list[Key]:
    return [
        (pool.shape, spec.accelerator(pool.shape.accelerator).offers[0].purchase_option)
        for pool in spec.pools
    ]


def _discovered(api: ApiClient, spec: Spec) -> Discovery:
    """The objects of a spec, listed in it or found by its selector."""
    if spec.cluster.selector:
        return discover(api, spec.cluster, [pool.shape for pool in spec.pools])
    listed = tuple((target, "") for target in spec.cluster.objects)
    return Discovery(found=listed, left_out=(), problems=())


def _looked_at(
    api: ApiClient, spec: Spec, key: Key, counter: Counter
) -> tuple[Pool | None, tuple[str, ...], tuple[str, ...]]:
    """A pool as it runs, None where it cannot be read, what stands in its way, and notes."""
    pool, said, notes = None, "", []
    try:
        count = counter.read()
        pods = pods_of(api, counter, count)
        pool = pool_of(key, count, pods)
        notes += [f"{counter.target.label}: {told}" for told in pods.told]
        notes += _steered(counter)
    except ClusterError as error:
        if error.status in (None, _UNAUTHORIZED):  # it would be the same for every other pool
            raise
        said = str(error)
    changes = (1, -1) if pool is not None and pool.replicas > 1 else (1,)
    problems = objections_of(counter, api, spec.cluster, changes=changes)
    return pool, tuple(problems or ([said] if said else [])), tuple(notes)


def _steered(counter: Counter) -> list[str]:
    """By which Poolwise it was scaled last: a look has no database, and is none of them."""
    holder = holder_of(counter, counter.object())
    if holder is None:
        return []
    since = f" at {holder.since}" if holder.since else ""
    return [
        f"{counter.target.label} was scaled last by {holder.manager}{since}: only the Poolwise of "
        "that name moves it"
    ]

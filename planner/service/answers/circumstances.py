"""A scenario for the twin: pools of a spec, and the circumstances that were asked for."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from planner.domain.errors import InputError
from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import Plan, TrafficShare
from planner.domain.spec import Spec
from planner.domain.wording import counted
from planner.domain.workload import RequestKind, Workload
from planner.service.documents.circumstances import (
    CircumstancesDocument,
    EventDocument,
    TopologyDocument,
)
from planner.service.spec.problems import did_you_mean
from planner.simulate import Event, Incident, Place, ReplicaGroup, Route, Scenario, Topology

MOST_REPLICAS = 20_000
"""More are a wrong number; the twin keeps a batch and a prefix cache for each."""

PLAIN = CircumstancesDocument()
"""Nothing out of the ordinary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How many replicas of a shape are simulated, and how they are paid for.

    Parameters
    ----------
    traffic : tuple of TrafficShare
        What a plan sends them; empty for all pools: requests are balanced over all.
    """

    shape: ReplicaShape
    replicas: int
    purchase_option: PurchaseOption = PurchaseOption.ON_DEMAND
    traffic: tuple[TrafficShare, ...] = ()


def replicas_of_fleet(fleet: Fleet, *, model: str) -> tuple[Replicas, ...]:
    """The ready replicas of a fleet; starting ones do not serve yet. Empty pools are kept."""
    return tuple(
        Replicas(shape=pool.shape, replicas=pool.ready, purchase_option=pool.purchase_option)
        for pool in fleet.pools
        if pool.shape.model == model
    )


def replicas_of_plan(plan: Plan, *, window: int = 0) -> tuple[Replicas, ...]:
    """The replicas of one window of a plan.

    Raises
    ------
    InputError
        When the plan has no such window.
    """
    if not 0 <= window < len(plan.windows):
        raise InputError(f"the plan has windows 0 to {len(plan.windows) - 1}, not {window}")
    planned = plan.windows[window]
    return tuple(
        Replicas(
            shape=pool.shape,
            replicas=pool.replicas,
            purchase_option=pool.purchase_option,
            traffic=tuple(
                part
                for part in planned.traffic
                if (part.shape, part.purchase_option) == (pool.shape, pool.purchase_option)
            ),
        )
        for pool in planned.pools
    )


def _routes(pools: Sequence[Replicas]) -> tuple[Route, ...]:
    """Where the plan that the pools come from sends requests that it tells apart."""

    def share(pool: Replicas, kind: RequestKind) -> float:
        return sum(part.share_ratio for part in pool.traffic if part.kind == kind)

    kinds = dict.fromkeys(part.kind for pool in pools for part in pool.traffic)
    return tuple(
        Route(**asdict(kind), shares=tuple(share(pool, kind) for pool in pools)) for kind in kinds
    )


def scenario_of(
    spec: Spec,
    pools: Sequence[Replicas],
    workload: Workload,
    circumstances: CircumstancesDocument = PLAIN,
) -> Scenario:
    """What the twin is asked. Groups are the pools, in order.

    Raises
    ------
    InputError
        When a pool has no profile, nothing can serve, there are too many replicas, or a
        circumstance does not fit the pools.
    """
    count = sum(pool.replicas for pool in pools)
    if count > MOST_REPLICAS:
        raise InputError(
            f"{count:,} replicas are more than the twin can hold ({MOST_REPLICAS:,}): simulate a "
            "part of them with its part of the requests"
        )
    places = _places(spec, pools, circumstances.topology)
    longest = _longest_prompts(pools, circumstances)
    groups = tuple(
        _group(spec, pool, places=places.get(i, ()), longest_prompt_tokens=longest.get(i))
        for i, pool in enumerate(pools)
    )
    topology = circumstances.topology
    return Scenario(
        groups=groups,
        workload=workload,
        router=circumstances.router,
        routes=_routes(pools),
        routes_seed=spec.loop.seed,
        topology=None if topology is None else Topology(links=topology.links.by_distance()),
        prefix_cache=circumstances.prefix_cache,
        local_prefill_tokens=circumstances.local_prefill_tokens,
        early_rejection_s=_or_never(circumstances.early_rejection_s),
        patience_s=circumstances.patience_s,
        events=tuple(_event(event, pools) for event in circumstances.events),
        unstable_wait_s=circumstances.unstable_wait_s,
    )


def _or_never(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def _group(
    spec: Spec, pool: Replicas, *, places: tuple[Place, ...], longest_prompt_tokens: int | None
) -> ReplicaGroup:
    profile = spec.profile_of(pool.shape)
    if profile is None:
        raise InputError(
            f"no profile of the spec describes {pool.shape.label} of {pool.shape.model}: measure "
            "it with `poolwise profile run`, or leave the pool out"
        )
    return ReplicaGroup(
        profile=profile,
        role=pool.shape.role,
        replicas=pool.replicas,
        usd_per_gpu_hour=usd_per_gpu_hour(spec, pool) or 0.0,
        longest_prompt_tokens=longest_prompt_tokens,
        places=places,
    )


def usd_per_gpu_hour(spec: Spec, pool: Replicas) -> float | None:
    """Price of one accelerator of a pool, as it is bought; None when the spec has no such price."""
    offer = spec.accelerator(pool.shape.accelerator).offer(pool.purchase_option)
    return None if offer is None else offer.usd_per_gpu_hour


def pool_number(name: int | str, pools: Sequence[Replicas], *, what: str) -> int:
    """The number of a pool that is named by number or label.

    Raises
    ------
    InputError
        When there is none, or several of this name.
    """
    labels = [pool.shape.label for pool in pools]
    listed = ", ".join(f"{i} ({label})" for i, label in enumerate(labels))
    if isinstance(name, str) and name.isdecimal() and len(name) < 6:
        name = int(name)
    if isinstance(name, int):
        if not 0 <= name < len(pools):
            raise InputError(f"{what} names pool {name}; the pools are {listed}")
        return name
    if labels.count(name) > 1:
        raise InputError(f"{what} names pool {name}, of which there are several: {listed}")
    if name not in labels:
        raise InputError(f"{what} names pool {name!r}{did_you_mean(name, labels)}")
    return labels.index(name)


def _event(document: EventDocument, pools: Sequence[Replicas]) -> Event:
    what = f"the {document.incident} at {document.at_s:g} s"
    number = pool_number(document.pool, pools, what=what)
    pool = pools[number]
    if document.replica >= pool.replicas:
        there = f"replicas 0 to {pool.replicas - 1}" if pool.replicas else "no replica"
        raise InputError(
            f"{what} names replica {document.replica} of pool {pool.shape.label}, which has {there}"
        )
    to_group = -1
    if document.to_pool is not None:
        to_group = pool_number(document.to_pool, pools, what=what)
        other = pools[to_group]
        if to_group == number:
            raise InputError(f"{what} flips to the pool {pool.shape.label} that it comes from")
        if pool.shape.engine != other.shape.engine:
            raise InputError(
                f"{what} would turn {pool.shape.label} into {other.shape.label}: a flip changes "
                "the role, never the accelerators or the engine"
            )
    return Event(
        at_s=document.at_s,
        incident=Incident(document.incident),
        group=number,
        replica=document.replica,
        notice_s=120.0 if document.notice_s is None else document.notice_s,
        restarts=document.restarts is not False,
        to_group=to_group,
    )


def _longest_prompts(
    pools: Sequence[Replicas], circumstances: CircumstancesDocument
) -> Mapping[int, int]:
    found: dict[int, int] = {}
    for entry in circumstances.longest_prompts:
        number = pool_number(entry.pool, pools, what="the longest prompt")
        if number in found:
            raise InputError(f"pool {pools[number].shape.label} has two longest prompts: give one")
        found[number] = entry.tokens
    if found and circumstances.router != "by_length":
        raise InputError(
            f"longest prompts are for router by_length; the router is {circumstances.router}"
        )
    return found


def _places(
    spec: Spec, pools: Sequence[Replicas], topology: TopologyDocument | None
) -> Mapping[int, tuple[Place, ...]]:
    found: dict[int, tuple[Place, ...]] = {}
    for entry in topology.pools if topology is not None else ():
        number = pool_number(entry.pool, pools, what="the topology")
        pool = pools[number]
        if number in found:
            raise InputError(f"the topology places pool {pool.shape.label} twice")
        count = sum(place.replicas for place in entry.places)
        if count != pool.replicas:
            raise InputError(
                f"the topology places {counted(count, 'replica')} of pool {pool.shape.label}, "
                "which has "
                f"{pool.replicas}"
            )
        found[number] = tuple(
            Place(rack=place.rack, node=place.node)
            for place in entry.places
            for _ in range(place.replicas)
        )
    if topology is not None:
        left_out = {i: (Place(),) * p.replicas for i, p in enumerate(pools) if i not in found}
        _check_nodes(spec, pools, found | left_out)
    return found


def _check_nodes(
    spec: Spec, pools: Sequence[Replicas], places: Mapping[int, tuple[Place, ...]]
) -> None:
    """A node stands in one rack and holds no more accelerators than it has."""
    rack_of: dict[int, int] = {}
    used: Counter[tuple[int, str]] = Counter()
    for number, stands in places.items():
        shape = pools[number].shape
        for place in stands:
            if rack_of.setdefault(place.node, place.rack) != place.rack:
                raise InputError(
                    f"the topology has node {place.node} in rack {rack_of[place.node]} and in rack "
                    f"{place.rack}: number nodes through the whole fleet"
                )
            used[place.node, shape.accelerator] += shape.accelerators
    for (node, name), count in used.items():
        per_node = spec.accelerator(name).per_node
        if count > per_node:
            raise InputError(
                f"the topology puts {count} {name} on node {node}; the spec has {per_node} per "
                "node (pools that it leaves out stand on node 0 of rack 0: place them)"
            )

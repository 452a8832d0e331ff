"""Which object holds the count of which pool: each pool has one, and none serves two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kubernetes.client import ApiClient

from actuators.kubernetes.counts import Counter
from actuators.kubernetes.instances import manager_of
from planner.domain.fleet import ReplicaShape
from planner.domain.hardware import PurchaseOption
from planner.domain.target import ClusterTarget, CountTarget

Key = tuple[ReplicaShape, PurchaseOption]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The counts of pools, and for every pool without a usable one a sentence why."""

    counters: Mapping[Key, Counter]
    problems: Mapping[Key, str]


def assigned(
    api: ApiClient,
    cluster: ClusterTarget,
    shapes: Sequence[Key],
    objects: Sequence[CountTarget],
    *,
    instance: str = "",
) -> Assignment:
    """Find each pool's object. Nothing is asked.

    Parameters
    ----------
    instance : str
        Which Poolwise writes them; see `instances`.
    """
    counters: dict[Key, Counter] = {}
    problems: dict[Key, str] = {}
    for key in shapes:
        found = [one for one in objects if one.is_for(key[0])]
        if len(found) != 1:
            named = ", ".join(one.label for one in found) or "none"
            problems[key] = (
                f"pool {key[0].label} needs exactly one object that holds its count, found "
                f"{named}: say which under target.objects"
            )
            continue
        namespace = found[0].namespace or cluster.namespace
        counters[key] = Counter(api, found[0], namespace, manager=manager_of(instance))
    taken = [_place(counter) for counter in counters.values()]
    for key, counter in list(counters.items()):
        if taken.count(_place(counter)) > 1:
            problems[key] = (
                f"{counter.target.label} holds the counts of several pools: give each pool its own"
            )
            del counters[key]
    return Assignment(counters=counters, problems=problems)


def _place(counter: Counter) -> tuple[str, str | None, str, str]:
    """Its place with the namespace that it is looked for in."""
    return replace(counter.target, namespace=counter.namespace).place

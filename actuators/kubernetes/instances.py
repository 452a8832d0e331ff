"""Several Poolwise at one object: each writes under a name of its own, which the object keeps.

The cluster notes in `managedFields` who changed a count last, and when. An instance is a database:
replicas on one are one instance, and write under one name. Who finds another instance's name at a
count leaves it, unless a person has said that it is to take over. Nothing is written for this, and
no right is needed for it; a count that a person wrote last belongs to no instance.

References
----------
Kubernetes, "Server-Side Apply", field management.
"""

from collections.abc import Collection
from dataclasses import dataclass

from actuators.kinds import count_path
from actuators.kubernetes.client import FIELD_MANAGER
from actuators.kubernetes.counts import Counter
from actuators.kubernetes.ownership import holds
from actuators.kubernetes.resources import Json, at, entries, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The instance that changed a count last.

    Parameters
    ----------
    manager : str
        Its name in `managedFields`.
    since : str
        When it did so, as the cluster says it; empty: it does not.
    """

    manager: str
    since: str


def manager_of(instance: str) -> str:
    """The name that an instance writes under."""
    return f"{FIELD_MANAGER}-{instance}" if instance else FIELD_MANAGER


def is_poolwise(manager: str) -> bool:
    """Whether a field manager is an instance of Poolwise, or one of before they had names."""
    return manager == FIELD_MANAGER or manager.startswith(f"{FIELD_MANAGER}-")


def holder_of(counter: Counter, document: Json) -> Holder | None:
    """The instance that changed the count last; None: none did, or one without a name."""
    target = counter.target
    for entry in entries(document, "metadata", "managedFields"):
        manager, version = text(entry, "manager"), text(entry, "apiVersion")
        if manager == FIELD_MANAGER or not is_poolwise(manager):
            continue
        if holds(at(entry, "fieldsV1"), count_path(target.kind, version, target.part)):
            return Holder(manager=manager, since=text(entry, "time"))
    return None


def second_instance(counter: Counter, document: Json, take_over: Collection[str]) -> str:
    """Why another instance keeps this count from being written; empty: none does.

    Parameters
    ----------
    take_over : collection of str
        Names of instances whose counts are to be taken over (`target.take_over_from`).
    """
    if counter.manager == FIELD_MANAGER:
        return ""  # a look without a database: it will not write
    holder = holder_of(counter, document)
    if holder is None or holder.manager in (counter.manager, *take_over):
        return ""
    since = f", last at {holder.since}" if holder.since else ""
    return (
        f"{counter.target.label} is scaled by another Poolwise ({holder.manager}{since}), with a "
        f"database of its own; this one is {counter.manager}: stop that one for good, then write "
        f"target.take_over_from: [{holder.manager}] here, or take the pool out of this spec"
    )

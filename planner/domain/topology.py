"""Where replicas stand, and over which links a KV cache moves between them."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

MOST_PLACES = 100_000
"""Racks or nodes at the most; the twin keeps counters for all of them."""


class Distance(StrEnum):
    """How far two replicas are apart."""

    SAME_NODE = "same_node"
    SAME_RACK = "same_rack"
    CROSS_RACK = "cross_rack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a replica stands; a rack is named by its number, a node by its number in the fleet."""

    rack: int = 0
    node: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.rack < MOST_PLACES and 0 <= self.node < MOST_PLACES):
            raise ValueError(
                f"rack and node must lie between 0 and {MOST_PLACES - 1:,}, got {self.rack} and "
                f"{self.node}: number them one after another"
            )


def distance_between(a: Place, b: Place) -> Distance:
    """How far two places are apart."""
    if a.rack != b.rack:
        return Distance.CROSS_RACK
    return Distance.SAME_NODE if a.node == b.node else Distance.SAME_RACK


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkClass:
    """What one transfer, and all transfers together, get on the way of one distance.

    Parameters
    ----------
    base_s : float
        Fixed part of a transfer, seconds.
    flow_bytes_per_s : float
        The most that one transfer gets.
    link_bytes_per_s : float
        What all transfers get together that leave or enter one node (for the same node: that
        stay in it; for another rack: that also leave or enter one rack).
    source : str
        Who measured it on what, or that it is a vendor's figure.

    Raises
    ------
    ValueError
        When a bandwidth is not above 0.
    """

    base_s: float
    flow_bytes_per_s: float
    link_bytes_per_s: float
    source: str

    def __post_init__(self) -> None:
        if not 0 <= self.base_s < math.inf:
            raise ValueError(f"base_s must be finite and at least 0 s, got {self.base_s:g}")
        for name in ("flow_bytes_per_s", "link_bytes_per_s"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name} must be above 0, got {getattr(self, name):g}: a link without "
                    "bandwidth moves nothing; leave the place out instead"
                )

    def alone_s(self, kv_bytes: float) -> float:
        """Seconds of a transfer that shares its links with no other."""
        return self.base_s + kv_bytes / min(self.flow_bytes_per_s, self.link_bytes_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Links by distance. Transfers that share links get max-min fair rates.

    Parameters
    ----------
    links : dict of Distance to LinkClass
        All three distances.
    """

    links: dict[Distance, LinkClass] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [d for d in Distance if d not in self.links]
        if missing:
            raise ValueError(f"the topology has no link class for {', '.join(missing)}")


_CELL_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Where KV caches move fast: the workers behind one router, as those of a host or a rack.

    A worker belongs to one cell, and a request is computed and answered inside one.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and dashes, 30 characters at the most.
    gpus : tuple of int
        GPUs of this machine that belong to it; empty: those that no other cell names.
    cpus : tuple of int
        Processors of this machine that its workers are bound to; empty: any.
    node_labels : tuple of (str, str)
        On Kubernetes: labels of the nodes that belong to it.

    Raises
    ------
    ValueError
        When the name cannot be part of a host name, or a device is negative or given twice.
    """

    name: str
    gpus: tuple[int, ...] = ()
    cpus: tuple[int, ...] = ()
    node_labels: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not _CELL_NAME.fullmatch(self.name):
            raise ValueError(
                f"a cell cannot be named {self.name!r}: take lower-case letters, digits and "
                "dashes inside, 30 at the most"
            )
        for field_name in ("gpus", "cpus"):
            devices = getattr(self, field_name)
            if len(set(devices)) != len(devices) or any(d < 0 for d in devices):
                raise ValueError(
                    f"{field_name} of cell {self.name} must be different indices from 0 on, got "
                    f"{list(devices)}"
                )


def check_cells(cells: Iterable[Cell]) -> None:
    """Refuse cells that share a name or a GPU.

    Raises
    ------
    ValueError
    """
    given = tuple(cells)
    for what, times in (
        ("name", Counter(c.name for c in given)),
        ("GPU", Counter(g for c in given for g in c.gpus)),
    ):
        twice = [str(value) for value, count in times.items() if count > 1]
        if twice:
            raise ValueError(f"{what} {', '.join(twice)} is given to two cells: give it to one")

"""Where replicas stand, and over which links a KV cache moves between them."""

import math
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

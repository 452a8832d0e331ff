"""What the twin is asked: replicas, how requests are routed, and the requests."""

from dataclasses import dataclass
from enum import StrEnum

from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.domain.workload import Workload


class RouterPolicy(StrEnum):
    """How a replica is chosen among those that are ready and can hold the request."""

    ROUND_ROBIN = "round_robin"
    LEAST_LOADED = "least_loaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaGroup:
    """Identical replicas in a role.

    Parameters
    ----------
    replicas : int
        At least 0.
    start_delay_s : float
        They take traffic from this offset on, seconds.
    """

    profile: Profile
    role: Role
    replicas: int
    start_delay_s: float = 0.0

    def __post_init__(self) -> None:
        if self.replicas < 0:
            raise ValueError(f"replicas must be at least 0, got {self.replicas}")
        if not 0 <= self.start_delay_s < float("inf"):
            raise ValueError(
                f"start_delay_s must be finite and at least 0 s, got {self.start_delay_s:g}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run of the twin.

    Parameters
    ----------
    groups : tuple of ReplicaGroup
        Prefill with decode groups, aggregated groups, or both side by side.
    seed : int
        For router policies that draw; the two of today draw nothing, so that equal scenarios give
        equal results whatever the seed.

    Raises
    ------
    InputError
        When no combination of the groups can serve a request at all.
    """

    groups: tuple[ReplicaGroup, ...]
    workload: Workload
    router: RouterPolicy = RouterPolicy.LEAST_LOADED
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {role: sum(g.replicas for g in self.groups if g.role is role) for role in Role}
        paired = counts[Role.PREFILL] > 0 and counts[Role.DECODE] > 0
        if not paired and counts[Role.AGGREGATED] == 0:
            raise InputError(
                f"nothing can serve a request: the deployment has {counts[Role.PREFILL]} prefill, "
                f"{counts[Role.DECODE]} decode and {counts[Role.AGGREGATED]} aggregated replicas; "
                "give at least one aggregated, or one prefill and one decode"
            )

"""What the twin is asked: replicas, how requests are routed, what happens to them, and requests."""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.domain.topology import Place, Topology
from planner.domain.wording import counted
from planner.domain.workload import Workload
from planner.simulate.policy import Policy, Targets
from planner.simulate.routes import Route

Floats = NDArray[np.float64]


class RouterPolicy(StrEnum):
    """How a replica is chosen among those that are ready and can hold the request."""

    ROUND_ROBIN = "round_robin"
    LEAST_LOADED = "least_loaded"
    PREFIX_AWARE = "prefix_aware"
    BY_LENGTH = "by_length"


LONGEST_TRANSFER_S = 3600.0
"""Of one KV cache with links to itself; longer ones come from a wrong unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaGroup:
    """Identical replicas in a role.

    Parameters
    ----------
    replicas : int
        Serving from the start (or from `start_delay_s` on), at least 0.
    start_delay_s : float
        They take traffic from this offset on, seconds.
    most_replicas : int or None
        How many there may become while the twin runs; None for no more than `replicas`.
    start_s : float or None
        From ordering a further replica until it serves; None for the profile's cold start.
    usd_per_gpu_hour : float
        Price of one accelerator; paid from ordering until gone.
    longest_prompt_tokens : int or None
        For routing by length: the longest prompt (tokens to compute) that is sent here.
    places : tuple of Place
        Where the replicas stand, in order; empty: all on node 0 of rack 0.
    """

    profile: Profile
    role: Role
    replicas: int
    start_delay_s: float = 0.0
    most_replicas: int | None = None
    start_s: float | None = None
    usd_per_gpu_hour: float = 0.0
    longest_prompt_tokens: int | None = None
    places: tuple[Place, ...] = ()

    def __post_init__(self) -> None:
        if self.replicas < 0:
            raise ValueError(f"replicas must be at least 0, got {self.replicas}")
        if not 0 <= self.start_delay_s < math.inf:
            raise ValueError(
                f"start_delay_s must be finite and at least 0 s, got {self.start_delay_s:g}"
            )
        if self.most_replicas is not None and self.most_replicas < self.replicas:
            raise ValueError(
                f"most_replicas {self.most_replicas} is below replicas {self.replicas}"
            )
        if self.role not in self.profile.roles:
            raise ValueError(
                f"profile {self.profile.profile_id} was measured as "
                f"{', '.join(self.profile.roles)}, not as {self.role}"
            )
        if self.start_s is not None and not 0 <= self.start_s < math.inf:
            raise ValueError(f"start_s must be finite and at least 0 s, got {self.start_s:g}")
        if self.places and len(self.places) != self.room:
            raise ValueError(f"{len(self.places)} places were given for {self.room} replicas")

    @property
    def room(self) -> int:
        """How many replicas there may be at once."""
        return self.replicas if self.most_replicas is None else self.most_replicas

    @property
    def order_to_ready_s(self) -> float:
        """Start-up time of a further replica, seconds."""
        return self.profile.lifecycle.start_cold_s if self.start_s is None else self.start_s


class Incident(StrEnum):
    """What may happen to a replica."""

    FAIL = "fail"
    RECLAIM = "reclaim"
    DRAIN = "drain"
    FLIP = "flip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happens to one replica at an instant.

    Parameters
    ----------
    at_s : float
    group, replica : int
        Which one; the replica's number within its group.
    notice_s : float
        Reclaim: it drains for so long before it is gone.
    restarts : bool
        Failure: whether it is started again at once.
    to_group : int
        Flip: the group it joins when it has drained, after that group's `flip_s`.
    """

    at_s: float
    incident: Incident
    group: int
    replica: int
    notice_s: float = 120.0
    restarts: bool = True
    to_group: int = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenario:
    """One run of the twin.

    Parameters
    ----------
    groups : tuple of ReplicaGroup
        Prefill with decode groups, aggregated groups, or both side by side.
    topology : Topology or None
        None: every transfer has a path of its own, as fast as the profile's.
    prefix_cache : bool
        Whether replicas keep the blocks of `workload.prefix` (least recently used ones go
        first). Without blocks, or when False, `workload.cached_tokens` are taken as cached.
    routes : tuple of Route
        Which requests are sent where, by shares that are drawn from `routes_seed`; within the
        group drawn, `router` chooses. Empty: it chooses among all.
    local_prefill_tokens : int
        Conditional disaggregation: a prompt with fewer tokens to compute stays on the decode
        replica; 0 never.
    early_rejection_s : float
        A request whose expected TTFT is longer is rejected on arrival; inf never.
    patience_s : float, (requests,) float, or None
        How long after its arrival each client goes away, answered or not; None never.
    events : tuple of Event
    policy : Policy or None
        Asked at its own ticks for the replicas there should be.
    unstable_wait_s : float
        The twin stops when the first in a line has waited so long; inf never.

    Raises
    ------
    InputError
        When no combination of the groups can ever serve a request, or an event or `patience_s`
        does not fit the rest.
    """

    groups: tuple[ReplicaGroup, ...]
    workload: Workload
    router: RouterPolicy = RouterPolicy.LEAST_LOADED
    topology: Topology | None = None
    prefix_cache: bool = True
    routes: tuple[Route, ...] = ()
    routes_seed: int = 0
    local_prefill_tokens: int = 0
    early_rejection_s: float = math.inf
    patience_s: float | Floats | None = None
    events: tuple[Event, ...] = ()
    policy: Policy | None = None
    unstable_wait_s: float = 3600.0

    def __post_init__(self) -> None:
        counts = {role: sum(g.room for g in self.groups if g.role is role) for role in Role}
        paired = counts[Role.PREFILL] > 0 and counts[Role.DECODE] > 0
        if not paired and counts[Role.AGGREGATED] == 0:
            raise InputError(
                f"nothing can serve a request: the deployment has {counts[Role.PREFILL]} prefill, "
                f"{counts[Role.DECODE]} decode and {counts[Role.AGGREGATED]} aggregated replicas; "
                "give at least one aggregated, or one prefill and one decode"
            )
        models = sorted({group.profile.model for group in self.groups})
        if len(models) > 1:
            raise InputError(
                f"the groups serve {', '.join(models)}: give each model a scenario of its own"
            )
        self._check_limits()
        self._check_transfers()
        for event in self.events:
            self._check(event)

    def _check_limits(self) -> None:
        for route in self.routes:
            if len(route.shares) != len(self.groups) or min(route.shares) < 0:
                raise InputError(
                    f"a route needs a share of at least 0 for each of {len(self.groups)} groups, "
                    f"got {list(route.shares)}"
                )
        if self.patience_s is not None:
            rows = np.shape(self.patience_s)
            if rows not in ((), (len(self.workload),)):
                raise InputError(
                    f"patience_s has {counted(rows[0], 'row')} for "
                    f"{counted(len(self.workload), 'request')}"
                )
            if not bool(np.all(self.patience_s >= 0)):
                raise InputError("patience_s must be at least 0 s for every request")
        if self.local_prefill_tokens < 0:
            raise InputError(
                f"local_prefill_tokens must be at least 0, got {self.local_prefill_tokens}"
            )
        for name in ("early_rejection_s", "unstable_wait_s"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0 s, got {getattr(self, name):g}")

    def _check_transfers(self) -> None:
        """Refuse links over which the longest prompt's KV cache moves for too long."""
        if len(self.workload) == 0 or not any(g.role is Role.PREFILL for g in self.groups):
            return
        longest = int(self.workload.input_tokens.max())
        for number, group in enumerate(self.groups):
            if group.role is not Role.DECODE or group.room == 0:
                continue
            kv_bytes = longest * group.profile.limits.kv_bytes_per_token
            slowest_s = float(group.profile.transfer.seconds(kv_bytes))
            if self.topology is not None:
                slowest_s = max(link.alone_s(kv_bytes) for link in self.topology.links.values())
            if slowest_s > LONGEST_TRANSFER_S:
                raise InputError(
                    f"the KV cache of a prompt of {longest:,} tokens takes {slowest_s:,.3g} s to "
                    f"reach group {number}, more than an hour: correct the bandwidth (bytes/s) of "
                    f"the {'profile' if self.topology is None else 'topology'}"
                )

    def check_targets(self, targets: Targets, *, t_s: float) -> None:
        """Refuse what a policy cannot mean, before anything is done.

        Raises
        ------
        InputError
            When it names groups that there are not, counts below 0, or an impossible flip.
        """
        what = f"the policy at {t_s:g} s"
        count = len(self.groups)
        if targets.replicas is not None:
            if len(targets.replicas) != count:
                raise InputError(
                    f"{what} names replicas of {counted(len(targets.replicas), 'group')}, not of "
                    f"{count}"
                )
            if min(targets.replicas) < 0:
                raise InputError(f"{what} wants {min(targets.replicas)} replicas of a group")
        if not targets.next_tick_s > t_s:
            raise InputError(
                f"{what} gives no later instant for its next tick, but {targets.next_tick_s:g} s "
                "(use inf for never)"
            )
        for flip in targets.flips:
            if not 0 <= flip.from_group < count:
                raise InputError(f"{what} flips from group {flip.from_group} of {count}")
            if flip.replicas < 0:
                raise InputError(f"{what} flips {counted(flip.replicas, 'replica')}")
            self._check_flip(flip.from_group, flip.to_group, what)

    def _check(self, event: Event) -> None:
        what = f"the {event.incident} at {event.at_s:g} s"
        if not 0 <= event.at_s < math.inf:
            raise InputError(f"{what} has no instant within the run")
        if not 0 <= event.group < len(self.groups):
            raise InputError(f"{what} names group {event.group} of {len(self.groups)}")
        if not 0 <= event.replica < self.groups[event.group].room:
            raise InputError(
                f"{what} names replica {event.replica} of {self.groups[event.group].room}"
            )
        if not 0 <= event.notice_s < math.inf:
            raise InputError(f"{what} has a notice of {event.notice_s:g} s; give 0 or more")
        if event.incident is Incident.FLIP:
            self._check_flip(event.group, event.to_group, what)

    def _check_flip(self, group: int, to_group: int, what: str) -> None:
        if not 0 <= to_group < len(self.groups):
            raise InputError(f"{what} flips to group {to_group} of {len(self.groups)}")
        here, there = (_runs_on(self.groups[g].profile) for g in (group, to_group))
        if here != there:
            raise InputError(f"{what} would turn {here} into {there}")


def _runs_on(profile: Profile) -> str:
    """Model and hardware of a replica, which no flip changes."""
    degrees = f"tp{profile.tp} pp{profile.pp} dp{profile.dp}"
    return f"{profile.model} on {profile.accelerator} {degrees}"

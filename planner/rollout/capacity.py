"""What pools can do on the way, on one scale, so that states of a rollout can be compared.

Coarse on purpose: one reference request and the profiles' own times, no queueing. Plans and the
twin say what a fleet sustains; here only ratios between states of one rollout matter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.profile import Profile
from planner.domain.spec import Spec
from planner.rollout.effects import PoolKey, Pools, cells_of

REFERENCE_ISL, REFERENCE_OSL = 1024, 256
"""Tokens of the reference request: four times as long a prompt as an answer, as in chat."""

Rates = Mapping[PoolKey, float]
"""Requests/s of one replica of a pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What the ready replicas of a state can do, requests/s of the reference request.

    Parameters
    ----------
    paired : float
        What prefill and decode can do together, each in its own cell.
    """

    prefill: float
    decode: float
    aggregated: float
    paired: float

    @property
    def service(self) -> float:
        """What the fleet can answer: an answer needs a prefill and a decode, or one of both."""
        return self.aggregated + self.paired

    def of_role(self, role: Role) -> float:
        """The capacity of one role."""
        return {
            Role.PREFILL: self.prefill,
            Role.DECODE: self.decode,
            Role.AGGREGATED: self.aggregated,
        }[role]

    def lowest_ratio(self, floor: "Capacity") -> float:
        """The smallest share of `floor` that is there, over every role and the service; at most 1.

        Disaggregated and aggregated replicas stand in for each other in the service only, so the
        roles of a change between both are not held against it: their floor is 0.
        """
        pairs = [(self.of_role(role), floor.of_role(role)) for role in Role]
        pairs.append((self.service, floor.service))
        return min([1.0, *(have / wanted for have, wanted in pairs if wanted > 0)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor(Capacity):
    """The worse of two fleets, role by role and as a service."""

    whole: float

    @property
    def service(self) -> float:
        """The service of the worse fleet, which is not what the worse roles would give."""
        return self.whole


def rates(keys: Iterable[PoolKey], spec: Spec) -> dict[PoolKey, float]:
    """What one replica of each pool can do, requests/s."""
    return {key: replica_rps(key.shape, spec) for key in keys}


def replica_rps(shape: ReplicaShape, spec: Spec) -> float:
    """Reference requests/s of one replica; as slow as the slowest of its model without a profile.

    A prefill replica computes prompts one after another, a decode replica runs as many sequences
    as its limits and its KV capacity allow, an aggregated one does both in turn.
    """
    profile = spec.profile_of(shape)
    if profile is not None:
        return _profiled_rps(profile, shape.role)
    known = [p for p in spec.profiles if p.model == shape.model]
    return min((_profiled_rps(p, shape.role) for p in known), default=1.0)


def capacity(pools: Pools, each_rps: Rates, *, model: str) -> Capacity:
    """What the ready replicas of a model can do."""
    sums = {cell: dict.fromkeys(Role, 0.0) for cell in cells_of(pools)}
    for key, pool in pools.items():
        if key.shape.model == model and pool.ready:
            sums[key.cell][key.shape.role] += pool.ready * each_rps[key]
    return Capacity(
        prefill=sum(cell[Role.PREFILL] for cell in sums.values()),
        decode=sum(cell[Role.DECODE] for cell in sums.values()),
        aggregated=sum(cell[Role.AGGREGATED] for cell in sums.values()),
        paired=sum(min(cell[Role.PREFILL], cell[Role.DECODE]) for cell in sums.values()),
    )


def worse_of(one: Capacity, other: Capacity) -> Floor:
    """What no state between two fleets should undercut."""
    return Floor(
        prefill=min(one.prefill, other.prefill),
        decode=min(one.decode, other.decode),
        aggregated=min(one.aggregated, other.aggregated),
        paired=min(one.paired, other.paired),
        whole=min(one.service, other.service),
    )


def _profiled_rps(profile: Profile, role: Role) -> float:
    prompt_s = float(profile.prefill.extended_at(float(REFERENCE_ISL), 0.0))
    if role is Role.PREFILL:
        return 1.0 / prompt_s
    held = REFERENCE_ISL + REFERENCE_OSL
    fitting = max(1, profile.limits.kv_capacity_tokens // held)
    batch = float(min(profile.limits.max_num_seqs, fitting))
    step_s = float(profile.decode_step.extended_at(batch, float(held)))
    answer_s = REFERENCE_OSL * step_s / batch
    return 1.0 / (answer_s if role is Role.DECODE else answer_s + prompt_s)

"""What guards judge by: the moment, and the change with all that is known about it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from planner.domain.fleet import Fleet, Role
from planner.domain.guards import Pause, Pin
from planner.domain.plan import Plan
from planner.domain.rollout import Diff, StepKind, Verdict
from planner.domain.spec import Spec
from planner.rollout.effects import PoolKey, Pools, after, applied, pools_before, pools_by_key

Judgement = tuple[Verdict, str] | None
"""None: nothing against it."""
Replicas = Mapping[PoolKey, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Replicas of a role that an earlier rollout started and drained, and when."""

    at: datetime
    role: Role
    added: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommended:
    """Replicas by pool label that a decision wanted, whatever came of it, and when."""

    at: datetime
    pools: tuple[Pin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandEdit:
    """A pool whose count somebody else changed.

    Parameters
    ----------
    pool : str
        Label of the pool.
    at : datetime
        When that was seen.
    was, found : int
        Replicas as Poolwise left them, and as they were found.
    """

    pool: str
    at: datetime
    was: int
    found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenPool:
    """A pool whose replicas do not start, as what they are made of is broken.

    Parameters
    ----------
    pool : str
        Label of the pool.
    times : int
        Rollouts that failed by it, one after the other.
    until : datetime
        When it may be tried again.
    why : str
        What they wait for.
    """

    pool: str
    times: int
    until: datetime
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardConditions:
    """What guards need to know beside the diff and the spec.

    Parameters
    ----------
    observed_at : datetime or None
        When the load was last observed; None: never, which forbids taking capacity away.
    recommended : tuple of Recommended
        What decisions wanted that count for the stabilization of scale-down.
    recommended_since : datetime or None
        Since when that is known without a gap; None: nobody knows what was needed.
    edits : tuple of HandEdit
        What somebody else changed since Poolwise moved the pool last.
    broken : tuple of BrokenPool
        Pools whose replicas did not start.
    idle_since : datetime or None
        When the last request arrived; None: nobody knows.
    paused : Pause
        What a person forbade at run time, beside `guards.pause` of the spec.
    pins : tuple of Pin
        Pools that a person pinned at run time, beside those of the spec.
    recent : tuple of Change
        What earlier rollouts did, for the rate limits.
    last_plan : Plan or None
        The plan that the fleet was last brought to, for the dead band.
    leader : bool
        Whether this process is the one that may write.
    completing : bool
        The diff completes a rollout that was begun: limits on beginning one do not count.
    falling_back : bool
        The replicas are those that the spec set for when the load cannot be seen.
    can_flip : bool
        Whether the target can change the role of a running replica.
    """

    now: datetime
    observed_at: datetime | None = None
    recommended: tuple[Recommended, ...] = ()
    recommended_since: datetime | None = None
    edits: tuple[HandEdit, ...] = ()
    broken: tuple[BrokenPool, ...] = ()
    idle_since: datetime | None = None
    paused: Pause = Pause.NONE
    pins: tuple[Pin, ...] = ()
    recent: tuple[Change, ...] = ()
    last_plan: Plan | None = None
    leader: bool = True
    completing: bool = False
    falling_back: bool = False
    can_flip: bool = True

    @property
    def idle_s(self) -> float:
        """For how long nothing arrived, as far as was seen, seconds; 0 where nobody knows."""
        if self.idle_since is None or self.observed_at is None:
            return 0.0
        return max(0.0, (self.observed_at - self.idle_since).total_seconds())


@dataclass(frozen=True, slots=True)
class Wish:
    """Replicas that somebody wants, before guards have had their say.

    Parameters
    ----------
    automatic : bool
        No person will have approved it.
    """

    fleet: Fleet
    model: str
    spec: Spec
    conditions: GuardConditions
    plan: Plan | None
    automatic: bool

    @property
    def present(self) -> dict[PoolKey, int]:
        """Replicas of the model that serve or soon will."""
        pools = pools_by_key(self.fleet)
        return {k: p.replicas for k, p in pools.items() if k.shape.model == self.model}

    def of_role(self, replicas: Replicas, role: Role) -> int:
        """Replicas of a role."""
        return sum(n for key, n in replicas.items() if key.shape.role is role)


@dataclass(frozen=True, slots=True)
class Case:
    """A diff with all that is known about it."""

    diff: Diff
    spec: Spec
    conditions: GuardConditions
    plan: Plan | None
    automatic: bool

    @property
    def before(self) -> Fleet:
        """The fleet that the diff starts from."""
        return self.diff.from_fleet

    @property
    def outcome(self) -> Fleet:
        """The fleet that it leads to."""
        return after(self.before, self.diff.steps, at=self.conditions.now)

    @property
    def model(self) -> str:
        """The model whose pools it moves."""
        return self.diff.steps[0].shape.model

    @property
    def kinds(self) -> frozenset[StepKind]:
        """What its steps do."""
        return frozenset(step.kind for step in self.diff.steps)

    @property
    def wish(self) -> Wish:
        """The case as it was before the diff was made."""
        conditions = self.conditions
        return Wish(self.before, self.model, self.spec, conditions, self.plan, self.automatic)

    @property
    def replicas(self) -> dict[PoolKey, int]:
        """What it leads to, by pool of its model."""
        pools = pools_by_key(self.outcome)
        return {k: p.replicas for k, p in pools.items() if k.shape.model == self.model}

    @property
    def pools_before(self) -> Pools:
        """What its steps act on: pools cell by cell where they name cells."""
        return pools_before(self.before, self.diff.steps)

    def fleets_on_the_way(self) -> Iterator[Pools]:
        """The pools after every step."""
        pools = self.pools_before
        for step in self.diff.steps:
            pools = applied(pools, step)
            yield pools

    def lowest_on_the_way(self) -> Iterator[Pools]:
        """The pools while each step runs; a flipping replica counts in neither role."""
        for step, pools in zip(self.diff.steps, self.fleets_on_the_way(), strict=True):
            if step.to_shape is None:
                yield pools
                continue
            key = PoolKey(step.to_shape, step.purchase_option, step.cell)
            yield pools | {key: replace(pools[key], ready=pools[key].ready - 1)}

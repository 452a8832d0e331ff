"""Rollouts that the twin walks through step by step, beside both fleets that stay as they are."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.domain.fleet import Fleet, ReplicaShape, Role
from planner.domain.rollout import Diff, StepKind
from planner.domain.slo import Slo
from planner.domain.spec import Spec
from planner.domain.workload import Workload
from planner.rollout import Dip, after, diff, dip
from planner.rollout.capacity import capacity, rates, worse_of
from planner.rollout.dip import Interval
from planner.rollout.effects import PoolKey, pools_by_key
from planner.simulate import Flip, Observation, ReplicaGroup, Scenario, Targets, simulate
from tests.fakes.workloads import poisson_workload
from tests.planner.rollout.cases import MODEL, NOW, fleet, plan

BEGIN_S = 30.0
"""When the rollout begins."""
AFTERWARDS_S = 60.0
LOOK_S = 0.5
"""How often the walker looks whether its steps have taken effect."""
ISL, OSL = 1024, 256
SPAN_S = 8.0
"""A request takes about so long: 0.1 s for its prompt, 256 steps of some 20 ms, and waiting."""
SLOS = (Slo(model=MODEL, ttft_s=1.0, tpot_s=0.05),)


@dataclass
class Walker:
    """A policy that carries a diff out: each group of steps when the one before is seen done."""

    diff: Diff
    keys: tuple[PoolKey, ...]
    first_tick_s: float = BEGIN_S
    counts: list[int] = field(default_factory=list)
    taken: int = 0
    done_s: float | None = None

    def __post_init__(self) -> None:
        ready = {k: p.ready for k, p in pools_by_key(self.diff.from_fleet).items()}
        self.counts = [ready.get(key, 0) for key in self.keys]

    def on_tick(self, seen: Observation) -> Targets:
        """Wait, or take the next group of steps that does something in the twin."""
        following = seen.t_s + LOOK_S
        settled = all(
            g.ready == n and g.draining == 0 for g, n in zip(seen.groups, self.counts, strict=True)
        )
        groups = self.diff.groups
        while self.taken < len(groups) and groups[self.taken][0].kind in _NOTHING:
            self.taken += 1
        if not settled:
            return Targets(replicas=None, next_tick_s=following)
        if self.taken >= len(groups):
            self.done_s = seen.t_s
            return Targets(replicas=None, next_tick_s=float("inf"))
        flips = tuple(self._take(step) for step in groups[self.taken])
        self.taken += 1
        flips = tuple(f for f in flips if f is not None)
        counts = None if flips else tuple(self.counts)
        return Targets(replicas=counts, flips=flips, next_tick_s=following)

    def _take(self, step) -> Flip | None:
        own = self.keys.index(PoolKey(step.shape, step.purchase_option))
        self.counts[own] += 1 if step.kind is StepKind.START else -1
        if step.to_shape is None:
            return None
        to = self.keys.index(PoolKey(step.to_shape, step.purchase_option))
        self.counts[to] += 1
        return Flip(from_group=own, to_group=to, replicas=1)


def whole_pairs(counts: Mapping[ReplicaShape, int]) -> dict[ReplicaShape, int]:
    """The fleet without prefill replicas that have no decode, and without decode for nobody.

    The guard `zero` lets no such fleet through; the twin's router sends prompts to them.
    """
    has = {s.role for s, n in counts.items() if n}
    paired = {Role.PREFILL, Role.DECODE} <= has
    return {s: n for s, n in counts.items() if n and (paired or s.role is Role.AGGREGATED)}


_NOTHING = (StepKind.ROUTE, StepKind.STOP)
"""The twin sends traffic to what is ready, and what has drained is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What was predicted of a rollout, and what the twin saw.

    Parameters
    ----------
    lost_ratio : float
        Attainment of the worse fleet minus that of the rollout; below 0: the rollout was better.
    ends_ratio : float
        Attainment of the worse fleet.
    finished : bool
        All steps took effect before the load ended.
    """

    change: Diff
    dip: Dip
    predicted: Interval
    lost_ratio: float
    ends_ratio: float
    finished: bool
    requests: int

    def as_predicted(self, noise_ratio: float) -> bool:
        """Whether the loss lies in the predicted interval, but for noise."""
        low = self.predicted.low_ratio - (1.0 - self.ends_ratio)
        lost = max(0.0, self.lost_ratio)
        return low - noise_ratio <= lost <= self.predicted.high_ratio + noise_ratio


def walk(
    before: Mapping[ReplicaShape, int],
    wanted: Mapping[ReplicaShape, int],
    settings: Spec,
    *,
    load_ratio: float,
    seed: int,
    can_flip: bool = True,
) -> Walk:
    """Roll out in the twin under a load of so much of what the worse fleet can do."""
    change = diff(fleet(before), plan(wanted), settings, can_flip=can_flip)
    end = after(change.from_fleet, change.steps, at=NOW)
    rate_rps = load_ratio * _worse_rps(change.from_fleet, end, settings)
    # The twin waits for the answers under way: longer than the profile's mean drain now and then.
    waits_s = SPAN_S * sum(s.kind in (StepKind.FLIP, StepKind.DRAIN) for s in change.steps)
    window_s = BEGIN_S + change.expected_s + waits_s + AFTERWARDS_S
    load = poisson_workload(
        requests=max(1, round(rate_rps * window_s)),
        rate_rps=rate_rps,
        isl=ISL,
        osl=OSL,
        lengths="constant",
        seed=seed,
    )
    walker = Walker(change, _keys(change.from_fleet, end))
    walked = _attainment(change.from_fleet, end, settings, load, walker=walker)
    ends = [_attainment(f, f, settings, load) for f in (change.from_fleet, end)]
    predicted = dip(change, settings)
    return Walk(
        change=change,
        dip=predicted,
        predicted=predicted.lost_ratio(
            load_ratio=load_ratio,
            window_s=load.duration_s,
            patience_s=SLOS[0].ttft_s,
            span_s=SPAN_S,
        ),
        lost_ratio=min(ends) - walked,
        ends_ratio=min(ends),
        finished=walker.done_s is not None and walker.done_s <= load.duration_s,
        requests=len(load),
    )


def _keys(*fleets: Fleet) -> tuple[PoolKey, ...]:
    keys = {k for f in fleets for k, p in pools_by_key(f).items() if p.replicas}
    return tuple(sorted(keys))


def _worse_rps(before: Fleet, end: Fleet, settings: Spec) -> float:
    each_rps = rates(_keys(before, end), settings)
    ends = [capacity(pools_by_key(f), each_rps, model=MODEL) for f in (before, end)]
    return worse_of(*ends).service


def _attainment(
    before: Fleet, end: Fleet, settings: Spec, load: Workload, *, walker: Walker | None = None
) -> float:
    ready = {k: p.ready for k, p in pools_by_key(before).items()}
    final = {k: p.ready for k, p in pools_by_key(end).items()}
    groups = []
    for key in _keys(before, end):
        profile = settings.profile_of(key.shape)
        assert profile is not None
        groups.append(
            ReplicaGroup(
                profile=profile,
                role=key.shape.role,
                replicas=ready.get(key, 0),
                most_replicas=2 * (ready.get(key, 0) + final.get(key, 0)) + 1,
                start_s=profile.lifecycle.start_warm_s,
            )
        )
    scenario = Scenario(groups=tuple(groups), workload=load, policy=walker)
    return float(simulate(scenario).met(SLOS).mean())

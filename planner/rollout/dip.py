"""What a diff costs in capacity while it runs, predicted before anything moves."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from planner.domain.rollout import Diff, Step, StepKind
from planner.domain.spec import Spec
from planner.rollout.capacity import Capacity, Floor, capacity, rates, worse_of
from planner.rollout.effects import PoolKey, Pools, applied, pool_at, pools_before

CAPACITY_ERROR_RATIO = 0.25
"""How far the coarse capacities may be off while they are compared with a load, either way."""
FASTER_RATIO = 0.25
"""By how much a step may be faster than expected; a drain of who has nothing to do ends at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateOnTheWay:
    """The fleet while one group of steps runs.

    Parameters
    ----------
    first_step : int
        Index of the group's first step.
    expected_s, least_s : float
        How long it lasts, and how long at least, seconds.
    prefill_ratio, decode_ratio, aggregated_ratio, service_ratio : float
        Capacity over that of the worse of both end fleets; above 1 it is more. 1 where the worse
        one has none.
    lowest_ratio : float
        The smallest of them, at most 1.
    """

    first_step: int
    expected_s: float
    least_s: float
    prefill_ratio: float
    decode_ratio: float
    aggregated_ratio: float
    service_ratio: float
    lowest_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Between two shares, 0..1."""

    low_ratio: float
    high_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dip:
    """How far capacity falls below that of the worse of both end fleets, and for how long.

    Parameters
    ----------
    states : tuple of StateOnTheWay
        One per group of the diff, in order.
    final_ratio : float
        Capacity of the fleet it ends with over that of the worse one, at least 1.
    """

    states: tuple[StateOnTheWay, ...]
    final_ratio: float

    @property
    def depth_ratio(self) -> float:
        """The largest share of capacity that is missing at any time; 0: none ever is."""
        return 1.0 - min((s.lowest_ratio for s in self.states), default=1.0)

    @property
    def short_s(self) -> float:
        """Seconds in which capacity is missing."""
        return sum(s.expected_s for s in self.states if s.lowest_ratio < 1.0)

    def lost_ratio(
        self, *, load_ratio: float, window_s: float, patience_s: float, span_s: float
    ) -> Interval:
        """Share of a window's requests that miss their objectives in the dip.

        A fluid queue: what comes above what can be done piles up, and is worked off when capacity
        is back. The low end believes in more capacity and faster steps, in roles that stand in
        for each other, and counts only requests that nobody can have served within their patience;
        the high end believes in less, and counts everybody who
        comes while there is a queue, or whose answer falls into the dip. Beside the worse fleet,
        which may miss some all the time, the loss is at most the high end, and at least the low
        end less what that fleet misses.

        Parameters
        ----------
        load_ratio : float
            Load over the capacity of the worse end fleet.
        window_s : float
            Over which the loss is counted, seconds; the rollout lies inside.
        patience_s : float
            How long a request may wait, seconds (TTFT objective).
        span_s : float
            How long a request takes, seconds.
        """
        if self.depth_ratio <= 0 or load_ratio <= 0:
            return Interval(low_ratio=0.0, high_ratio=0.0)
        missed, queue, affected_s = 0.0, 0.0, 0.0
        for state in self.states:
            able = state.service_ratio * (1 + CAPACITY_ERROR_RATIO)
            if state.service_ratio < 1.0:
                missed += max(0.0, (load_ratio - able) * state.least_s - able * patience_s)
            less = state.lowest_ratio
            if less < 1.0:
                less *= 1 - CAPACITY_ERROR_RATIO
            grown = (load_ratio - less) * state.expected_s
            if less < load_ratio or queue > 0:
                affected_s += state.expected_s + (span_s if less < load_ratio else 0.0)
            queue = max(0.0, queue + grown)
        spare = self.final_ratio - load_ratio
        affected_s += queue / spare if spare > 0 else window_s * (queue > 0)
        low = min(1.0, missed / (load_ratio * window_s))
        return Interval(low_ratio=low, high_ratio=max(low, min(1.0, affected_s / window_s)))


def dip(diff: Diff, spec: Spec) -> Dip:
    """Predict the capacity on the way of a diff.

    A draining replica is counted as gone at once, a flipping one in neither role, a started one
    only when it is routed.
    """
    if not diff.steps:
        return Dip(states=(), final_ratio=1.0)
    model = diff.steps[0].shape.model
    walked = list(_walk(diff))
    before, after = pools_before(diff.from_fleet, diff.steps), walked[-1][2]
    each_rps = rates({**before, **after, **{k: 0 for _, p, _ in walked for k in p}}, spec)
    first, last = (capacity(pools, each_rps, model=model) for pools in (before, after))
    floor = worse_of(first, last)
    states = []
    for group, during, _ in walked:
        have = capacity(during, each_rps, model=model)
        states.append(_state(group, have, floor))
    final = last.service / floor.service if floor.service > 0 else 1.0
    return Dip(states=tuple(states), final_ratio=final)


def _walk(diff: Diff) -> Iterator[tuple[tuple[Step, ...], Pools, Pools]]:
    """Each group of steps with the pools while it runs, and after it."""
    pools = pools_before(diff.from_fleet, diff.steps)
    for group in diff.groups:
        for step in group:
            pools = applied(pools, step)
        yield group, _while_flipping(pools, group), pools


def _while_flipping(pools: Pools, group: tuple[Step, ...]) -> Pools:
    for step in group:
        if step.to_shape is not None:
            key = PoolKey(step.to_shape, step.purchase_option, step.cell)
            pool = pool_at(pools, key)
            pools = pools | {key: replace(pool, ready=pool.ready - 1)}
    return pools


def _state(group: tuple[Step, ...], have: Capacity, floor: Floor) -> StateOnTheWay:
    def over(part: float, whole: float) -> float:
        return part / whole if whole > 0 else 1.0

    steady = [s.expected_s for s in group if s.kind is not StepKind.DRAIN]

    return StateOnTheWay(
        first_step=group[0].index,
        expected_s=max(step.expected_s for step in group),
        least_s=(1 - FASTER_RATIO) * max(steady, default=0.0),
        prefill_ratio=over(have.prefill, floor.prefill),
        decode_ratio=over(have.decode, floor.decode),
        aggregated_ratio=over(have.aggregated, floor.aggregated),
        service_ratio=over(have.service, floor.service),
        lowest_ratio=have.lowest_ratio(floor),
    )

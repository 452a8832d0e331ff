"""What the optimizer decides about, as frozen values: options, windows, limits, capacities."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One kind of replica that may be bought: a shape under a purchase option.

    Parameters
    ----------
    usd_per_hour : float
        Of one replica, all its accelerators, USD.
    initial_replicas : int
        Ready and starting ones that the current fleet has.
    start_s, drain_s : float
        Seconds until a new replica takes traffic, and until an old one is gone.
    footprint : int
        Accelerators that a replica blocks on a node (see `fit_nodes`), at least its own number.
    interruptions_per_hour : float
        Expected reclaims of one spot accelerator.
    power_w : float
        Of one replica; 0 where unknown and no power budget is set.
    """

    shape: ReplicaShape
    purchase_option: PurchaseOption
    usd_per_hour: float
    initial_replicas: int = 0
    start_s: float = 0.0
    drain_s: float = 0.0
    footprint: int = 1
    interruptions_per_hour: float = 0.0
    power_w: float = 0.0

    @property
    def label(self) -> str:
        """A name for rows: the shape's label, with the purchase option unless on demand."""
        if self.purchase_option is PurchaseOption.ON_DEMAND:
            return self.shape.label
        return f"{self.shape.label}:{self.purchase_option}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolCapacity:
    """Requests/s that a pool sustains within its role's objective, by its number of replicas.

    Parameters
    ----------
    counts_rps : (counts + 1,) float, requests/s
        At 0, 1, ... replicas; starts with 0 and does not decrease. Exact: larger pools pool
        their slack, so this is not a multiple of one replica's rate.
    tail_rps : float, requests/s
        What every replica beyond the table adds at least.
    """

    counts_rps: Floats
    tail_rps: float = 0.0

    def __post_init__(self) -> None:
        if len(self.counts_rps) == 0 or self.counts_rps[0] != 0:
            raise ValueError("counts_rps must start with 0 requests/s at 0 replicas")
        if bool(np.any(np.diff(self.counts_rps) < 0)) or self.tail_rps < 0:
            raise ValueError("a pool must not sustain less with more replicas")

    @classmethod
    def linear(cls, replica_rps: float) -> "PoolCapacity":
        """Every replica adds the same rate: published per-replica rates without pooling."""
        return cls(counts_rps=np.array([0.0, replica_rps]), tail_rps=replica_rps)

    @property
    def last_count(self) -> int:
        """Replicas at the end of the table."""
        return len(self.counts_rps) - 1

    def at(self, replicas: int) -> float:
        """Requests/s of a pool of so many replicas."""
        beyond = max(replicas - self.last_count, 0)
        return float(self.counts_rps[min(replicas, self.last_count)]) + self.tail_rps * beyond

    def divided_by(self, factor: float) -> "PoolCapacity":
        """The same pool with a safety factor on its rates."""
        return PoolCapacity(counts_rps=self.counts_rps / factor, tail_rps=self.tail_rps / factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningWindow:
    """One window and what has to be served in it.

    Parameters
    ----------
    demand_rps : float
        Requests/s that capacity must meet: the forecast at the spec's demand level.
    """

    start_at: datetime
    window_s: float
    demand_rps: float

    @property
    def end_at(self) -> datetime:
        """End of the half-open interval."""
        return self.start_at + timedelta(seconds=self.window_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorLimit:
    """How many accelerators of a type this model may occupy, and how many sit in one node."""

    name: str
    inventory: int
    per_node: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaBounds:
    """Bounds on the replicas of a shape, all purchase options together."""

    shape: ReplicaShape
    min_replicas: int = 0
    max_replicas: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A pool of the spec that cannot be planned for, and why."""

    label: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverSettings:
    """Seed and limits of the solver.

    Parameters
    ----------
    gap_ratio : float
        A fleet this close to the proven bound counts as optimal.
    exact_work, rolling_work : float
        Deterministic work units (about seconds) for the whole model, and for each step of the
        rolling method that follows when that was not enough. Equal inputs give equal plans.
    time_limit_s : float
        Wall-clock limit of each solver call; one that ends a search makes it not replayable.
    """

    seed: int = 0
    gap_ratio: float = 1e-4
    exact_work: float = 0.5
    rolling_work: float = 0.2
    time_limit_s: float = 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """One model's fleet over the windows ahead. Indices: `o` options, `t` windows.

    Parameters
    ----------
    capacity : Mapping from (o, t) to PoolCapacity
    ordered_at : datetime
        When new replicas of window 0 are ordered.
    has_fleet : bool
        False when nothing runs yet: then there is no start-up lead time and no change to pay for
        in window 0.
    best_effort : bool
        Demand may stay unserved, as little as possible: for inputs that nothing satisfies.
    """

    model: str
    options: tuple[Option, ...]
    windows: tuple[PlanningWindow, ...]
    capacity: Mapping[tuple[int, int], PoolCapacity]
    accelerators: tuple[AcceleratorLimit, ...]
    bounds: tuple[ReplicaBounds, ...]
    ordered_at: datetime
    has_fleet: bool = False
    usd_per_hour_limit: float | None = None
    power_w_limit: float | None = None
    best_effort: bool = False
    excluded: tuple[Exclusion, ...] = ()
    solver: SolverSettings = SolverSettings()

    @property
    def option_indices(self) -> range:
        """All `o`."""
        return range(len(self.options))

    @property
    def window_indices(self) -> range:
        """All `t`."""
        return range(len(self.windows))

    def in_role(self, role: Role) -> tuple[int, ...]:
        """Options of a role."""
        return tuple(o for o in self.option_indices if self.options[o].shape.role is role)

    def of_shape(self, shape: ReplicaShape) -> tuple[int, ...]:
        """Options of a shape: one per purchase option."""
        return tuple(o for o in self.option_indices if self.options[o].shape == shape)

    def on(self, accelerator: str) -> tuple[int, ...]:
        """Options on an accelerator type."""
        options = self.options
        return tuple(o for o in self.option_indices if options[o].shape.accelerator == accelerator)

    @cached_property
    def max_replicas(self) -> tuple[int, ...]:
        """(options,) replicas that inventory, nodes and bounds leave room for."""
        return tuple(self._max_replicas(option) for option in self.options)

    def _max_replicas(self, option: Option) -> int:
        limit = next(a for a in self.accelerators if a.name == option.shape.accelerator)
        most = blocks_of(limit, option.footprint)
        for bounds in self.bounds:
            if bounds.shape == option.shape and bounds.max_replicas is not None:
                most = min(most, bounds.max_replicas)
        return most

    def order_window(self, o: int, t: int) -> int:
        """The window in which replicas must be ordered to be ready when window `t` starts.

        0 where that would lie in the past: they are ordered now and come late.
        """
        if not self.has_fleet:
            return t
        lead = timedelta(seconds=self.options[o].start_s)
        in_time = [s for s in range(t + 1) if self._order_at(s) + lead <= self.windows[t].start_at]
        return in_time[-1] if in_time else 0

    def comes_too_late(self, o: int, t: int) -> bool:
        """Whether a replica ordered now is not ready before window `t` is over."""
        if not self.has_fleet:
            return False
        lead = timedelta(seconds=self.options[o].start_s)
        return self._order_at(0) + lead >= self.windows[t].end_at

    def may_fall_short(self, t: int) -> bool:
        """Whether demand of window `t` may stay unserved: nothing ordered now is there in time."""
        return self.best_effort or any(self.comes_too_late(o, t) for o in self.option_indices)

    def _order_at(self, s: int) -> datetime:
        return self.ordered_at if s == 0 else self.windows[s].start_at

    def usable(self, replicas: Integers) -> Integers:
        """Replicas that serve in each window.

        Parameters
        ----------
        replicas : (options, windows) int
            Ordered: ready or starting.

        Returns
        -------
        (options, windows) int
        """
        usable = np.array(replicas)
        for o in self.option_indices:
            for t in self.window_indices:
                usable[o, t] = replicas[o, self.order_window(o, t) : t + 1].min()
                if self.comes_too_late(o, t):
                    usable[o, t] = min(usable[o, t], self.options[o].initial_replicas)
        return usable

    def useful_counts(self, o: int, t: int) -> tuple[int, int]:
        """Serving replicas worth telling apart: entries of the table, and replicas beyond it.

        More than what meets the window's whole demand alone serve nobody.
        """
        pool, demand = self.capacity[o, t], self.windows[t].demand_rps
        most = min(self.max_replicas[o], pool.last_count)
        enough = int(np.searchsorted(pool.counts_rps, demand))
        if enough <= most or self.max_replicas[o] <= pool.last_count or pool.tail_rps <= 0:
            return min(enough, most), 0
        missing = math.ceil((demand - pool.counts_rps[-1]) / pool.tail_rps)
        return most, min(missing, self.max_replicas[o] - most)

    def role_rps(self, role: Role, usable: Integers, t: int) -> float:
        """Requests/s that all pools of a role sustain together in window `t`."""
        return sum(self.capacity[o, t].at(int(usable[o, t])) for o in self.in_role(role))

    def serves_rps(self, usable: Integers, t: int) -> float:
        """Requests/s that the whole deployment sustains: min(prefill, decode) + aggregated."""
        prefill, decode, aggregated = (self.role_rps(role, usable, t) for role in _PATH)
        return min(prefill, decode) + aggregated

    def tightened(self, factors: Mapping[Role, float]) -> "Problem":
        """The same problem with the capacity of each role divided by a safety factor."""
        capacity = {
            (o, t): pool.divided_by(factors.get(self.options[o].shape.role, 1.0))
            for (o, t), pool in self.capacity.items()
        }
        return replace(self, capacity=capacity)

    def alone(self, t: int) -> "Problem":
        """Window `t` by itself: no lead time, no change to pay for."""
        return replace(
            self,
            windows=(self.windows[t],),
            capacity={(o, 0): self.capacity[o, t] for o in self.option_indices},
            has_fleet=False,
        )

    def only(self, keep: Callable[[Option], bool]) -> "Problem":
        """The same problem with some options only; bounds of the others are dropped."""
        kept = [o for o in self.option_indices if keep(self.options[o])]
        shapes = {self.options[o].shape for o in kept}
        return replace(
            self,
            options=tuple(self.options[o] for o in kept),
            capacity={
                (i, t): self.capacity[o, t] for i, o in enumerate(kept) for t in self.window_indices
            },
            bounds=tuple(b for b in self.bounds if b.shape in shapes),
        )


_PATH = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)


def blocks_of(limit: AcceleratorLimit, size: int) -> int:
    """Blocks of `size` accelerators that fit into the nodes, none spanning two of them."""
    nodes, rest = divmod(limit.inventory, limit.per_node)
    return nodes * (limit.per_node // size) + rest // size

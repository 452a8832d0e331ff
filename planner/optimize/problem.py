"""What the optimizer decides about, as one frozen value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.domain.model import Dtype
from planner.domain.plan import Holding, StretchedPromise
from planner.optimize.inputs import (
    AcceleratorLimit,
    Exclusion,
    Flip,
    Floats,
    Held,
    Integers,
    LinkLimit,
    Objective,
    Option,
    PlanningWindow,
    PoolCapacity,
    RatioBounds,
    ReplicaBounds,
    SolverSettings,
    Stream,
)
from planner.optimize.linear import Mask
from planner.optimize.nodes import NodeKind, blocks_of, divide, node_kinds

PATH = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)

Discounted = Role | ReplicaShape
"""What a safety factor is for: all options of a role, or those of a shape."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """The fleet of one or more models over the windows ahead.

    Indices: `o` options, `t` windows, `k` streams, `f` flips, `m` models.

    Parameters
    ----------
    demand_rps : (streams, windows) float, requests/s
        What capacity must meet: the forecast at the spec's demand level.
    capacity : Mapping from (o, t) to PoolCapacity
        In mean requests/s of the option's model.
    work : (streams, options) float
        Mean requests that one of the stream is worth in the pool; infinite where the pool cannot
        serve it (another model, too long, too slow).
    ordered_at : datetime
        When new replicas of window 0 are ordered.
    has_fleet : bool
        False when nothing runs yet: then there is no start-up lead time and no change to pay for
        in window 0.
    reserved_usd_per_hour : float
        What reserved accelerators cost, used or not.
    spot_share_limit : float or None
        Share of a role's replicas of a model that may be spot.
    kv_bytes : (streams,) float or None
        KV cache that moves for one request of the stream on its way from prefill to decode.
    transfer_bytes_per_s_limit : float or None
        What all KV transfers may take together.
    links : tuple of LinkLimit
        What those between some accelerators may take.
    shortfall_usd_per_request : float or None
        Price of an unserved request; None: all demand has to be met.
    one_shape_per_role : bool
        A model has at most one option in each role, over the whole horizon.
    others : tuple of Held
        What other models are to have in each window of the limits above; empty: nothing.
    held_by_others : tuple of Holding
        What this model may not have because others hold it, to tell.
    stretched : tuple of StretchedPromise
        Promises that no pool keeps, and what capacities were computed for instead.
    best_effort : bool
        Demand may stay unserved, as little as possible: for inputs that nothing satisfies.
    """

    streams: tuple[Stream, ...]
    options: tuple[Option, ...]
    windows: tuple[PlanningWindow, ...]
    demand_rps: Floats
    capacity: Mapping[tuple[int, int], PoolCapacity]
    work: Floats
    accelerators: tuple[AcceleratorLimit, ...]
    ordered_at: datetime
    bounds: tuple[ReplicaBounds, ...] = ()
    flips: tuple[Flip, ...] = ()
    ratios: tuple[RatioBounds, ...] = ()
    has_fleet: bool = False
    usd_per_hour_limit: float | None = None
    reserved_usd_per_hour: float = 0.0
    power_w_limit: float | None = None
    spot_share_limit: float | None = None
    kv_bytes: Floats | None = None
    transfer_bytes_per_s_limit: float | None = None
    links: tuple[LinkLimit, ...] = ()
    shortfall_usd_per_request: float | None = None
    one_shape_per_role: bool = False
    objective: Objective = Objective.COST
    best_effort: bool = False
    excluded: tuple[Exclusion, ...] = ()
    others: tuple[Held, ...] = ()
    held_by_others: tuple[Holding, ...] = ()
    stretched: tuple[StretchedPromise, ...] = ()
    solver: SolverSettings = field(default_factory=SolverSettings)

    def __post_init__(self) -> None:
        streams, options, windows = len(self.streams), len(self.options), len(self.windows)
        if self.demand_rps.shape != (streams, windows):
            raise ValueError(
                f"demand_rps has shape {self.demand_rps.shape}, not {(streams, windows)}"
            )
        if self.work.shape != (streams, options):
            raise ValueError(f"work has shape {self.work.shape}, not {(streams, options)}")
        if len(self.capacity) != options * windows:
            raise ValueError("capacity needs a table for every option and window")
        if self.others and len(self.others) != windows:
            raise ValueError(f"others are given for {len(self.others)} of {windows} windows")

    @property
    def option_indices(self) -> range:
        """All `o`."""
        return range(len(self.options))

    @property
    def window_indices(self) -> range:
        """All `t`."""
        return range(len(self.windows))

    @property
    def stream_indices(self) -> range:
        """All `k`."""
        return range(len(self.streams))

    @cached_property
    def models(self) -> tuple[str, ...]:
        """All `m`, in the order of the streams."""
        return tuple(dict.fromkeys(stream.model for stream in self.streams))

    @cached_property
    def link_pairs(self) -> tuple[tuple[str, str], ...]:
        """Accelerators of a prefill and of a decode pool, every pair; none without `links`."""
        if not self.links or self.kv_bytes is None:
            return ()
        ends = [
            dict.fromkeys(self.options[o].shape.accelerator for o in self.in_role(role))
            for role in (Role.PREFILL, Role.DECODE)
        ]
        return tuple((a, b) for a in ends[0] for b in ends[1])

    @property
    def model(self) -> str:
        """The first model, or the only one."""
        return self.models[0]

    def in_role(self, role: Role, *, model: str | None = None) -> tuple[int, ...]:
        """Options of a role, of one model or of all."""
        return tuple(
            o
            for o in self.option_indices
            if self.options[o].shape.role is role
            and (model is None or self.options[o].shape.model == model)
        )

    def by_format(
        self, *, model: str
    ) -> Mapping[tuple[Dtype | None, Dtype | None], tuple[int, ...]]:
        """Prefill and decode options of a model by the formats of weights and KV cache."""
        found: dict[tuple[Dtype | None, Dtype | None], tuple[int, ...]] = {}
        for role in (Role.PREFILL, Role.DECODE):
            for o in self.in_role(role, model=model):
                shape = self.options[o].shape
                stored = shape.weight_dtype, shape.kv_dtype
                found[stored] = (*found.get(stored, ()), o)
        return found

    def of_shape(self, shape: ReplicaShape) -> tuple[int, ...]:
        """Options of a shape: one per purchase option."""
        return tuple(o for o in self.option_indices if self.options[o].shape == shape)

    def on(self, accelerator: str) -> tuple[int, ...]:
        """Options on an accelerator type."""
        options = self.options
        return tuple(o for o in self.option_indices if options[o].shape.accelerator == accelerator)

    @cached_property
    def _limits(self) -> tuple[tuple[AcceleratorLimit, ...], ...]:
        """(windows, types)."""
        if not self.others:
            return (self.accelerators,) * len(self.windows)
        return tuple(tuple(a.without(held) for a in self.accelerators) for held in self.others)

    def limits_in(self, t: int) -> tuple[AcceleratorLimit, ...]:
        """What other models leave of every accelerator type in window `t`."""
        return self._limits[t]

    def usd_per_hour_limit_in(self, t: int) -> float | None:
        """What other models leave of the budget in window `t`, USD/h; None: there is none."""
        held = self.others[t].usd_per_hour if self.others else 0.0
        limit = self.usd_per_hour_limit
        return None if limit is None else max(limit - held, 0.0)

    def reserved_usd_per_hour_in(self, t: int) -> float:
        """What no other model pays for reserved accelerators in window `t`, USD/h."""
        paid = self.others[t].reserved_usd_per_hour if self.others else 0.0
        return max(self.reserved_usd_per_hour - paid, 0.0)

    def power_w_limit_in(self, t: int) -> float | None:
        """What other models leave of the power in window `t`, W; None: it is not limited."""
        held = self.others[t].power_w if self.others else 0.0
        return None if self.power_w_limit is None else max(self.power_w_limit - held, 0.0)

    def sizes_on(self, accelerator: str) -> tuple[int, ...]:
        """Sizes of all replicas on an accelerator type, those of other models in any window too."""
        limits = (a for of in (self.accelerators, *self._limits) for a in of)
        taken = (size for a in limits if a.name == accelerator for size in a.taken)
        own = (self.options[o].footprint for o in self.on(accelerator))
        return tuple(sorted({*own, *taken}))

    @cached_property
    def filled(self) -> Mapping[str, tuple[NodeKind, ...] | None]:
        """Of accelerator types whose sizes do not divide, the ways to fill nodes; else None."""
        found: dict[str, tuple[NodeKind, ...] | None] = {}
        for limit in self.accelerators:
            sizes = self.sizes_on(limit.name)
            found[limit.name] = None if divide(sizes) else node_kinds(limit, sizes)
        return found

    def serving(self, k: int, *roles: Role) -> tuple[int, ...]:
        """Options of these roles that can serve a stream."""
        able = self._able[k] & np.isin(self._roles, [role.value for role in roles])
        return tuple(np.flatnonzero(able).tolist())

    @cached_property
    def _able(self) -> Mask:
        """(streams, options) which can serve which."""
        return np.isfinite(self.work)

    @cached_property
    def _roles(self) -> NDArray[np.str_]:
        return np.array([option.shape.role.value for option in self.options])

    def is_plain(self, k: int) -> bool:
        """Whether a stream is alone in its model, worth 1 everywhere, its KV cache moved freely.

        Then capacities carry it if each role's do, and nothing has to be decided about who sends
        what where.
        """
        return self._plain[k]

    @cached_property
    def _plain(self) -> tuple[bool, ...]:
        models = [stream.model for stream in self.streams]
        model_of = np.array([option.shape.model for option in self.options])
        return tuple(
            models.count(model) == 1
            and self.transfer_bytes_per_s_limit is None
            and not self.links
            and bool(np.all(self.work[k, model_of == model] == 1.0))
            for k, model in enumerate(models)
        )

    def held(self, resource: str) -> str:
        """What others hold of something shared, to end a sentence with; empty: nothing."""
        return "".join(f"; {h.sentence}" for h in self.held_by_others if h.resource == resource)

    def load_rps(self, t: int) -> float:
        """Requests/s of all streams in window `t`."""
        return float(self.demand_rps[:, t].sum())

    def most_work_rps(self, o: int, t: int) -> float:
        """Mean requests/s if the pool served all that it can serve in window `t`."""
        work = self.work[:, o]
        known = np.isfinite(work)
        return float(work[known] @ self.demand_rps[known, t])

    @cached_property
    def max_replicas(self) -> tuple[int, ...]:
        """(options,) replicas that inventory, nodes and bounds leave room for in some window."""
        kinds = tuple(dict.fromkeys(self._limits))
        return tuple(max(self._max_replicas(o, of) for of in kinds) for o in self.options)

    def max_replicas_in(self, t: int) -> tuple[int, ...]:
        """(options,) replicas that inventory, nodes and bounds leave room for in window `t`."""
        return tuple(self._max_replicas(option, self.limits_in(t)) for option in self.options)

    def _max_replicas(self, option: Option, limits: tuple[AcceleratorLimit, ...]) -> int:
        limit = next(a for a in limits if a.name == option.shape.accelerator)
        most = min(blocks_of(limit, option.footprint), limit.inventory // option.footprint)
        if option.prepaid:
            most = min(most, limit.reserved // option.shape.accelerators)
        for bounds in self.bounds:
            if bounds.shape == option.shape and bounds.max_replicas is not None:
                most = min(most, bounds.max_replicas)
        return most

    def order_window(self, lead_s: float, t: int) -> int:
        """The window in which to order what takes `lead_s`, to be ready when window `t` starts.

        0 where that would lie in the past: it is ordered now and comes late.
        """
        in_time = self._in_time(lead_s, t)
        return in_time[-1] if in_time else 0

    def ready_since(self, o: int, t: int) -> range | None:
        """Windows before `t` in all of which a replica has to be had, to be ready when `t` starts.

        None when only those of the current fleet are.
        """
        in_time = self._in_time(self.options[o].start_s, t)
        if t == 0 or not in_time:
            return None
        return range(min(in_time[-1], t - 1), t)

    def _in_time(self, lead_s: float, t: int) -> list[int]:
        if not self.has_fleet:
            return [t]
        lead = timedelta(seconds=lead_s)
        return [s for s in range(t + 1) if self._order_at(s) + lead <= self.windows[t].start_at]

    def is_late(self, lead_s: float, t: int) -> bool:
        """Whether what takes `lead_s` and is ordered now is not ready before `t` is over."""
        if not self.has_fleet:
            return False
        return self._order_at(0) + timedelta(seconds=lead_s) >= self.windows[t].end_at

    def ready_after_s(self, lead_s: float, t: int) -> float:
        """From the beginning of `t` until what takes `lead_s` and is ordered now is ready, s."""
        if not self.has_fleet:
            return 0.0
        ready_at = self._order_at(0) + timedelta(seconds=lead_s)
        return max((ready_at - self.windows[t].start_at).total_seconds(), 0.0)

    def comes_too_late(self, o: int, t: int) -> bool:
        """Whether a replica ordered now is not ready before window `t` is over."""
        return self.is_late(self.options[o].start_s, t)

    def serves_at_once(self, o: int, t: int) -> bool:
        """Whether every replica of window `t` serves in it: nothing starts or changes its role."""
        start_s = self.options[o].start_s
        lasting = bool(self.flips_of(source=o) or self.flips_of(target=o))
        ready = self.order_window(start_s, t) == t and not self.is_late(start_s, t)
        return ready and not lasting

    @property
    def horizon_h(self) -> float:
        """Length of all windows together, hours."""
        return sum(w.window_s for w in self.windows) / 3600

    @property
    def sheds(self) -> bool:
        """Whether requests may be left unserved on purpose."""
        priced = self.shortfall_usd_per_request is not None
        return priced or self.objective is Objective.GOODPUT

    def may_fall_short(self, k: int, t: int) -> bool:
        """Whether demand may stay unserved: by leave, or as nothing ordered now is in time."""
        if self.best_effort or self.sheds:
            return True
        return self.has_fleet and any(
            self.comes_too_late(o, t) for o in np.flatnonzero(self._able[k]).tolist()
        )

    def _order_at(self, s: int) -> datetime:
        return self.ordered_at if s == 0 else self.windows[s].start_at

    def up_windows(self, o: int, t: int) -> range:
        """Windows in which a start obliges to be there in `t`, which is one of them."""
        until = timedelta(seconds=self.options[o].min_up_s)
        first = t
        while first > 0 and self.windows[first - 1].start_at + until > self.windows[t].start_at:
            first -= 1
        return range(first, t + 1)

    def flips_of(self, *, source: int | None = None, target: int | None = None) -> tuple[int, ...]:
        """All `f` from an option, or to one."""
        return tuple(
            f
            for f, flip in enumerate(self.flips)
            if (source is None or flip.source == source)
            and (target is None or flip.target == target)
        )

    def flipped(self, o: int, t: int, *, after: int) -> tuple[tuple[int, int, int], ...]:
        """All (f, u, sign): flips that change what of window `after` serves in window `t`.

        +1: to `o` at the beginning of u > `after`, in time to serve in `t`; -1: away from it.
        """
        come = (
            (f, u, 1)
            for f in self.flips_of(target=o)
            if not self.is_late(self.flips[f].flip_s, t)
            for u in range(after + 1, self.order_window(self.flips[f].flip_s, t) + 1)
        )
        go = ((f, u, -1) for f in self.flips_of(source=o) for u in range(after + 1, t + 1))
        return (*come, *go)

    def usable(self, replicas: Integers, flips: Integers) -> Integers:
        """Replicas that serve in each window.

        Parameters
        ----------
        replicas : (options, windows) int
            Ordered: ready or starting.
        flips : (flips, windows) int
            Replicas that change their role when the window begins.

        Returns
        -------
        (options, windows) int
        """
        usable = np.array(replicas)
        for o, option in enumerate(self.options):
            for t in self.window_indices:
                had = [
                    (int(replicas[o, s]), s)
                    for s in range(self.order_window(option.start_s, t), t + 1)
                ]
                if self.comes_too_late(o, t):
                    had.append((option.initial_replicas, -1))
                usable[o, t] = min(
                    n + sum(sign * flips[f, u] for f, u, sign in self.flipped(o, t, after=s))
                    for n, s in had
                )
        return usable

    def role_rps(self, role: Role, usable: Integers, t: int) -> float:
        """Mean requests/s that all pools of a role sustain together in window `t`."""
        return sum(self.capacity[o, t].at(int(usable[o, t])) for o in self.in_role(role))

    def serves_rps(self, usable: Integers, t: int) -> float:
        """Mean requests/s that one model sustains: min(prefill, decode) + aggregated."""
        prefill, decode, aggregated = (self.role_rps(role, usable, t) for role in PATH)
        return min(prefill, decode) + aggregated

    def tightened(self, factors: Mapping[Discounted, float]) -> "Problem":
        """The same problem with the capacity of roles and shapes divided by safety factors."""
        shapes = [option.shape for option in self.options]
        each = [factors.get(s.role, 1.0) * factors.get(s, 1.0) for s in shapes]
        capacity = {(o, t): pool.divided_by(each[o]) for (o, t), pool in self.capacity.items()}
        return replace(self, capacity=capacity)

    def between(self, first: int, end: int) -> "Problem":
        """Windows `first` to `end` (not included) only."""
        return replace(
            self,
            windows=self.windows[first:end],
            demand_rps=self.demand_rps[:, first:end],
            others=self.others[first:end],
            capacity={
                (o, t - first): self.capacity[o, t]
                for o in self.option_indices
                for t in range(first, end)
            },
        )

    def alone(self, t: int) -> "Problem":
        """Window `t` by itself: no lead time, no change to pay for."""
        return replace(self.between(t, t + 1), has_fleet=False)

    def only(self, keep: Callable[[Option], bool]) -> "Problem":
        """The same problem with some options only; bounds of the others are dropped."""
        kept = [o for o in self.option_indices if keep(self.options[o])]
        place = {o: i for i, o in enumerate(kept)}
        shapes = {self.options[o].shape for o in kept}
        return replace(
            self,
            options=tuple(self.options[o] for o in kept),
            capacity={
                (place[o], t): self.capacity[o, t] for o in kept for t in self.window_indices
            },
            work=self.work[:, kept],
            bounds=tuple(b for b in self.bounds if b.shape in shapes),
            flips=tuple(
                replace(f, source=place[f.source], target=place[f.target])
                for f in self.flips
                if f.source in place and f.target in place
            ),
        )


def spot_options(problem: Problem, options: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the options that are spot."""
    return tuple(o for o in options if problem.options[o].purchase_option is PurchaseOption.SPOT)

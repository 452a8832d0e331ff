"""What a problem is made of: options, streams, windows, capacities, limits, settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.spec import Objective
from planner.domain.workload import RequestKind, Shape

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

__all__ = [
    "AcceleratorLimit",
    "Exclusion",
    "Flip",
    "Floats",
    "Held",
    "Integers",
    "LinkLimit",
    "Mask",
    "Objective",
    "Option",
    "PlanningWindow",
    "PoolCapacity",
    "RatioBounds",
    "ReplicaBounds",
    "SolverSettings",
    "Stream",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One kind of replica that may be bought: a shape under a purchase option.

    Parameters
    ----------
    usd_per_hour : float
        What one replica more costs, all its accelerators, USD; 0 where it is prepaid.
    initial_replicas : int
        Ready and starting ones that the current fleet has.
    start_s, drain_s : float
        Seconds until a new replica takes traffic, and until an old one is gone.
    starts_warm : bool
        Whether `start_s` is that of a start where the model runs already.
    footprint : int
        Accelerators that a replica blocks on a node (see `fit_nodes`), at least its own number.
    interruptions_per_hour : float
        Expected reclaims of one spot accelerator.
    power_w : float
        Of one replica; 0 where unknown and no power budget is set.
    min_up_s : float
        A started replica is kept at least so long, seconds: minimum up-time, or the increment
        in which it is billed.
    billing_increment_s : float
        A start pays at least for so long, seconds.
    prepaid : bool
        On reserved accelerators, which are paid whether used or not.
    max_starts, max_stops : int or None
        At most so many replicas come, or go, at the beginning of a window; flips count as both.
    """

    shape: ReplicaShape
    purchase_option: PurchaseOption
    usd_per_hour: float
    initial_replicas: int = 0
    start_s: float = 0.0
    drain_s: float = 0.0
    starts_warm: bool = True
    footprint: int = 1
    interruptions_per_hour: float = 0.0
    power_w: float = 0.0
    min_up_s: float = 0.0
    billing_increment_s: float = 0.0
    prepaid: bool = False
    max_starts: int | None = None
    max_stops: int | None = None

    @property
    def start_field(self) -> str:
        """Where a profile says `start_s`."""
        return "start_warm_s" if self.starts_warm else "start_cold_s"

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
    def is_linear(self) -> bool:
        """Whether every replica adds the same rate."""
        return self.last_count == 1 and self.counts_rps[1] == self.tail_rps

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
    """One window that is planned for."""

    start_at: datetime
    window_s: float

    @property
    def end_at(self) -> datetime:
        """End of the half-open interval."""
        return self.start_at + timedelta(seconds=self.window_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How long requests may be that one way through the pools holds.

    Parameters
    ----------
    prompt_tokens, tokens : int
        The longest prompt, and the most of prompt and answer together.
    """

    prompt_tokens: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream(RequestKind):
    """Requests of one model that the router can tell from others, and sends as one.

    Parameters
    ----------
    bucket : str
        A name of its uncached prompt lengths; empty: all.
    priority : int
        Where not all can be served, streams of lower priority go without first.
    beyond : tuple of Reach
        Only requests that none of these holds: nothing serves them. Empty: of any length.
    left_out : bool
        Nothing serves it by choice: the twin confirms no fleet that does.
    """

    model: str
    request_class: str = DEFAULT_CLASS
    bucket: str = ""
    priority: int = 0
    beyond: tuple[Reach, ...] = ()
    left_out: bool = False

    def has(self, shape: Shape) -> Mask:
        """(buckets,) which requests of a shape belong to it."""
        inside = self.holds(shape.uncached_tokens)
        return inside & ~held_by(self.beyond, shape) if self.beyond else inside

    @property
    def label(self) -> str:
        """A name for rows, as in `chat/default` or `chat/default/0-1024`."""
        return "/".join(part for part in (self.model, self.request_class, self.bucket) if part)


def held_by(reaches: Sequence[Reach], shape: Shape) -> Mask:
    """(buckets,) which requests of a shape some way through the pools holds."""
    tokens = shape.input_tokens + shape.output_tokens
    held = np.zeros(len(shape.weight), dtype=np.bool_)
    for reach in reaches:
        held |= (shape.input_tokens <= reach.prompt_tokens) & (tokens <= reach.tokens)
    return held


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """Replicas of option `source` may become replicas of option `target`, without a restart."""

    source: int
    target: int
    flip_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioBounds:
    """Bounds on prefill replicas per decode replica of a model. None: no bound."""

    model: str
    min_ratio: float | None = None
    max_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorLimit:
    """How many accelerators of a type this model may occupy, and how many sit in one node.

    Parameters
    ----------
    taken : tuple of int
        Sizes of other models' replicas on the same nodes, beside the inventory: where sizes do not
        divide, what they leave is not as good as nodes of its own.
    reserved : int
        Of these so many are prepaid (`Option.prepaid`).
    reserved_usd_per_hour : float
        Price of one of them, USD/h.
    """

    name: str
    inventory: int
    per_node: int
    reserved: int = 0
    reserved_usd_per_hour: float = 0.0
    taken: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """Accelerators of all nodes."""
        return self.inventory + sum(self.taken)

    def without(self, held: "Held") -> "AcceleratorLimit":
        """What is left of it beside what other models hold."""
        count = held.accelerators.get(self.name, 0)
        return replace(
            self,
            inventory=max(self.inventory - count, 0),
            reserved=max(self.reserved - held.reserved.get(self.name, 0), 0),
            taken=(
                *self.taken,
                *(held.sizes.get(self.name, ()) if count <= self.inventory else ()),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What models hold in one window of what they share with others.

    Parameters
    ----------
    accelerators, reserved : Mapping of accelerator type
        How many, and how many of them are prepaid.
    sizes : Mapping of accelerator type
        Of their replicas, in accelerators; only where sizes do not divide each other and the node.
    usd_per_hour, reserved_usd_per_hour : float
        What they are charged, USD/h; and how much of it for reserved accelerators, used or not.
    """

    accelerators: Mapping[str, int]
    reserved: Mapping[str, int]
    sizes: Mapping[str, Sequence[int]]
    usd_per_hour: float
    reserved_usd_per_hour: float
    power_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLimit:
    """What KV transfers may take between the prefill and decode replicas at a link's two ends.

    Parameters
    ----------
    prefill, decode : str or None
        The accelerator type at each end; None: any.
    """

    prefill: str | None
    decode: str | None
    bytes_per_s: float

    @property
    def label(self) -> str:
        """A name for rows, as in `h100->a100`."""
        return f"{self.prefill or 'any'}->{self.decode or 'any'}"

    def carries(self, prefill: str, decode: str) -> bool:
        """Whether transfers between these accelerators cross it."""
        return self.prefill in (None, prefill) and self.decode in (None, decode)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaBounds:
    """Bounds on the replicas of a shape, all purchase options together."""

    shape: ReplicaShape
    min_replicas: int = 0
    max_replicas: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A pool of the spec that is not planned for, and why.

    Parameters
    ----------
    dominated_by : str
        Label of the option that does all that it does; empty: another reason.
    """

    shape: ReplicaShape
    label: str
    reason: str
    dominated_by: str = ""


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
    threads : int
        Solver calls at once, where there are several. What is found does not depend on it.
    """

    seed: int = 0
    gap_ratio: float = 1e-4
    exact_work: float = 0.5
    rolling_work: float = 0.2
    time_limit_s: float = 10.0
    threads: int = 2


def flips_between(options: tuple[Option, ...], flip_s: Callable[[Option], float]) -> list[Flip]:
    """Every change of role between prefill and decode options of the same engine and price."""
    by_place: dict[tuple[object, ...], list[int]] = {}
    for o, option in enumerate(options):
        if option.shape.role is not Role.AGGREGATED:
            shape = option.shape
            place = (*shape.engine, option.purchase_option)
            by_place.setdefault(place, []).append(o)
    return [
        Flip(source=a, target=b, flip_s=flip_s(options[a]))
        for together in by_place.values()
        for a in together
        for b in together
        if options[a].shape.role is not options[b].shape.role
    ]

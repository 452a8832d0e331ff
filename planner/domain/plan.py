"""A plan: which pools in which window, what they will do, what they cost, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.domain.placement import Placement
from planner.domain.workload import RequestKind


class PlanStatus(StrEnum):
    """How good the solver's answer is."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"


class Bottleneck(StrEnum):
    """What would miss first if the load grew.

    prefill, decode: arithmetic of prompts, steps of answers. memory: KV capacity bounds the batch.
    batching: `max_num_seqs` does. cache_transfer: moving one KV cache takes longer than computing
    it. network: the links that all transfers share are full. scheduling: prompts and answers are
    in each other's way, or what surrounds the engine (HTTP, tokenizer, router) takes most of TTFT.
    """

    NONE = "none"
    PREFILL = "prefill"
    DECODE = "decode"
    MEMORY = "memory"
    CACHE_TRANSFER = "cache_transfer"
    NETWORK = "network"
    BATCHING = "batching"
    SCHEDULING = "scheduling"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPool:
    """Replicas of one shape in one window, and the share of their capacity that is used."""

    shape: ReplicaShape
    purchase_option: PurchaseOption
    replicas: int
    utilization_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAttainment:
    """How many requests of a class will be in time, beside what it was promised.

    Parameters
    ----------
    target_ratio : float
        Share of its requests that the promise is about, 0..1.
    attainment_ratio : float
        Share of its arrivals that meet every objective of the class.
    low_ratio, high_ratio : float or None
        95 % interval, where the twin made one.
    requests : int or None
        So many of the class the twin saw.
    """

    request_class: str
    target_ratio: float
    attainment_ratio: float
    low_ratio: float | None = None
    high_ratio: float | None = None
    requests: int | None = None

    @property
    def spare_ratio(self) -> float:
        """By how much the promise is exceeded; below 0: by how much it is missed."""
        return self.attainment_ratio - self.target_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What requests will experience. Latencies in seconds; None where nothing arrives.

    Parameters
    ----------
    attainment_ratio : float
        Share of arrivals that meet every objective.
    attainment_low_ratio, attainment_high_ratio : float or None
        95 % interval, where the twin made one.
    itl_p95_s : float or None
        95th percentile over all gaps of all requests.
    source : str
        `twin` or `closed_form`.
    classes : tuple of ClassAttainment
        Every class that arrives, in order of name.
    """

    attainment_ratio: float | None
    attainment_low_ratio: float | None = None
    attainment_high_ratio: float | None = None
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    tpot_p95_s: float | None = None
    itl_p95_s: float | None = None
    source: str
    classes: tuple[ClassAttainment, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficShare(RequestKind):
    """The part of a kind of requests that goes to a pool.

    Parameters
    ----------
    share_ratio : float
        Of their prompts for prefill and aggregated pools, of their answers for decode pools, 0..1.
    """

    shape: ReplicaShape
    purchase_option: PurchaseOption
    share_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanWindow:
    """The fleet to have in [start_at, start_at + window_s).

    Parameters
    ----------
    traffic : tuple of TrafficShare
        Empty where the router can tell nothing apart: it balances all requests over all pools.
    request_rate_rps, shortfall_rps : float
        Requests/s that come, and of these what is not served in time on purpose: because it is
        priced, or goodput within limits was asked for. The prediction is for the others.
    ready_after_s : float
        From the beginning of the window until the replicas that are started for it serve; the
        prediction is for the time from then on. 0: all serve from the beginning.
    """

    start_at: datetime
    window_s: float
    request_rate_rps: float
    pools: tuple[PlannedPool, ...]
    predicted: Prediction
    bottleneck: Bottleneck
    usd_per_hour: float
    shortfall_rps: float = 0.0
    ready_after_s: float = 0.0
    traffic: tuple[TrafficShare, ...] = ()

    def replicas(self, role: Role) -> int:
        """Replicas in a role."""
        return sum(p.replicas for p in self.pools if p.shape.role == role)

    @property
    def by_label(self) -> dict[str, int]:
        """Replicas by pool label."""
        found: dict[str, int] = {}
        for pool in self.pools:
            found[pool.shape.label] = found.get(pool.shape.label, 0) + pool.replicas
        return found

    def accelerators(self, name: str) -> int:
        """Accelerators of a type that all replicas occupy."""
        return sum(
            p.replicas * p.shape.accelerators for p in self.pools if p.shape.accelerator == name
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingRow:
    """A constraint row without slack: its name, its equation, and a sentence for people."""

    row: str
    equation: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What another model holds of something that models share.

    Parameters
    ----------
    resource : str
        Name of an accelerator type, `usd_per_hour` or `power_w`.
    amount, total : float
        What it holds, and what the spec has of it in all: accelerators, USD/h or W.
    model, priority
        Of the holder.
    above : bool
        Its priority is higher than that of the model that is planned.
    varies : bool
        It holds less in some windows: `amount` is the most.
    """

    resource: str
    amount: float
    total: float
    model: str
    priority: int
    above: bool
    varies: bool = False

    @property
    def sentence(self) -> str:
        """As in `3 of 4 gpu go to code, which has a higher priority (5)`."""
        why = "which has a higher priority" if self.above else "which has priority"
        how = f"{why} ({self.priority})" if self.above else f"{why} {self.priority}"
        return f"{'up to ' if self.varies else ''}{self._amounts} go to {self.model}, {how}"

    @property
    def _amounts(self) -> str:
        if self.resource == "usd_per_hour":
            return f"{self.amount:.2f} of {self.total:.2f} USD/h"
        if self.resource == "power_w":
            return f"{self.amount:,.0f} of {self.total:,.0f} W"
        return f"{self.amount:.0f} of {self.total:.0f} {self.resource}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StretchedPromise:
    """An objective that no pool keeps, not even without load, and what was planned for instead.

    Parameters
    ----------
    request_class : str
        Whose objective it is; empty: of all that arrives.
    objective : str
        `ttft_s`, `tpot_s` or `e2e_s`.
    promised_s, planned_s : float
        As the spec promises it, which is not kept, and as the fleet was sized for, seconds.
    """

    request_class: str
    objective: str
    promised_s: float
    planned_s: float


def stretched_text(stretched: Sequence[StretchedPromise]) -> str:
    """As in `ttft_s 0.2 of class batch instead of the promised 0.02`; empty: nothing was."""
    classes: dict[tuple[str, float, float], list[str]] = {}
    for one in stretched:
        key = one.objective, one.promised_s, one.planned_s
        classes.setdefault(key, []).append(one.request_class)
    parts = []
    for (objective, promised_s, planned_s), names in classes.items():
        known = [name for name in names if name]
        whose = f" of class{'es' if len(known) > 1 else ''} {', '.join(known)}" if known else ""
        parts.append(f"{objective} {planned_s:.4g}{whose} instead of the promised {promised_s:g}")
    return " and ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedAlternative:
    """A fleet that was considered and not chosen.

    `usd_per_hour` is None where the alternative cannot serve the load at all.
    """

    name: str
    reason: str
    usd_per_hour: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPrice:
    """What a stated change of the input would cost, found by solving again.

    Parameters
    ----------
    change : str
        As in `one more h100`.
    usd_per_hour : float or None
        Of the fleet and of what it leaves unserved, where that has a price. Above 0: dearer;
        below 0: cheaper. None: nothing could serve then.
    sentence : str
        What that means, `not distinguishable` where it lies within the solver's gap.
    more : float or None
        Of what was to be best, in `unit`: USD/h of all terms of the objective, W, accelerators, or
        requests/s that are served. None: nothing could serve then, or an earlier version priced it.
    """

    change: str
    usd_per_hour: float | None
    sentence: str
    more: float | None = None
    unit: str = "USD/h"


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverReport:
    """What solved it, how well, and how to solve it again."""

    name: str
    gap_ratio: float
    wall_s: float
    seed: int
    time_limit_s: float
    replayable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTerm:
    """One named term of what a plan comes to: of its cost, or what else was counted.

    Parameters
    ----------
    usd : float
        Over the horizon; 0 for what is no money.
    value : float
        In `unit`: USD over the horizon like `usd`, W and counts as means over it, kWh in all.
    sought : bool
        The plan was made for this to be best.
    """

    name: str
    usd: float = 0.0
    value: float | None = None
    unit: str = "USD"
    sought: bool = False

    def __post_init__(self) -> None:
        if self.value is None:
            object.__setattr__(self, "value", self.usd)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInputs:
    """Ids of everything the plan was made from.

    Parameters
    ----------
    demand_level : float or None
        The quantile of the forecast that it was made for; None in plans of earlier versions.
    assumptions : tuple of str
        What was taken to be otherwise than the inputs say: corrected profiles.
    """

    spec_id: str
    forecast_id: str
    profile_ids: tuple[str, ...]
    fleet_version: str | None
    demand_level: float | None = None
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Pools per window for one deployment.

    Parameters
    ----------
    plan_id : str
        Derived from its content without elapsed times: equal plans have equal ids.
    usd_per_hour : float
        Mean over the horizon.
    relaxations : tuple of str
        For an infeasible plan: what to relax, smallest change first. The twin kept a plan of each,
        unless it is said to be proven by the model only.
    shadow_prices : tuple of ShadowPrice
        Where they were asked for.
    held_by_others : tuple of Holding
        What other models hold of what is shared; the plan was made with the rest.
    estimated : bool
        True when any profile behind it is an estimate; never applied automatically.
    incomplete : bool
        True when any profile behind it is of a run that broke off.
    placements : tuple of Placement
        Where the replicas of each window stand; empty where the spec names no cells.
    unproven : tuple of str
        Of a plan that is not infeasible: what the twin did not confirm with 95 % confidence.
    stretched : tuple of StretchedPromise
        Promises that no pool keeps: the fleet, the rows that bind it, alternatives and prices are
        for longer times; predictions are judged by what was promised.
    """

    plan_id: str
    model: str
    made_at: datetime
    status: PlanStatus
    usd_per_hour: float
    windows: tuple[PlanWindow, ...]
    objective: tuple[CostTerm, ...]
    binding: tuple[BindingRow, ...]
    rejected: tuple[RejectedAlternative, ...]
    relaxations: tuple[str, ...]
    solver: SolverReport
    inputs: PlanInputs
    estimated: bool
    shadow_prices: tuple[ShadowPrice, ...] = ()
    held_by_others: tuple[Holding, ...] = ()
    incomplete: bool = False
    placements: tuple[Placement, ...] = ()
    unproven: tuple[str, ...] = ()
    stretched: tuple[StretchedPromise, ...] = ()

    @property
    def not_kept(self) -> tuple[str, ...]:
        """In a sentence: promises that no pool keeps, and what was planned for instead."""
        text = stretched_text(self.stretched)
        if not text:
            return ()
        return (
            f"fleet, rows, alternatives and prices are for {text}; what is in SLO is judged by "
            "what was promised",
        )

    @property
    def waits_for_starts(self) -> tuple[str, ...]:
        """In sentences: windows that what is started for them does not serve from the beginning."""
        return tuple(
            f"{window.start_at:%m-%d %H:%M}: replicas that are started serve from "
            f"{window.ready_after_s:.0f} s on, of {window.window_s:.0f} s; until then the fleet "
            "that runs has to do"
            for window in self.windows
            if window.ready_after_s > 0
        )

"""A deployment as its owner describes it: the parsed spec, checked and with defaults."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise

from planner.domain.calibration import CalibrationSettings, Correction, Leg
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.forecast import KnownEvent
from planner.domain.guards import ApprovalPolicy, GuardSettings
from planner.domain.hardware import Accelerator
from planner.domain.model import Dtype, Model, Quality
from planner.domain.plan import Holding
from planner.domain.profile import Profile
from planner.domain.slo import Slo
from planner.domain.target import ClusterTarget
from planner.domain.topology import Cell


class TargetKind(StrEnum):
    """What plans are applied to."""

    DRY_RUN = "dry_run"
    LOCAL = "local"
    KUBERNETES = "kubernetes"
    METRICS = "metrics"


class RoutesBy(StrEnum):
    """What a router can tell requests apart by."""

    REQUEST_CLASS = "request_class"
    UNCACHED_INPUT_TOKENS = "uncached_input_tokens"


class Balancing(StrEnum):
    """How a router chooses among the replicas of a pool.

    least_loaded: by what each has to do. round_robin: in turn, whatever each has to do.
    """

    LEAST_LOADED = "least_loaded"
    ROUND_ROBIN = "round_robin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How requests can be told apart on their way to pools; nothing: the router only balances.

    Parameters
    ----------
    balancing : Balancing
        How it balances.
    by_class : bool
        Requests of different classes may go to different pools.
    bucket_limits : tuple of int
        Uncached prompt tokens at which one bucket of lengths ends and the next begins,
        increasing; requests of different buckets may go to different pools.
    """

    balancing: Balancing = Balancing.LEAST_LOADED
    by_class: bool = False
    bucket_limits: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        limits = self.bucket_limits
        if any(b <= a for a, b in pairwise(limits)) or (limits and limits[0] < 1):
            raise ValueError(f"bucket limits {list(limits)} must increase and be at least 1 token")

    @property
    def buckets(self) -> tuple[tuple[int, int | None], ...]:
        """Each bucket: more uncached tokens than the first number, at most the second."""
        return tuple(zip((0, *self.bucket_limits), (*self.bucket_limits, None), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolBounds:
    """How many replicas of a shape may run, and how fast their number may change.

    Parameters
    ----------
    max_replicas : int or None
        None: as many as the inventory has.
    min_up_s : float
        A started replica is kept at least so long, seconds.
    max_starts, max_stops : int or None
        At most so many come, or go, at the beginning of a window. None: no limit.
    """

    shape: ReplicaShape
    min_replicas: int = 0
    max_replicas: int | None = None
    min_up_s: float = 0.0
    max_starts: int | None = None
    max_stops: int | None = None

    def __post_init__(self) -> None:
        if not self.min_up_s >= 0:
            raise ValueError(f"min_up_s must be at least 0 s, got {self.min_up_s:g}")
        if self.min_replicas < 0:
            raise ValueError(f"min_replicas must be at least 0, got {self.min_replicas}")
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas ({self.max_replicas}) is below min_replicas ({self.min_replicas})"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeSearch:
    """Which replica shapes of a model to consider beside those that `pools` lists.

    Every combination is a candidate; `planner.optimize.shapes` drops those that cannot run.

    Parameters
    ----------
    roles : tuple of Role
    accelerators : tuple of str
        Names of accelerators.
    tp, pp : tuple of int
        Degrees to consider.
    weight_dtypes, kv_dtypes : tuple of (Dtype or None)
        Formats to consider; None: the model's own.
    max_num_batched_tokens, max_num_seqs : tuple of (int or None)
        Engine limits to consider; None: as the profile was measured.
    weight_quality, kv_quality : tuple of (Dtype, Quality)
        How good answers are with a format, as the user judges it.
    min_quality : Quality
        Formats that are judged worse are not considered.
    context_tokens : int or None
        Prompt plus answer that every shape has to hold, tokens; None: any.
    """

    model: str
    roles: tuple[Role, ...]
    accelerators: tuple[str, ...]
    tp: tuple[int, ...]
    pp: tuple[int, ...] = (1,)
    weight_dtypes: tuple[Dtype | None, ...] = (None,)
    kv_dtypes: tuple[Dtype | None, ...] = (None,)
    max_num_batched_tokens: tuple[int | None, ...] = (None,)
    max_num_seqs: tuple[int | None, ...] = (None,)
    weight_quality: tuple[tuple[Dtype, Quality], ...] = ()
    kv_quality: tuple[tuple[Dtype, Quality], ...] = ()
    min_quality: Quality = Quality.LOSSY
    context_tokens: int | None = None

    @property
    def count(self) -> int:
        """How many combinations there are."""
        return (
            len(self.roles)
            * len(self.accelerators)
            * len(self.tp)
            * len(self.pp)
            * len(self.weight_dtypes)
            * len(self.kv_dtypes)
            * len(self.max_num_batched_tokens)
            * len(self.max_num_seqs)
        )

    def quality_of(self, shape: ReplicaShape) -> Quality:
        """The worse of what its formats are judged; what nobody judged is the reference."""
        judged = (
            _judgement(self.weight_quality, shape.weight_dtype),
            _judgement(self.kv_quality, shape.kv_dtype),
        )
        return max(judged, key=lambda quality: quality.steps_down)

    def judges(self, shape: ReplicaShape) -> bool:
        """Whether the user judged every format of the shape that is not the model's own."""
        weights, kv = dict(self.weight_quality), dict(self.kv_quality)
        return shape.weight_dtype in (None, *weights) and shape.kv_dtype in (None, *kv)


def _judgement(quality: tuple[tuple[Dtype, Quality], ...], dtype: Dtype | None) -> Quality:
    return next((q for judged, q in quality if judged is dtype), Quality.REFERENCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits over the whole fleet. None: no limit."""

    usd_per_hour: float | None = None
    power_w: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastSettings:
    """How far to look and how careful to be.

    Parameters
    ----------
    window_s : float
        Length of one planning window, seconds.
    horizon_windows : int
        Windows planned ahead.
    demand_level : float
        Quantile of the forecast that capacity must meet, 0..1.
    choose_level : bool
        The quantile follows from the promise, or from the price of unserved requests, for every
        forecast anew (`planner.optimize.demand_level`); `demand_level` is not looked at.
    events : tuple of KnownEvent
        What people know of past and coming traffic.
    boosted_trees : bool
        Gradient-boosted trees are one more forecasting method, fitted anew every 48 windows.
    """

    window_s: float = 300.0
    horizon_windows: int = 6
    demand_level: float = 0.9
    choose_level: bool = False
    events: tuple[KnownEvent, ...] = ()
    boosted_trees: bool = False

    def __post_init__(self) -> None:
        if not self.window_s > 0:
            raise ValueError(f"window_s must be above 0 s, got {self.window_s:g}")
        if self.horizon_windows < 1:
            raise ValueError("horizon_windows must be at least 1")
        if not 0 < self.demand_level < 1:
            raise ValueError("demand_level must lie between 0 and 1")


class Objective(StrEnum):
    """What is best.

    cost: least USD. power: least energy. accelerators: fewest accelerator-hours. goodput: most
    requests in time within the limits (models of higher priority first), then least USD.
    """

    COST = "cost"
    POWER = "power"
    ACCELERATORS = "accelerators"
    GOODPUT = "goodput"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLink:
    """What KV transfers between some pools may take.

    Parameters
    ----------
    prefill, decode : str or None
        The accelerator type of the prefill and of the decode pools; None: any.
    bytes_per_s : float
    """

    bytes_per_s: float
    prefill: str | None = None
    decode: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningSettings:
    """What is best, and what a plan has to keep beside objectives and budget. None: no limit.

    Parameters
    ----------
    shortfall_usd_per_request : float or None
        Price of an unserved request; None: all demand has to be met.
    spot_share_limit : float or None
        Share of a role's replicas that may be spot, 0..1.
    transfer_bytes_per_s : float or None
        What KV transfers between prefill and decode may take together, bytes/s.
    transfer_links : tuple of TransferLink
        What those may take that cross one link.
    min_prefill_per_decode, max_prefill_per_decode : float or None
        Bounds on prefill replicas per decode replica.
    one_shape_per_role : bool
        All replicas of a role are alike: no mix of accelerators or tensor parallel degrees.
    profile_error_ratio : float
        Plans are made and proven as if every replica were so much slower than its profile says
        (`Spec.cautious`).
    own_profile_error : bool
        By as much as the profile itself states (`Provenance.error_ratio`); then
        `profile_error_ratio` is not looked at.
    """

    objective: Objective = Objective.COST
    shortfall_usd_per_request: float | None = None
    spot_share_limit: float | None = None
    transfer_bytes_per_s: float | None = None
    transfer_links: tuple[TransferLink, ...] = ()
    min_prefill_per_decode: float | None = None
    max_prefill_per_decode: float | None = None
    one_shape_per_role: bool = False
    profile_error_ratio: float = 0.0
    own_profile_error: bool = False

    def __post_init__(self) -> None:
        low, high = self.min_prefill_per_decode, self.max_prefill_per_decode
        if low is not None and high is not None and low > high:
            raise ValueError(
                f"min_prefill_per_decode ({low:g}) is above max_prefill_per_decode ({high:g})"
            )


class LoopMode(StrEnum):
    """What the loop may do by itself."""

    OFF = "off"
    ADVISE = "advise"
    APPROVE = "approve"
    AUTO = "auto"


class Stage(StrEnum):
    """A part of a tick that has a deadline of its own. plan: with the twin's proof of the plan."""

    OBSERVE = "observe"
    FORECAST = "forecast"
    PLAN = "plan"
    APPLY = "apply"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDeadlines:
    """How long a tick waits for each of its stages, seconds.

    Parameters
    ----------
    apply_s : float
        A rollout that takes longer goes on; only the tick ends.
    """

    observe_s: float = 30.0
    forecast_s: float = 120.0
    plan_s: float = 600.0
    apply_s: float = 1800.0

    def of(self, stage: Stage) -> float:
        """The deadline of a stage, seconds."""
        by_stage = {
            Stage.OBSERVE: self.observe_s,
            Stage.FORECAST: self.forecast_s,
            Stage.PLAN: self.plan_s,
            Stage.APPLY: self.apply_s,
        }
        return by_stage[stage]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """When the loop acts, and the solver's limits.

    Parameters
    ----------
    slow_interval_s : float
        Seconds between slow ticks.
    fast_interval_s : float
        Seconds between fast ticks, which look at waiting work only; 0: none.
    deadlines : StageDeadlines
        Of a slow tick.
    seed : int
        For the twin and the solver.
    solver_time_limit_s : float
    """

    mode: LoopMode = LoopMode.APPROVE
    slow_interval_s: float = 60.0
    fast_interval_s: float = 0.0
    deadlines: StageDeadlines = field(default_factory=StageDeadlines)
    seed: int = 0
    solver_time_limit_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One deployment: models, promises, hardware, bounds, target, settings.

    Parameters
    ----------
    spec_id : str
        Derived from the file's content.
    name : str
        The deployment's name.
    pools : tuple of PoolBounds
        The shapes that may be planned; every one has a profile. Those that `shapes` found come
        after those that the spec lists.
    shapes : tuple of ShapeSearch
        Which further shapes were considered.
    cells : tuple of Cell
        Topology cells of the target; empty: one that holds everything.
    held_by_others : tuple of Holding
        What was taken from inventory and budget because other models hold it (`plan_together`);
        not part of the file.
    corrections : tuple of Correction
        By how much `profiles` were corrected (`corrected`); not part of the file.
    """

    spec_id: str
    name: str
    models: tuple[Model, ...]
    slos: tuple[Slo, ...]
    accelerators: tuple[Accelerator, ...]
    profiles: tuple[Profile, ...]
    pools: tuple[PoolBounds, ...]
    target: TargetKind = TargetKind.DRY_RUN
    cluster: ClusterTarget = field(default_factory=ClusterTarget)
    routing: Routing = field(default_factory=Routing)
    budget: Budget = field(default_factory=Budget)
    planning: PlanningSettings = field(default_factory=PlanningSettings)
    forecast: ForecastSettings = field(default_factory=ForecastSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    guards: GuardSettings = field(default_factory=GuardSettings)
    approval: ApprovalPolicy = field(default_factory=ApprovalPolicy)
    shapes: tuple[ShapeSearch, ...] = ()
    cells: tuple[Cell, ...] = ()
    held_by_others: tuple[Holding, ...] = ()
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    corrections: tuple[Correction, ...] = ()

    def accelerator(self, name: str) -> Accelerator:
        """The accelerator of this name.

        Raises
        ------
        KeyError
            When the spec has none of this name (the reader refuses such specs).
        """
        return {a.name: a for a in self.accelerators}[name]

    def model(self, name: str) -> Model:
        """The model of this name.

        Raises
        ------
        KeyError
            When the spec has none of this name (the reader refuses such specs).
        """
        return {m.name: m for m in self.models}[name]

    def normalized(self, shape: ReplicaShape) -> ReplicaShape:
        """The same shape, with formats that are the model's own left open."""
        weights, kv = self.model(shape.model).left_open(shape.weight_dtype, shape.kv_dtype)
        return replace(shape, weight_dtype=weights, kv_dtype=kv)

    def priority_of(self, model: str) -> int:
        """Of the model where several compete; 0 for one that the spec does not have."""
        return next((m.priority for m in self.models if m.name == model), 0)

    def profile_of(self, shape: ReplicaShape) -> Profile | None:
        """The profile that describes this shape, or None."""
        return next((p for p in self.profiles if p.describes(shape)), None)

    def error_ratio_of(self, shape: ReplicaShape) -> float:
        """How much slower than its profile a replica is planned to be, ratio."""
        if not self.planning.own_profile_error:
            return self.planning.profile_error_ratio
        profile = self.profile_of(shape)
        return 0.0 if profile is None else profile.provenance.error_ratio

    @property
    def trusting(self) -> "Spec":
        """The same spec with replicas as fast as profiled."""
        planning = replace(self.planning, profile_error_ratio=0.0, own_profile_error=False)
        return replace(self, planning=planning)

    @property
    def cautious(self) -> "Spec":
        """The same spec with profiles as slow as it says that replicas may be, and trusted."""
        own, given = self.planning.own_profile_error, self.planning.profile_error_ratio
        errors = [p.provenance.error_ratio if own else given for p in self.profiles]
        if max(errors, default=0.0) <= 0:
            return self
        slowed = tuple(p.slowed(1 + e) for p, e in zip(self.profiles, errors, strict=True))
        return replace(self.trusting, profiles=slowed)

    def corrected(self, corrections: tuple[Correction, ...]) -> "Spec":
        """The same spec with profiles as their replicas are seen to be."""
        counted = tuple(c for c in corrections if c.factor != 1.0)
        if not counted:
            return self
        factors = {(c.profile_id, c.leg): c.factor for c in counted}
        profiles = tuple(
            profile.lasting(
                prefill=factors.get((profile.profile_id, Leg.PREFILL), 1.0),
                decode=factors.get((profile.profile_id, Leg.DECODE), 1.0),
            )
            for profile in self.profiles
        )
        return replace(self, profiles=profiles, corrections=counted)

    def slo_of(self, model: str, request_class: str) -> Slo | None:
        """The promise to this class, or None."""
        return next(
            (s for s in self.slos if (s.model, s.request_class) == (model, request_class)), None
        )

    def bounds_in(self, role: Role, *, model: str) -> tuple[PoolBounds, ...]:
        """Pool bounds of one role of one model."""
        return tuple(b for b in self.pools if b.shape.role == role and b.shape.model == model)

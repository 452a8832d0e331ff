"""Bounds on what a rollout may do, and who has to agree: as the owner of a deployment sets them."""

from dataclasses import dataclass, field
from datetime import datetime, time, timedelta, tzinfo
from enum import StrEnum

from planner.domain.fleet import Role


class RoleMode(StrEnum):
    """What may happen to the replicas of a role.

    off: they are left alone. advise: the loop leaves them alone, a person may apply. apply: all.
    """

    OFF = "off"
    ADVISE = "advise"
    APPLY = "apply"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleGuard:
    """Bounds on one role, over all its pools together.

    Parameters
    ----------
    max_replicas : int or None
        None: no limit beside those of its pools.
    """

    mode: RoleMode = RoleMode.APPLY
    min_replicas: int = 0
    max_replicas: int | None = None

    def __post_init__(self) -> None:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas ({self.max_replicas}) is below min_replicas ({self.min_replicas})"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """How much of a role may come, or go, within a period. None: no limit.

    Parameters
    ----------
    enabled : bool
        False: this direction is forbidden.
    replicas : int or None
        So many replicas.
    ratio : float or None
        This share of the replicas that the role has now, but at least one; 1 doubles them.
        Where both are given, the larger one counts, as in HPA's `selectPolicy: Max`.
    period_s : float
        Seconds.
    """

    enabled: bool = True
    replicas: int | None = None
    ratio: float | None = None
    period_s: float = 60.0

    def allowed(self, present: int) -> int | None:
        """Replicas that may come or go within the period, of a role that has `present`."""
        amounts = [self.replicas] if self.replicas is not None else []
        if self.ratio is not None:
            # 0.29 x 100 is 28.999999999999996 in floating point, and means 29.
            amounts.append(max(1, int(self.ratio * present + 1e-9)))
        return max(amounts, default=None)


class Pause(StrEnum):
    """Which direction a person has forbidden for now."""

    NONE = "none"
    IN = "in"
    OUT = "out"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A pool that is held at a number of replicas; `pool` is its label, as `decode:h100:tp1`."""

    pool: str
    replicas: int


class Fallback(StrEnum):
    """What to have when the load cannot be seen.

    current: what there is. static: the replicas that were set. higher, lower: the larger, the
    smaller of both.
    """

    CURRENT = "current"
    STATIC = "static"
    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeWindow:
    """A time in which nothing moves (`deny`), or the only times in which something may.

    Either weekly (`days`, `from_time`, `to_time` in `zone`) or once (`start_at`, `end_at`).

    Parameters
    ----------
    deny : bool
        False: an allow window. Where there are any, things move only inside one; deny beats allow.
    days : tuple of int
        Days on which it begins, 0 is Monday; empty: every day.
    from_time, to_time : time
        Local; a `to_time` that is not later is on the next day, so equal ones are 24 hours.
    zone : tzinfo or None
        Needed for weekly ones.
    manual : bool
        Plans that a person approved may be applied all the same.
    """

    deny: bool = True
    days: tuple[int, ...] = ()
    from_time: time | None = None
    to_time: time | None = None
    zone: tzinfo | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    manual: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        once = self.start_at is not None and self.end_at is not None
        weekly = None not in (self.from_time, self.to_time, self.zone)
        if once == weekly:
            raise ValueError(
                "a freeze window has start_at and end_at, or from_time, to_time and time_zone"
            )
        if self.start_at is not None and self.end_at is not None and self.end_at <= self.start_at:
            raise ValueError("end_at of a freeze window must be later than start_at")

    def holds(self, at: datetime) -> bool:
        """Whether the instant lies inside."""
        if self.start_at is not None and self.end_at is not None:
            return self.start_at <= at < self.end_at
        local = at.astimezone(self.zone)
        return any(self._begins_on(local - timedelta(days=back), local) for back in (0, 1))

    def _begins_on(self, day: datetime, local: datetime) -> bool:
        """Whether the window that begins on this day holds the local instant (wall clock)."""
        if self.from_time is None or self.to_time is None:
            return False
        if self.days and day.weekday() not in self.days:
            return False
        begin = datetime.combine(day.date(), self.from_time)
        end = datetime.combine(day.date(), self.to_time)
        if end <= begin:
            end += timedelta(days=1)
        return begin <= local.replace(tzinfo=None) < end


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """Bounds on what a rollout may do.

    Parameters
    ----------
    max_disrupted_replicas : int
        Replicas taken out of service at once.
    scale_down_stabilization_s : float
        No role gets less capacity than any decision within so long wanted, seconds.
    hand_edit_hold_s : float
        What somebody else changed is not changed back for so long, seconds.
    broken_backoff_s : float
        Replicas whose pod template does not start are not tried again for so long, which doubles
        with each failure, seconds; 0: they are tried again by every plan.
    stale_observation_s : float
        Older observations forbid scale-down, seconds.
    prefill, decode, aggregated : RoleGuard
        Modes and hard limits by role.
    max_accelerators : int or None
        Over all roles and types; None: what the inventory has.
    scale_up, scale_down : RateLimit
    scale_up_tolerance_ratio, scale_down_tolerance_ratio : float
        Dead band: while the load of every role differs by less from the one that the fleet was
        last planned for, nothing grows, or shrinks.
    one_scale_up_at_a_time : bool
        While replicas of a role start, no further ones are started.
    max_dip_ratio : float
        A diff whose predicted loss of capacity on the way is larger needs a person, 0..1.
    pause : Pause
    pins : tuple of Pin
    freeze_windows : tuple of FreezeWindow
    scale_to_zero : bool
        Prefill and decode, together, may both go to zero.
    zero_after_idle_s : float
        They go when nothing arrived for so long, seconds.
    activation_rps : float
        They come back when more requests/s are forecast.
    fallback : Fallback
    fallback_after : int
        Ticks in a row that could not see the load before `fallback` counts.
    fallback_pools : tuple of Pin
        For `static`, `higher` and `lower`.
    roll_back_late_plans : bool
        A plan of which a step missed its progress deadline is rolled back by itself.
    """

    max_disrupted_replicas: int = 1
    scale_down_stabilization_s: float = 300.0
    hand_edit_hold_s: float = 300.0
    broken_backoff_s: float = 600.0
    stale_observation_s: float = 180.0
    prefill: RoleGuard = field(default_factory=RoleGuard)
    decode: RoleGuard = field(default_factory=RoleGuard)
    aggregated: RoleGuard = field(default_factory=RoleGuard)
    max_accelerators: int | None = None
    scale_up: RateLimit = field(default_factory=RateLimit)
    scale_down: RateLimit = field(default_factory=RateLimit)
    scale_up_tolerance_ratio: float = 0.0
    scale_down_tolerance_ratio: float = 0.05
    one_scale_up_at_a_time: bool = True
    max_dip_ratio: float = 0.1
    pause: Pause = Pause.NONE
    pins: tuple[Pin, ...] = ()
    freeze_windows: tuple[FreezeWindow, ...] = ()
    scale_to_zero: bool = False
    zero_after_idle_s: float = 900.0
    activation_rps: float = 0.0
    fallback: Fallback = Fallback.CURRENT
    fallback_after: int = 3
    fallback_pools: tuple[Pin, ...] = ()
    roll_back_late_plans: bool = True

    def of_role(self, role: Role) -> RoleGuard:
        """Mode and limits of a role."""
        by_role = {
            Role.PREFILL: self.prefill,
            Role.DECODE: self.decode,
            Role.AGGREGATED: self.aggregated,
        }
        return by_role[role]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalPolicy:
    """Which changes need a person, or two.

    Parameters
    ----------
    auto_below_replicas : int
        A diff that touches fewer replicas is approved by the policy itself; 0: never by size.
    auto_below_usd_per_hour : float or None
        A diff that changes the price of the fleet by less is approved by the policy itself. Where
        both are set, both have to hold.
    two_persons_from_replicas : int or None
        A diff that touches so many replicas needs two persons; None: one is enough.
    two_persons_from_usd_per_hour : float or None
        The same by the change of the price, USD/h.
    requester_may_approve : bool
        False: who asked for a plan is none of those who approve it.
    expires_s : float
        A pending plan expires after so long, seconds.
    approved_expires_s : float or None
        An approved plan that was not applied expires after so long, seconds; None: never.
    """

    auto_below_replicas: int = 0
    auto_below_usd_per_hour: float | None = None
    two_persons_from_replicas: int | None = None
    two_persons_from_usd_per_hour: float | None = None
    requester_may_approve: bool = True
    expires_s: float = 3600.0
    approved_expires_s: float | None = None

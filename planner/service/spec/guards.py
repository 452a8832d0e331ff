"""The written spec's `guards` and `approval`: what a rollout may do, and who has to agree."""

from datetime import time
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from planner.domain.guards import (
    ApprovalPolicy,
    Fallback,
    FreezeWindow,
    GuardSettings,
    Pause,
    Pin,
    RateLimit,
    RoleGuard,
    RoleMode,
)
from planner.service.spec.part import Name, SpecPart

_GUARDS = GuardSettings()
_APPROVAL = ApprovalPolicy()
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_YEAR_S = 366 * 86_400

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Clock = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$")]
Count = Annotated[int, Field(ge=0, le=10**6)]


class RolePart(SpecPart):
    """What may happen to the replicas of a role, over all its pools together."""

    mode: RoleMode = Field(
        default=RoleMode.APPLY,
        description="off (left alone), advise (moved by a person only), apply",
    )
    min_replicas: int = Field(default=0, ge=0, le=10**6, description="at least so many, count")
    max_replicas: Count | None = Field(
        default=None, description="at most so many, count; default: no limit"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise PydanticCustomError("bounds", "max_replicas is below min_replicas")
        return self

    @property
    def settings(self) -> RoleGuard:
        """The same as a value."""
        return RoleGuard(
            mode=self.mode, min_replicas=self.min_replicas, max_replicas=self.max_replicas
        )


class RatePart(SpecPart):
    """How much of a role may come, or go, within a period; of two limits the larger counts."""

    enabled: bool = Field(default=True, description="false: this direction is forbidden")
    replicas: Count | None = Field(default=None, description="so many replicas, count")
    ratio: float | None = Field(
        default=None,
        gt=0,
        le=1e3,
        description="this share of the role's replicas, at least one replica; 1 doubles them",
    )
    period_s: float = Field(default=60.0, gt=0, le=_YEAR_S, description="within so long, seconds")

    @property
    def settings(self) -> RateLimit:
        """The same as a value."""
        return RateLimit(
            enabled=self.enabled, replicas=self.replicas, ratio=self.ratio, period_s=self.period_s
        )


class PinPart(SpecPart):
    """A pool that has so many replicas."""

    pool: Name = Field(description="the pool's label, such as decode:h100:tp1")
    replicas: Count = Field(description="count")


class FreezeWindowPart(SpecPart):
    """A time in which nothing moves, or (allow) the only times in which something may.

    Weekly by `days`, `from`, `to` and `time_zone`, or once by `start_at` and `end_at`.
    """

    kind: Literal["deny", "allow"] = Field(
        default="deny", description="deny beats allow; outside of allow windows nothing moves"
    )
    days: list[Day] = Field(
        default_factory=list, description="days on which it begins; default: every day"
    )
    from_time: Clock | None = Field(default=None, alias="from", description="HH:MM, local time")
    to_time: Clock | None = Field(
        default=None,
        alias="to",
        description="HH:MM, local time; not later than `from`: on the next day",
    )
    time_zone: str | None = Field(default=None, description="such as Europe/Berlin or UTC")
    start_at: AwareDatetime | None = Field(default=None, description="first instant, with offset")
    end_at: AwareDatetime | None = Field(default=None, description="first instant after it")
    manual: bool = Field(
        default=False, description="plans that a person approved may be applied all the same"
    )
    reason: str = Field(default="", max_length=200, description="for those who are held up")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, given: str | None) -> str | None:
        try:
            return given if given is None or ZoneInfo(given) else None
        except (KeyError, ValueError, OSError) as error:
            raise PydanticCustomError(
                "time_zone", "no time zone is called so; write one such as Europe/Berlin or UTC"
            ) from error

    @model_validator(mode="after")
    def _one_kind_of_schedule(self) -> Self:
        weekly = (self.from_time, self.to_time, self.time_zone)
        once = (self.start_at, self.end_at)
        is_weekly = None not in weekly and once == (None, None)
        is_once = None not in once and weekly == (None, None, None) and not self.days
        if is_weekly == is_once:
            raise PydanticCustomError(
                "freeze_window", "give from, to and time_zone, or start_at and end_at"
            )
        if self.start_at is not None and self.end_at is not None and self.end_at <= self.start_at:
            raise PydanticCustomError("freeze_window", "end_at must be later than start_at")
        return self

    @property
    def settings(self) -> FreezeWindow:
        """The same as a value."""
        return FreezeWindow(
            deny=self.kind == "deny",
            days=tuple(_DAYS.index(day) for day in self.days),
            from_time=_time(self.from_time),
            to_time=_time(self.to_time),
            zone=None if self.time_zone is None else ZoneInfo(self.time_zone),
            start_at=self.start_at,
            end_at=self.end_at,
            manual=self.manual,
            reason=self.reason,
        )


def _time(clock: str | None) -> time | None:
    """24:00 is the next day's 00:00, which `FreezeWindow` reads an earlier `to_time` as."""
    if clock is None:
        return None
    return time.fromisoformat("00:00" if clock == "24:00" else clock)


class GuardsPart(SpecPart):
    """Bounds on what a rollout may do."""

    max_disrupted_replicas: int = Field(
        default=_GUARDS.max_disrupted_replicas,
        ge=1,
        le=10**6,
        description="replicas taken out of service at once, count",
    )
    max_dip_ratio: float = Field(
        default=_GUARDS.max_dip_ratio,
        ge=0,
        le=1,
        description="a rollout that is predicted to lack more capacity on its way needs a person, "
        "share of the worse of both end fleets, 0..1",
    )
    scale_down_stabilization_s: float = Field(
        default=_GUARDS.scale_down_stabilization_s,
        ge=0,
        le=1e9,
        description="no role gets less capacity than any decision within so long wanted, seconds",
    )
    hand_edit_hold_s: float = Field(
        default=_GUARDS.hand_edit_hold_s,
        ge=0,
        le=1e9,
        description="a count that somebody else changed is not changed back for so long, seconds",
    )
    broken_backoff_s: float = Field(
        default=_GUARDS.broken_backoff_s,
        ge=0,
        le=1e9,
        description="replicas whose image or container does not start are not tried again for so "
        "long, which doubles with each failure up to a day, seconds; 0: every plan tries",
    )
    stale_observation_s: float = Field(
        default=_GUARDS.stale_observation_s,
        gt=0,
        le=1e9,
        description="older observations forbid scale-down, seconds",
    )
    prefill: RolePart = Field(default_factory=RolePart, description="mode and limits of prefill")
    decode: RolePart = Field(default_factory=RolePart, description="mode and limits of decode")
    aggregated: RolePart = Field(
        default_factory=RolePart, description="mode and limits of aggregated"
    )
    max_accelerators: Count | None = Field(
        default=None, description="over all roles, count; default: what the inventory has"
    )
    scale_up: RatePart = Field(default_factory=RatePart, description="how fast a role may grow")
    scale_down: RatePart = Field(default_factory=RatePart, description="how fast a role may shrink")
    scale_up_tolerance_ratio: float = Field(
        default=_GUARDS.scale_up_tolerance_ratio,
        ge=0,
        le=1,
        description="nothing grows while the load is within this share of the planned one",
    )
    scale_down_tolerance_ratio: float = Field(
        default=_GUARDS.scale_down_tolerance_ratio,
        ge=0,
        le=1,
        description="nothing shrinks while the load is within this share of the planned one",
    )
    one_scale_up_at_a_time: bool = Field(
        default=_GUARDS.one_scale_up_at_a_time,
        description="while replicas of a role start, no further ones are started",
    )
    pause: Pause = Field(
        default=_GUARDS.pause, description="none, in (nothing shrinks), out (nothing grows), all"
    )
    pins: list[PinPart] = Field(
        default_factory=list, description="pools held at a number of replicas"
    )
    freeze_windows: list[FreezeWindowPart] = Field(
        default_factory=list, description="when nothing may move"
    )
    scale_to_zero: bool = Field(
        default=_GUARDS.scale_to_zero,
        description="all roles may go to zero together when nothing arrives",
    )
    zero_after_idle_s: float = Field(
        default=_GUARDS.zero_after_idle_s,
        ge=0,
        le=_YEAR_S,
        description="they go when nothing arrived for so long, seconds",
    )
    activation_rps: float = Field(
        default=_GUARDS.activation_rps,
        ge=0,
        le=1e9,
        description="they come back when more is forecast, requests/s",
    )
    fallback: Fallback = Field(
        default=_GUARDS.fallback,
        description="when the load cannot be seen: current, static, higher or lower",
    )
    fallback_after: int = Field(
        default=_GUARDS.fallback_after,
        ge=1,
        le=10**6,
        description="ticks in a row without seeing the load before fallback counts, count",
    )
    fallback_pools: list[PinPart] = Field(
        default_factory=list, description="replicas for static, higher and lower"
    )
    roll_back_late_plans: bool = Field(
        default=_GUARDS.roll_back_late_plans,
        description="a plan of which a step missed its progress deadline is rolled back by itself; "
        "of one that only adds, replicas that serve already stay",
    )

    @model_validator(mode="after")
    def _fallback_is_told(self) -> Self:
        if self.fallback is not Fallback.CURRENT and not self.fallback_pools:
            raise PydanticCustomError(
                "fallback", "fallback {kind} needs fallback_pools", {"kind": self.fallback.value}
            )
        return self

    @property
    def settings(self) -> GuardSettings:
        """The same as a value."""
        plain = self.model_dump(exclude=_NESTED)
        return GuardSettings(
            **plain,
            prefill=self.prefill.settings,
            decode=self.decode.settings,
            aggregated=self.aggregated.settings,
            scale_up=self.scale_up.settings,
            scale_down=self.scale_down.settings,
            pins=_pins(self.pins),
            freeze_windows=tuple(window.settings for window in self.freeze_windows),
            fallback_pools=_pins(self.fallback_pools),
        )


_NESTED = {
    "prefill",
    "decode",
    "aggregated",
    "scale_up",
    "scale_down",
    "pins",
    "freeze_windows",
    "fallback_pools",
}


def _pins(parts: list[PinPart]) -> tuple[Pin, ...]:
    return tuple(Pin(pool=part.pool, replicas=part.replicas) for part in parts)


class ApprovalPart(SpecPart):
    """Which changes need a person, or two."""

    auto_below_replicas: int = Field(
        default=_APPROVAL.auto_below_replicas,
        ge=0,
        le=10**6,
        description="a diff that touches fewer replicas is approved by policy; 0: never by size",
    )
    auto_below_usd_per_hour: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="a diff that changes the price by less is approved by policy, USD/h; where "
        "both limits are set, both have to hold",
    )
    two_persons_from_replicas: int | None = Field(
        default=None, ge=0, le=10**6, description="a diff that touches so many needs two, count"
    )
    two_persons_from_usd_per_hour: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="a diff that changes the price by so much needs two persons, USD/h",
    )
    requester_may_approve: bool = Field(
        default=_APPROVAL.requester_may_approve,
        description="false: who asked for a plan must not approve it",
    )
    expires_s: float = Field(
        default=_APPROVAL.expires_s,
        gt=0,
        le=1e9,
        description="a pending plan expires after, seconds",
    )
    approved_expires_s: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="an approved plan that was not applied expires after, seconds; default: never",
    )

"""The fast decision: seconds, queued tokens, no solver; one role flip, or replicas more."""

import math
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from planner.autoscale.backlog import Backlog
from planner.autoscale.surge import ReplicaStart, relief, starts
from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role
from planner.domain.forecast import Forecast, ForecastWindow
from planner.domain.guards import Pin
from planner.domain.hardware import PurchaseOption
from planner.domain.profile import Profile
from planner.domain.slo import Slo
from planner.domain.spec import Spec
from planner.optimize import with_demand_level
from planner.optimize.loads import strictest_slo
from planner.rollout import GuardConditions, Recommended

_RELAXED = 0.7
"""The role that gives a replica up stays below this pressure without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleFlip:
    """One replica that changes its role."""

    shape: ReplicaShape
    to_shape: ReplicaShape
    purchase_option: PurchaseOption


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """What the fast loop proposes.

    Parameters
    ----------
    prefill_pressure, decode_pressure : float
        Backlog over what the ready replicas work off within the objective; above 1 the objective
        is about to be missed. Infinite when there is work and no replica.
    """

    prefill_pressure: float
    decode_pressure: float
    flip: RoleFlip | None
    reason: str
    starts: tuple[ReplicaStart, ...] = ()


def react(
    spec: Spec,
    fleet: Fleet,
    backlog: Backlog,
    *,
    now: datetime,
    forecast: Forecast | None = None,
    can_flip: bool = True,
) -> Reaction:
    """Whether one replica should change its role, or more start, because of the backlog.

    Prefill pressure is the time to compute the waiting prompts over the TTFT objective; decode
    pressure is the number of sequences over the batches that keep the TPOT objective. Replicas are
    started only where no other role has one to spare, and more arrives than the fleet was planned
    for (the forecast at the level that the spec plans for): what was planned for is the slow
    decision's business, which would order the same when its next window is over. As many start at
    once, of both roles, as `planner.autoscale.surge` finds missing. More sequences than fit into
    decode batches do not go by themselves, whatever was expected: answers take many steps, and a
    router that takes turns keeps sending to a replica with a full line. For these decode replicas
    are started as well, and already when the sequences grow so that there will be more before a
    replica that is ordered now can serve.

    Parameters
    ----------
    forecast : Forecast or None
        What the present fleet was planned for; None: nothing is started.
    can_flip : bool
        Whether the target can change the role of a running replica.

    Raises
    ------
    SpecError
        When the model has no objectives.

    References
    ----------
    Token backlog as the signal: llm-d's prefill formula and TokenScale (see `docs`).
    """
    slo = strictest_slo(spec, backlog.model, ())
    pressure = _pressures(spec, fleet, backlog, slo)
    flip, more, reason = _help(
        spec, fleet, backlog, slo, now=now, forecast=forecast, can_flip=can_flip
    )
    return Reaction(
        prefill_pressure=pressure[Role.PREFILL],
        decode_pressure=pressure[Role.DECODE],
        flip=flip,
        starts=more,
        reason=reason,
    )


def kept_by_waiting(
    spec: Spec, fleet: Fleet, backlog: Backlog, *, now: datetime
) -> Recommended | None:
    """What the work that waits needs to stay, as one more recommendation for the guards.

    A role has nothing to spare that would be at or above `_RELAXED` pressure without one of its
    replicas; of other roles nothing is wanted. None: all have, or the backlog is stale.

    Raises
    ------
    SpecError
        When the model has no objectives.
    """
    age_s = (now - backlog.observed_at).total_seconds()
    if age_s > spec.guards.stale_observation_s:
        return None
    slo = strictest_slo(spec, backlog.model, ())
    own = [p for p in fleet.pools if p.shape.model == backlog.model and p.ready > 0]
    kept = [
        Pin(pool=pool.shape.label, replicas=pool.replicas)
        for pool in own
        if _pressures(spec, fleet, backlog, slo, without=pool).get(pool.shape.role, 0.0) >= _RELAXED
    ]
    return Recommended(at=now, pools=tuple(kept)) if kept else None


def keeping_what_waits(
    conditions: GuardConditions, spec: Spec, fleet: Fleet, backlog: Backlog
) -> GuardConditions:
    """Conditions in which guards keep what the waiting work needs (`kept_by_waiting`)."""
    kept = kept_by_waiting(spec, fleet, backlog, now=conditions.now)
    if kept is None:
        return conditions
    return replace(conditions, recommended=(kept, *conditions.recommended))


def _help(
    spec: Spec,
    fleet: Fleet,
    backlog: Backlog,
    slo: Slo,
    *,
    now: datetime,
    forecast: Forecast | None,
    can_flip: bool,
) -> tuple[RoleFlip | None, tuple[ReplicaStart, ...], str]:
    age_s = (now - backlog.observed_at).total_seconds()
    if age_s > spec.guards.stale_observation_s:
        return None, (), f"hold: the backlog is {age_s:.0f} s old"
    pressure = _pressures(spec, fleet, backlog, slo)
    to = max((Role.PREFILL, Role.DECODE), key=lambda role: pressure[role])
    giving = Role.DECODE if to is Role.PREFILL else Role.PREFILL
    text = f"{to} pressure {pressure[to]:.2f}, {giving} pressure {pressure[giving]:.2f}"
    if pressure[to] <= 1:
        more = _growing(spec, fleet, backlog, slo, forecast, now=now)
        return None, more, _told(more, text, "sequences grow beyond what decode batches take")
    if any(p.starting for p in fleet.pools if _is(p, backlog.model, to)):
        return None, (), f"hold: {text}, but a {to} replica is starting already"
    flip = _flip(spec, fleet, backlog, slo, to) if can_flip else None
    if flip is not None:
        return flip, (), f"flip one {flip.shape.label} to {to}: {text}"
    text += f", and {giving} has no replica to spare" if can_flip else ""
    window = _expected(forecast, now)
    beyond = "" if window is None or forecast is None else _beyond(spec, backlog, forecast, window)
    more = starts(spec, fleet, backlog, window) if window is not None and beyond else ()
    if not more and window is not None and to is Role.DECODE:
        more = relief(spec, fleet, backlog.model, pressure=pressure[to])
        beyond = "more sequences are there than decode batches take"
    return None, more, _told(more, text, beyond)


def _told(more: tuple[ReplicaStart, ...], text: str, why: str) -> str:
    if not more:
        return f"hold: {text}"
    counts = " and ".join(f"{start.replicas} of {start.shape.label}" for start in more)
    return f"start {counts}: {text}; {why}"


def _growing(
    spec: Spec,
    fleet: Fleet,
    backlog: Backlog,
    slo: Slo,
    forecast: Forecast | None,
    *,
    now: datetime,
) -> tuple[ReplicaStart, ...]:
    """Decode replicas for the sequences that there will be when one that is ordered now serves.

    None where more arrives than even the highest quantile of the forecast: a surge needs both
    roles, and one that is ordered alone would hold the other up until it is there.
    """
    window = _expected(forecast, now)
    if window is None or _more(backlog, window, level=1.0):
        return ()
    pools = [p for p in fleet.pools if _is(p, backlog.model, Role.DECODE)]
    profiles = [spec.profile_of(p.shape) for p in pools]
    start_s = max((p.lifecycle.start_warm_s for p in profiles if p is not None), default=0.0)
    if backlog.request_rate_rps is None or any(p.starting for p in pools):
        return ()
    later = replace(backlog, decoding_sequences=math.ceil(backlog.sequences_in(start_s)))
    pressure = _pressures(spec, fleet, later, slo)[Role.DECODE]
    return relief(spec, fleet, backlog.model, pressure=pressure) if pressure > 1 else ()


def _flip(spec: Spec, fleet: Fleet, backlog: Backlog, slo: Slo, to: Role) -> RoleFlip | None:
    giving = Role.DECODE if to is Role.PREFILL else Role.PREFILL
    for giver in fleet.pools:
        receiver = _receiver(spec, giver, to)
        if not _is(giver, backlog.model, giving) or giver.ready < 1 or receiver is None:
            continue
        left = _pressures(spec, fleet, backlog, slo, without=giver)[giving]
        if left < _RELAXED and fleet.replicas(giving, model=backlog.model) > 1:
            return RoleFlip(
                shape=giver.shape, to_shape=receiver, purchase_option=giver.purchase_option
            )
    return None


def _expected(forecast: Forecast | None, now: datetime) -> ForecastWindow | None:
    """The window of the forecast that now lies in."""
    windows = () if forecast is None else forecast.windows
    return next((w for w in windows if w.start_at <= now < w.end_at), None)


def _beyond(spec: Spec, backlog: Backlog, forecast: Forecast, window: ForecastWindow) -> str:
    """By how much more arrives than was planned for; empty: it does not."""
    return _more(backlog, window, level=with_demand_level(spec, forecast).forecast.demand_level)


def _more(backlog: Backlog, window: ForecastWindow, *, level: float) -> str:
    """By how much more arrives than a quantile of the forecast; empty: it does not."""
    planned_rps = sum(d.request_rate_rps.at(level) for d in window.demands)
    planned_tokens = sum(d.input_tokens_per_s.at(level) for d in window.demands)
    for came, planned, unit in (
        (backlog.request_rate_rps, planned_rps, "requests/s"),
        (backlog.input_tokens_per_s, planned_tokens, "prompt tokens/s"),
    ):
        if came is not None and came > planned:
            return f"{came:.3g} {unit} arrive, {planned:.3g} were expected"
    return ""


def _receiver(spec: Spec, giver: Pool, to: Role) -> ReplicaShape | None:
    """The shape of the other role by the same engine, if the spec lets it grow."""
    mine = giver.shape
    for bounds in spec.bounds_in(to, model=mine.model):
        other = bounds.shape
        if other.engine == mine.engine:
            return None if bounds.max_replicas == 0 else other
    return None


def _pressures(
    spec: Spec, fleet: Fleet, backlog: Backlog, slo: Slo, *, without: Pool | None = None
) -> dict[Role, float]:
    tokens_per_s = sequences = 0.0
    for pool in fleet.pools:
        profile = spec.profile_of(pool.shape)
        ready = pool.ready - (pool is without)
        if profile is None or pool.shape.model != backlog.model:
            continue
        if pool.shape.role is Role.PREFILL:
            tokens_per_s += ready * _prefill_tokens_per_s(profile)
        if pool.shape.role is Role.DECODE:
            sequences += ready * batch_in_time(profile, slo, backlog.context_tokens)
    return {
        Role.PREFILL: _ratio(backlog.waiting_prompt_tokens, tokens_per_s * slo.ttft_s),
        Role.DECODE: _ratio(backlog.decoding_sequences, sequences),
    }


def _prefill_tokens_per_s(profile: Profile) -> float:
    """Rate at the engine's chunk size, or at the longest measured prompt if that is shorter."""
    chunk = min(float(profile.limits.max_num_batched_tokens), float(profile.prefill.x[-1]))
    return chunk / float(profile.prefill.extended_at(chunk, 0.0))


def batch_in_time(profile: Profile, slo: Slo, context_tokens: float) -> float:
    """Most sequences whose step keeps the TPOT objective, within the engine's limits."""
    largest = int(min(float(profile.limits.max_num_seqs), float(profile.decode_step.x[-1])))
    batches = np.arange(1, largest + 1, dtype=np.float64)
    # The context of a running batch is a fact, so it may lie beyond what was measured.
    in_time = profile.decode_step.extended_at(batches, context_tokens) <= slo.tpot_s
    fits = batches * context_tokens <= profile.limits.kv_capacity_tokens
    return float(batches[in_time & fits].max(initial=0.0))


def _ratio(work: float, ability: float) -> float:
    if work <= 0:
        return 0.0
    return work / ability if ability > 0 else float("inf")


def _is(pool: Pool, model: str, role: Role) -> bool:
    return pool.shape.model == model and pool.shape.role is role

"""The whole deployment from its parts: every request once, each figure from whoever sees it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from planner.domain.fleet import Role
from planner.domain.spec import Spec
from serving.telemetry.expected import expect
from serving.telemetry.interval import latency_of
from serving.telemetry.legs import TwoLegs
from serving.telemetry.prices import NO_SPEC, usd_per_hour, usd_per_million_tokens
from serving.telemetry.promises import Experience, kept
from serving.telemetry.signals import (
    Activity,
    DeploymentSignals,
    Latency,
    RoleSignals,
    Signal,
    SloSignals,
    TargetKind,
    TargetSignals,
    TransferSignals,
)
from serving.telemetry.together import lacking_latency, of_role, together

ONE_LEG = "each engine sees its own leg only, and one of the legs does not answer"
NO_ENGINE = "no engine answers"
NO_PROMPTS = "no engine that computes prompts answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """The spec that a deployment is held against, and which of its models it serves."""

    spec: Spec
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """The parts by what they see.

    Parameters
    ----------
    front : Activity or None
        Of the gate where one answers, else of the routers together; None: neither answers.
    prompts, answers : Activity or None
        Of the engines that compute prompts, and of those that decode answers.
    decoding : Activity or None
        Of those that only decode.
    seconds : float or None
        Over which rates were taken.
    disaggregated : bool
        Whether any engine, answering or not, has one leg only.
    """

    front: Activity | None
    front_name: str
    seconds: float | None
    prompts: Activity | None
    answers: Activity | None
    decoding: Activity | None
    transfers: TransferSignals
    disaggregated: bool


def deployment_signals(
    targets: Sequence[TargetSignals], *, looked_at: datetime, promised: Promised | None = None
) -> DeploymentSignals:
    """Put the parts together.

    TTFT and end-to-end time are those of the gate, else of a router that sees them, else of the
    engines (of both legs together where a request has two); gaps between tokens those of decoding
    engines, else of the gate or router.

    Parameters
    ----------
    promised : Promised or None
        With it come SLOs, cost and predictions.
    """
    roles = _roles(targets)
    view = _view(targets)
    requests = _known_first([a.requests_per_s for a in (view.front, view.answers) if a is not None])
    output_tokens = _known_first(
        [a.output_tokens_per_s for a in (view.answers, view.front) if a is not None]
    )
    usd = Signal.lacking(NO_SPEC)
    if promised is not None:
        usd = usd_per_hour(promised.spec, promised.model, roles)
    return DeploymentSignals(
        looked_at=looked_at,
        ttft=_as_users_have_it(view, lambda activity: activity.ttft),
        itl=_gaps(view, lambda activity: activity.itl),
        e2e=_as_users_have_it(view, lambda activity: activity.e2e),
        seen_by=_seen_by(view),
        requests_per_s=requests,
        input_tokens_per_s=_input_tokens(view),
        output_tokens_per_s=output_tokens,
        prefix_hit_ratio=_known_first(
            [a.prefix_hit_ratio for a in (view.prompts, view.front) if a is not None]
        ),
        transfer=view.transfers,
        usd_per_hour=usd,
        usd_per_million_tokens=usd_per_million_tokens(usd, output_tokens),
        roles=roles,
        targets=tuple(targets),
        lacks=_lacking(roles, promised),
        slos=_slos(view, promised) if promised else (),
        expected=expect(promised.spec, promised.model, roles, requests) if promised else None,
    )


def _roles(targets: Sequence[TargetSignals]) -> tuple[RoleSignals, ...]:
    """Workers by role; one whose role nobody tells does both legs of what it is given."""
    by_role: dict[Role, list[TargetSignals]] = {}
    for target in targets:
        if target.kind is TargetKind.ENGINE:
            by_role.setdefault(target.role or Role.AGGREGATED, []).append(target)
    return tuple(of_role(role, by_role[role]) for role in Role if role in by_role)


def _lacking(roles: Sequence[RoleSignals], promised: Promised | None) -> tuple[Role, ...]:
    """Roles of which a worker has to answer and none does.

    A prefill worker needs a decode worker, and the other way round, whether it answers or not. A
    spec wants the roles whose pools may not be empty, and both legs where it has nothing else.
    """
    legs = {Role.PREFILL, Role.DECODE}
    wanted = legs if legs & {found.role for found in roles} else set()
    if promised is not None:
        pools = [p for p in promised.spec.pools if p.shape.model == promised.model]
        possible = {pool.shape.role for pool in pools}
        wanted |= {pool.shape.role for pool in pools if pool.min_replicas}
        wanted |= set() if Role.AGGREGATED in possible and len(possible) > 1 else possible
    answering = {found.role for found in roles if found.answering}
    return tuple(role for role in Role if role in wanted - answering)


def _view(targets: Sequence[TargetSignals]) -> _View:
    answering = [t for t in targets if t.answers]
    engines = [t for t in answering if t.kind is TargetKind.ENGINE]
    gates = [t for t in answering if t.kind is TargetKind.GATE]
    front = gates or [t for t in answering if t.kind is TargetKind.ROUTER]

    def of(roles: set[Role | None]) -> Activity | None:
        own = [t for t in engines if t.role in roles]
        return together(own) if own else None

    legs = [t for t in engines if t.role in (Role.PREFILL, Role.DECODE)]
    return _View(
        front=together(front) if front else None,
        front_name=", ".join(t.name for t in front),
        seconds=max((t.interval_s for t in answering if t.interval_s), default=None),
        prompts=of({Role.PREFILL, Role.AGGREGATED, None}),
        answers=of({Role.DECODE, Role.AGGREGATED, None}),
        decoding=of({Role.DECODE}),
        transfers=_transfers(legs, front),
        disaggregated=any(t.role in (Role.PREFILL, Role.DECODE) for t in targets),
    )


def _transfers(legs: Sequence[TargetSignals], front: Sequence[TargetSignals]) -> TransferSignals:
    """As the engines count them, else as a router tells."""
    if legs:
        return together(legs).transfer
    if front:
        return together(front).transfer
    lacking = Signal.lacking("no prefill or decode worker answers")
    return TransferSignals(
        latency=lacking_latency(lacking.missing),
        transfers_per_s=lacking,
        bytes_per_s=lacking,
        failed_per_s=lacking,
        expired_per_s=lacking,
    )


def _known_first(signals: Sequence[Signal]) -> Signal:
    """The first that is known; else why the first is not."""
    for signal in signals:
        if signal.known:
            return signal
    return signals[0] if signals else Signal.lacking(NO_ENGINE)


def _as_users_have_it(view: _View, of: Callable[[Activity], Latency]) -> Latency:
    """A latency of whole requests: from where they are seen whole, else from both legs."""
    if view.front is not None and of(view.front).histogram is not None:
        return of(view.front)
    if not view.disaggregated:
        return of(view.answers) if view.answers else lacking_latency(NO_ENGINE)
    return _both_legs(view, of)


def _seen_by(view: _View) -> str:
    """Who tells latencies of whole requests, for people."""
    if view.front is not None and view.front.ttft.histogram is not None:
        return view.front_name
    return "both legs' engines" if view.disaggregated else "the engines"


def _both_legs(view: _View, of: Callable[[Activity], Latency]) -> Latency:
    """What two engines take one after the other, without the router's own time in between."""
    if view.prompts is None or view.decoding is None:
        return lacking_latency(ONE_LEG)
    first, second = of(view.prompts), of(view.decoding)
    if first.histogram is None or second.histogram is None:
        return lacking_latency(first.p50_s.missing or second.p50_s.missing)
    legs = TwoLegs(first=first.histogram, second=second.histogram)
    return latency_of(legs, metric=f"{first.count.metric} of both legs")


def _gaps(view: _View, of: Callable[[Activity], Latency]) -> Latency:
    """A latency between tokens: engines see it best."""
    for activity in (view.answers, view.front):
        if activity is not None and of(activity).histogram is not None:
            return of(activity)
    seen = view.answers or view.front
    return of(seen) if seen else lacking_latency(NO_ENGINE)


def _input_tokens(view: _View) -> Signal:
    """Prompt tokens, each once: where they are computed, and what decode computed by itself.

    A decoding engine counts the prompts whose KV cache it fetched too.
    """
    if view.prompts is None:
        return view.front.input_tokens_per_s if view.front else Signal.lacking(NO_PROMPTS)
    taken = view.prompts.input_tokens_per_s
    own = view.decoding.computed_tokens_per_s.value if view.decoding else None
    if taken.value is None or own is None:
        return taken
    return Signal(value=taken.value + own, metric=taken.metric)


def _slos(view: _View, promised: Promised) -> tuple[SloSignals, ...]:
    slos = [slo for slo in promised.spec.slos if slo.model == promised.model]
    front = view.front or view.answers
    seen = Experience(
        ttft=_as_users_have_it(view, lambda activity: activity.ttft),
        tpot=_gaps(view, lambda activity: activity.tpot),
        e2e=_as_users_have_it(view, lambda activity: activity.e2e),
        failed_per_s=front.failed_per_s if front else Signal.lacking(NO_ENGINE),
        seconds=view.seconds,
        judged=front.judged if front else (),
        classes_told_apart=len(slos) < 2,
    )
    return tuple(kept(slo, seen) for slo in slos)

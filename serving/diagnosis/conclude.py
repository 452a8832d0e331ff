"""From all judgements to one finding."""

from collections.abc import Sequence

from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from serving.diagnosis.caching import judge_reuse
from serving.diagnosis.engines import judge_batching, judge_decode, judge_memory, judge_prefill
from serving.diagnosis.finding import Confidence, Finding, Judgement, Suspicion, Unjudged
from serving.diagnosis.moving import judge_network, judge_transfer, moves_of
from serving.diagnosis.pool import LEAST_LOOKS, Pool, pools_of
from serving.diagnosis.scheduling import (
    judge_balance,
    judge_idle_queue,
    judge_interference,
    judge_surroundings,
)
from serving.diagnosis.watched import Watch

LEAST_REQUESTS = 5
NEAR_RATIO = 0.5
"""Another shortage that holds up half as many requests is near."""
EXPERIMENT = (
    "run `poolwise diagnose --experiment`: it adds load of one kind at a time and sees what moves"
)
_WHAT = {
    Bottleneck.PREFILL: "prompts wait for other prompts to be computed",
    Bottleneck.DECODE: "steps of answers are too slow",
    Bottleneck.MEMORY: "requests wait for KV memory",
    Bottleneck.CACHE_TRANSFER: "a prompt's KV cache takes longer to move than to compute",
    Bottleneck.NETWORK: "KV transfers slow each other down",
    Bottleneck.BATCHING: "requests wait because the batch may not grow",
    Bottleneck.SCHEDULING: "requests are held up though the engines have room",
}


def diagnose(watch: Watch) -> Finding:
    """Name what a deployment is short of, with the evidence; or say that it cannot be told.

    Of everything that requests are held up by, the one that holds up most of them.
    """
    pools = pools_of(watch)
    if not pools:
        return _untellable(
            f"no worker answered at least {LEAST_LOOKS} times: watch longer, or see `poolwise "
            "status` for what is wrong with them",
            (),
        )
    judgements = judge_all(watch, pools)
    judged = [j for j in judgements if isinstance(j, Suspicion)]
    unjudged = tuple(j for j in judgements if isinstance(j, Unjudged))
    requests = _requests(pools) * watch.seconds
    short = sorted((j for j in judged if j.is_short), key=lambda j: -j.held_up_requests)
    remarks = _remarks(pools)
    if not short and requests < LEAST_REQUESTS:
        return _quiet(pools, requests, unjudged, remarks)
    if short:
        return _short(short, judged, unjudged, remarks, requests=requests)
    return _nothing_short(pools, judged, unjudged, remarks)


def judge_all(watch: Watch, pools: dict[Role, Pool]) -> tuple[Judgement, ...]:
    """Every kind of shortage, judged for the roles that can have it."""
    yardsticks = watch.yardsticks
    found: list[Judgement] = []
    for role, pool in pools.items():
        if role is not Role.DECODE:
            reuse = judge_reuse(pool, watch)
            spared = isinstance(reuse, Suspicion) and reuse.is_short
            found += [judge_prefill(pool, yardsticks, is_spared=spared), reuse]
        if role is not Role.PREFILL:
            found.append(judge_decode(pool, yardsticks))
        found.append(judge_memory(pool))
        if role is not Role.PREFILL:
            found.append(judge_batching(pool, yardsticks))
        found.append(judge_balance(pool))
        found.append(judge_idle_queue(pool, yardsticks))
        if role is Role.AGGREGATED:
            found.append(judge_interference(pool))
    moves = None
    if Role.DECODE in pools:
        moves = moves_of(
            pools[Role.DECODE], pools.get(Role.PREFILL), yardsticks, seconds=watch.seconds
        )
        found += [judge_transfer(moves, yardsticks), judge_network(moves, yardsticks)]
    found.append(judge_surroundings(pools, watch.front, moves, yardsticks))
    return tuple(found)


def _short(
    short: Sequence[Suspicion],
    judged: Sequence[Suspicion],
    unjudged: tuple[Unjudged, ...],
    remarks: tuple[str, ...],
    *,
    requests: float,
) -> Finding:
    first = short[0]
    near = [
        j
        for j in short[1:]
        if j.bottleneck is not first.bottleneck
        and j.held_up_requests >= NEAR_RATIO * first.held_up_requests
    ]
    confidence = Confidence.HIGH
    if near or first.inferred:
        confidence = Confidence.MEDIUM
    if requests < LEAST_REQUESTS or any("did not answer" in r for r in remarks):
        confidence = Confidence.LOW
    where = "" if first.role is None else f" of the {first.role} workers"
    return Finding(
        bottleneck=first.bottleneck,
        role=first.role,
        confidence=confidence,
        summary=(
            f"{first.bottleneck}{where}: {first.because or _WHAT[first.bottleneck]}; it holds up "
            f"{first.held_up_requests:.1f} requests in the mean"
        ),
        evidence=first.evidence,
        action=first.action,
        others=_others(judged, first),
        unjudged=unjudged,
        remarks=remarks,
    )


def _nothing_short(
    pools: dict[Role, Pool],
    judged: Sequence[Suspicion],
    unjudged: tuple[Unjudged, ...],
    remarks: tuple[str, ...],
) -> Finding:
    writing = sum(p.running for role, p in pools.items() if role is not Role.PREFILL)
    blind = next((u for u in unjudged if u.bottleneck is Bottleneck.DECODE), None)
    others = _others(judged, None)
    if blind is not None and writing >= 1.0:
        return Finding(
            bottleneck=None,
            role=None,
            confidence=Confidence.LOW,
            summary=f"cannot be told from telemetry: nothing queues, but {blind.reason}",
            evidence=(),
            action=f"give --spec or --profile; or {EXPERIMENT}",
            others=others,
            unjudged=unjudged,
            remarks=remarks,
        )
    fullest = others[0] if others else None
    return Finding(
        bottleneck=Bottleneck.NONE,
        role=None,
        confidence=Confidence.LOW if remarks else Confidence.HIGH,
        summary="nothing is the bottleneck: no request is held up",
        evidence=() if fullest is None else fullest.evidence,
        action=(
            "nothing to do"
            if fullest is None
            else f"nothing to do now; {fullest.bottleneck} is the most used, at "
            f"{fullest.pressure_ratio:.0%} of its limit"
        ),
        others=others,
        unjudged=unjudged,
        remarks=remarks,
    )


def _quiet(
    pools: dict[Role, Pool],
    requests: float,
    unjudged: tuple[Unjudged, ...],
    remarks: tuple[str, ...],
) -> Finding:
    at_work = sum(p.running + p.queued for p in pools.values())
    if requests <= 0 and at_work <= 0:
        return Finding(
            bottleneck=Bottleneck.NONE,
            role=None,
            confidence=Confidence.LOW if remarks else Confidence.HIGH,
            summary="nothing is the bottleneck: there is no traffic",
            evidence=(),
            action="nothing to do",
            unjudged=unjudged,
            remarks=remarks,
        )
    return _untellable(
        f"only {requests:.0f} requests were finished, {LEAST_REQUESTS} are needed: watch longer "
        "(--for)",
        remarks,
    )


def _untellable(reason: str, remarks: tuple[str, ...]) -> Finding:
    return Finding(
        bottleneck=None,
        role=None,
        confidence=Confidence.LOW,
        summary=f"cannot be told from telemetry: {reason}",
        evidence=(),
        action=reason,
        remarks=remarks,
    )


def _requests(pools: dict[Role, Pool]) -> float:
    """Requests/s, each counted once: by the role that finished most."""
    rates = [p.rate(lambda w: w.signals.activity.requests_per_s) or 0.0 for p in pools.values()]
    return max(rates, default=0.0)


def _remarks(pools: dict[Role, Pool]) -> tuple[str, ...]:
    return tuple(
        f"{', '.join(p.silent)} ({p.role}) did not answer, or not often enough: left out"
        for p in pools.values()
        if p.silent
    )


def _others(judged: Sequence[Suspicion], first: Suspicion | None) -> tuple[Suspicion, ...]:
    """One for each kind and role: what is short first, then by pressure."""
    ranked = sorted(
        (j for j in judged if j is not first),
        key=lambda j: (not j.is_short, -j.held_up_requests if j.is_short else 0, -j.pressure_ratio),
    )
    kept: list[Suspicion] = []
    seen = set() if first is None else {(first.bottleneck, first.role)}
    for one in ranked:
        if (one.bottleneck, one.role) not in seen:
            seen.add((one.bottleneck, one.role))
            kept.append(one)
    return tuple(kept)

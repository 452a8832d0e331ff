"""Requests held up though engines have room: uneven queues, and what surrounds the engines."""

from collections.abc import Mapping, Sequence

from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from serving.diagnosis.engines import FULL_RATIO, LEAST_SHARE, batch_share, memory_share
from serving.diagnosis.finding import Evidence, Judgement, Suspicion, Unit, Unjudged
from serving.diagnosis.moving import Moves
from serving.diagnosis.pool import Pool, busy_ratio, queued
from serving.diagnosis.watched import WatchedWorker, Yardsticks
from serving.telemetry.signals import TargetSignals

IDLE_RATIO = 0.5
UNEVEN_QUEUE = 1.0
OUTSIDE_RATIO = 0.5
"""Share of TTFT outside the engines from which it is what a request mostly waits for."""
SPIKE_RATIO = 4.0
"""p99 over median gap: answers on an aggregated worker stand still while a prompt is computed."""


def judge_balance(pool: Pool) -> Judgement:
    """Whether one worker has a queue while another of its role and cell has nothing to do."""
    cells: dict[str, list[WatchedWorker]] = {}
    for worker in pool.workers:
        cells.setdefault(worker.signals.cell, []).append(worker)
    pairs = [(_fullest(ws), _idlest(ws)) for ws in cells.values() if len(ws) > 1]
    if not pairs:
        return Unjudged(
            bottleneck=Bottleneck.SCHEDULING,
            role=pool.role,
            reason=f"one {pool.role} worker a cell: there is nothing to balance",
        )
    full, idle = max(pairs, key=lambda pair: queued(pair[0]) - 10 * busy_ratio(pair[1]))
    uneven = queued(full) >= UNEVEN_QUEUE and busy_ratio(idle) <= IDLE_RATIO
    return Suspicion(
        bottleneck=Bottleneck.SCHEDULING,
        role=pool.role,
        pressure_ratio=1.0 + queued(full) if uneven else 1.0 - busy_ratio(idle),
        is_short=uneven,
        held_up_requests=queued(full) if uneven else 0.0,
        evidence=(
            Evidence(
                what=f"requests that wait for {full.signals.name}",
                value=queued(full),
                unit=Unit.REQUESTS,
                against=f"for {idle.signals.name}",
                bound=queued(idle),
            ),
            Evidence(
                what=f"time in which {idle.signals.name} had work",
                value=busy_ratio(idle),
                unit=Unit.RATIO,
                against=f"of {full.signals.name}",
                bound=busy_ratio(full),
            ),
        ),
        action="change the router's policy (`poolwise kv` recommends one), or its balance limits",
    )


def _fullest(workers: Sequence[WatchedWorker]) -> WatchedWorker:
    return max(workers, key=queued)


def _idlest(workers: Sequence[WatchedWorker]) -> WatchedWorker:
    return min(workers, key=busy_ratio)


def judge_surroundings(
    pools: Mapping[Role, Pool],
    front: TargetSignals | None,
    moves: Moves | None,
    yardsticks: Yardsticks,
) -> Judgement:
    """Whether most of TTFT passes outside the engines' own queues and steps.

    Parameters
    ----------
    front : TargetSignals or None
        Gate or router; without one, only what lies between an engine's HTTP server and its
        scheduler is seen.
    """
    first = pools.get(Role.PREFILL) or pools.get(Role.AGGREGATED)
    if first is None:
        return _untold("no worker that computes prompts told enough")
    queue_s = first.mean_s(lambda w: w.signals.activity.queueing)
    prefill_s = first.mean_s(lambda w: w.signals.activity.prefilling)
    ttft_s, seen_by = first.mean_s(lambda w: w.signals.activity.ttft), "the engines' own servers"
    inside_s = (queue_s or 0.0) + (prefill_s or 0.0)
    if front is not None and front.activity.ttft.mean_s.value is not None:
        ttft_s, seen_by = front.activity.ttft.mean_s.value, front.name
        inside_s += _decode_leg_s(pools.get(Role.DECODE), moves)
    rate = first.rate(lambda w: w.signals.activity.requests_per_s)
    if ttft_s is None or queue_s is None or prefill_s is None or not rate:
        return _untold("no first token was seen in the interval")
    outside_s = max(ttft_s - inside_s, 0.0)
    share = outside_s / max(ttft_s, 1e-9)
    pressure = min(share / OUTSIDE_RATIO, outside_s / yardsticks.matters_s)
    return Suspicion(
        bottleneck=Bottleneck.SCHEDULING,
        role=None,
        pressure_ratio=pressure,
        is_short=pressure >= 1.0,
        held_up_requests=outside_s * rate,
        evidence=(
            Evidence(
                what=f"time to first token that passes outside the engines, by {seen_by}",
                value=outside_s,
                unit=Unit.SECONDS,
                against="of time to first token",
                bound=ttft_s,
            ),
            Evidence(what="queue and prefill in the engine", value=inside_s, unit=Unit.SECONDS),
        ),
        action=(
            "look at what stands before the engines: processor time of router, gate and the "
            "engines' HTTP servers and tokenizers; more API server processes "
            "(--api-server-count)"
        ),
    )


def _decode_leg_s(decode: Pool | None, moves: Moves | None) -> float:
    """Queue, transfer and first step at decode, seconds."""
    if decode is None:
        return 0.0
    queue_s = decode.mean_s(lambda w: w.signals.activity.queueing) or 0.0
    first_s = decode.mean_s(lambda w: w.signals.activity.prefilling) or 0.0
    wait_s = 0.0 if moves is None else moves.wait_s
    # vLLM counts the wait for a KV cache as queueing: it is in one of the two, not in both.
    return max(queue_s, wait_s) + first_s


def judge_interference(pool: Pool) -> Judgement:
    """Whether answers of an aggregated worker stand still while it computes prompts."""
    gaps = pool.times(lambda w: w.signals.activity.itl)
    prefill_s = pool.mean_s(lambda w: w.signals.activity.prefilling)
    rate = pool.rate(lambda w: w.signals.activity.requests_per_s)
    median, worst = (None, None) if gaps is None else (gaps.quantile(0.5), gaps.quantile(0.99))
    if median is None or worst is None or prefill_s is None or not rate:
        return Unjudged(
            bottleneck=Bottleneck.SCHEDULING,
            role=pool.role,
            reason="no answer was written in the interval",
        )
    share = min(rate * prefill_s / len(pool.workers), 1.0)
    # From the far end of the median's bucket to the near end of the other: surely so much.
    spike = worst.low / median.high if median.high > 0 else 0.0
    stands = spike >= SPIKE_RATIO and share >= LEAST_SHARE
    return Suspicion(
        bottleneck=Bottleneck.SCHEDULING,
        role=pool.role,
        pressure_ratio=spike / SPIKE_RATIO,
        is_short=stands,
        held_up_requests=pool.running * share if stands else 0.0,
        evidence=(
            Evidence(
                what="gap between tokens, p99",
                value=worst.value,
                unit=Unit.SECONDS,
                against="the median",
                bound=median.value,
            ),
            Evidence(what="time with a prompt in work", value=share, unit=Unit.RATIO),
        ),
        action=(
            "separate prefill from decode, or compute prompts in smaller pieces "
            "(max_num_batched_tokens)"
        ),
    )


def judge_idle_queue(pool: Pool, yardsticks: Yardsticks) -> Judgement:
    """Whether requests wait for a worker that is not busy, with memory and batch free."""
    busy = pool.busy_ratio
    free = max(memory_share(pool), batch_share(pool, yardsticks)[0]) < LEAST_SHARE
    waits = pool.queued >= 0.5 * len(pool.workers)
    return Suspicion(
        bottleneck=Bottleneck.SCHEDULING,
        role=pool.role,
        pressure_ratio=1.0 if waits and free and busy < IDLE_RATIO else 0.0,
        is_short=waits and free and busy < IDLE_RATIO,
        held_up_requests=pool.queued if waits and free and busy < FULL_RATIO else 0.0,
        evidence=(
            Evidence(what="requests that wait", value=pool.queued, unit=Unit.REQUESTS),
            Evidence(what="time with a request in work", value=busy, unit=Unit.RATIO),
            Evidence(what="KV cache in use, mean", value=pool.kv_usage_ratio, unit=Unit.RATIO),
        ),
        action="look into the engine's log: its scheduler holds requests back",
    )


def _untold(reason: str) -> Unjudged:
    return Unjudged(bottleneck=Bottleneck.SCHEDULING, role=None, reason=reason)

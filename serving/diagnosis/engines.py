"""Shortages inside the engines: prompts' arithmetic, answers' steps, KV memory, batch limit."""

from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from planner.domain.profile import Profile
from serving.diagnosis.finding import Evidence, Judgement, Suspicion, Unit, Unjudged
from serving.diagnosis.pool import Pool, share_of
from serving.diagnosis.watched import Look, WatchedWorker, Yardsticks

FULL_RATIO = 0.85
"""Share of a limit from which waits grow steeply: an M/D/1 queue waits 2.8 service times there."""
QUEUE_RATIO = 0.5
"""A queue as long as half a request per worker, or half a service time, is one."""
LEAST_SHARE = 0.3
"""Share of time in which a limit must bind before it is the reason of a queue."""
NEAR_OBJECTIVE = 0.9
_NO_TIME = 1e-9


def judge_prefill(pool: Pool, yardsticks: Yardsticks, *, is_spared: bool = False) -> Judgement:
    """Whether prompts wait for other prompts to be computed.

    Parameters
    ----------
    is_spared : bool
        Whether much of that computing is avoidable, which is then the shortage (`judge_reuse`).
    """
    queue_s = pool.mean_s(lambda w: w.signals.activity.queueing)
    prefill_s = pool.mean_s(lambda w: w.signals.activity.prefilling)
    busy = _prefilling_ratio(pool, prefill_s)
    if busy is None:
        return Unjudged(
            bottleneck=Bottleneck.PREFILL,
            role=pool.role,
            reason="no prompt was finished in the interval: watch longer",
        )
    evidence = [
        Evidence(what="time with a prompt in work", value=busy, unit=Unit.RATIO),
        Evidence(what="requests that wait for prefill", value=pool.queued, unit=Unit.REQUESTS),
    ]
    waits = _waits(pool)
    if queue_s is not None and prefill_s is not None:
        evidence.append(
            Evidence(
                what="wait in the queue",
                value=queue_s,
                unit=Unit.SECONDS,
                against="of prefill itself",
                bound=prefill_s,
            )
        )
    evidence += _computed_against_profile(pool, yardsticks.profiles.get(pool.role))
    other = max(memory_share(pool), batch_share(pool, yardsticks)[0])
    return Suspicion(
        bottleneck=Bottleneck.PREFILL,
        role=pool.role,
        pressure_ratio=busy,
        is_short=waits and busy >= FULL_RATIO and other < LEAST_SHARE and not is_spared,
        held_up_requests=pool.queued,
        evidence=tuple(evidence),
        action=(
            "add prefill workers, or flip a decode worker; shorter or shared prompts help "
            "(`poolwise kv` says what routing by cache would save)"
        ),
    )


def waits_for_prompts(pool: Pool) -> tuple[float, bool]:
    """Share of time with a prompt in work, 0 where it is not known, and whether others queue."""
    busy = _prefilling_ratio(pool, pool.mean_s(lambda w: w.signals.activity.prefilling))
    return busy or 0.0, _waits(pool)


def _waits(pool: Pool) -> bool:
    return pool.queued >= QUEUE_RATIO * len(pool.workers)


def _prefilling_ratio(pool: Pool, prefill_s: float | None) -> float | None:
    """Share of time with a prompt in work.

    A prefill worker does nothing else. Elsewhere it is by Little's law the requests finished
    times their prefill, which waits of prompts for each other make larger than it is.
    """
    if pool.role is Role.PREFILL:
        return pool.busy_ratio
    rate = pool.rate(lambda w: w.signals.activity.requests_per_s)
    if rate is None or prefill_s is None:
        return None
    return min(rate * prefill_s / len(pool.workers), 1.0)


def _computed_against_profile(pool: Pool, profile: Profile | None) -> list[Evidence]:
    computed = pool.rate(lambda w: w.signals.activity.computed_tokens_per_s)
    isl = pool.isl
    if profile is None or computed is None or not isl:
        return []
    most = len(pool.workers) * isl / float(profile.prefill.extended_at(isl, 0.0))
    return [
        Evidence(
            what="prompt tokens computed",
            value=computed,
            unit=Unit.TOKENS_PER_S,
            against="that the profile says these workers can, one prompt at a time",
            bound=most,
        )
    ]


def judge_decode(pool: Pool, yardsticks: Yardsticks) -> Judgement:
    """Whether steps of answers are too slow, by objective, or at the rate that a replica can do."""
    itl_s = pool.mean_s(lambda w: w.signals.activity.itl)
    rate = pool.rate(lambda w: w.signals.activity.output_tokens_per_s)
    if itl_s is None or rate is None:
        return Unjudged(
            bottleneck=Bottleneck.DECODE,
            role=pool.role,
            reason="no answer was written in the interval",
        )
    batch = pool.running / len(pool.workers)
    evidence = [
        Evidence(what="gap between tokens, mean", value=itl_s, unit=Unit.SECONDS),
        Evidence(what="answers written together, per worker", value=batch, unit=Unit.REQUESTS),
    ]
    pressures: list[float] = []
    reference_s: float | None = None
    profile = yardsticks.profiles.get(pool.role)
    if profile is not None:
        most, reference_s = _decode_limits(profile, pool)
        pressures.append(rate / (len(pool.workers) * most))
        evidence.append(
            Evidence(
                what="tokens written",
                value=rate,
                unit=Unit.TOKENS_PER_S,
                against="that the profile says these workers can at their largest batch",
                bound=len(pool.workers) * most,
            )
        )
    if yardsticks.slo is not None:
        objective = yardsticks.slo.tpot_s
        pressures.append(itl_s / objective)
        reference_s = reference_s or 0.5 * objective
        evidence[0] = Evidence(
            what="gap between tokens, mean",
            value=itl_s,
            unit=Unit.SECONDS,
            against="promised (tpot_s)",
            bound=objective,
        )
    if not pressures or reference_s is None:
        return Unjudged(
            bottleneck=Bottleneck.DECODE,
            role=pool.role,
            reason=(
                f"whether {itl_s * 1000:.0f} ms between tokens at {batch:.1f} answers a worker is "
                "slow needs an objective or a profile to compare with"
            ),
        )
    return Suspicion(
        bottleneck=Bottleneck.DECODE,
        role=pool.role,
        pressure_ratio=max(pressures),
        is_short=max(pressures) >= NEAR_OBJECTIVE,
        held_up_requests=pool.running * max(1.0 - reference_s / max(itl_s, _NO_TIME), 0.0),
        evidence=tuple(evidence),
        action="add decode workers, or flip a prefill worker; a smaller batch limit keeps the gap",
    )


def _decode_limits(profile: Profile, pool: Pool) -> tuple[float, float]:
    """Tokens/s of a replica at its largest batch, and seconds of a step alone."""
    context = (pool.isl or 0.0) + (pool.osl or 0.0) / 2
    in_memory = profile.limits.kv_capacity_tokens / max(context, 1.0)
    batch = max(min(profile.limits.max_num_seqs, in_memory), 1.0)
    step_s = float(profile.decode_step.extended_at(batch, context))
    return batch / step_s, float(profile.decode_step.extended_at(1.0, context))


def judge_memory(pool: Pool) -> Judgement:
    """Whether requests wait for KV memory, or are put back for want of it."""
    preempted = pool.rate(lambda w: w.signals.activity.preemptions_per_s) or 0.0
    share = memory_share(pool)
    usage = pool.kv_usage_ratio
    evidence = [
        Evidence(what="KV cache in use, mean", value=usage, unit=Unit.RATIO),
        Evidence(
            what="time in which requests waited and the next prompt did not fit",
            value=share,
            unit=Unit.RATIO,
        ),
        Evidence(what="requests put back (preempted)", value=preempted, unit=Unit.PER_S),
        Evidence(what="requests that wait", value=pool.queued, unit=Unit.REQUESTS),
    ]
    finished = pool.rate(lambda w: w.signals.activity.requests_per_s) or 0.0
    often = preempted > 0 and preempted >= 0.1 * max(finished, _NO_TIME)
    is_short = share >= LEAST_SHARE or often
    return Suspicion(
        bottleneck=Bottleneck.MEMORY,
        role=pool.role,
        pressure_ratio=max(usage, 1.0) if is_short else usage,
        is_short=is_short,
        held_up_requests=pool.queued + (pool.running if often else 0.0),
        evidence=tuple(evidence),
        action=(
            f"give {pool.role} workers more KV cache, add workers of that role, keep it in a "
            "smaller format (fp8), or admit fewer requests"
        ),
    )


def memory_share(pool: Pool) -> float:
    """Share of time in which requests waited and the next one's KV cache would not fit."""
    isl = pool.isl or 0.0

    def blocked(worker: WatchedWorker, look: Look) -> bool:
        capacity = worker.signals.activity.kv_capacity_tokens.value
        if look.queued <= 0 or capacity is None:
            return False
        return (1.0 - look.kv_usage_ratio) * capacity <= max(isl, 0.05 * capacity)

    return share_of(pool.workers, blocked)


def judge_batching(pool: Pool, yardsticks: Yardsticks) -> Judgement:
    """Whether requests wait because the batch may not grow, though memory has room."""
    share, limit, known = batch_share(pool, yardsticks)
    evidence = [
        Evidence(
            what="time in which requests waited and the batch was at its limit",
            value=share,
            unit=Unit.RATIO,
        ),
        Evidence(
            what="answers written together, per worker",
            value=pool.running / len(pool.workers),
            unit=Unit.REQUESTS,
            against=(
                "that a batch may hold (max_num_seqs)" if known else "that were ever seen together"
            ),
            bound=limit,
        ),
        Evidence(what="requests that wait", value=pool.queued, unit=Unit.REQUESTS),
        Evidence(what="KV cache in use, mean", value=pool.kv_usage_ratio, unit=Unit.RATIO),
    ]
    itl_s = pool.mean_s(lambda w: w.signals.activity.itl)
    slow = (
        yardsticks.slo is not None
        and itl_s is not None
        and itl_s >= NEAR_OBJECTIVE * yardsticks.slo.tpot_s
    )
    if yardsticks.slo is not None and itl_s is not None:
        evidence.append(
            Evidence(
                what="gap between tokens, mean",
                value=itl_s,
                unit=Unit.SECONDS,
                against="promised: a larger batch makes it longer",
                bound=yardsticks.slo.tpot_s,
            )
        )
    is_short = share >= LEAST_SHARE and memory_share(pool) < LEAST_SHARE and not slow
    full = pool.running / len(pool.workers) / limit if limit else 0.0
    return Suspicion(
        bottleneck=Bottleneck.BATCHING,
        role=pool.role,
        pressure_ratio=max(full, 1.0) if is_short else min(full, 1.0) if known else 0.0,
        is_short=is_short,
        held_up_requests=pool.queued if is_short else 0.0,
        evidence=tuple(evidence),
        action=f"raise max_num_seqs of {pool.role} workers, or add workers of that role",
        inferred=not known,
    )


def batch_share(pool: Pool, yardsticks: Yardsticks) -> tuple[float, float, bool]:
    """How much of the time a full batch made requests wait, its limit, and whether that is known.

    Without a known limit it is taken from what was seen: with requests waiting, a batch that is
    always as large as the largest ever seen is at its limit. On a prefill worker it binds never:
    more prompts at once are not computed sooner.
    """
    known = yardsticks.batch_limit(pool.role)
    most = max((x.running for w in pool.workers for x in w.looks), default=0.0)
    limit = float(known) if known is not None else most
    if limit <= 0 or pool.role is Role.PREFILL:
        return 0.0, limit, known is not None

    def bound(_worker: WatchedWorker, look: Look) -> bool:
        return look.queued > 0 and look.running >= limit

    if known is None:
        waiting = share_of(pool.workers, lambda _w, x: x.queued > 0)
        full = share_of(pool.workers, bound)
        if waiting <= 0 or full / waiting < FULL_RATIO or limit < 2:
            return 0.0, limit, False
    return share_of(pool.workers, bound), limit, known is not None

"""Prompts that are computed though a cache could have had them: too small, or routed past it."""

from planner.domain.plan import Bottleneck
from serving.diagnosis.engines import FULL_RATIO, waits_for_prompts
from serving.diagnosis.finding import Evidence, Judgement, Suspicion, Unit, Unjudged
from serving.diagnosis.pool import Pool
from serving.diagnosis.watched import CacheUse, Watch
from serving.kv.reuse import LEAST_BLOCKS
from serving.kv.view import KvSnapshot

LEAST_SPARED = 0.2
"""Share of the computed prompt blocks that must have been avoidable before that is the reason."""


def cache_use_of(snapshot: KvSnapshot) -> CacheUse:
    """What a KV view says of the workers that compute prompts."""
    reuse = snapshot.reuse_so_far
    computing = snapshot.computing_prompts
    again = [
        (w.stored_per_s, w.wanted_again_ratio)
        for w in computing
        if w.wanted_again_ratio is not None
    ]
    stored_per_s = sum(rate for rate, _ in again)
    return CacheUse(
        blocks=0 if reuse is None else reuse.blocks,
        found_ratio=0.0 if reuse is None else reuse.found_ratio,
        routed_ratio=0.0 if reuse is None else reuse.cache_aware_ratio,
        unbounded_ratio=0.0 if reuse is None else reuse.infinite_ratio,
        evicted_per_s=sum(w.evicted_per_s for w in computing),
        wanted_again_ratio=(
            sum(rate * share for rate, share in again) / stored_per_s if stored_per_s else 0.0
        ),
        is_complete=all(w.is_complete for w in computing),
    )


def judge_reuse(pool: Pool, watch: Watch) -> Judgement:
    """Whether prompts queue that a larger cache, or another routing, would have spared.

    The shares found, of the same prompts' blocks: by their own workers; in caches of the present
    size with every request sent where most of it lies; in a cache without bounds. What lies
    between the first two is lost to routing, between the last two to evictions.
    """
    use = watch.caches
    if use is None or use.blocks < LEAST_BLOCKS:
        why = watch.no_caches if use is None else f"{use.blocks} blocks of prompts were seen"
        return Unjudged(
            bottleneck=Bottleneck.MEMORY,
            role=pool.role,
            reason=f"what a larger cache or other routing would spare is not known: {why}",
        )
    to_routing = max(use.routed_ratio - use.found_ratio, 0.0)
    to_evictions = max(use.unbounded_ratio - max(use.routed_ratio, use.found_ratio), 0.0)
    if use.evicted_per_s <= 0:
        to_evictions = 0.0
    computed = max(1.0 - use.found_ratio, 1e-9)
    spared = max(to_routing, to_evictions) / computed
    busy, waits = waits_for_prompts(pool)
    is_short = waits and busy >= FULL_RATIO and spared >= LEAST_SPARED
    used = busy * min(spared / LEAST_SPARED, 1.0)
    by_size = to_evictions >= to_routing
    return Suspicion(
        bottleneck=Bottleneck.MEMORY if by_size else Bottleneck.SCHEDULING,
        role=pool.role,
        pressure_ratio=1.0 + spared if is_short else min(used, 1.0),
        is_short=is_short,
        held_up_requests=pool.queued if is_short else 0.0,
        evidence=_evidence(use, spared, by_size=by_size),
        action=_action(pool, spared, by_size=by_size),
        inferred=not use.is_complete,
        because=(
            "prompts are computed again that the cache had to evict"
            if by_size
            else "prompts are computed whose beginning lies in another worker's cache"
        ),
    )


def _evidence(use: CacheUse, spared: float, *, by_size: bool) -> tuple[Evidence, ...]:
    found = "prompt blocks found in their worker's cache"
    routed = Evidence(
        what=found,
        value=use.found_ratio,
        unit=Unit.RATIO,
        against="in caches of this size, each request sent where most of it lies",
        bound=use.routed_ratio,
    )
    unbounded = Evidence(
        what=found,
        value=use.found_ratio,
        unit=Unit.RATIO,
        against="in a cache without bounds",
        bound=use.unbounded_ratio,
    )
    evictions = (
        Evidence(what="blocks evicted", value=use.evicted_per_s, unit=Unit.PER_S),
        Evidence(
            what="of stored blocks, evicted by that worker before",
            value=use.wanted_again_ratio,
            unit=Unit.RATIO,
        ),
    )
    saved = Evidence(what="prompt computing that is avoidable", value=spared, unit=Unit.RATIO)
    first = (unbounded, *evictions, routed) if by_size else (routed, unbounded, *evictions)
    return (saved, *first)


def _action(pool: Pool, spared: float, *, by_size: bool) -> str:
    if by_size:
        return (
            f"give {pool.role} workers more KV cache, a tier below it (`poolwise kv-tiers`), or "
            f"more workers: up to {spared:.0%} of prompt computing is avoidable"
        )
    return (
        f"route {pool.role} by cache (cache_aware; `poolwise kv` shows what that saves): up to "
        f"{spared:.0%} of prompt computing is avoidable"
    )

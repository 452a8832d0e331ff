"""Prompts that are computed again for want of cache, or past the cache that has them, are named."""

from dataclasses import replace

import pytest

from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from planner.domain.slo import Slo
from serving.diagnosis.caching import cache_use_of
from serving.diagnosis.conclude import diagnose
from serving.diagnosis.finding import Confidence
from serving.diagnosis.watched import CacheUse
from serving.kv.view import KvView
from tests.serving.diagnosis.states import look, times, watch, worker
from tests.serving.kv.wire import remove, store

SLO = Slo(model="m", ttft_s=1.0, tpot_s=0.05)


def use(**changes: float) -> CacheUse:
    """Nothing to be had that is not had."""
    plain = CacheUse(
        blocks=1000,
        found_ratio=0.3,
        routed_ratio=0.3,
        unbounded_ratio=0.3,
        evicted_per_s=0.0,
        wanted_again_ratio=0.0,
        is_complete=True,
    )
    return replace(plain, **changes)


TOO_SMALL = use(unbounded_ratio=0.8, evicted_per_s=20.0, wanted_again_ratio=0.6)
PAST_IT = use(routed_ratio=0.8, unbounded_ratio=0.8)


def found_with(caches: CacheUse | None, *, waiting: float = 6.0):
    latencies = {"queueing": times(*[3.0] * 20), "prefilling": times(*[0.5] * 20)}
    looks = [look(running=1, waiting=waiting)] * 20
    seen = watch(worker(Role.PREFILL, looks, latencies=latencies), slo=SLO)
    return diagnose(replace(seen, caches=caches))


def test_prompts_computed_again_after_their_eviction_are_memory() -> None:
    found = found_with(TOO_SMALL)
    assert (found.bottleneck, found.role) == (Bottleneck.MEMORY, Role.PREFILL)
    assert "computed again that the cache had to evict" in found.summary
    told = [e.text for e in found.evidence]
    assert told[0] == "prompt computing that is avoidable: 71%"
    assert any("30%, against 80% in a cache without bounds" in text for text in told)
    assert "blocks evicted: 20.0/s" in told
    assert "more KV cache" in found.action
    assert not any(s.bottleneck is Bottleneck.PREFILL and s.is_short for s in found.others)


def test_prompts_computed_beside_the_cache_that_has_them_are_scheduling() -> None:
    found = found_with(PAST_IT)
    assert (found.bottleneck, found.role) == (Bottleneck.SCHEDULING, Role.PREFILL)
    assert "another worker's cache" in found.summary
    assert any("against 80% in caches of this size" in e.text for e in found.evidence)
    assert "cache_aware" in found.action


@pytest.mark.parametrize(
    "caches",
    [
        use(),
        use(unbounded_ratio=0.8),  # nothing is evicted: no larger cache would hold more
        use(routed_ratio=0.4, unbounded_ratio=0.4),  # 14 % of what is computed
        replace(TOO_SMALL, blocks=199),
        None,
    ],
)
def test_prefill_stays_prefill_where_the_caches_would_spare_little_or_are_not_known(caches) -> None:
    assert found_with(caches).bottleneck is Bottleneck.PREFILL


def test_where_no_prompt_waits_nothing_is_short_however_much_is_lost() -> None:
    assert found_with(TOO_SMALL, waiting=0).bottleneck is Bottleneck.NONE


def test_lost_messages_make_it_less_sure_and_a_missing_view_is_told() -> None:
    assert found_with(TOO_SMALL).confidence is Confidence.HIGH
    assert found_with(replace(TOO_SMALL, is_complete=False)).confidence is Confidence.MEDIUM
    (told,) = [u for u in found_with(None).unjudged if u.bottleneck is Bottleneck.MEMORY]
    assert "no KV events" in told.reason


def test_a_view_is_taken_from_the_workers_that_compute_prompts() -> None:
    view = KvView(roles={"p": Role.PREFILL, "d": Role.DECODE})
    view.take("p", 0, store([1, 2, 3, 4]))
    view.take("p", 1, remove([4]))
    view.take("p", 2, store([4], parent=3, at_s=100.0))
    view.take("d", 0, store(range(100, 200)))
    view.take("d", 1, remove(range(100, 200)))
    seen = cache_use_of(view.snapshot({}, seconds=10.0))
    assert (seen.evicted_per_s, seen.is_complete) == (0.1, True)
    assert seen.wanted_again_ratio == pytest.approx(1 / 5)

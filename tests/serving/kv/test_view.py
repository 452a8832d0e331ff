"""The view of all workers, from events and metrics."""

import pytest

from planner.domain.fleet import Role
from serving.kv.policy import RouterPolicy, recommend_policies
from serving.kv.view import KvSnapshot, KvView
from serving.telemetry.signals import (
    Activity,
    Signal,
    Source,
    TargetKind,
    TargetSignals,
    TargetState,
    TransferSignals,
)
from tests.serving.kv.wire import mixed, remove, store


def told(role: Role = Role.PREFILL, state: TargetState = TargetState.UP, **activity: float):
    """A worker's metrics."""
    return TargetSignals(
        name="w",
        url="http://w",
        kind=TargetKind.ENGINE,
        source=Source.VLLM,
        role=role,
        state=state,
        activity=Activity(**{k: Signal(value=v) for k, v in activity.items()}),
    )


def test_a_worker_is_shown_with_what_it_holds_and_lacks() -> None:
    view = KvView(roles={"w": Role.PREFILL})
    signals = {
        "w": told(
            kv_capacity_tokens=1024,
            kv_usage_ratio=0.25,
            waiting=2,
            preemptions_per_s=0.5,
            computed_tokens_per_s=60,
            cached_tokens_per_s=40,
            transferred_tokens_per_s=0,
        )
    }
    view.observe(signals)
    view.take("w", 0, store([1, 2, 3, 4], at_s=1.0))
    view.take("w", 1, remove([4], at_s=9.0))
    view.take("w", 2, store([4], parent=3, at_s=10.0))
    (kv,) = view.snapshot(signals, seconds=10.0).workers
    assert kv.cached_ratio == pytest.approx(0.5)
    assert (kv.usage_ratio, kv.waiting, kv.preemptions_per_s) == (0.25, 2, 0.5)
    assert (kv.stored_per_s, kv.evicted_per_s) == (0.5, 0.1)
    assert kv.wanted_again_ratio == pytest.approx(1 / 5)
    assert kv.sources is not None
    assert (kv.sources.computed_ratio, kv.sources.local_ratio) == (0.6, 0.4)


def test_an_interval_holds_what_happened_in_it_only() -> None:
    view = KvView(roles={"w": Role.PREFILL})
    view.take("w", 0, store([1, 2]))
    view.snapshot({}, seconds=1.0)
    (kv,) = view.snapshot({}, seconds=1.0).workers
    assert (kv.stored_per_s, kv.held_tokens) == (0.0, 256)


def test_what_is_not_known_is_not_zero() -> None:
    view = KvView(roles={"w": Role.PREFILL})
    (kv,) = view.snapshot({}, seconds=1.0).workers
    assert not kv.listening
    assert (kv.cached_ratio, kv.usage_ratio, kv.sources, kv.capacity_tokens) == (None,) * 4
    down = {"w": told(state=TargetState.DOWN, kv_usage_ratio=0.5)}
    assert view.snapshot(down, seconds=1.0).workers[0].usage_ratio is None


def test_the_forecasters_reuse_ratio_is_that_of_the_workers_that_compute_prompts() -> None:
    view = KvView(roles={"p": Role.PREFILL, "q": Role.PREFILL, "d": Role.DECODE})
    signals = {
        "p": told(computed_tokens_per_s=50, cached_tokens_per_s=50),
        "q": told(computed_tokens_per_s=300, cached_tokens_per_s=0),
        "d": told(Role.DECODE, computed_tokens_per_s=0, transferred_tokens_per_s=400),
    }
    snapshot = view.snapshot(signals, seconds=1.0)
    assert snapshot.prefix_reuse_ratio == pytest.approx(50 / 400)


def test_bytes_of_a_token_are_taken_from_what_was_transferred() -> None:
    view = KvView(roles={"d": Role.DECODE})
    signals = told(Role.DECODE, transferred_tokens_per_s=100)
    activity = Activity(
        transferred_tokens_per_s=Signal(value=100),
        transfer=TransferSignals(bytes_per_s=Signal(value=409_600)),
    )
    moved = TargetSignals(
        name="d",
        url="",
        kind=signals.kind,
        source=signals.source,
        state=signals.state,
        activity=activity,
    )
    assert view.snapshot({"d": moved}, seconds=1.0).workers[0].kv_bytes_per_token == 4096


def test_a_restart_that_only_the_metrics_show_empties_the_cache() -> None:
    view = KvView(roles={"w": Role.PREFILL})
    view.take("w", 0, store([1, 2]))
    view.observe({"w": told(state=TargetState.RESTARTED)})
    (kv,) = view.snapshot({}, seconds=1.0).workers
    assert (kv.held, kv.restarts) == ((), 1)


def test_a_restart_that_the_events_showed_first_is_not_counted_twice() -> None:
    view = KvView(roles={"w": Role.PREFILL})
    view.take("w", 0, store([1], at_s=1.0))
    view.take("w", 1, store([2], at_s=2.0))
    view.take("w", 0, store([3], at_s=50.0))
    view.observe({"w": told(state=TargetState.RESTARTED)})
    (kv,) = view.snapshot({}, seconds=1.0).workers
    assert (kv.held_tokens, kv.restarts) == (128, 1)


def shared_prefixes(*, workers: int, documents: int, **activity: float) -> KvSnapshot:
    """Traffic on long documents, each request to a worker of its own."""
    names = [f"p{i}" for i in range(workers)]
    view = KvView(roles=dict.fromkeys(names, Role.PREFILL))
    signals = dict.fromkeys(names, told(kv_capacity_tokens=1_000_000, **activity))
    view.observe(signals)
    sent = dict.fromkeys(names, 0)
    for request in range(60):
        name = names[request % workers]
        document = request % documents
        chain = [mixed(1000 * document + i) for i in range(1, 21)]
        view.take(name, sent[name], store(chain, at_s=100.0 * request))
        sent[name] += 1
    return view.snapshot(signals, seconds=60.0)


def test_shared_prefixes_on_several_workers_call_for_routing_by_cache() -> None:
    (advice,) = recommend_policies(shared_prefixes(workers=4, documents=7, kv_usage_ratio=0.1))
    assert advice.policy is RouterPolicy.CACHE_AWARE
    assert advice.option == "--prefill-policy cache_aware"
    assert advice.saved_ratio is not None
    assert advice.saved_ratio > 0.2


@pytest.mark.parametrize(
    ("workers", "usage", "policy"),
    [(4, 0.1, "least_load"), (8, 0.1, "power_of_two"), (8, 0.9, "least_load")],
)
def test_without_shared_prefixes_the_load_decides(workers: int, usage: float, policy: str) -> None:
    snapshot = shared_prefixes(workers=workers, documents=1000, kv_usage_ratio=usage)
    (advice,) = recommend_policies(snapshot)
    assert advice.policy == policy
    assert any("not worth it" in r for r in advice.reasons)


def test_one_worker_needs_no_policy_and_too_little_traffic_is_told() -> None:
    (advice,) = recommend_policies(shared_prefixes(workers=1, documents=3, kv_usage_ratio=0.1))
    assert "one worker" in advice.reasons[0]
    quiet = KvView(roles={"a": Role.PREFILL, "b": Role.PREFILL, "d": Role.DECODE})
    advices = recommend_policies(quiet.snapshot({}, seconds=1.0))
    assert [a.role for a in advices] == [Role.PREFILL, Role.DECODE]
    assert "not known yet" in advices[0].reasons[0]


def test_the_forecaster_is_told_the_caches_and_how_reuse_goes_with_their_size() -> None:
    caches = shared_prefixes(workers=2, documents=7).prefix_cache
    assert caches is not None
    assert caches.cache_tokens == 2_000_000
    assert [one.cache_tokens for one in caches.reuse][2] == pytest.approx(2_000_000, rel=1e-3)
    # The first of 60 prompts is not counted: the second worker's size was told after it.
    assert {one.reuse_ratio for one in caches.reuse} == {53 / 59}


def test_without_the_size_of_every_cache_that_is_not_told() -> None:
    view = KvView(roles={"p": Role.PREFILL, "q": Role.PREFILL})
    view.observe({"p": told(kv_capacity_tokens=1_000_000)})
    for request in range(30):
        chain = [mixed(1000 * request + i) for i in range(1, 21)]
        view.take("p", request, store(chain, at_s=100.0 * request))
    assert view.snapshot({}, seconds=1.0).prefix_cache is None

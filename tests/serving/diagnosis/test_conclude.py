"""Each shortage is named from what it does to the metrics, and nothing else is."""

from dataclasses import replace

import pytest

from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from planner.domain.slo import Slo
from serving.diagnosis.conclude import diagnose
from serving.diagnosis.finding import Confidence, Finding
from serving.telemetry.signals import TargetState
from tests.serving.diagnosis.states import front, look, moved, times, watch, worker

P, D, A = Role.PREFILL, Role.DECODE, Role.AGGREGATED
SLO = Slo(model="m", ttft_s=1.0, tpot_s=0.05)


def legs(queue=0.002, prefill=0.1, ttft=None, itl=None):
    """Latencies of a worker that finished 20 requests."""
    found = {
        "queueing": times(*[queue] * 20),
        "prefilling": times(*[prefill] * 20),
        "ttft": times(*[ttft or queue + prefill] * 20),
    }
    return found | ({} if itl is None else {"itl": times(*[itl] * 200)})


def calm_prefill(**more):
    return worker(P, [look(running=i % 2) for i in range(20)], latencies=legs(), **more)


def calm_decode(*, itl=0.02, looks=None, **more):
    return worker(
        D,
        looks or [look(running=2)] * 20,
        latencies=legs(prefill=0.02, itl=itl),
        transfer=moved([0.01] * 20),
        output_tokens_per_s=100,
        **more,
    )


def test_a_healthy_deployment_has_no_bottleneck() -> None:
    found = diagnose(watch(calm_prefill(), calm_decode(), slo=SLO))
    assert found.bottleneck is Bottleneck.NONE
    assert found.confidence is Confidence.HIGH
    assert not any(s.is_short for s in found.others)


def test_prompts_that_wait_for_prompts_are_prefill() -> None:
    flooded = worker(P, [look(running=1, waiting=6)] * 20, latencies=legs(queue=3.0, prefill=0.5))
    found = diagnose(watch(flooded, calm_decode(), slo=SLO))
    assert (found.bottleneck, found.role) == (Bottleneck.PREFILL, P)
    assert any("wait in the queue: 3.00 s" in e.text for e in found.evidence)
    assert "add prefill workers" in found.action


def test_a_prefill_worker_whose_batch_always_reads_0_is_busy_all_the_same() -> None:
    """Real vLLM: prompts of one step and one token have left the batch when it is told."""
    flooded = worker(
        P,
        [look(running=0, waiting=13)] * 20,
        latencies=legs(queue=4.3, prefill=4.9),
        requests_per_s=0.7,
    )
    found = diagnose(watch(flooded, calm_decode(), slo=SLO))
    assert (found.bottleneck, found.role) == (Bottleneck.PREFILL, P)


def test_steps_beyond_the_objective_are_decode() -> None:
    found = diagnose(watch(calm_prefill(), calm_decode(itl=0.08), slo=SLO))
    assert (found.bottleneck, found.role) == (Bottleneck.DECODE, D)
    assert any("against 50.0 ms promised" in e.text for e in found.evidence)


def test_without_an_objective_slow_steps_cannot_be_told_and_an_experiment_is_named() -> None:
    found = diagnose(watch(calm_prefill(), calm_decode(itl=0.08)))
    assert found.bottleneck is None
    assert "--experiment" in found.action
    assert any(u.bottleneck is Bottleneck.DECODE for u in found.unjudged)


def test_requests_that_wait_for_a_full_kv_cache_are_memory() -> None:
    full = calm_decode(looks=[look(running=5, waiting=4, usage=0.97)] * 20, kv_capacity_tokens=3000)
    found = diagnose(watch(calm_prefill(), full, slo=SLO))
    assert (found.bottleneck, found.role) == (Bottleneck.MEMORY, D)


def test_requests_that_are_put_back_are_memory() -> None:
    thrashing = calm_decode(looks=[look(running=5, usage=0.95)] * 20, preemptions_per_s=0.5)
    found = diagnose(watch(calm_prefill(), thrashing, slo=SLO))
    assert found.bottleneck is Bottleneck.MEMORY
    assert any("preempted" in e.text for e in found.evidence)


def test_a_cache_full_at_prefill_is_memory_and_not_prefill() -> None:
    held = worker(
        P, [look(running=1, waiting=6, usage=0.99)] * 20, latencies=legs(queue=3.0, prefill=0.5)
    )
    found = diagnose(watch(held, calm_decode(), slo=SLO))
    assert (found.bottleneck, found.role) == (Bottleneck.MEMORY, P)


@pytest.mark.parametrize("limits", [{}, {"max_num_seqs": {D: 4}}])
def test_a_full_batch_with_room_in_memory_is_batching(limits) -> None:
    full = calm_decode(looks=[look(running=4, waiting=5)] * 20)
    found = diagnose(watch(calm_prefill(), full, slo=SLO, **limits))
    assert (found.bottleneck, found.role) == (Bottleneck.BATCHING, D)
    assert found.confidence is (Confidence.HIGH if limits else Confidence.MEDIUM)


def test_a_full_batch_whose_steps_are_too_slow_already_is_decode() -> None:
    full = calm_decode(itl=0.06, looks=[look(running=4, waiting=2)] * 20)
    assert diagnose(watch(calm_prefill(), full, slo=SLO)).bottleneck is Bottleneck.DECODE


def test_a_kv_cache_that_takes_longer_to_move_than_to_compute_is_cache_transfer() -> None:
    slow = worker(
        D,
        [look(running=2, waiting=1, waiting_for_kv=1)] * 20,
        latencies=legs(queue=0.8, prefill=0.02, itl=0.02),
        transfer=moved([0.7] * 20, per_s=1.0),
    )
    found = diagnose(watch(calm_prefill(), slow, slo=SLO))
    assert found.bottleneck is Bottleneck.CACHE_TRANSFER
    assert found.role is None


def test_caches_that_wait_for_the_end_of_a_step_are_not_cache_transfer() -> None:
    def with_step(itl: float) -> Finding:
        busy = worker(
            D,
            [look(running=20, waiting=0.2, waiting_for_kv=0.2)] * 20,
            latencies=legs(queue=0.2, prefill=0.02, itl=itl),
            transfer=moved([0.15] * 20, per_s=1.0),
            output_tokens_per_s=100,
        )
        return diagnose(watch(calm_prefill(), busy, slo=replace(SLO, tpot_s=0.5)))

    assert with_step(0.18).bottleneck is Bottleneck.NONE
    assert with_step(0.01).bottleneck is Bottleneck.CACHE_TRANSFER


def test_a_link_that_is_full_is_network() -> None:
    crowded = worker(
        D,
        [look(running=9, waiting=4, waiting_for_kv=4)] * 20,
        latencies=legs(queue=0.1, prefill=0.02, itl=0.02),
        transfer=moved([0.09] * 20, per_s=40.0, bytes_each=2.4e6),
        requests_per_s=40.0,
    )
    prefill = worker(P, [look()] * 20, latencies=legs(prefill=0.3), requests_per_s=40.0)
    found = diagnose(watch(prefill, crowded, slo=SLO, link_bytes_per_s=100e6))
    assert found.bottleneck is Bottleneck.NETWORK
    assert any("96.0 MB/s, against 100.0 MB/s" in e.text for e in found.evidence)


def test_a_queue_beside_an_idle_worker_is_scheduling() -> None:
    full = worker(P, [look(waiting=5)] * 20, name="p1", latencies=legs(queue=2.0, prefill=0.4))
    idle = worker(P, [look(running=0)] * 20, name="p2", latencies=legs(), requests_per_s=0.1)
    found = diagnose(watch(full, idle, calm_decode(), slo=SLO))
    assert (found.bottleneck, found.role) == (Bottleneck.SCHEDULING, P)
    assert "p1" in found.evidence[0].text


def test_time_to_first_token_outside_the_engines_is_scheduling() -> None:
    found = diagnose(watch(calm_prefill(), calm_decode(), front=front(0.9), slo=SLO))
    assert found.bottleneck is Bottleneck.SCHEDULING
    assert "by router" in found.evidence[0].text


def test_answers_that_stand_still_for_prompts_are_scheduling() -> None:
    mixed = worker(
        A,
        [look(running=6)] * 20,
        latencies=legs(prefill=0.5) | {"itl": times(*[0.02] * 190, *[0.6] * 10)},
        output_tokens_per_s=100,
        isl=2000,
    )
    slo = Slo(model="m", ttft_s=1.0, tpot_s=0.2)
    found = diagnose(watch(mixed, slo=slo))
    assert found.bottleneck is Bottleneck.SCHEDULING
    assert "separate prefill from decode" in found.action


def test_the_shortage_that_holds_up_more_is_named_and_the_other_is_beside_it() -> None:
    flooded = worker(P, [look(waiting=6)] * 20, latencies=legs(queue=3.0, prefill=0.5))
    full = calm_decode(looks=[look(running=4, waiting=5)] * 20)
    found = diagnose(watch(flooded, full, slo=SLO))
    assert found.bottleneck is Bottleneck.PREFILL
    assert found.confidence is Confidence.MEDIUM
    assert found.others[0].bottleneck is Bottleneck.BATCHING


def test_no_traffic_is_no_bottleneck_and_too_little_is_not_judged() -> None:
    idle = [look(running=0)] * 20
    still = [worker(role, idle, requests_per_s=0) for role in (P, D)]
    assert diagnose(watch(*still)).bottleneck is Bottleneck.NONE
    few = [worker(role, [look()] * 20, requests_per_s=0.1, latencies=legs()) for role in (P, D)]
    found = diagnose(watch(*few))
    assert found.bottleneck is None
    assert "watch longer" in found.summary


def test_workers_that_do_not_answer_are_named_and_lower_the_confidence() -> None:
    dead = worker(D, [], name="d2", state=TargetState.DOWN)
    found = diagnose(watch(calm_prefill(), calm_decode(), dead, slo=SLO))
    assert found.confidence is Confidence.LOW
    assert "d2" in found.remarks[0]
    assert diagnose(watch(dead)).bottleneck is None


def test_what_is_too_short_to_matter_is_not_named() -> None:
    quick = worker(
        D,
        [look(running=1)] * 20,
        latencies=legs(prefill=0.002, itl=0.01),
        transfer=moved([0.012] * 20),
        output_tokens_per_s=100,
    )
    prefill = worker(P, [look(running=0)] * 20, latencies=legs(queue=0.001, prefill=0.004))
    found = diagnose(watch(prefill, quick, front=front(0.06), slo=SLO))
    assert found.bottleneck is Bottleneck.NONE

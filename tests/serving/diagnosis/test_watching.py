"""From live pages to what a diagnosis rests on."""

import time

import pytest

from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from planner.domain.slo import Slo
from serving.diagnosis.conclude import diagnose
from serving.diagnosis.finding import Finding
from serving.diagnosis.watched import Watch, Yardsticks
from serving.diagnosis.watching import WatchPlan, watch
from serving.telemetry.signals import TargetKind
from serving.telemetry.targets import Target, metrics_page
from tests.serving.diagnosis.live import LoadedWorker, running

SLO = Slo(model="m", ttft_s=1.0, tpot_s=0.1)


def watched(*workers: tuple[Role, LoadedWorker]) -> Watch:
    """A second of stub workers."""
    if not workers:
        return Watch(seconds=1.0, workers=())
    targets = []

    def nested(left):
        if not left:
            return watch(
                targets,
                WatchPlan(for_s=1.5, every_s=0.1),
                Yardsticks(slo=SLO),
                clock=time.monotonic,
                sleep=time.sleep,
            )
        (role, worker), *rest = left
        with running(worker) as url:
            targets.append(
                Target(
                    name=f"{role}",
                    url=url,
                    metrics_url=metrics_page(url),
                    kind=TargetKind.ENGINE,
                    role=role,
                )
            )
            return nested(rest)

    return nested(list(workers))


def found_with(decode: LoadedWorker) -> Finding:
    calm = LoadedWorker(running=0, prefill_s=0.02)
    return diagnose(watched((Role.PREFILL, calm), (Role.DECODE, decode)))


def test_rates_and_moments_are_those_of_the_interval() -> None:
    (worker,) = watched((Role.DECODE, LoadedWorker(running=3, usage=0.4, rate_rps=20.0))).workers
    assert len(worker.looks) > 5
    assert {(x.running, x.kv_usage_ratio) for x in worker.looks} == {(3.0, 0.4)}
    assert worker.signals.activity.requests_per_s.value == pytest.approx(20, rel=0.2)
    assert worker.signals.activity.itl.mean_s.value == pytest.approx(0.02)


def test_caches_that_have_arrived_and_wait_for_the_batch_are_batching() -> None:
    """Real vLLM counts them among those that fetch a KV cache; the transfer is over."""
    held = LoadedWorker(running=2, waiting=9, kv_fetch=(("completed_waiting", 9),))
    assert found_with(held).bottleneck is Bottleneck.BATCHING


def test_fetches_that_cannot_start_for_want_of_memory_are_memory() -> None:
    held = LoadedWorker(running=5, waiting=6, usage=0.99, kv_fetch=(("waiting_to_start", 6),))
    assert found_with(held).bottleneck is Bottleneck.MEMORY


def test_fetches_under_way_are_cache_transfer() -> None:
    held = LoadedWorker(
        running=2, waiting=4, transfer_s=0.3, rate_rps=10, kv_fetch=(("in_progress", 4),)
    )
    assert found_with(held).bottleneck is Bottleneck.CACHE_TRANSFER

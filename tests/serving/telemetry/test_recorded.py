"""Real pages of a disaggregated deployment: two looks at vLLM and smg under too much load."""

from datetime import UTC, datetime

import pytest

from planner.domain.fleet import Role
from serving.telemetry.names import SOURCES
from serving.telemetry.quantities import Kind, Quantity
from serving.telemetry.signals import DeploymentSignals, Source, TargetKind, TargetSignals
from serving.telemetry.targets import Look, Target, signals_of
from serving.telemetry.whole import deployment_signals
from tests.serving.telemetry.look import AT_S, recorded

SECONDS = 18.233


def both_looks(name: str, kind: TargetKind, role: Role | None = None) -> TargetSignals:
    target = Target(name=name, url="http://host:1", metrics_url="", kind=kind, role=role)
    earlier = recorded(f"{name}-1.txt", at_s=AT_S - SECONDS)
    return signals_of(
        Look(target=target, page=earlier), Look(target=target, page=recorded(f"{name}-2.txt"))
    )


@pytest.fixture(scope="module")
def signals() -> DeploymentSignals:
    return deployment_signals(
        [
            both_looks("smg", TargetKind.ROUTER),
            both_looks("vllm-prefill", TargetKind.ENGINE, Role.PREFILL),
            both_looks("vllm-decode", TargetKind.ENGINE, Role.DECODE),
        ],
        looked_at=datetime(2026, 11, 29, tzinfo=UTC),
    )


def test_every_name_of_vllm_s_newest_release_is_on_its_page() -> None:
    page = recorded("vllm-decode-2.txt")
    for quantity in SOURCES[Source.VLLM].names:
        if quantity is Quantity.HIT_RATIO:  # gone since hits and lookups are counted
            continue
        read = page.histogram if quantity.kind is Kind.HISTOGRAM else page.value
        found = read(Source.VLLM, quantity)
        assert found is not None, quantity
        newest = SOURCES[Source.VLLM].names[quantity][0].of[0].name
        assert found.metric == newest


def test_first_tokens_are_both_legs_and_not_smg_s_head_of_an_answer(
    signals: DeploymentSignals,
) -> None:
    # From the pages: 32 prefill legs took 1370.557 s more, 32 decode legs 42.332 s more.
    mean_s = (6006.73188328743 - 4636.174663066864 + 145.35817694664 - 103.02624583244) / 32
    assert signals.ttft.mean_s.value == pytest.approx(mean_s)
    head_s = (6063.59745902 - 4677.022876258) / 32
    assert head_s < mean_s - 0.8
    p95 = signals.ttft.p95_s
    assert p95.low is not None
    assert p95.high is not None
    assert p95.low < mean_s < p95.high


def test_the_queue_waits_for_kv_caches(signals: DeploymentSignals) -> None:
    decode = signals.of_role(Role.DECODE)
    assert decode is not None
    assert decode.activity.waiting.value == decode.activity.waiting_for_kv.value
    assert decode.activity.kv_capacity_tokens.value == 1024 * 128
    assert decode.activity.computed_tokens_per_s.value == 0.0


def test_transfers_are_those_that_decode_received(signals: DeploymentSignals) -> None:
    moved = signals.transfer
    assert moved.latency.count.value == 32
    assert moved.transfers_per_s.value == pytest.approx(32 / SECONDS)
    assert moved.failed_per_s.value == 0.0


def test_tokens_and_models_are_read(signals: DeploymentSignals) -> None:
    assert {t.model for t in signals.workers} == {"tiny"}
    assert signals.output_tokens_per_s.value is not None
    assert signals.output_tokens_per_s.value > 0
    assert all(t.state == "up" for t in signals.targets)

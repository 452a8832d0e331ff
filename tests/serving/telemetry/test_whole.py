"""A deployment from its parts: every request once, each figure from whoever sees it."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from planner.capacity.deployment import predict
from planner.capacity.split import PoolLoad
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import Accelerator, Offer, PurchaseOption
from planner.domain.model import Model
from planner.domain.slo import Slo
from planner.domain.spec import PoolBounds, Spec
from planner.domain.workload import Shape
from serving.telemetry.signals import (
    DeploymentSignals,
    Source,
    TargetKind,
    TargetSignals,
    TargetState,
)
from serving.telemetry.targets import Look, Target, signals_of
from serving.telemetry.whole import ONE_LEG, Promised, deployment_signals
from tests.fakes.models import LLAMA_8B
from tests.fakes.profiles import linear_profile
from tests.serving.telemetry.look import histogram_text, written

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
ENDS = (0.1, 0.5, 1.0, 2.0)
LENGTHS = (100.0, 500.0, 1000.0)


def target(
    name: str, text: str, *, kind: TargetKind = TargetKind.ENGINE, role: Role | None = None
) -> TargetSignals:
    """A target that did all that its page says in ten seconds."""
    where = Target(name=name, url=f"http://{name}", metrics_url="", kind=kind, role=role)
    before = written("# TYPE nothing gauge\n", at_s=100.0)
    return signals_of(
        Look(target=where, page=before), Look(target=where, page=written(text, at_s=110.0))
    )


def engine_text(
    *,
    prompt: int = 0,
    computed: int = 0,
    hits: int = 0,
    generated: int = 0,
    finished: int = 0,
    waiting: int = 0,
    usage: float = 0.0,
    ttfts: tuple[float, ...] = (),
    gaps: tuple[float, ...] = (),
    isl: float = 500.0,
    osl: float = 100.0,
) -> str:
    by_source = "vllm:prompt_tokens_by_source_total"
    lines = [
        f"vllm:num_requests_waiting {waiting}",
        f"vllm:kv_cache_usage_perc {usage}",
        'vllm:cache_config_info{num_gpu_blocks="100",block_size="16"} 1',
        f"vllm:prompt_tokens_total {prompt}",
        f'{by_source}{{source="local_compute"}} {computed}',
        f"vllm:prefix_cache_queries_total {prompt}",
        f"vllm:prefix_cache_hits_total {hits}",
        f"vllm:generation_tokens_total {generated}",
        f'vllm:request_success_total{{finished_reason="stop"}} {finished}',
        'vllm:request_success_total{finished_reason="abort"} 0',
    ]
    return (
        "\n".join(lines)
        + "\n"
        + histogram_text("vllm:time_to_first_token_seconds", list(ttfts), ENDS)
        + histogram_text("vllm:e2e_request_latency_seconds", [2 * t for t in ttfts], ENDS)
        + histogram_text("vllm:inter_token_latency_seconds", list(gaps), (0.01, 0.02, 0.05))
        + histogram_text("vllm:request_time_per_output_token_seconds", list(gaps), (0.02, 0.05))
        + histogram_text("vllm:request_prompt_tokens", [isl] * finished, LENGTHS)
        + histogram_text("vllm:request_generation_tokens", [osl] * finished, LENGTHS)
    )


PREFILL = target(
    "p",
    engine_text(
        prompt=5000, computed=4000, hits=1000, generated=10, finished=10, ttfts=(0.2,) * 10
    ),
    role=Role.PREFILL,
)
DECODE = target(
    "d",
    engine_text(
        prompt=5000,
        computed=100,
        generated=1000,
        finished=10,
        waiting=3,
        usage=0.5,
        ttfts=(0.1,) * 10,
        gaps=(0.015,) * 10,
    ),
    role=Role.DECODE,
)
ROUTER = target(
    "router",
    'smg_router_requests_total 12\nsmg_router_request_errors_total{error_type="x"} 2\n'
    + histogram_text("smg_pd_ttft_seconds", [0.35] * 10, ENDS),
    kind=TargetKind.ROUTER,
)


def whole(*targets: TargetSignals, promised: Promised | None = None) -> DeploymentSignals:
    return deployment_signals(targets, looked_at=NOW, promised=promised)


def test_requests_of_two_legs_are_counted_once_and_as_their_users_have_them() -> None:
    signals = whole(ROUTER, PREFILL, DECODE)
    assert signals.seen_by == "both legs' engines"
    assert signals.requests_per_s.value == 1.2
    assert signals.input_tokens_per_s.value == 510.0  # and 10/s that decode computed by itself
    assert signals.output_tokens_per_s.value == 100.0
    assert signals.prefix_hit_ratio.value == 0.2
    assert signals.itl.mean_s.value == pytest.approx(0.015)


def test_first_tokens_of_two_legs_are_their_sum_within_certain_bounds() -> None:
    signals = whole(ROUTER, PREFILL, DECODE)  # smg's own times end with the head of an answer
    ttft, e2e = signals.ttft, signals.e2e
    assert ttft.mean_s.value == pytest.approx(0.3)
    assert e2e.mean_s.value == pytest.approx(0.6)
    assert (ttft.p95_s.low, ttft.p95_s.high) == (0.1, 0.6)  # in (0.1, 0.5] and up to 0.1
    assert "of both legs" in ttft.p95_s.metric


def test_with_one_leg_down_there_is_no_first_token() -> None:
    down = replace(DECODE, state=TargetState.DOWN, note="no answer")
    assert whole(PREFILL, down).ttft.p95_s.missing == ONE_LEG


def test_an_aggregated_engine_sees_whole_requests() -> None:
    engine = replace(DECODE, role=Role.AGGREGATED)
    signals = whole(engine)
    assert signals.ttft.mean_s.value == pytest.approx(0.1)
    assert signals.transfer.latency.p50_s.missing == "no prefill or decode worker answers"


def test_a_gate_is_believed_before_a_router() -> None:
    gate = target(
        "gate",
        histogram_text("poolwise_gate_ttft_seconds", [0.6] * 4, ENDS),
        kind=TargetKind.GATE,
    )
    signals = whole(gate, ROUTER, DECODE)
    assert signals.seen_by == "gate"
    assert signals.ttft.mean_s.value == pytest.approx(0.6)


DOWN = {"state": TargetState.DOWN, "note": "no answer"}


@pytest.mark.parametrize(
    ("parts", "wanted", "lacks"),
    [
        ((ROUTER, PREFILL, DECODE), True, ()),
        ((ROUTER, DECODE), False, (Role.PREFILL,)),
        ((ROUTER, PREFILL), True, (Role.DECODE,)),
        ((ROUTER, PREFILL, replace(DECODE, **DOWN)), False, (Role.DECODE,)),
        ((ROUTER,), True, (Role.PREFILL, Role.DECODE)),
        ((ROUTER,), False, ()),
        ((replace(DECODE, role=Role.AGGREGATED),), False, ()),
    ],
)
def test_a_role_that_is_needed_or_wanted_and_has_nobody_is_named(parts, wanted, lacks) -> None:
    promised = Promised(spec=spec(), model="tiny") if wanted else None
    assert whole(*parts, promised=promised).lacks == lacks


def test_where_the_spec_has_aggregated_workers_too_legs_may_be_empty_unless_bounded() -> None:
    wide = spec()
    prefill, decode = wide.pools
    both = replace(prefill, shape=replace(prefill.shape, role=Role.AGGREGATED))
    wide = replace(wide, pools=(prefill, replace(decode, min_replicas=1), both))
    alone = replace(DECODE, role=Role.AGGREGATED)
    assert whole(alone, promised=Promised(spec=wide, model="tiny")).lacks == (Role.DECODE,)


def test_workers_of_a_role_are_put_together() -> None:
    other = target("d2", engine_text(generated=500, waiting=1, usage=0.1), role=Role.DECODE)
    role = whole(DECODE, other).of_role(Role.DECODE)
    assert role is not None
    activity = role.activity
    assert (role.workers, role.answering) == (2, 2)
    assert activity.waiting.value == 4.0
    assert activity.output_tokens_per_s.value == 150.0
    assert activity.kv_usage_ratio.value == pytest.approx(0.3)
    assert activity.kv_usage_most_ratio.value == 0.5
    assert activity.itl.count.value == 10.0


def test_a_worker_that_is_down_is_counted_and_not_averaged_in() -> None:
    down = replace(DECODE, name="gone", state=TargetState.DOWN, note="no answer")
    role = whole(DECODE, down).of_role(Role.DECODE)
    assert role is not None
    assert (role.workers, role.answering) == (2, 1)
    assert role.activity.waiting.value == 3.0


def test_a_sum_of_which_a_part_is_not_known_is_not_known() -> None:
    blind = target("d2", "vllm:num_requests_running 1\n", role=Role.DECODE)
    role = whole(DECODE, blind).of_role(Role.DECODE)
    assert role is not None
    assert role.activity.waiting.value is None
    assert role.activity.waiting.missing.startswith("d2: its page has no")


def test_with_nothing_that_answers_every_figure_has_a_reason() -> None:
    down = replace(DECODE, state=TargetState.DOWN, note="no answer")
    signals = whole(down)
    for signal in (signals.requests_per_s, signals.input_tokens_per_s, signals.itl.p95_s):
        assert signal.value is None
        assert signal.missing


def spec(*, decode_price: float = 4.0) -> Spec:
    def pool(role: Role, accelerator: str, tp: int) -> PoolBounds:
        shape = ReplicaShape(role=role, model="tiny", accelerator=accelerator, tp=tp)
        return PoolBounds(shape=shape)

    def accelerator(name: str, usd: float) -> Accelerator:
        offer = Offer(purchase_option=PurchaseOption.ON_DEMAND, usd_per_gpu_hour=usd)
        return Accelerator(name=name, per_node=8, inventory=8, offers=(offer,))

    return Spec(
        spec_id="s",
        name="s",
        models=(model(),),
        slos=(Slo(model="tiny", ttft_s=1.0, tpot_s=0.05, attainment_ratio=0.9),),
        accelerators=(accelerator("a", 2.0), accelerator("b", decode_price)),
        profiles=(
            linear_profile(accelerator="a", tp=2),
            linear_profile(profile_id="other", accelerator="b"),
        ),
        pools=(pool(Role.PREFILL, "a", 2), pool(Role.DECODE, "b", 1)),
    )


def model() -> Model:
    return replace(LLAMA_8B, name="tiny")


def test_cost_is_that_of_all_workers_over_the_tokens_that_come_out() -> None:
    down = replace(DECODE, name="gone", state=TargetState.DOWN, note="no answer")
    promised = Promised(spec=spec(), model="tiny")
    signals = whole(ROUTER, PREFILL, DECODE, down, promised=promised)
    assert signals.usd_per_hour.value == 2 * 2.0 + 2 * 4.0
    assert signals.usd_per_million_tokens.value == pytest.approx(12 / 3600 / 100 * 1e6)


def test_without_a_spec_there_is_no_cost() -> None:
    assert whole(DECODE).usd_per_hour.missing == "no prices: give --spec"


def test_promises_are_judged_by_both_legs_and_the_router_s_failures() -> None:
    signals = whole(ROUTER, PREFILL, DECODE, promised=Promised(spec=spec(), model="tiny"))
    (kept,) = signals.slos
    assert kept.attainment_ratio.low == pytest.approx(1 - 2 / 10)
    assert kept.attainment_ratio.high == pytest.approx(10 / 12)


def test_the_prediction_is_the_closed_form_for_what_is_observed() -> None:
    signals = whole(ROUTER, PREFILL, DECODE, promised=Promised(spec=spec(), model="tiny"))
    profiles = spec().profiles
    truth = predict(
        [
            PoolLoad(profile=profiles[0], role=Role.PREFILL, replicas=1),
            PoolLoad(profile=profiles[1], role=Role.DECODE, replicas=1),
        ],
        Shape(
            input_tokens=np.array([500.0]),
            output_tokens=np.array([100.0]),
            cached_tokens=np.array([100.0]),
            weight=np.array([1.0]),
        ),
        spec().slos[0],
        request_rate_rps=1.2,
    )
    assert signals.expected is not None
    assert signals.expected.ttft_p95_s.value == pytest.approx(truth.prediction.ttft_p95_s)
    assert signals.expected.itl_p95_s.value == pytest.approx(truth.prediction.itl_p95_s)
    assert signals.expected.bottleneck is truth.bottleneck


def test_where_a_prediction_cannot_be_made_the_reason_stands() -> None:
    signals = whole(ROUTER, DECODE, promised=Promised(spec=spec(), model="tiny"))
    assert signals.expected is not None
    assert "no worker of role prefill answers" in signals.expected.ttft_p95_s.missing


def test_source_is_kept_with_what_it_told() -> None:
    assert [t.source for t in whole(ROUTER, DECODE).targets] == [Source.SMG, Source.VLLM]

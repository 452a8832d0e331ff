"""Pages of every source, recorded or written after their source, read into one form."""

import pytest

from planner.domain.errors import EngineError
from serving.telemetry.interval import Interval
from serving.telemetry.names import SOURCES
from serving.telemetry.page import Page
from serving.telemetry.quantities import Kind, Quantity
from serving.telemetry.signals import Activity, Source
from tests.serving.telemetry.look import AT_S, recorded, since_nothing, written

VALUES = {
    Source.SGLANG: (
        "sglang.txt",
        {
            "running": 12,
            "waiting": 13,  # in the queue, bootstrapping, and for KV memory and transfer
            "waiting_for_kv": 9,
            "kv_usage_ratio": 0.28,
            "kv_capacity_tokens": 442_361,
            "requests_per_s": 2.0,
            "failed_per_s": 0.1,
            "preemptions_per_s": 0.2,
            "input_tokens_per_s": 1000.0,
            "output_tokens_per_s": 100.0,
            "computed_tokens_per_s": 750.0,
            "prefix_hit_ratio": 0.25,  # of the interval, not the gauge's 0.9
            "ttft.mean_s": 0.15,  # streamed answers only
            "itl.mean_s": 0.01,
            "transfer.latency.mean_s": 0.015,  # milliseconds there
            "transfer.bytes_per_s": 12e6,
            "transfer.failed_per_s": 0.1,
            "isl": 500.0,
            "osl": 50.0,
        },
    ),
    Source.DYNAMO: (
        "dynamo.txt",
        {
            "running": 12,
            "waiting": 3,
            "kv_usage_ratio": 0.4,  # mean of two workers' 300 and 500 of 1000 blocks
            "kv_capacity_tokens": 64_000,
            "requests_per_s": 1.8,
            "failed_per_s": 0.2,
            "input_tokens_per_s": 900.0,
            "output_tokens_per_s": 100.0,
            "prefix_hit_ratio": 1 / 3,
            "ttft.mean_s": 0.2,
            "itl.mean_s": 0.01,
            "e2e.mean_s": 1.0,
            "transfer.latency.mean_s": 0.02,
        },
    ),
    Source.LLM_D: (
        "llm-d.txt",
        {
            "running": 6,
            "waiting": 6,
            "kv_usage_ratio": 0.4,
            "requests_per_s": 2.0,
            "failed_per_s": 0.2,
            "input_tokens_per_s": 1000.0,
            "output_tokens_per_s": 100.0,
            "prefix_hit_ratio": 0.25,
            "ttft.mean_s": 0.15,  # streamed answers only
            "itl.mean_s": 0.01,
            "tpot.mean_s": 0.01,
            "e2e.mean_s": 1.0,
            "queueing.mean_s": 0.005,
        },
    ),
    Source.DCGM: (
        "dcgm.txt",
        {
            "hardware.accelerator_ratio": 0.7,  # the engines' activity, not the coarse GPU_UTIL
            "hardware.memory_used_ratio": 80_000 / 162_000,
            "hardware.memory_bandwidth_ratio": 0.4,
            "hardware.tensor_ratio": 0.3,
            "hardware.power_w": 500.5,  # the other GPU's is marked as not there
        },
    ),
    Source.VLLM_ROUTER: (
        "vllm-router.txt",
        {"running": 0, "waiting": 0, "requests_per_s": 0.6},
    ),
}


def told(activity: Activity, path: str) -> float | None:
    value: object = activity
    for name in path.split("."):
        value = getattr(value, name)
    number: float | None = value.value  # type: ignore[attr-defined]
    return number


@pytest.mark.parametrize("source", list(VALUES))
def test_a_page_is_read_into_the_normal_form(source: Source) -> None:
    page, values = VALUES[source]
    activity = since_nothing(page, source).activity()
    assert {path: told(activity, path) for path in values} == pytest.approx(values)


@pytest.mark.parametrize("source", list(VALUES))
def test_a_page_is_told_from_the_others(source: Source) -> None:
    assert recorded(VALUES[source][0]).sources() == (source,)


@pytest.mark.parametrize("source", list(SOURCES))
@pytest.mark.parametrize("spelling", ["vllm:x", "vllm_x", "without _total", "with _total"])
def test_either_spelling_of_a_name_is_read(source: Source, spelling: str) -> None:
    for quantity, metrics in SOURCES[source].names.items():
        if quantity.kind is Kind.HISTOGRAM or metrics[0].over or metrics[0].labels:
            continue
        series = metrics[0].of[0]
        name = {
            "vllm:x": series.name,
            "vllm_x": series.name.replace(":", "_"),
            "without _total": series.name.removesuffix("_total"),
            "with _total": series.name.removesuffix("_total") + "_total",
        }[spelling]
        labels = ",".join(f'{label}="{values[0]}"' for label, values in series.where)
        lines = [f"{name}{{{labels}}} 7.0"]
        lines += [f"{other.name} 1.0" for other in metrics[0].times]
        found = written("\n".join(lines) + "\n").value(source, quantity)
        assert found is not None, (source, quantity, name)
        assert found.value == pytest.approx(7.0 * metrics[0].scale)
        assert found.metric == name


@pytest.mark.parametrize("prefix", ["llm_d_router_epp_", "inference_objective_"])
def test_older_names_of_llm_d_are_read(prefix: str) -> None:
    page = written(f'{prefix}request_total{{model_name="m"}} 5\n{prefix}input_tokens_sum 50\n')
    assert page.sources() == (Source.LLM_D,)
    values = [page.value(Source.LLM_D, q) for q in (Quantity.REQUESTS, Quantity.INPUT_TOKENS)]
    assert [found.value for found in values if found] == [5.0, 50.0]


@pytest.mark.parametrize(
    ("text", "quantity", "value"),
    [
        ("vllm:gpu_cache_usage_perc 0.5", Quantity.KV_USAGE_RATIO, 0.5),
        ("vllm:gpu_prefix_cache_hits_total 4", Quantity.HITS, 4.0),
        ('vllm:num_requests_waiting_by_reason{reason="deferred"} 3', Quantity.WAITING_FOR_KV, 3.0),
    ],
)
def test_older_names_of_vllm_are_read(text: str, quantity: Quantity, value: float) -> None:
    found = written(text + "\n").value(Source.VLLM, quantity)
    assert found is not None
    assert found.value == value


def test_newer_names_win_over_older_ones() -> None:
    page = written("vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0.25\n")
    found = page.value(Source.VLLM, Quantity.KV_USAGE_RATIO)
    assert found is not None
    assert (found.value, found.metric) == (0.25, "vllm:kv_cache_usage_perc")


def test_usage_of_several_engines_in_one_process_is_a_mean_and_their_queues_a_sum() -> None:
    lines = [f'vllm:kv_cache_usage_perc{{engine="{i}"}} {0.2 * i}' for i in (1, 2)]
    lines += [f'vllm:num_requests_waiting{{engine="{i}"}} {i}' for i in (1, 2)]
    page = written("\n".join(lines) + "\n")
    usage, queue = (page.value(Source.VLLM, q) for q in (Quantity.KV_USAGE_RATIO, Quantity.WAITING))
    assert usage is not None
    assert queue is not None
    assert (usage.value, queue.value) == (pytest.approx(0.3), 3.0)


def test_what_is_no_number_is_not_known_and_never_zero() -> None:
    page = written("vllm:kv_cache_usage_perc NaN\n")
    assert page.value(Source.VLLM, Quantity.KV_USAGE_RATIO) is None


def test_samples_that_carry_a_time_are_as_old_as_it_says() -> None:
    page = Page.parse("vllm:num_requests_running 1 900000\n", at_s=1000.0, source="test")
    assert page.at_s == 900.0


@pytest.mark.parametrize("text", ["<html><body>hello</body></html>", "{}", "a b c d e"])
def test_what_is_no_metrics_page_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match="is this the address of a /metrics page"):
        written(text)


GATE = """
# TYPE poolwise_gate_requests counter
poolwise_gate_requests_total{request_class="chat",outcome="complete",status="200"} 30
poolwise_gate_requests_total{request_class="chat",outcome="shed",status="503"} 8
poolwise_gate_requests_total{request_class="batch",outcome="failed",status="502"} 2
poolwise_gate_requests_total{request_class="batch",outcome="cancelled",status="200"} 5
# TYPE poolwise_gate_judged counter
poolwise_gate_judged_total{request_class="chat",met="yes"} 27
poolwise_gate_judged_total{request_class="chat",met="no"} 11
poolwise_gate_judged_total{request_class="batch",met="no"} 2
# TYPE poolwise_gate_tokens counter
poolwise_gate_tokens_total{request_class="chat",direction="input",counted="server"} 3000
poolwise_gate_tokens_total{request_class="chat",direction="output",counted="server"} 500
poolwise_gate_tokens_total{request_class="chat",direction="output",counted="estimated"} 100
# TYPE poolwise_gate_in_flight gauge
poolwise_gate_in_flight{cell="a"} 2
poolwise_gate_in_flight{cell="b"} 3
"""


def test_the_gate_s_page_tells_classes_apart() -> None:
    interval = Interval(Source.GATE, Page.of([], at_s=AT_S - 10), written(GATE))
    activity = interval.activity()
    assert activity.running.value == 5.0
    assert activity.requests_per_s.value == 3.0
    assert activity.failed_per_s.value == 1.0  # shed and failed; a client may go away
    assert (activity.input_tokens_per_s.value, activity.output_tokens_per_s.value) == (300, 60)
    judged = {
        one.request_class: (one.judged_per_s.value, one.met_per_s.value) for one in activity.judged
    }
    assert judged == {"chat": (3.8, 2.7), "batch": (0.2, 0.0)}

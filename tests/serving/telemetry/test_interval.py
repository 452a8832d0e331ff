"""Two looks at one target: rates, restarts, and what is not known."""

import pytest

from serving.telemetry.interval import Interval
from serving.telemetry.quantities import Quantity
from serving.telemetry.signals import Signal, Source, TargetKind, TargetState
from serving.telemetry.targets import Look, Target, signals_of
from tests.serving.telemetry.look import histogram_text, written

TARGET = Target(
    name="w",
    url="http://127.0.0.1:1",
    metrics_url="http://127.0.0.1:1/metrics",
    kind=TargetKind.ENGINE,
)
TTFT = "vllm:time_to_first_token_seconds"


def page(
    tokens: float,
    *,
    at_s: float = 110.0,
    started_at_s: float | None = None,
    ttfts: tuple[float, ...] = (),
):
    text = f"vllm:num_requests_running 1\nvllm:generation_tokens_total {tokens}\n"
    if started_at_s is not None:
        text += f"process_start_time_seconds {started_at_s}\n"
    return written(text + histogram_text(TTFT, list(ttfts), (0.1, 0.5, 1.0)), at_s=at_s)


def interval(earlier, later) -> Interval:
    return Interval(Source.VLLM, earlier, later)


def tokens_per_s(earlier, later) -> Signal:
    return interval(earlier, later).rate(Quantity.OUTPUT_TOKENS)


def test_a_rate_is_what_came_over_the_time_between_the_looks() -> None:
    assert tokens_per_s(page(100, at_s=100.0), page(150, at_s=110.0)).value == 5.0


def test_quantiles_are_of_the_interval_and_not_since_the_start() -> None:
    before, after = page(1, at_s=100.0, ttfts=(0.05,) * 99), page(2, ttfts=(0.05,) * 99 + (0.7,))
    ttft = interval(before, after).activity().ttft
    assert (ttft.count.value, ttft.mean_s.value) == (1.0, pytest.approx(0.7))
    assert (ttft.p50_s.low, ttft.p50_s.high) == (0.5, 1.0)


def test_with_one_look_gauges_are_known_and_rates_are_not() -> None:
    activity = interval(None, page(100)).activity()
    assert activity.running.value == 1.0
    assert activity.output_tokens_per_s.missing == "it was looked at once: rates need two looks"
    assert activity.ttft.p95_s.value is None


def test_after_a_restart_with_a_known_start_rates_are_of_the_time_since() -> None:
    earlier = page(1000, at_s=100.0, started_at_s=10.0)
    later = page(40, at_s=110.0, started_at_s=106.0, ttfts=(0.2, 0.2))
    both = interval(earlier, later)
    assert both.restarted
    assert both.rate(Quantity.OUTPUT_TOKENS).value == pytest.approx(10.0)
    assert both.activity().ttft.count.value == 2.0


def test_a_restart_is_noticed_though_the_counter_has_overtaken_its_old_value() -> None:
    earlier, later = page(10, at_s=100.0, started_at_s=10.0), page(50, started_at_s=105.0)
    assert tokens_per_s(earlier, later).value == pytest.approx(10.0)


def test_a_counter_that_goes_back_is_a_restart_where_no_start_time_is_told() -> None:
    both = interval(page(1000, at_s=100.0), page(50, at_s=110.0))
    assert both.restarted
    assert both.rate(Quantity.OUTPUT_TOKENS).value == 5.0  # at the least
    signals = signals_of(
        Look(target=TARGET, page=both.earlier), Look(target=TARGET, page=both.later)
    )
    assert signals.state is TargetState.RESTARTED
    assert "at the least" in signals.note


def test_a_counter_that_goes_back_in_a_living_process_is_not_known() -> None:
    earlier, later = page(1000, at_s=100.0, started_at_s=10.0), page(50, started_at_s=10.0)
    signal = tokens_per_s(earlier, later)
    assert signal.value is None
    assert "went back, though its process did not end" in signal.missing


def test_a_missing_metric_is_named_and_never_zero() -> None:
    activity = interval(page(1, at_s=100.0), page(2)).activity()
    assert activity.waiting.value is None
    assert activity.waiting.missing == "its page has no vllm:num_requests_waiting"
    assert "vllm:gpu_cache_usage_perc" in activity.kv_usage_ratio.missing
    assert activity.tpot.p95_s.missing.startswith("its page has no vllm:request_time_per")


def test_nothing_served_is_no_latency_of_zero() -> None:
    ttft = interval(page(1, at_s=100.0, ttfts=(0.2,)), page(2, ttfts=(0.2,))).activity().ttft
    assert ttft.count.value == 0.0
    assert ttft.p95_s.missing == "nothing was observed in the interval"


def test_a_counter_that_comes_up_in_between_grew_from_nothing() -> None:
    before = written("vllm:num_requests_running 1\n", at_s=100.0)
    assert tokens_per_s(before, page(20)).value == 2.0


def test_an_old_sample_makes_a_target_stale_and_it_does_not_answer() -> None:
    signals = signals_of(None, Look(target=TARGET, page=page(1), age_s=61.0))
    assert signals.state is TargetState.STALE
    assert not signals.answers
    assert signals.note == "its newest sample is 61 s old"


def test_where_scrapes_are_seldom_a_sample_may_be_as_old_as_three_of_them() -> None:
    seldom = Look(target=TARGET, page=page(1), age_s=100.0, every_s=60.0)
    assert signals_of(None, seldom).state is TargetState.UP


def test_a_page_of_something_else_is_no_engine() -> None:
    other = written("node_cpu_seconds_total 1\n")
    signals = signals_of(None, Look(target=TARGET, page=other))
    assert signals.state is TargetState.DOWN
    assert "not those of a known engine" in signals.note


@pytest.mark.parametrize("given", [{}, {"value": 1.0, "missing": "why"}, {"value": float("nan")}])
def test_a_signal_has_a_value_or_a_reason(given) -> None:
    with pytest.raises(ValueError):
        Signal(**given)

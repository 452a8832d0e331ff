"""Windows of observed load, made of what a running deployment's parts tell."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from planner.domain.errors import NotLeaderError
from planner.domain.fleet import Role
from planner.domain.workload import ObservedWindow
from planner.service.live.observing import Keeper, Windows
from serving.telemetry.signals import (
    DeploymentSignals,
    Signal,
    TargetKind,
    TargetSignals,
    TargetState,
)
from serving.telemetry.whole import deployment_signals
from tests.planner.service.examples import history
from tests.planner.service.imagined import make_deployment, observe
from tests.serving.telemetry.test_whole import DECODE, PREFILL, ROUTER, engine_text, target

START = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
GATE = "\n".join(
    [
        'poolwise_gate_requests_total{request_class="chat",outcome="complete"} 9',
        'poolwise_gate_requests_total{request_class="batch",outcome="shed"} 3',
        'poolwise_gate_judged_total{request_class="chat",met="true"} 8',
        'poolwise_gate_judged_total{request_class="batch",met="false"} 4',
    ]
)


class Kept:
    """Windows as they came, and the maker that they came from."""

    def __init__(self, *classes: str, window_s: float = 60.0) -> None:
        self.windows: list[ObservedWindow] = []
        self.maker = Windows(
            window_s=window_s,
            classes=classes or ("default",),
            keep=self.windows.extend,
        )

    def see(self, second: float, *targets: TargetSignals) -> None:
        at = START + timedelta(seconds=second)
        self.maker.take(deployment_signals(targets, looked_at=at))


def in_system(decode: TargetSignals, count: float) -> TargetSignals:
    there = replace(decode.activity, running=Signal(value=count), waiting=Signal(value=0.0))
    return replace(decode, activity=there)


EMPTY = in_system(PREFILL, 0)


def test_a_minute_of_readings_is_a_window_with_rates_and_lengths():
    kept = Kept()
    for second in range(10, 70, 10):
        kept.see(second, PREFILL, DECODE)
    (window,) = kept.windows
    assert (window.start_at, window.window_s) == (START, 60.0)
    assert window.requests == 60  # decode ended 10 in 10 s
    assert (window.input_tokens, window.output_tokens) == (30_000, 6_000)
    assert window.cached_tokens == 6_000
    (found,) = window.prefix_cache.reuse
    assert (window.prefix_cache.cache_tokens, found.cache_tokens) == (1600, 1600)
    assert found.reuse_ratio == pytest.approx(0.2)
    assert window.request_class == "default"
    assert window.shape is not None
    assert float(window.shape.input_tokens @ window.shape.weight) == pytest.approx(500)
    assert float(window.shape.output_tokens @ window.shape.weight) == pytest.approx(100)
    assert window.latency is not None
    assert window.latency.ttft_p50_s is not None
    assert 0.1 < window.latency.ttft_p50_s < 0.6


def test_what_waits_longer_and_longer_has_arrived_too():
    kept = Kept()
    for second in range(10, 70, 10):
        kept.see(second, EMPTY, in_system(DECODE, 10.0 * second))
    (window,) = kept.windows
    assert window.requests == 60 + 500  # the first reading has nothing to compare with
    assert window.input_tokens == 560 * 500


def test_a_backlog_that_shrinks_did_not_arrive_again():
    kept = Kept()
    kept.see(0, EMPTY, in_system(DECODE, 40.0))
    for second in range(10, 70, 10):
        kept.see(second, EMPTY, in_system(DECODE, 40.0 - second / 2))
    windows = [window for window in kept.windows if window.start_at == START]
    assert [window.requests for window in windows] == [60 - 30]


def test_a_router_that_counts_what_comes_is_not_believed_beside_engines():
    kept = Kept()
    for second in range(10, 70, 10):
        kept.see(second, ROUTER, EMPTY, in_system(DECODE, 10.0 * second))
    assert [window.requests for window in kept.windows] == [60 + 500]
    alone = Kept()
    for second in range(10, 70, 10):
        alone.see(second, ROUTER)
    assert alone.windows == []  # it does not tell how long prompts are


def test_caches_are_those_of_the_workers_that_compute_prompts_after_the_last_change():
    kept = Kept()
    other = replace(PREFILL, name="p2")
    for second in range(10, 70, 10):
        kept.see(second, PREFILL, DECODE, *([other] if second > 30 else []))
    (window,) = kept.windows
    assert window.prefix_cache.cache_tokens == 3200


@pytest.mark.parametrize("lacks", ["size", "hits", "worker"])
def test_without_every_size_or_without_hits_no_cache_is_told(lacks):
    silent = Signal.lacking("not told")
    activity = {
        "size": replace(PREFILL.activity, kv_capacity_tokens=silent),
        "hits": replace(PREFILL.activity, prefix_hit_ratio=silent),
        "worker": PREFILL.activity,
    }[lacks]
    down = replace(PREFILL, name="p2", state=TargetState.DOWN, note="no answer")
    kept = Kept()
    for second in range(10, 70, 10):
        own = replace(PREFILL, activity=activity)
        kept.see(second, own, DECODE, *([down] if lacks == "worker" else []))
    (window,) = kept.windows
    assert window.requests == 60
    assert window.prefix_cache is None


def test_readings_across_an_edge_are_shared_by_both_windows():
    kept = Kept(window_s=15.0)
    for second in (10, 20, 30):
        kept.see(second, PREFILL, DECODE)
    assert [window.start_at for window in kept.windows] == [START, START + timedelta(seconds=15)]
    assert [window.requests for window in kept.windows] == [15, 15]


def test_no_load_that_is_seen_is_zero_and_load_that_is_not_seen_is_no_window():
    idle = target("d", engine_text(), role=Role.AGGREGATED)
    down = replace(idle, state=TargetState.DOWN, note="no answer")
    kept = Kept()
    for second in range(10, 70, 10):
        kept.see(second, idle)
    for second in range(70, 130, 10):
        kept.see(second, down)
    (window,) = kept.windows
    assert (window.requests, window.input_tokens, window.start_at) == (0, 0, START)
    assert window.shape is None


@pytest.mark.parametrize(("unseen", "requests"), [(1, 60), (2, 60), (3, None)])
def test_of_a_window_two_thirds_have_to_be_seen(unseen, requests):
    unknown = replace(DECODE, state=TargetState.DOWN, note="no answer")
    kept = Kept()
    for number, second in enumerate(range(10, 70, 10)):
        kept.see(second, PREFILL, unknown if number < unseen else DECODE)
    kept.see(130, PREFILL, DECODE)
    found = [window.requests for window in kept.windows if window.start_at == START]
    assert found == ([] if requests is None else [requests])


def test_a_gate_tells_classes_apart_and_what_it_shed_has_arrived():
    gate = target("gate", GATE, kind=TargetKind.GATE)
    kept = Kept("batch", "chat")
    for second in range(10, 70, 10):
        kept.see(second, gate, PREFILL, DECODE)
    assert [(w.request_class, w.requests) for w in kept.windows] == [("batch", 24), ("chat", 48)]


def test_classes_that_nobody_tells_apart_are_not_guessed():
    kept = Kept("batch", "chat")
    for second in range(10, 70, 10):
        kept.see(second, PREFILL, DECODE)
    assert kept.windows == []
    only = Kept("chat")
    for second in range(10, 70, 10):
        only.see(second, PREFILL, DECODE)
    assert [window.request_class for window in only.windows] == ["chat"]


def test_before_anything_ended_lengths_are_not_known_and_nothing_is_said():
    busy = in_system(target("d", engine_text(), role=Role.AGGREGATED), 5.0)
    kept = Kept()
    kept.see(0, in_system(busy, 0.0))
    for second in range(10, 70, 10):
        kept.see(second, busy)
    assert kept.windows == []


def test_looks_that_overlap_are_counted_once():
    kept = Kept()
    idle = in_system(target("d", engine_text(), role=Role.DECODE), 0)
    for second in (10, 20, 30):
        kept.see(second, EMPTY, idle)
    for second in range(35, 65, 5):  # each tells of ten seconds
        kept.see(second, EMPTY, in_system(DECODE, 0))
    assert [window.requests for window in kept.windows] == [30]


def test_a_reading_over_several_windows_is_kept_once_in_each():
    kept = Kept(window_s=4.0)
    for second in (10, 20, 30):
        kept.see(second, PREFILL, DECODE)
    starts = [window.start_at for window in kept.windows]
    assert starts == [START + timedelta(seconds=s) for s in range(0, 28, 4)]


@pytest.mark.parametrize("back_s", [30, 3600, 86_400])
def test_a_clock_that_is_set_back_costs_a_window_and_no_more(back_s):
    kept = Kept()
    for second in range(10, 140, 10):
        kept.see(second, PREFILL, DECODE)
    before = len(kept.windows)
    for second in range(140 - back_s, 140 - back_s + 200, 10):
        kept.see(second, PREFILL, DECODE)
    found = [window.requests for window in kept.windows[before:]]
    assert len(found) >= 2
    assert set(found) == {60}
    assert len(kept.maker._parts) < 10


def test_a_clock_that_jumps_forward_ends_the_window_and_begins_anew(monkeypatch):
    looked_at: list[float] = []
    made = Windows._windows
    monkeypatch.setattr(
        Windows, "_windows", lambda *given: (looked_at.append(1.0), made(*given))[1]
    )
    kept = Kept()
    for second in range(10, 60, 10):
        kept.see(second, PREFILL, DECODE)
    year_s = 365 * 86_400
    for second in range(year_s, year_s + 130, 10):
        kept.see(second, PREFILL, DECODE)
    starts = [window.start_at for window in kept.windows]
    expected = [0, year_s, year_s + 60]
    assert starts == [START + timedelta(seconds=s) for s in expected]
    assert len(looked_at) < 10


@pytest.fixture
def deployment(tmp_path):
    made = make_deployment(tmp_path)
    yield made
    made.store.close()


def seen(window_s: float = 60.0) -> tuple[ObservedWindow, ...]:
    kept = Kept(window_s=window_s)
    for second in range(10, 70, 10):
        kept.see(second, PREFILL, DECODE)
    return tuple(kept.windows)


def stored(deployment) -> list[int]:
    found = deployment.store.windows("shop", "tiny", limit=100)
    return [one.window.requests for one in found]


def test_the_leader_keeps_what_it_sees(deployment):
    keeper = Keeper(leading=lambda: deployment, since=START)
    keeper(seen())
    later = replace(seen()[0], start_at=START + timedelta(minutes=1), requests=7)
    keeper((later,))
    assert stored(deployment) == [60, 7]
    with pytest.raises(NotLeaderError):
        Keeper(leading=lambda: None, since=START)(seen())


def test_windows_that_are_handed_in_are_not_counted_twice(deployment):
    keeper = Keeper(leading=lambda: deployment, since=deployment.clock() - timedelta(seconds=1))
    observe(deployment, history(3, requests=11))
    keeper(seen())
    assert stored(deployment) == [11, 11, 11]


def test_windows_of_an_earlier_run_are_history(deployment):
    observe(deployment, history(3, requests=11))
    keeper = Keeper(leading=lambda: deployment, since=deployment.clock() + timedelta(seconds=1))
    keeper(seen())
    assert stored(deployment) == [11, 11, 11, 60]


def test_signals_without_any_part_end_nothing():
    kept = Kept()
    kept.see(10)
    assert kept.windows == []
    assert isinstance(deployment_signals((), looked_at=START), DeploymentSignals)


def test_own_windows_after_a_clock_was_set_back_are_not_taken_for_others(deployment):
    keeper = Keeper(leading=lambda: deployment, since=deployment.clock() - timedelta(seconds=1))
    (own,) = seen()
    for hour in (0, -1, -1):
        keeper((replace(own, start_at=own.start_at + timedelta(hours=hour)),))
    keeper((replace(own, start_at=own.start_at + timedelta(minutes=-59)),))
    assert len(stored(deployment)) == 3

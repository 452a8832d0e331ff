"""A prefill worker ends when nobody can want its KV caches any more, and not before."""

from dataclasses import dataclass, field, replace

import pytest

from planner.domain.errors import EngineError
from serving.routers import drained
from serving.routers.drained import wait_handed_over, wait_idle
from serving.telemetry import EngineReading
from serving.telemetry.vllm_engine import parse_engine
from tests.serving.gate.running import worker_page

PREFILL, DECODE, OTHER = "http://p", "http://d", "http://e"


@dataclass
class Clock:
    """Time that passes in sleeps only."""

    now_s: float = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    passing = Clock()
    monkeypatch.setattr(drained, "time", passing)
    return passing


@dataclass
class Engines:
    """What engines say from each instant on: (seconds, reading or error)."""

    clock: Clock
    said: dict[str, list[tuple[float, EngineReading | EngineError]]]
    asked: list[str] = field(default_factory=list)

    def read(self, url: str) -> EngineReading:
        self.asked.append(url)
        *_, (_, now) = [one for one in self.said[url] if one[0] <= self.clock.now_s]
        if isinstance(now, EngineError):
            raise now
        return now


def states(idle: EngineReading, *changes: tuple[float, dict]) -> list:
    return [(at_s, replace(idle, **change)) for at_s, change in changes]


@pytest.fixture
def idle() -> EngineReading:
    return parse_engine(worker_page(kv_usage_ratio=0.0).decode(), source="a test")


HOLDS = {"kv_usage_ratio": 0.4}


def test_caches_that_decode_still_waits_for_are_kept(clock: Clock, idle: EngineReading) -> None:
    engines = Engines(
        clock,
        {
            PREFILL: states(idle, (0, HOLDS)),
            DECODE: states(idle, (0, {"waiting": 2}), (7, {"waiting": 0})),
        },
    )
    wait_handed_over(PREFILL, [DECODE], engines.read)
    assert 7 <= clock.now_s < 8


def test_every_decode_worker_is_waited_for_and_each_only_until_it_once_had_nothing(
    clock: Clock, idle: EngineReading
) -> None:
    engines = Engines(
        clock,
        {
            PREFILL: states(idle, (0, HOLDS)),
            DECODE: states(idle, (0, {"waiting": 0}), (1, {"waiting": 9})),
            OTHER: states(idle, (0, {"waiting": 1}), (5, {"waiting": 0})),
        },
    )
    wait_handed_over(PREFILL, [DECODE, OTHER], engines.read)
    assert 5 <= clock.now_s < 6


def test_an_empty_cache_ends_the_wait_whoever_waits(clock: Clock, idle: EngineReading) -> None:
    engines = Engines(
        clock,
        {
            PREFILL: states(idle, (0, HOLDS), (3, {"kv_usage_ratio": 0.0})),
            DECODE: states(idle, (0, {"waiting": 2})),
        },
    )
    wait_handed_over(PREFILL, [DECODE], engines.read)
    assert 3 <= clock.now_s < 4


def test_the_lease_is_the_longest_wait(clock: Clock, idle: EngineReading) -> None:
    said = {PREFILL: states(idle, (0, HOLDS)), DECODE: states(idle, (0, {"waiting": 2}))}
    wait_handed_over(PREFILL, [DECODE], Engines(clock, said).read)
    assert drained.HANDOVER_TIMEOUT_S <= clock.now_s < drained.HANDOVER_TIMEOUT_S + 1


def test_a_decode_worker_that_is_gone_is_not_waited_for(clock: Clock, idle: EngineReading) -> None:
    said = {PREFILL: states(idle, (0, HOLDS)), DECODE: [(0, EngineError("gone"))]}
    wait_handed_over(PREFILL, [DECODE], Engines(clock, said).read)
    assert clock.now_s < 1


def test_what_was_handed_over_a_moment_ago_has_time_to_reach_decode(
    clock: Clock, idle: EngineReading
) -> None:
    said = {
        PREFILL: states(idle, (0, HOLDS)),
        DECODE: states(idle, (0, {"waiting": 0}), (0.1, {"waiting": 1}), (2, {"waiting": 0})),
    }
    wait_handed_over(PREFILL, [DECODE], Engines(clock, said).read)
    assert clock.now_s >= 2


def test_a_worker_that_stays_busy_is_left_running(clock: Clock, idle: EngineReading) -> None:
    said = {PREFILL: states(idle, (0, {"running": 1}))}
    with pytest.raises(EngineError, match="it was left running"):
        wait_idle(PREFILL, Engines(clock, said).read, timeout_s=5.0)

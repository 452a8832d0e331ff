"""What arrives: public traces, and made-up days whose requests have real lengths."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forecaster.readers import read_trace
from planner.domain.errors import InputError
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.workload import Workload

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

START_AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
COPIES_WITHIN_S = 30.0
LONGEST_PROMPT = 8_000
"""Of made-up days: a prompt then takes half of the TTFT objective at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One workload.

    Parameters
    ----------
    what : str
        One sentence for the table.
    before : function or None
        What arrived in the time before, for policies that learn from it; None: nobody knows.
    warm_s : float
        Until then every policy has the same fleet and only watches; nothing is judged, seconds.
    unannounced_s : float or None
        When a change comes that nothing foretells: causal foresight must not act on it earlier.
    ttft_s : float or None
        The objective, where that of the setting is beyond many of these prompts, seconds.
    """

    name: str
    what: str
    make: Callable[[], Workload]
    before: Callable[[], Workload] | None = None
    warm_s: float = 600.0
    unannounced_s: float | None = None
    ttft_s: float | None = None


@cache
def workload_of(name: str) -> Workload:
    """The requests of a case, in whole milliseconds."""
    return CASES[name].make()


@cache
def before_of(name: str) -> Workload | None:
    """What arrived before a case begins, if that is known."""
    made = CASES[name].before
    return None if made is None else made()


def _public(file: str) -> Workload:
    data = os.environ.get("POOLWISE_DATA")
    if data is None:
        raise InputError("POOLWISE_DATA is not set: it names the folder with the public traces")
    return read_trace(Path(data) / "traces" / file).workload


def _workload(
    arrival_s: Floats,
    input_tokens: Integers,
    output_tokens: Integers,
    duration_s: float,
    start_at: datetime = START_AT,
) -> Workload:
    order = np.argsort(arrival_s, kind="stable")
    arrival = np.rint(arrival_s[order] * 1e3) / 1e3
    return Workload(
        start_at=start_at,
        arrival_offset_s=arrival,
        input_tokens=input_tokens[order],
        output_tokens=output_tokens[order],
        cached_tokens=np.zeros(len(order), dtype=np.int64),
        request_class=np.full(len(order), DEFAULT_CLASS),
        duration_s=max(duration_s, float(arrival[-1])),
    )


def copies(file: str, count: int) -> Workload:
    """A trace of a service so many times as large: each request comes so often.

    Copies are late by up to half a minute each, so that they are no bursts; the first is not.
    """
    one = _public(file)
    rng = np.random.default_rng(0)
    late_s = rng.uniform(0.0, COPIES_WITHIN_S, (count, len(one)))
    late_s[0] = 0.0
    return _workload(
        (one.arrival_offset_s + late_s).ravel(),
        np.tile(one.input_tokens, count),
        np.tile(one.output_tokens, count),
        one.duration_s + COPIES_WITHIN_S,
    )


def mooncake() -> Workload:
    """Mooncake's conversation trace, its coarse clock spread; no prefix is shared."""
    one = _public("mooncake_conversation_trace.jsonl")
    rng = np.random.default_rng(0)
    return _workload(
        one.arrival_offset_s + rng.uniform(0.0, 3.0, len(one)),
        one.input_tokens,
        one.output_tokens,
        one.duration_s + 3.0,
    )


def _lengths() -> tuple[Integers, Integers]:
    """Prompts and answers of Mooncake's conversation trace, longer prompts left out."""
    one = _public("mooncake_conversation_trace.jsonl")
    kept = one.input_tokens <= LONGEST_PROMPT
    return one.input_tokens[kept], one.output_tokens[kept]


def poisson(rate_rps: Callable[[Floats], Floats], duration_s: float, seed: int) -> Floats:
    """Arrivals of a Poisson process whose rate changes; requests/s over seconds."""
    rng = np.random.default_rng(seed)
    most_rps = float(rate_rps(np.arange(0.0, duration_s, 1.0)).max())
    count = rng.poisson(most_rps * duration_s)
    arrival_s = np.sort(rng.uniform(0.0, duration_s, count))
    kept = rng.uniform(0.0, most_rps, count) < rate_rps(arrival_s)
    return np.asarray(arrival_s[kept], dtype=np.float64)


def _drawn(
    rate_rps: Callable[[Floats], Floats],
    duration_s: float,
    seed: int,
    start_at: datetime = START_AT,
) -> Workload:
    arrival_s = poisson(rate_rps, duration_s, seed)
    prompts, answers = _lengths()
    rows = np.random.default_rng([seed, 1]).integers(0, len(prompts), len(arrival_s))
    return _workload(arrival_s, prompts[rows], answers[rows], duration_s, start_at)


DAY_S = 3600.0
"""A day of made-up traffic lasts so long."""
DAYS_BEFORE = 2
BEFORE_S = 7200.0
"""Made-up services have run for so long before a step or a flip."""


def _day_rps(t_s: Floats) -> Floats:
    """From the least to the most, eight times as much, and back: a sine in the logarithm."""
    return np.asarray(4.0 * 8.0 ** (0.5 * np.sin(2 * np.pi * t_s / DAY_S - np.pi / 2)))


def day() -> Workload:
    """A day."""
    return _drawn(_day_rps, DAY_S, seed=1)


def days_before() -> Workload:
    """The days before it."""
    lasting_s = DAYS_BEFORE * DAY_S
    return _drawn(_day_rps, lasting_s, seed=11, start_at=START_AT - timedelta(seconds=lasting_s))


STEP_S = 1200.0
LOW_RPS, HIGH_RPS, FLIP_RPS = 2.5, 10.0, 6.0


def step() -> Workload:
    """Four times the traffic from one second to the next, after a third of an hour."""
    return _drawn(lambda t_s: np.where(t_s < STEP_S, LOW_RPS, HIGH_RPS), 2 * STEP_S, seed=2)


def before_step() -> Workload:
    """The low rate."""
    start_at = START_AT - timedelta(seconds=BEFORE_S)
    return _drawn(lambda t_s: np.full_like(t_s, LOW_RPS), BEFORE_S, seed=12, start_at=start_at)


def _flipping(duration_s: float, flip_s: float, seed: int, start_at: datetime) -> Workload:
    rng = np.random.default_rng(seed)
    arrival_s = poisson(lambda t_s: np.full_like(t_s, FLIP_RPS), duration_s, seed)
    late = arrival_s >= flip_s
    prompts = np.where(late, 700.0, 5000.0) * rng.lognormal(-0.125, 0.5, len(arrival_s))
    answers = np.where(late, 1500.0, 120.0) * rng.lognormal(-0.125, 0.5, len(arrival_s))
    return _workload(
        arrival_s,
        np.clip(np.rint(prompts), 16, LONGEST_PROMPT).astype(np.int64),
        np.clip(np.rint(answers), 1, 8_000).astype(np.int64),
        duration_s,
        start_at,
    )


def shape_flip() -> Workload:
    """Long prompts and short answers, after a third of an hour short prompts and long answers."""
    return _flipping(2 * STEP_S, STEP_S, 3, START_AT)


def before_flip() -> Workload:
    """The long prompts."""
    start_at = START_AT - timedelta(seconds=BEFORE_S)
    return _flipping(BEFORE_S, BEFORE_S, 13, start_at)


CASES: Mapping[str, Case] = {
    case.name: case
    for case in (
        Case(
            name="azure-conv",
            what="Azure 2023 conversation, 1 h, each request 4 times within 30 s",
            make=lambda: copies("AzureLLMInferenceTrace_conv.csv", 4),
        ),
        Case(
            name="azure-code",
            what="Azure 2023 code, 1 h, each request 6 times within 30 s",
            make=lambda: copies("AzureLLMInferenceTrace_code.csv", 6),
        ),
        Case(
            name="mooncake",
            what="Mooncake conversation, 1 h, no prefix shared; prompts of 12,000 tokens on "
            "average, TTFT 5 s",
            make=mooncake,
            ttft_s=5.0,
        ),
        Case(
            name="day",
            what="a day with an 8:1 swing, 24 times as fast (1 h); lengths of Mooncake's "
            f"conversation up to {LONGEST_PROMPT:,} tokens",
            make=day,
            before=days_before,
        ),
        Case(
            name="step",
            what="2.5, after 20 minutes 10 requests/s, from one second to the next; lengths as of "
            "the day",
            make=step,
            before=before_step,
            unannounced_s=STEP_S,
        ),
        Case(
            name="flip",
            what="6 requests/s of 5,000 and 120 tokens, after 20 minutes of 700 and 1,500",
            make=shape_flip,
            before=before_flip,
            unannounced_s=STEP_S,
        ),
    )
}

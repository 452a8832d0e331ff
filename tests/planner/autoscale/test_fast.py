import math
from dataclasses import replace
from datetime import timedelta

import pytest

from planner.autoscale import Backlog, react
from planner.domain.fleet import Fleet, Pool
from tests.planner.optimize.scenarios import MODEL, NOW, D, P, fleet, forecast, spec


def backlog(*, prompt_tokens: int = 0, sequences: int = 0, age_s: float = 1.0) -> Backlog:
    return Backlog(
        model=MODEL,
        observed_at=NOW - timedelta(seconds=age_s),
        waiting_prompt_tokens=prompt_tokens,
        decoding_sequences=sequences,
        context_tokens=500.0,
    )


def test_waiting_prompts_flip_a_decode_replica_that_is_not_needed() -> None:
    reaction = react(
        spec(), fleet(prefill=1, decode=3), backlog(prompt_tokens=50_000, sequences=10), now=NOW
    )
    assert reaction.flip is not None
    assert (reaction.flip.shape, reaction.flip.to_shape) == (D, P)
    assert reaction.prefill_pressure > 1 > reaction.decode_pressure


def test_the_last_replica_of_a_role_is_never_given_up() -> None:
    reaction = react(spec(), fleet(prefill=1, decode=1), backlog(prompt_tokens=50_000), now=NOW)
    assert reaction.flip is None
    assert "no replica to spare" in reaction.reason


def test_a_role_under_pressure_itself_gives_nothing_up() -> None:
    reaction = react(
        spec(), fleet(prefill=1, decode=2), backlog(prompt_tokens=50_000, sequences=120), now=NOW
    )
    assert reaction.flip is None


def test_nothing_happens_below_the_objective() -> None:
    reaction = react(
        spec(), fleet(prefill=1, decode=3), backlog(prompt_tokens=1_000, sequences=5), now=NOW
    )
    assert reaction.flip is None
    assert reaction.reason.startswith("hold")


def test_an_old_backlog_is_not_acted_upon() -> None:
    old = backlog(prompt_tokens=50_000, age_s=3600.0)
    assert react(spec(), fleet(prefill=1, decode=3), old, now=NOW).flip is None


def test_help_that_is_already_starting_is_waited_for() -> None:
    coming = Fleet(
        pools=(Pool(shape=P, ready=1, starting=1), Pool(shape=D, ready=3)),
        read_at=NOW,
        version="v1",
    )
    reaction = react(spec(), coming, backlog(prompt_tokens=50_000), now=NOW)
    assert reaction.flip is None
    assert "starting already" in reaction.reason


def test_prefill_pressure_is_the_time_to_work_the_queue_off_over_the_objective() -> None:
    """2,048 tokens take 5 ms + 2,048 x 0.1 ms; the objective is 1 s."""
    reaction = react(spec(), fleet(prefill=2, decode=1), backlog(prompt_tokens=4_096), now=NOW)
    assert reaction.prefill_pressure == pytest.approx(0.2098)


def arriving(tokens_per_s: float, *, prompt_tokens: int) -> Backlog:
    return replace(
        backlog(prompt_tokens=prompt_tokens),
        request_rate_rps=tokens_per_s / 500.0,
        input_tokens_per_s=tokens_per_s,
    )


def test_so_many_start_as_serve_what_arrives_and_what_waits_by_then() -> None:
    """A replica computes 2,048 tokens in 5 ms + 2,048 x 0.1 ms."""
    unexpected = arriving(40_000.0, prompt_tokens=20_000)
    reaction = react(
        spec(inventory=40),
        fleet(prefill=1, decode=1),
        unexpected,
        now=NOW,
        forecast=forecast([1.0]),
        can_flip=False,
    )
    each = 2048 / (0.005 + 2048 * 1e-4)
    start_s = spec().profiles[0].lifecycle.start_warm_s
    growing = 40_000.0 - each
    lacking = growing + (20_000 + growing * start_s) / start_s
    assert reaction.start is not None
    assert reaction.start.replicas == math.ceil(lacking / each)
    assert f"start {reaction.start.replicas} of prefill" in reaction.reason


def test_no_more_start_than_the_pool_may_have() -> None:
    reaction = react(
        spec(inventory=40, max_replicas=3),
        fleet(prefill=1, decode=1),
        arriving(90_000.0, prompt_tokens=90_000),
        now=NOW,
        forecast=forecast([1.0]),
        can_flip=False,
    )
    assert reaction.start is not None
    assert reaction.start.replicas == 2


def test_decode_grows_by_the_sequences_that_find_no_room() -> None:
    crowded = replace(arriving(600.0, prompt_tokens=0), decoding_sequences=200)
    few = react(
        spec(inventory=40),
        fleet(prefill=1, decode=1),
        crowded,
        now=NOW,
        forecast=forecast([1.0]),
        can_flip=False,
    )
    assert few.start is not None
    assert few.start.shape == D
    room = 200 / few.decode_pressure
    assert few.start.replicas == math.ceil((200 - room) / room)

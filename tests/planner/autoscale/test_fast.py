from datetime import timedelta

import pytest

from planner.autoscale import Backlog, react
from planner.domain.fleet import Fleet, Pool
from tests.planner.optimize.scenarios import MODEL, NOW, D, P, fleet, spec


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

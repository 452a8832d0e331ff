from dataclasses import replace
from datetime import timedelta

import pytest

from planner.autoscale import Backlog, Reaction, react
from planner.autoscale.backlog import Line
from planner.autoscale.fast import kept_by_waiting
from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role
from planner.optimize import plan
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


def surge(tokens_per_s: float, *, prompt_tokens: int, most: int | None = None) -> Reaction:
    """What is done about so much more than the one request a second that was expected."""
    return react(
        spec(inventory=200, max_replicas=most),
        fleet(prefill=1, decode=1),
        arriving(tokens_per_s, prompt_tokens=prompt_tokens),
        now=NOW,
        forecast=forecast([1.0]),
        can_flip=False,
    )


def counts(reaction: Reaction) -> dict[ReplicaShape, int]:
    return {start.shape: start.replicas for start in reaction.starts}


def test_both_roles_start_what_a_surge_lacks_at_once() -> None:
    """80 requests/s: the plan for that rate has as many of each role."""
    rate_rps = 80.0
    given = spec(inventory=200)
    planned = plan(given, forecast([rate_rps]), None, made_at=NOW).windows[0]
    found = counts(surge(500.0 * rate_rps, prompt_tokens=12_000))
    assert found[D] + 1 == pytest.approx(planned.replicas(Role.DECODE), abs=1)
    assert found[P] + 1 >= planned.replicas(Role.PREFILL)


def test_more_start_the_more_waits() -> None:
    few = counts(surge(40_000.0, prompt_tokens=12_000))
    many = counts(surge(40_000.0, prompt_tokens=900_000))
    assert many[P] > few[P]
    assert many[D] == few[D]


def test_no_more_start_than_the_pool_may_have() -> None:
    assert counts(surge(90_000.0, prompt_tokens=90_000, most=3))[P] == 2


def test_what_was_expected_starts_nothing() -> None:
    reaction = surge(400.0, prompt_tokens=90_000)
    assert not reaction.starts
    assert reaction.prefill_pressure > 1


@pytest.mark.parametrize(("level", "starts"), [(0.5, True), (0.9, False)])
def test_more_than_was_planned_for_starts_replicas_even_if_it_was_possible(
    level: float, starts: bool
) -> None:
    """90 requests/s, where 60 were as likely as not and 120 were possible."""
    given = spec(inventory=200)
    reaction = react(
        replace(given, forecast=replace(given.forecast, demand_level=level)),
        fleet(prefill=1, decode=1),
        arriving(500.0 * 90.0, prompt_tokens=90_000),
        now=NOW,
        forecast=forecast([60.0], spread=1.0),
        can_flip=False,
    )
    assert bool(reaction.starts) is starts


def full(
    sequences: int, *, decode: int = 2, most: int | None = None, before: int | None = None
) -> Reaction:
    """What is done about so many sequences, with no more arriving than was expected."""
    return react(
        spec(inventory=200, max_replicas=most),
        fleet(prefill=1, decode=decode),
        replace(
            backlog(sequences=sequences),
            request_rate_rps=0.5,
            input_tokens_per_s=250.0,
            sequences_before=before,
        ),
        now=NOW,
        forecast=forecast([1.0]),
        can_flip=False,
    )


def test_more_sequences_than_batches_take_start_decode_replicas_whatever_was_expected() -> None:
    one = full(1, decode=1).decode_pressure
    per_replica = round(1 / one)
    assert not full(2 * per_replica - 1).starts
    assert counts(full(2 * per_replica + 1)) == {D: 1}
    assert counts(full(4 * per_replica + 1)) == {D: 3}
    assert counts(full(4 * per_replica + 1, most=3)) == {D: 1}


def test_nothing_is_started_for_sequences_without_a_forecast() -> None:
    given = spec(inventory=200)
    reaction = react(
        given, fleet(prefill=1, decode=2), backlog(sequences=9_000), now=NOW, can_flip=False
    )
    assert reaction.decode_pressure > 1
    assert not reaction.starts


def test_a_role_keeps_its_replicas_while_work_waits_for_them() -> None:
    per_replica = round(1 / full(1, decode=1).decode_pressure)
    there = fleet(prefill=2, decode=3)

    def kept(sequences: int, *, age_s: float = 1.0) -> dict[str, int]:
        found = kept_by_waiting(spec(), there, backlog(sequences=sequences, age_s=age_s), now=NOW)
        return {} if found is None else {pin.pool: pin.replicas for pin in found.pools}

    assert kept(round(1.3 * per_replica)) == {}
    assert kept(round(1.5 * per_replica)) == {D.label: 3}
    assert kept(round(1.5 * per_replica), age_s=3600.0) == {}


def test_decode_starts_replicas_before_its_growing_line_is_full() -> None:
    per_replica = round(1 / full(1, decode=1).decode_pressure)
    now, few = round(1.6 * per_replica), round(0.4 * per_replica)
    growing = full(now, before=few)
    assert growing.decode_pressure < 1
    assert counts(growing)[D] >= 1
    assert "grow" in growing.reason
    assert not full(now).starts
    assert not full(now, before=now).starts
    assert not full(few, before=now).starts


def test_a_surge_is_left_to_both_roles() -> None:
    """Sequences grow because more arrives: decode alone would hold prefill up."""
    per_replica = round(1 / full(1, decode=1).decode_pressure)
    reaction = react(
        spec(inventory=200),
        fleet(prefill=1, decode=2),
        replace(
            arriving(5_000.0, prompt_tokens=0),
            decoding_sequences=round(1.6 * per_replica),
            sequences_before=round(0.4 * per_replica),
        ),
        now=NOW,
        forecast=forecast([1.0]),
        can_flip=False,
    )
    assert not reaction.starts


def test_growth_within_chance_is_none() -> None:
    """10 of 100 sequences more: two deviations of the difference are 29."""
    line = replace(backlog(sequences=110), sequences_before=100)
    assert line.sequences_in(60.0) == 110
    assert replace(line, decoding_sequences=200).sequences_in(60.0) > 300


def test_growth_is_not_continued_for_longer_than_it_can_be_known() -> None:
    line = replace(backlog(sequences=200), sequences_before=100)
    assert line.sequences_in(30.0) < line.sequences_in(60.0) == line.sequences_in(300.0)


def test_a_line_tells_what_was_there_half_a_minute_ago() -> None:
    line = Line()
    found = [line.take(NOW + timedelta(seconds=t), 2 * t) for t in range(0, 90, 10)]
    assert found == [None, None, None, 0, 20, 40, 60, 80, 100]


def test_readings_that_lie_far_apart_are_taken_to_have_grown_evenly() -> None:
    line = Line()
    assert line.take(NOW, 10) is None
    assert line.take(NOW + timedelta(seconds=60), 70) == 40

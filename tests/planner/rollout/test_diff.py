import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.errors import SpecError, StalePlanError
from planner.domain.fleet import Fleet, ReplicaShape, Role
from planner.domain.rollout import StepKind
from planner.rollout import after, diff, diff_to, dip, last_good
from planner.rollout.effects import applied, pools_by_key, ready_in, serves
from tests.planner.rollout.cases import (
    D_A100,
    MODEL,
    NOW,
    P_A100,
    P_TP2,
    SHAPES,
    A,
    D,
    P,
    counts,
    fleet,
    plan,
    shape,
    spec,
    words,
)

replica_counts = st.dictionaries(st.sampled_from(SHAPES), st.integers(0, 3), max_size=5)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    return fleet(draw(replica_counts), starting=draw(replica_counts), draining=draw(replica_counts))


@settings(max_examples=150, deadline=None)
@given(before=fleets(), wanted=replica_counts, h100=st.integers(0, 40), flip_s=st.floats(0, 100))
def test_applying_the_diff_gives_the_plan(
    before: Fleet, wanted: dict[ReplicaShape, int], h100: int, flip_s: float
) -> None:
    steps = diff(before, plan(wanted), spec(h100=h100, flip_s=flip_s)).steps
    result = after(before, steps, at=NOW)
    assert counts(result) == {s: n for s, n in wanted.items() if n}
    assert not any(p.starting or p.draining for p in result.pools)


@settings(max_examples=150, deadline=None)
@given(before=fleets(), wanted=replica_counts)
def test_no_role_loses_its_last_ready_replica_where_there_is_room(
    before: Fleet, wanted: dict[ReplicaShape, int]
) -> None:
    pools = pools_by_key(before)
    ready_before = {r: ready_in(pools, r, model=MODEL) for r in Role}
    planned = {r: sum(n for s, n in wanted.items() if s.role is r) for r in Role}
    for step in diff(before, plan(wanted), spec(h100=99, a100=99)).steps:
        pools = applied(pools, step)
        for role in Role:
            arriving = step.to_shape is not None and step.to_shape.role is role
            floor = min(1, planned[role], ready_before[role])
            assert ready_in(pools, role, model=MODEL) - arriving >= floor


serving_counts = st.builds(
    lambda more, path: more | {s: max(1, more.get(s, 0)) for s in path},
    replica_counts,
    st.sampled_from([(A,), (P, D), (P_A100, D)]),
)


@settings(max_examples=150, deadline=None)
@given(before=serving_counts, starting=replica_counts, wanted=serving_counts)
def test_requests_are_answered_all_the_way_where_both_ends_answer_them(
    before: dict[ReplicaShape, int],
    starting: dict[ReplicaShape, int],
    wanted: dict[ReplicaShape, int],
) -> None:
    running = fleet(before, starting=starting)
    pools = pools_by_key(running)
    for step in diff(running, plan(wanted), spec(h100=99, a100=99)).steps:
        pools = applied(pools, step)
        assert serves(pools, model=MODEL)


@settings(max_examples=100, deadline=None)
@given(before=fleets(), wanted=replica_counts)
def test_every_stop_follows_a_drain_and_every_route_a_start(
    before: Fleet, wanted: dict[ReplicaShape, int]
) -> None:
    pools = pools_by_key(before)
    for step in diff(before, plan(wanted), spec()).steps:
        pools = applied(pools, step)  # raises StalePlanError where the order is wrong


@settings(max_examples=60, deadline=None)
@given(wanted=replica_counts)
def test_a_fleet_that_is_the_plan_needs_no_step(wanted: dict[ReplicaShape, int]) -> None:
    assert diff(fleet(wanted), plan(wanted), spec()).steps == ()


def test_new_capacity_is_there_before_old_goes() -> None:
    steps = diff(fleet({P: 1, D: 1}), plan({P_A100: 1, D: 1}), spec()).steps
    assert words(steps) == [
        "start prefill:a100:tp1",
        "route prefill:a100:tp1",
        "drain prefill:h100:tp1",
        "stop prefill:h100:tp1",
    ]


def test_a_role_with_a_replica_to_spare_flips_it() -> None:
    steps = diff(fleet({P: 1, D: 2}), plan({P: 2, D: 1}), spec()).steps
    assert words(steps) == ["flip decode:h100:tp1 -> prefill:h100:tp1"]


def test_a_flip_that_takes_longer_than_start_and_drain_is_not_made() -> None:
    steps = diff(fleet({P: 1, D: 2}), plan({P: 2, D: 1}), spec(flip_s=500.0)).steps
    assert StepKind.FLIP not in {s.kind for s in steps}


def test_another_accelerator_cannot_be_flipped_into() -> None:
    steps = diff(fleet({P: 1, D: 2}), plan({P: 1, D: 1, P_A100: 1}), spec()).steps
    assert StepKind.FLIP not in {s.kind for s in steps}


def test_without_room_old_replicas_leave_first() -> None:
    steps = diff(fleet({P: 2, D: 2}), plan({P: 1, D: 1, P_TP2: 1}), spec(h100=4)).steps
    assert words(steps)[-2:] == ["start prefill:h100:tp2", "route prefill:h100:tp2"]
    assert words(steps)[0].startswith("drain")


def test_aggregated_becomes_disaggregated_without_a_gap_where_there_is_room() -> None:
    steps = diff(fleet({A: 1}), plan({P: 1, D: 1}), spec(h100=3)).steps
    assert words(steps) == [
        "start prefill:h100:tp1",
        "start decode:h100:tp1",
        "route decode:h100:tp1",
        "route prefill:h100:tp1",
        "drain aggregated:h100:tp1",
        "stop aggregated:h100:tp1",
    ]


def test_aggregated_flips_when_only_one_slot_is_free() -> None:
    steps = diff(fleet({A: 1}), plan({P: 1, D: 1}), spec(h100=2)).steps
    assert words(steps) == [
        "start prefill:h100:tp1",
        "flip aggregated:h100:tp1 -> decode:h100:tp1",
        "route prefill:h100:tp1",
    ]


def test_a_half_applied_plan_is_completed() -> None:
    half = fleet({P: 1, D: 1}, starting={D: 1}, draining={P: 1})
    assert words(diff(half, plan({P: 1, D: 2}), spec()).steps) == [
        "route decode:h100:tp1",
        "stop prefill:h100:tp1",
    ]


def test_a_start_is_warm_where_the_model_already_runs_on_the_accelerator() -> None:
    steps = diff(fleet({P: 1}), plan({P: 2, D_A100: 1}), spec()).steps
    seconds = {s.shape: s.expected_s for s in steps if s.kind is StepKind.START}
    assert seconds == {P: 30.0, D_A100: 60.0}


def test_a_step_costs_the_accelerator_time_that_serves_nobody() -> None:
    (start, _) = diff(fleet({P: 1}), plan({P: 1, P_TP2: 1}), spec()).steps
    assert start.expected_usd == pytest.approx(2 * 4.0 * 30.0 / 3600)


def test_other_models_are_left_alone() -> None:
    other = ReplicaShape(role=Role.DECODE, model="other", accelerator="h100")
    assert diff(fleet({P: 1, other: 2}), plan({P: 1}), spec()).steps == ()


def test_a_pool_without_a_price_is_named() -> None:
    unpriced = shape(Role.DECODE, "tpu")
    with pytest.raises(SpecError, match="accelerator tpu"):
        diff(fleet({unpriced: 1, D: 1}), plan({D: 1}), spec())


def test_a_step_that_finds_no_replica_means_a_stale_plan() -> None:
    steps = diff(fleet({D: 2}), plan({D: 1}), spec()).steps
    with pytest.raises(StalePlanError, match="plan again"):
        after(fleet({P: 1}), steps, at=NOW)


def test_a_rollout_that_only_adds_keeps_what_serves_when_it_goes_back() -> None:
    growth = diff(fleet({P: 1, D: 1}), plan({P: 4, D: 2}), spec())
    stuck = fleet({P: 3, D: 2}, starting={P: 1})
    wanted = last_good(growth, stuck, model=MODEL)
    assert {key.shape: n for key, n in wanted.replicas.items()} == {P: 3, D: 2}
    assert words(diff_to(stuck, wanted, spec()).steps) == [
        *("drain prefill:h100:tp1", "stop prefill:h100:tp1")
    ]


def test_a_rollout_that_takes_away_goes_all_the_way_back() -> None:
    change = diff(fleet({P: 1, D: 2}), plan({P: 1, D_A100: 2}), spec())
    half = fleet({P: 1, D: 1, D_A100: 2})
    wanted = last_good(change, half, model=MODEL)
    assert {key.shape: n for key, n in wanted.replicas.items()} == {P: 1, D: 2, D_A100: 0}


def test_without_the_check_of_the_fleet_its_steps_lead_past_the_plan() -> None:
    steps = diff(fleet({P: 1, D: 1}), plan({P: 3, D: 1}), spec()).steps
    moved = fleet({P: 2, D: 1})
    assert counts(after(moved, steps, at=NOW)) == {P: 4, D: 1}


def test_while_a_replica_flips_it_counts_in_neither_role() -> None:
    goal = spec(h100=4)
    change = diff(fleet({P: 2, D: 2}), plan({P: 1, D: 3}), goal)
    assert [step.kind for step in change.steps if step.to_shape] == [StepKind.FLIP]
    flipping = dip(change, goal).states[0]
    assert (flipping.prefill_ratio, flipping.decode_ratio) == pytest.approx((1.0, 1.0))

"""Options are dropped only where the optimum stays as it was."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.domain.model import Dtype
from planner.optimize import Problem, build_problem, check, optimize
from planner.optimize.dominance import dominated, without_dominated
from planner.optimize.inputs import Option, ReplicaBounds, flips_between
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.scenarios import NOW, forecast, spec

WINDOW_S = 3600.0
AGGREGATED = Role.AGGREGATED


@st.composite
def shape_problems(draw: st.DrawFn) -> Problem:
    """Several sizes and limits of each role on one or two accelerator types, and any inventory."""
    has_fleet = draw(st.booleans())
    roles = draw(st.sampled_from(([AGGREGATED], [Role.PREFILL, Role.DECODE], [*Role])))
    kinds = draw(
        st.lists(
            st.tuples(
                st.sampled_from(("h100", "a100")),
                st.sampled_from((1, 2, 4)),
                st.sampled_from((None, 64)),
            ),
            min_size=2,
            max_size=4,
            unique=True,
        )
    )
    options = tuple(
        _option(draw, role, *kind, has_fleet=has_fleet) for kind in kinds for role in roles
    )
    windows = draw(st.integers(1, 2))
    rates = [_rates(draw) for _ in options]
    return problem(
        options,
        rates,
        [draw(st.integers(0, 60)) / 4 for _ in range(windows)],
        window_s=WINDOW_S,
        inventory=draw(st.integers(3, 9)),
        per_node=draw(st.sampled_from((4, 8))),
        has_fleet=has_fleet,
        flips=tuple(flips_between(options, lambda _: 5.0)) if draw(st.booleans()) else (),
        usd_per_hour_limit=draw(st.sampled_from((None, None, 9.0))),
        bounds=tuple(
            ReplicaBounds(shape=o.shape, min_replicas=0, max_replicas=draw(st.integers(1, 3)))
            for o in options
            if draw(st.integers(0, 4)) == 0
        ),
        one_shape_per_role=draw(st.sampled_from((False, False, True))),
    )


def _option(draw, role, accelerator, tp, seqs, *, has_fleet) -> Option:
    made = option(
        role,
        accelerator,
        tp * (2.0 if accelerator == "h100" else 1.5),
        tp=tp,
        start_s=draw(st.sampled_from((0.0, 600.0))),
        initial_replicas=draw(st.sampled_from((0, 0, 1))) if has_fleet else 0,
    )
    return replace(made, shape=replace(made.shape, max_num_seqs=seqs))


def _rates(draw) -> list[float] | float:
    """A linear pool, or one that pools its slack."""
    each = draw(st.integers(1, 12)) / 4
    if draw(st.booleans()):
        return float(each)
    counts = np.arange(1, 5)
    return list(each * counts * (1 - draw(st.sampled_from((0.0, 0.1, 0.3))) / counts))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=shape_problems())
def test_dropping_what_is_dominated_never_changes_the_optimum(case: Problem) -> None:
    fewer = without_dominated(case)
    whole, part = optimize(case), optimize(fewer)
    assert check(fewer, part) == ()
    assert part.feasible == whole.feasible
    if whole.feasible:
        assert part.usd == pytest.approx(whole.usd, rel=3e-4, abs=1e-4)
        assert part.shortfall_rps == pytest.approx(whole.shortfall_rps, abs=1e-6)


def test_the_generated_problems_have_something_to_drop() -> None:
    found = []

    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(case=shape_problems())
    def collect(case: Problem) -> None:
        found.append(len(dominated(case)))

    collect()
    assert sum(n > 0 for n in found) > 10


def two(**changes) -> Problem:
    """A replica of one accelerator beside one of two that serves no more."""
    options = [
        option(AGGREGATED, "h100", 2.0, tp=1),
        option(AGGREGATED, "h100", 4.0, tp=2),
    ]
    given_ = {"rates": [1.0, 1.0], "demands_rps": [3.0], **changes}
    return problem(given_.pop("options", options), given_.pop("rates"), **given_)


def test_more_accelerators_for_no_more_are_dropped_with_the_reason() -> None:
    fewer = without_dominated(two())
    assert [o.label for o in fewer.options] == ["aggregated:h100:tp1"]
    (left_out,) = fewer.excluded
    assert left_out.label == "aggregated:h100:tp2"
    assert left_out.dominated_by == "aggregated:h100:tp1"


def test_more_accelerators_that_serve_more_stay() -> None:
    assert dominated(two(rates=[1.0, 1.5])) == {}


def test_a_rate_beyond_twice_the_demand_counts_for_nothing() -> None:
    assert dominated(two(rates=[7.0, 50.0])) == {1: 0}


def test_pools_that_gain_nothing_together_are_no_reason_to_drop() -> None:
    """Three replicas of the first serve less than two and one of the second."""
    assert dominated(two(rates=[[1.0, 2.0, 2.5], [1.0, 2.0]], demands_rps=[2.9])) == {}


@pytest.mark.parametrize(
    "held",
    [
        {"bounds": [ReplicaBounds(shape=two().options[0].shape, max_replicas=2)]},
        {"bounds": [ReplicaBounds(shape=two().options[1].shape, min_replicas=1)]},
    ],
)
def test_bounds_hold_on_to_an_option(held) -> None:
    assert dominated(two(**held)) == {}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"start_s": 900.0}, {}),
        ({"usd_per_hour": 4.5}, {}),
        ({}, {"purchase_option": PurchaseOption.SPOT}),
        ({"max_starts": 1}, {}),
        ({"drain_s": 60.0}, {}),
        ({}, {"initial_replicas": 1}),
    ],
)
def test_what_is_better_in_any_way_stays(first, second) -> None:
    options = [replace(o, **c) for o, c in zip(two().options, (first, second), strict=True)]
    assert dominated(two(options=options, has_fleet=True)) == {}


def test_of_two_equal_options_the_first_stays() -> None:
    options = two().options
    twin = replace(options[0], shape=replace(options[0].shape, max_num_seqs=128))
    assert dominated(two(options=[options[0], twin], rates=[1.0, 1.0])) == {1: 0}


def test_formats_are_exchanged_only_where_answers_are_as_good() -> None:
    options = two().options
    halved = replace(options[0], shape=replace(options[0].shape, weight_dtype=Dtype.FP8))
    case = two(options=[halved, options[1]], rates=[2.0, 1.0])
    assert dominated(case) == {}
    assert dominated(case, lambda _a, _b: True) == {1: 0}


def pairs(rates, *, windows: int = 2) -> Problem:
    """Prefill and decode by two engines, which flips join."""
    shape = ReplicaShape(role=Role.PREFILL, model="m", accelerator="h100")
    options = tuple(
        replace(option(role, "h100", 2.0), shape=replace(shape, role=role, max_num_seqs=seqs))
        for seqs in (256, 64)
        for role in (Role.PREFILL, Role.DECODE)
    )
    flips = tuple(flips_between(options, lambda _: 5.0))
    return problem(options, rates, [1.0] * windows, flips=flips)


def test_engines_that_flip_are_dropped_with_both_roles_or_not_at_all() -> None:
    assert dominated(pairs([1.0, 1.0, 1.0, 1.0])) == {2: 0, 3: 1}
    assert dominated(pairs([1.5, 1.0, 1.0, 1.5])) == {}
    assert dominated(pairs([1.5, 1.0, 1.0, 1.5], windows=1)) == {2: 0, 1: 3}


def test_prefill_and_decode_replicas_share_their_formats() -> None:
    """The cheap prefill in FP8 does not go with the cheap decode in BF16."""
    options = [
        option(Role.PREFILL, "h100", 4.0),
        option(Role.DECODE, "h100", 2.0),
        option(Role.PREFILL, "h100", 1.0),
        option(Role.DECODE, "h100", 9.0),
    ]
    stored = [None, None, Dtype.FP8, Dtype.FP8]
    options = [
        replace(o, shape=replace(o.shape, kv_dtype=d)) for o, d in zip(options, stored, strict=True)
    ]
    case = problem(options, [1.0] * 4, [1.0])
    solution = optimize(case)
    assert solution.replicas[:, 0].tolist() == [1, 1, 0, 0]
    mixed = replace(solution, replicas=np.array([[0], [1], [1], [0]]))
    assert any("keep_one_format[m]" in fault for fault in check(case, mixed))


def test_plans_say_which_shapes_were_left_out() -> None:
    """The same engine on two accelerators, measured to be no faster."""
    from tests.fakes.profiles import linear_profile

    given_ = spec(
        roles=(AGGREGATED,),
        profiles=(linear_profile(), linear_profile(profile_id="wide", tp=2)),
    )
    wide = replace(given_.pools[0], shape=replace(given_.pools[0].shape, tp=2))
    case = build_problem(
        replace(given_, pools=(*given_.pools, wide)), forecast([4.0]), None, made_at=NOW
    )
    assert [o.label for o in case.options] == ["aggregated:cpu:tp1"]
    assert [e.dominated_by for e in case.excluded] == ["aggregated:cpu:tp1"]

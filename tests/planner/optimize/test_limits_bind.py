"""Limits of nodes, reserved accelerators, ratios and spot, where each alone decides the fleet.

Every case is right at its limit: one replica more breaks it, one less does not serve.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from planner.domain.fleet import Role
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import PlanStatus
from planner.optimize import check, optimize
from planner.optimize.inputs import RatioBounds, Stream
from planner.optimize.problem import Problem
from planner.optimize.solution import solution_of
from tests.planner.optimize.cases import option, problem

PREFILL, DECODE, AGGREGATED = Role.PREFILL, Role.DECODE, Role.AGGREGATED


def faults(case: Problem, counts: Sequence[int]) -> set[str]:
    """Constraints that a fleet breaks in its only window, without those of the demand."""
    replicas = np.array([[n] for n in counts], dtype=np.int64)
    fleet = solution_of(case, replicas, status=PlanStatus.FEASIBLE, solver_name="none")
    return {fault.partition("[")[0] for fault in check(case, fleet)} - {"meet_demand"}


def nodes(demand_rps: float) -> Problem:
    """Two nodes of 6 hold two replicas of 4, of whatever role; 12 accelerators would be three."""
    options = [option(PREFILL, "h100", 4.0, tp=4), option(DECODE, "h100", 4.0, tp=4)]
    return problem(options, [1.0, 2.0], [demand_rps], inventory=12, per_node=6)


def test_nodes_hold_as_many_replicas_as_fit_and_no_more() -> None:
    found = optimize(nodes(1.0))
    assert found.replicas[:, 0].tolist() == [1, 1]
    assert not optimize(nodes(1.5)).feasible
    assert faults(nodes(1.0), (1, 1)) == set()
    assert faults(nodes(1.0), (2, 1)) == {"fit_nodes"}


def prepaid(demand_rps: float) -> Problem:
    """Three reserved accelerators cost nothing more; others are had for money."""
    options = [
        option(PREFILL, "h100", 0.0, purchase_option=PurchaseOption.RESERVED, prepaid=True),
        option(DECODE, "h100", 0.0, purchase_option=PurchaseOption.RESERVED, prepaid=True),
        option(PREFILL, "h100", 3.0),
        option(DECODE, "h100", 3.0),
    ]
    return problem(options, [1.0] * 4, [demand_rps], inventory=8, reserved=3)


def test_reserved_accelerators_are_used_up_and_not_beyond() -> None:
    found = optimize(prepaid(2.0))
    assert int(found.replicas[:2, 0].sum()) == 3
    assert int(found.replicas[2:, 0].sum()) == 1
    assert faults(prepaid(2.0), (2, 1, 0, 1)) == set()
    assert faults(prepaid(2.0), (2, 2, 0, 0)) == {"keep_reserved"}


def paired(bounds: RatioBounds) -> Problem:
    """One prefill replica serves as much as four decode replicas, or the other way round."""
    fast, slow = (1.0, 4.0) if bounds.max_ratio is not None else (4.0, 1.0)
    options = [option(PREFILL, "h100", 1.0), option(DECODE, "a100", 1.0)]
    return replace(problem(options, [fast, slow], [4.0]), ratios=(bounds,))


@pytest.mark.parametrize(
    ("bounds", "fleet", "broken"),
    [
        (RatioBounds(model="m", min_ratio=0.75), (3, 4), (2, 4)),
        (RatioBounds(model="m", max_ratio=1.5), (4, 3), (4, 2)),
    ],
)
def test_pairs_keep_their_ratio_and_no_more(
    bounds: RatioBounds, fleet: tuple[int, int], broken: tuple[int, int]
) -> None:
    case = paired(bounds)
    assert tuple(optimize(case).replicas[:, 0].tolist()) == fleet
    assert faults(case, fleet) == set()
    assert faults(case, broken) == {"keep_ratio"}


@pytest.mark.parametrize(("share", "spot"), [(0.0, 0), (0.25, 1), (0.5, 2), (0.6, 2), (1.0, 4)])
def test_as_much_is_spot_as_the_share_allows_and_no_more(share: float, spot: int) -> None:
    options = [
        option(AGGREGATED, "h100", 1.0, purchase_option=PurchaseOption.SPOT),
        option(AGGREGATED, "h100", 3.0),
    ]
    case = replace(problem(options, [1.0, 1.0], [4.0]), spot_share_limit=share)
    assert optimize(case).replicas[:, 0].tolist() == [spot, 4 - spot]
    assert faults(case, (spot, 4 - spot)) == set()
    assert share == 1.0 or faults(case, (spot + 1, 3 - spot)) == {"limit_spot"}


@pytest.mark.parametrize(("missing_ratio", "broken"), [(0.8e-6, set()), (3e-6, {"meet_demand"})])
def test_a_millionth_of_the_load_may_be_missing_to_the_smallest_stream_too(
    missing_ratio: float, broken: set[str]
) -> None:
    """Solvers let so much pass in the capacity of a pool, whichever stream goes without it."""
    many_rps, few_rps = 300.0, 0.1
    options = [option(AGGREGATED, "h100", 1.0)]
    case = problem(
        options,
        [(many_rps + few_rps) * (1 - missing_ratio)],
        [0.0],
        streams=(Stream(model="m", request_class="many", priority=1), Stream(model="m")),
        demand_rps=np.array([[many_rps], [few_rps]]),
        work=np.array([[1.0], [1.0]]),
    )
    fleet = solution_of(case, np.array([[1]]), status=PlanStatus.FEASIBLE, solver_name="none")
    assert float(fleet.unserved_rps[1, 0]) > 1e-6 * few_rps
    assert {fault.partition("[")[0] for fault in check(case, fleet)} == broken

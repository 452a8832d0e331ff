"""Replicas of sizes that do not divide each other, and which fleets of them fit the nodes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.fleet import Role
from planner.domain.plan import PlanStatus
from planner.domain.spec import PoolBounds, Spec
from planner.optimize import check, optimize, plan_together
from planner.optimize.inputs import AcceleratorLimit
from planner.optimize.nodes import node_kinds, packs
from tests.fakes.profiles import linear_profile
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.scenarios import NOW, forecast, replica_shape, spec


def fits_by_trying(sizes: list[int], free: tuple[int, ...]) -> bool:
    """Every replica into every node."""
    if not sizes:
        return True
    first, *rest = sizes
    return any(
        fits_by_trying(rest, (*free[:n], room - first, *free[n + 1 :]))
        for n, room in enumerate(free)
        if room >= first
    )


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 7), max_size=6),
    per_node=st.integers(2, 10),
    inventory=st.integers(0, 24),
)
def test_what_packs_is_what_trying_everything_finds(
    sizes: list[int], per_node: int, inventory: int
) -> None:
    limit = AcceleratorLimit(name="a", inventory=inventory, per_node=per_node)
    nodes, rest = divmod(inventory, per_node)
    counts = {size: sizes.count(size) for size in set(sizes)}
    assert packs(counts, limit) == fits_by_trying(sizes, (*[per_node] * nodes, rest))


@pytest.mark.parametrize(("small", "large"), [(4, 5), (2, 3), (3, 5)])
def test_sizes_that_do_not_divide_pass_the_check(small: int, large: int) -> None:
    """By counting blocks of 4 and 5, six nodes of 8 would hold six of each."""
    options = [
        option(Role.AGGREGATED, "h100", float(small), tp=small),
        option(Role.AGGREGATED, "h100", float(large) - 0.5, tp=large),
    ]
    case = problem(options, [4.0, 5.5], [30.0], inventory=48)
    solution = optimize(case)
    assert solution.feasible
    assert check(case, solution) == ()


def test_packing_is_exact_where_sizes_do_not_divide() -> None:
    """3 + 3 + 2 fill a node of 8; rounded up to 4 + 4 they would not."""
    options = [
        option(Role.AGGREGATED, "h100", 3.0, tp=3),
        option(Role.AGGREGATED, "h100", 2.0, tp=2),
    ]
    case = problem(options, [3.0, 2.0], [8.0], inventory=8)
    assert optimize(case).feasible
    assert not optimize(replace(case, demand_rps=np.array([[8.5]]))).feasible


def test_ways_to_fill_a_node_leave_no_room() -> None:
    (kind,) = node_kinds(AcceleratorLimit(name="a", inventory=16, per_node=8), [2, 3]) or ()
    assert kind.count == 2
    assert sorted(map(tuple, kind.fits.tolist())) == [(1, 2), (2, 1), (4, 0)]


def two_sizes(*, elsewhere: bool) -> Spec:
    """Nodes of 4: replicas of 3 for one model, of 2 for the other."""
    base = spec(
        roles=(Role.AGGREGATED,), inventory=8, accelerators=(("a", 2.0, 1.0), ("b", 3.0, 1.0))
    )
    tp = {"chat": 3, "code": 2}
    where = [("chat", "a"), ("code", "a"), *([("code", "b")] if elsewhere else [])]
    return replace(
        base,
        models=tuple(replace(base.models[0], name=name) for name in tp),
        slos=tuple(replace(base.slos[0], model=name) for name in tp),
        accelerators=tuple(replace(a, per_node=4) for a in base.accelerators),
        profiles=tuple(
            linear_profile(profile_id=f"{m}{a}", accelerator=a, model=m, tp=tp[m], speed=1.0)
            for m, a in where
        ),
        pools=tuple(
            PoolBounds(
                shape=replace(replica_shape(Role.AGGREGATED, a, tp=tp[m]), model=m),
                min_replicas=2 if m == "chat" else 0,
            )
            for m, a in where
        ),
    )


def demands(rate_rps: float) -> list:
    return [replace(forecast([rate_rps]), model=name) for name in ("chat", "code")]


def test_models_of_other_sizes_do_not_get_what_fits_no_node() -> None:
    """Two of 3 leave one accelerator in each node of 4: none for a replica of 2."""
    chat, code = plan_together(two_sizes(elsewhere=True), demands(1.0), None, made_at=NOW)
    assert chat.status is not PlanStatus.INFEASIBLE
    assert code.status is not PlanStatus.INFEASIBLE
    assert [p.shape.accelerator for p in code.windows[0].pools] == ["b"]
    (alone,) = (r for r in code.rejected if r.name == "a only")
    assert alone.usd_per_hour is None


def test_where_no_node_has_room_the_plan_says_what_to_add() -> None:
    _, code = plan_together(two_sizes(elsewhere=False), demands(1.0), None, made_at=NOW)
    assert code.status is PlanStatus.INFEASIBLE
    assert any(text.startswith("2 more a") for text in code.relaxations)


def test_rows_name_only_sizes_of_the_model_that_is_planned() -> None:
    """Code has replicas of 2 only; that no node has room for one of 3 is no limit of its own."""
    shared = two_sizes(elsewhere=False)
    shared = replace(
        shared, accelerators=tuple(replace(a, inventory=12) for a in shared.accelerators)
    )
    _, code = plan_together(shared, demands(1.0), None, made_at=NOW)
    assert [p.replicas for p in code.windows[0].pools] == [1]
    assert [r.row for r in code.binding if "_nodes[" in r.row] == []


def test_models_of_other_sizes_share_nodes_window_by_window() -> None:
    """Three nodes of 4 hold 2 x 3 and 1 x 2, then 1 x 3 and 4 x 2; never 2 x 3 and 4 x 2."""
    shared = two_sizes(elsewhere=False)
    shared = replace(
        shared,
        accelerators=tuple(replace(a, inventory=12) for a in shared.accelerators),
        pools=tuple(replace(p, min_replicas=0) for p in shared.pools),
    )
    loads = [
        replace(forecast([12.0, 1.0]), model="chat"),
        replace(forecast([1.0, 40.0]), model="code"),
    ]
    plans = plan_together(shared, loads, None, made_at=NOW)
    assert [p.status is not PlanStatus.INFEASIBLE for p in plans] == [True, True]
    replicas = [[sum(p.replicas for p in w.pools) for w in made.windows] for made in plans]
    assert replicas == [[2, 1], [1, 4]]

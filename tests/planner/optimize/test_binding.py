"""Rows that bind are found for every constraint, and say which field of the spec they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner.domain.fleet import Role
from planner.domain.hardware import PurchaseOption
from planner.domain.model import Dtype
from planner.optimize.binding import DEFINITIONS, FINDERS, binding_rows, told_apart
from planner.optimize.constraints import CONSTRAINTS
from planner.optimize.equations import code_of
from planner.optimize.inputs import Flip, LinkLimit, Option, RatioBounds, ReplicaBounds, Stream
from planner.optimize.problem import Problem
from planner.optimize.solve import optimize
from tests.planner.optimize.cases import option, problem

ROOT = Path(__file__).parents[3]
P, D, A = Role.PREFILL, Role.DECODE, Role.AGGREGATED
PAIR = (option(P, "x", 2.0, power_w=700.0), option(D, "x", 2.0, power_w=700.0))
ALONE = option(A, "x", 2.0)


def pair(demands_rps: list[float], **more: object) -> Problem:
    return problem(PAIR, [1.0, 1.0], demands_rps, **more)  # type: ignore[arg-type]


def held(**more: object) -> Problem:
    """Four aggregated replicas run, one is needed."""
    running = option(A, "x", 2.0, initial_replicas=4, **more)
    return problem([running], [1.0], [0.5, 0.5], has_fleet=True)


TWO_STREAMS = {
    "streams": (Stream(model="m", bucket="a"), Stream(model="m", bucket="b")),
    "demand_rps": np.array([[2.0], [2.0]]),
    "work": np.array([[1.0, 1.0], [2.0, 1.0]]),
}
SHAPES = (option(A, "x", 2.0, tp=1), option(A, "x", 3.9, tp=2))


def flipping() -> Problem:
    """The one prefill replica on x is wanted for decode; new replicas come too late."""
    options = (
        option(P, "x", 2.0, initial_replicas=1, start_s=7200.0),
        option(D, "x", 2.0, start_s=7200.0),
        option(P, "y", 2.0, initial_replicas=1, start_s=7200.0),
        option(D, "y", 2.0, initial_replicas=1, start_s=7200.0),
    )
    flips = (Flip(source=0, target=1, flip_s=0.0), Flip(source=1, target=0, flip_s=0.0))
    return problem(options, [2.0, 1.0, 2.0, 1.0], [2.0], has_fleet=True, flips=flips)


def linked() -> Problem:
    """One request in two crosses the link within x; the other has to be decoded on y, dearer."""
    options = (*PAIR, option(D, "y", 9.0))
    links = (LinkLimit(prefill="x", decode="x", bytes_per_s=1e9),)
    return problem(options, [2.0, 2.0, 1.0], [2.0], kv_bytes=np.array([1e9]), links=links)


ALONE_2 = replace(ALONE, shape=replace(ALONE.shape, accelerator="x", tp=1), usd_per_hour=3.0)


def formats() -> Problem:
    fast = replace(PAIR[0].shape, kv_dtype=Dtype.FP8), replace(PAIR[1].shape, kv_dtype=Dtype.FP8)
    options = (*PAIR, *(replace(o, shape=s) for o, s in zip(PAIR, fast, strict=True)))
    return problem(options, [1.0, 1.0, 1.1, 1.1], [2.0])


CASES: dict[str, tuple[Problem, str]] = {
    "meet_demand": (
        problem(PAIR, [1.0, 1.0], [4.0], inventory=4, best_effort=True, **TWO_STREAMS),
        "requests/s of m/default/",
    ),
    "carry_plain_demand": (pair([4.0], inventory=4, best_effort=True), "2 of 4 requests/s"),
    "decode_what_is_prefilled": (
        problem(
            PAIR,
            [2.5, 1.0],
            [4.0],
            best_effort=True,
            bounds=[ReplicaBounds(shape=PAIR[1].shape, max_replicas=1)],
            **TWO_STREAMS,
        ),
        "decode replicas take no more",
    ),
    "keep_within_capacity": (pair([2.0]), "2 x decode:x:tp1 is needed for 2 requests/s"),
    "order_in_time": (
        problem(
            [option(A, "x", 2.0, initial_replicas=1, start_s=5400.0)],
            [1.0],
            [1.0, 1.0, 1.0, 1.0, 1.0, 2.0],
            has_fleet=True,
        ),
        "start_warm_s",
    ),
    "use_what_is_there": (
        problem(
            [option(A, "x", 2.0, initial_replicas=1, start_s=5400.0)],
            [1.0],
            [2.0, 2.0, 2.0],
            has_fleet=True,
        ),
        "start_warm_s",
    ),
    "flip_what_is_ready": (flipping(), "that are ready change their role"),
    "keep_up_time": (
        problem(
            [option(A, "x", 2.0, initial_replicas=1, min_up_s=7200.0)],
            [1.0],
            [3.0, 0.5],
            has_fleet=True,
        ),
        "min_up_s",
    ),
    "limit_starts": (
        problem(
            [option(A, "x", 2.0, initial_replicas=1, max_starts=1)], [1.0], [2.0], has_fleet=True
        ),
        "1 of max_starts 1",
    ),
    "limit_stops": (held(max_stops=0), "0 of max_stops 0"),
    "keep_min_replicas": (
        problem([ALONE], [1.0], [1.0], bounds=[ReplicaBounds(shape=ALONE.shape, min_replicas=2)]),
        "min_replicas, 2",
    ),
    "keep_max_replicas": (
        problem([ALONE], [1.0], [2.0], bounds=[ReplicaBounds(shape=ALONE.shape, max_replicas=2)]),
        "max_replicas, 2",
    ),
    "keep_inventory": (problem([ALONE], [1.0], [2.0], inventory=2), "2 of 2 x are used"),
    "fit_nodes": (
        problem([option(A, "x", 2.0, tp=3)], [1.0], [3.0], inventory=12, per_node=4),
        "per_node 4",
    ),
    "fill_nodes": (
        problem(
            [option(A, "x", 2.0, tp=3), option(A, "x", 9.0, tp=2)],
            [1.0, 0.1],
            [2.0],
            inventory=8,
            per_node=4,
        ),
        "per_node 4",
    ),
    "keep_budget": (problem([ALONE], [1.0], [2.0], usd_per_hour_limit=5.0), "4.00 of 5.00 USD/h"),
    "keep_power": (pair([2.0], power_w_limit=2800.0), "2,800 of 2,800 W (budget.power_w)"),
    "keep_ratio": (
        pair([2.0], ratios=(RatioBounds(model="m", min_ratio=1.5),)),
        "min_prefill_per_decode 1.5",
    ),
    "limit_spot": (
        problem(
            [ALONE, option(A, "x", 0.5, purchase_option=PurchaseOption.SPOT)],
            [1.0, 1.0],
            [2.0],
            spot_share_limit=0.5,
        ),
        "spot_share_limit 50%",
    ),
    "keep_transfers": (
        pair([2.0], kv_bytes=np.array([1e9]), transfer_bytes_per_s_limit=2e9),
        "planning.transfer_bytes_per_s",
    ),
    "move_what_is_prefilled": (linked(), "prefill replicas on x"),
    "decode_what_is_moved": (linked(), "decode replicas on x"),
    "keep_links": (linked(), "KV transfers x->x take all of 1 GB/s (planning.transfer_links)"),
    "keep_reserved": (
        problem(
            [replace(ALONE, usd_per_hour=0.0, prepaid=True), ALONE_2], [1.0, 1.0], [2.0], reserved=1
        ),
        "1 of 1 reserved x are used (reserved_count)",
    ),
    "keep_one_shape": (
        problem(SHAPES, [1.0, 2.0], [3.0], one_shape_per_role=True),
        "planning.one_shape_per_role",
    ),
    "keep_one_format": (formats(), "kv_dtype"),
    "scale_both_pools": (
        problem(
            (*PAIR, ALONE),
            [1.0, 1.0, 1.0],
            [1.0],
            bounds=[
                ReplicaBounds(shape=PAIR[0].shape, min_replicas=1),
                ReplicaBounds(shape=ALONE.shape, min_replicas=1),
            ],
        ),
        "the only decode replica",
    ),
    "keep_a_path": (problem([ALONE], [1.0], [0.0]), "nothing is expected"),
}


def test_every_constraint_has_a_finder_or_is_a_definition() -> None:
    assert FINDERS.keys() | DEFINITIONS.keys() == {c.__name__ for c in CONSTRAINTS}
    assert not FINDERS.keys() & DEFINITIONS.keys()
    assert CASES.keys() == FINDERS.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_constraint_that_binds_is_a_row_with_its_field(name: str) -> None:
    case, said = CASES[name]
    solution = optimize(case)
    assert solution.feasible
    rows = [r for r in binding_rows(case, solution) if r.row.startswith(f"{name}[")]
    assert rows
    assert any(said in r.sentence for r in rows), [r.sentence for r in rows]
    table = (ROOT / "docs/optimizer.md").read_text(encoding="utf-8")
    for row in rows:  # from what is printed to its equation, in the table too, to its code
        assert f"[`{name}`](../{code_of(row.row)}) | `{row.equation}`" in table
        assert f"def {name}(" in (ROOT / code_of(row.row)).read_text(encoding="utf-8")


def test_limits_with_room_are_no_rows() -> None:
    case = pair(
        [1.0],
        power_w_limit=5000.0,
        usd_per_hour_limit=50.0,
        kv_bytes=np.array([1e6]),
        transfer_bytes_per_s_limit=2e9,
        ratios=(RatioBounds(model="m", min_ratio=0.2, max_ratio=4.0),),
    )
    names = {r.row.partition("[")[0] for r in binding_rows(case, optimize(case))}
    assert names <= {"keep_within_capacity"}


def test_limits_that_no_fleet_keeps_together_are_named() -> None:
    case = pair(
        [1.0],
        ratios=(RatioBounds(model="m", min_ratio=3.0),),
        bounds=[ReplicaBounds(shape=PAIR[0].shape, max_replicas=2)],
        best_effort=True,
    )
    rows = binding_rows(case, optimize(case))
    said = " ".join(r.sentence for r in rows)
    assert "planning.min_prefill_per_decode 3" in said
    assert "max_replicas 2 of prefill:x:tp1" in said


def test_a_limit_that_binds_in_a_quiet_window_is_told_too() -> None:
    ramp = option(A, "x", 2.0, initial_replicas=1, max_starts=1)
    case = problem([ramp], [1.0], [1.0, 2.0, 3.0, 3.0, 2.9], has_fleet=True)
    rows = [r.row for r in binding_rows(case, optimize(case))]
    assert any(r.startswith("limit_starts[") for r in rows)


@pytest.mark.parametrize(
    ("more", "said"),
    [((), "what is more is not to be had"), ((ALONE_2,), "is paid by another offer (on_demand)")],
)
def test_a_full_reservation_says_whether_more_is_offered(
    more: tuple[Option, ...], said: str
) -> None:
    prepaid = replace(
        ALONE, usd_per_hour=0.0, prepaid=True, purchase_option=PurchaseOption.RESERVED
    )
    options = (prepaid, *more)
    case = problem(options, [1.0] * len(options), [2.0], reserved=2)
    (row,) = (r for r in binding_rows(case, optimize(case)) if r.row.startswith("keep_reserved["))
    assert said in row.sentence


@pytest.mark.parametrize(
    ("one", "other", "texts"),
    [(20.93, 20.88, ("20.93", "20.88")), (7.65, 0.0, ("7.65", "0")), (2.0, 2.0, ("2", "2"))],
)
def test_what_one_less_serves_is_never_told_as_what_is_needed(
    one: float, other: float, texts: tuple[str, str]
) -> None:
    assert told_apart(one, other) == texts

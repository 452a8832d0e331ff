"""What to relax: every limit that a user can set is tried, alone and together, to its smallest."""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import pytest

from planner.domain.fleet import Role
from planner.domain.hardware import Accelerator, PurchaseOption
from planner.domain.spec import Budget, PlanningSettings, PoolBounds, Spec
from planner.optimize.constraints import CONSTRAINTS
from planner.optimize.inputs import LinkLimit, RatioBounds, ReplicaBounds
from planner.optimize.limits import NO_LIMIT, limits_of
from planner.optimize.problem import Problem
from planner.optimize.promises import promises_of
from planner.optimize.relax import RESOLUTION_RATIO, Rebuild, relaxations
from planner.optimize.solve import optimize
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.scenarios import spec

P, D, A = Role.PREFILL, Role.DECODE, Role.AGGREGATED
PAIR = (option(P, "x", 2.0, power_w=700.0), option(D, "x", 2.0, power_w=700.0))
ALONE = option(A, "x", 2.0)


def pair(demand_rps: float = 2.0, **more: object) -> Problem:
    return problem(PAIR, [1.0, 1.0], [demand_rps], **more)  # type: ignore[arg-type]


def named(given: Spec | None = None) -> Spec:
    """A spec that promises something to the problems' model."""
    one = given or spec()
    return replace(one, slos=tuple(replace(s, model="m") for s in one.slos))


def asked(case: Problem) -> tuple[str, ...]:
    """What to relax of a problem whose objectives change nothing."""
    return texts(case, named(), lambda _: case)


def texts(case: Problem, given: Spec, rebuild: Rebuild) -> tuple[str, ...]:
    return tuple(relaxed.text for relaxed in relaxations(case, given, rebuild))


def nodes(changed: Spec) -> Problem:
    per_node = next((a.per_node for a in changed.accelerators if a.name == "x"), 4)
    three = option(A, "x", 2.0, tp=3)
    return problem([three], [1.0], [4.0], inventory=12, per_node=per_node)


TIGHT: dict[str, tuple[Problem, str]] = {
    "inventory": (pair(inventory=3), "1 more x"),
    "budget": (pair(usd_per_hour_limit=7.0), "a budget of 8.00 USD/h instead of 7.00"),
    "power": (pair(power_w_limit=2700.0), "budget.power_w 2,800 W instead of 2,700"),
    "transfer": (
        pair(kv_bytes=np.array([1e9]), transfer_bytes_per_s_limit=1e9),
        "planning.transfer_bytes_per_s 2e+09 instead of 1e+09",
    ),
    "link": (
        pair(
            kv_bytes=np.array([1e9]),
            links=(LinkLimit(prefill="x", decode=None, bytes_per_s=1.5e9),),
        ),
        "planning.transfer_links x->any 2e+09 instead of 1.5e+09",
    ),
    "spot": (
        problem(
            [option(A, "x", 0.5, purchase_option=PurchaseOption.SPOT)],
            [1.0],
            [2.0],
            spot_share_limit=0.0,
        ),
        "planning.spot_share_limit 1 instead of 0",
    ),
    "min ratio": (
        pair(
            ratios=(RatioBounds(model="m", min_ratio=3.0),),
            bounds=[ReplicaBounds(shape=PAIR[0].shape, max_replicas=2)],
        ),
        "planning.min_prefill_per_decode 1 instead of 3",
    ),
    "max ratio": (
        pair(
            ratios=(RatioBounds(model="m", max_ratio=0.5),),
            bounds=[ReplicaBounds(shape=PAIR[1].shape, max_replicas=2)],
        ),
        "planning.max_prefill_per_decode 1 instead of 0.5",
    ),
    "reserved": (
        problem([replace(ALONE, usd_per_hour=0.0, prepaid=True)], [1.0], [5.0], reserved=2),
        "reserved_count of x 5 instead of 2",
    ),
    "one shape": (
        problem(
            (ALONE, option(A, "y", 2.0)), [1.0, 1.0], [4.0], inventory=2, one_shape_per_role=True
        ),
        "planning.one_shape_per_role false",
    ),
    "max_replicas": (
        pair(bounds=[ReplicaBounds(shape=PAIR[0].shape, max_replicas=1)]),
        "max_replicas 2 instead of 1 for prefill:x:tp1",
    ),
    "min_replicas": (
        pair(inventory=5, bounds=[ReplicaBounds(shape=PAIR[0].shape, min_replicas=4)]),
        "min_replicas 3 instead of 4 for prefill:x:tp1",
    ),
    "max_starts": (
        problem(
            [option(A, "x", 2.0, initial_replicas=1, max_starts=1)], [1.0], [3.0], has_fleet=True
        ),
        "max_starts 2 instead of 1 for aggregated:x:tp1",
    ),
    "max_stops": (
        problem(
            (
                option(A, "x", 2.0, initial_replicas=4, max_stops=1),
                option(A, "x", 2.0, tp=2, initial_replicas=0),
            ),
            [0.1, 3.0],
            [3.0],
            inventory=4,
            has_fleet=True,
        ),
        "max_stops 2 instead of 1 for aggregated:x:tp1",
    ),
}


@pytest.mark.parametrize("name", TIGHT)
def test_a_limit_that_helps_alone_is_told_with_the_least_that_helps(name: str) -> None:
    case, said = TIGHT[name]
    assert not optimize(case).feasible
    found = asked(case)
    assert any(text.startswith(said) for text in found), found


def test_larger_nodes_are_tried() -> None:
    given = named(x_of(4))
    assert "per_node of x 6 instead of 4" in texts(nodes(given), given, nodes)


def test_more_reserved_accelerators_are_paid_within_the_budget() -> None:
    prepaid = replace(ALONE, usd_per_hour=0.0, prepaid=True)
    case = problem([prepaid], [1.0], [5.0], reserved=2, reserved_usd_per_hour=2.0)
    (limit,) = (replace(a, reserved_usd_per_hour=1.0) for a in case.accelerators)
    case = replace(case, accelerators=(limit,))
    assert "reserved_count of x 5 instead of 2" in asked(replace(case, usd_per_hour_limit=5.0))
    (pair_of,) = (text for text in asked(replace(case, usd_per_hour_limit=4.0)) if " and " in text)
    assert pair_of.startswith("reserved_count of x 5 instead of 2 and a budget of 5.0"), pair_of


def x_of(per_node: int) -> Spec:
    one = spec()
    x = replace(one.accelerators[0], name="x", per_node=per_node, inventory=12)
    return replace(one, accelerators=(x,))


def test_two_limits_that_only_help_together_are_told_together() -> None:
    case = pair(inventory=3, power_w_limit=2700.0)
    found = asked(case)
    assert any("1 more x and budget.power_w 2,800 W" in text for text in found), found


def test_three_limits_that_only_help_together_are_told_together() -> None:
    found = asked(pair(inventory=3, power_w_limit=2700.0, usd_per_hour_limit=7.0))
    three = "1 more x and a budget of 8.00 USD/h instead of 7.00 (to within 1%) and budget.power_w"
    assert any(text.startswith(three) for text in found), found


def by_objectives(changed: Spec) -> Problem:
    """A replica that serves more the longer a first token may take: 1 request/s at 1 s."""
    slo = changed.slos[0]
    rate = slo.ttft_s * (slo.tpot_s / 0.05) * (1 + 2 * (0.95 - slo.attainment_ratio))
    return problem([ALONE], [rate], [2.5], inventory=1)


def values(texts: Sequence[str], name: str) -> float:
    (text,) = (t for t in texts if t.startswith(name))
    return float(text.split()[1])


def test_objectives_are_searched_to_the_stated_resolution() -> None:
    one = named()
    found = texts(by_objectives(one), one, by_objectives)
    assert 2.5 <= values(found, "ttft_s") <= 2.5 * (1 + RESOLUTION_RATIO)
    assert 0.125 <= values(found, "tpot_s") <= 0.125 * (1 + RESOLUTION_RATIO)
    assert all("(to within 1%)" in t for t in found if t.startswith(("ttft_s", "tpot_s")))
    (fewer,) = (t for t in found if "of the requests" in t)
    assert 39.5 <= float(fewer.split("%")[0]) <= 40.0


def test_attainment_is_searched_to_the_stated_resolution() -> None:
    def rebuilt(changed: Spec) -> Problem:
        slo = changed.slos[0]
        return problem([ALONE], [1.0 if slo.attainment_ratio > 0.873 else 3.0], [2.5], inventory=1)

    one = named()
    found = texts(rebuilt(one), one, rebuilt)
    assert 0.873 * (1 - RESOLUTION_RATIO) <= values(found, "attainment_ratio") <= 0.873


def test_every_constraint_is_relaxed_or_has_no_limit_in_it() -> None:
    case = every_limit()
    relaxed = {c for limit in limits_of(case, x_of(4)) for c in limit.constraints}
    assert relaxed | NO_LIMIT.keys() == {c.__name__ for c in CONSTRAINTS}
    assert not relaxed & NO_LIMIT.keys()


def every_limit() -> Problem:
    shape = option(A, "x", 2.0, tp=2).shape
    return problem(
        [
            option(A, "x", 2.0, tp=2, max_starts=1, max_stops=1, min_up_s=60.0),
            option(A, "x", 1.0, tp=2, purchase_option=PurchaseOption.SPOT),
            option(A, "x", 0.0, tp=2, purchase_option=PurchaseOption.RESERVED, prepaid=True),
        ],
        [1.0, 1.0, 1.0],
        [1.0],
        bounds=[ReplicaBounds(shape=shape, min_replicas=1, max_replicas=2)],
        usd_per_hour_limit=9.0,
        power_w_limit=9000.0,
        spot_share_limit=0.5,
        kv_bytes=np.array([1.0]),
        transfer_bytes_per_s_limit=1e9,
        ratios=(RatioBounds(model="m", min_ratio=0.5, max_ratio=2.0),),
        one_shape_per_role=True,
        links=(LinkLimit(prefill=None, decode=None, bytes_per_s=1e9),),
    )


NOT_A_LIMIT = {
    "objective",
    "shortfall_usd_per_request",
    "profile_error_ratio",
    "own_profile_error",
    "shape",
    "name",
    "offers",
    "memory_bytes",
    "facts",
}


def test_every_limit_that_a_spec_can_set_is_relaxed() -> None:
    """A new field of these has to be a limit here, or be named as none."""
    given = {f.name for part in (Budget, PlanningSettings, PoolBounds) for f in fields(part)}
    given |= {f.name for f in fields(Accelerator)}
    told = {limit.field for limit in limits_of(every_limit(), x_of(4))}
    known = {part for field in told for part in (*field.split("."), field.split(" ")[0])}
    assert given - NOT_A_LIMIT <= known
    promised = {p.field for p in promises_of(every_limit(), named())}
    assert promised == {"attainment_ratio", "ttft_s", "tpot_s", "rate"}

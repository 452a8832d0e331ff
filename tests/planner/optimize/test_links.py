"""KV transfers are limited link by link, between pools on two accelerator types."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.fleet import Role
from planner.domain.plan import PlanStatus
from planner.domain.spec import PlanningSettings, TransferLink
from planner.optimize import check, optimize, plan
from planner.optimize.binding import binding_rows
from planner.optimize.inputs import LinkLimit
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.scenarios import NOW, forecast, spec

P, D = Role.PREFILL, Role.DECODE
KINDS = (option(P, "near", 1.0), option(D, "near", 3.0), option(D, "far", 1.0))


def split(*links: LinkLimit) -> dict[str, float]:
    """Requests/s of 4 that each decode pool takes: the far one is cheaper."""
    case = problem(KINDS, [4.0, 4.0, 4.0], [4.0], kv_bytes=np.array([1e9]), links=links)
    solution = optimize(case)
    assert check(case, solution) == ()
    return {name: float(solution.sent_rps[0, o, 0]) for o, name in ((1, "near"), (2, "far"))}


def test_what_a_link_does_not_carry_goes_to_pools_at_its_near_end() -> None:
    assert split() == {"near": 0.0, "far": pytest.approx(4.0)}
    tight = split(LinkLimit(prefill="near", decode="far", bytes_per_s=1e9))
    assert tight["far"] <= 1.0 + 1e-6
    assert sum(tight.values()) == pytest.approx(4.0)


def test_a_link_to_any_pool_limits_all_of_them_together() -> None:
    case = problem(
        KINDS,
        [4.0, 4.0, 4.0],
        [4.0],
        kv_bytes=np.array([1e9]),
        links=(LinkLimit(prefill="near", decode=None, bytes_per_s=3e9),),
    )
    assert not optimize(case).feasible
    assert optimize(replace(case, links=(replace(case.links[0], bytes_per_s=4e9),))).feasible


def test_a_plan_keeps_to_the_links_of_the_spec_and_says_which_is_full() -> None:
    kinds = (("near", 3.0, 1.0), ("far", 1.0, 1.0))
    both = spec(inventory=30, accelerators=kinds)
    pools = tuple(b for b in both.pools if (b.shape.role, b.shape.accelerator) != (P, "far"))
    free = replace(both, pools=pools)
    tight = replace(
        free,
        planning=PlanningSettings(
            transfer_links=(TransferLink(prefill="near", decode="far", bytes_per_s=1e6),)
        ),
    )
    before, after = (plan(s, forecast([40.0]), None, made_at=NOW) for s in (free, tight))
    assert before.windows[0].accelerators("far") > after.windows[0].accelerators("far")
    assert after.usd_per_hour > before.usd_per_hour
    decode = [p for p in after.windows[0].pools if p.shape.role is D]
    assert {"near"} <= {p.shape.accelerator for p in decode}


@pytest.mark.parametrize(
    "limit",
    [
        PlanningSettings(transfer_bytes_per_s=5e7),
        PlanningSettings(transfer_links=(TransferLink(prefill="cpu", bytes_per_s=5e7),)),
    ],
)
def test_a_fleet_whose_transfers_exceed_their_limit_is_no_plan(limit: PlanningSettings) -> None:
    """30 requests/s of 500 tokens of 4,096 bytes move 61 MB/s, whatever the twin says."""
    made = plan(replace(spec(), planning=limit), forecast([30.0], window_s=60.0), None, made_at=NOW)
    assert made.status is PlanStatus.INFEASIBLE
    assert any(text.startswith("planning.transfer_") for text in made.relaxations)


@pytest.mark.parametrize(
    ("bytes_per_s", "inventory", "told"), [(1.5e9, 8, True), (1e10, 8, False), (1.5e9, 1, False)]
)
def test_a_link_without_room_for_another_cheaper_replica_is_told(
    bytes_per_s: float, inventory: int, told: bool
) -> None:
    """Each decode replica takes 1 request/s, 1 GB; the far ones are cheaper, if there are any."""
    link = LinkLimit(prefill="near", decode="far", bytes_per_s=bytes_per_s)
    case = problem(KINDS, [4.0, 1.0, 1.0], [4.0], kv_bytes=np.array([1e9]), links=(link,))
    case = replace(
        case,
        accelerators=tuple(
            replace(a, inventory=inventory if a.name == "far" else 8) for a in case.accelerators
        ),
    )
    solution = optimize(case)
    assert check(case, solution) == ()
    rows = [r for r in binding_rows(case, solution) if r.row.startswith("keep_links[")]
    assert bool(rows) == told
    assert all("one more decode:far:tp1 in place of a dearer" in r.sentence for r in rows)

"""The solver against full enumeration, with streams, flips and every limit."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.domain.fleet import Role
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import PlanStatus
from planner.optimize import Problem, check, optimize
from planner.optimize.inputs import LinkLimit, RatioBounds, Stream, flips_between
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.enumeration import cheapest

ROLES = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)
WINDOW_S = 3600.0


@st.composite
def limited_problems(draw: st.DrawFn) -> Problem:
    """2-3 options of up to 2 replicas in 1-2 windows, 1-2 streams, any limits."""
    has_fleet = draw(st.booleans())
    bought = st.sampled_from(
        (PurchaseOption.ON_DEMAND, PurchaseOption.SPOT, PurchaseOption.RESERVED)
    )
    pair = [(role, "h100", PurchaseOption.ON_DEMAND) for role in (Role.PREFILL, Role.DECODE)]
    alone = (Role.AGGREGATED, "a100", draw(bought))
    spare = (draw(st.sampled_from(ROLES)), draw(st.sampled_from(("h100", "a100"))), draw(bought))
    far = (Role.DECODE, "a100", PurchaseOption.ON_DEMAND)
    mixes = (pair, [*pair, alone], [*pair, spare], [*pair, far], [alone, spare])
    kinds = draw(st.sampled_from(mixes))
    kinds = list(dict.fromkeys(kinds))
    options = tuple(
        option(
            role,
            accelerator,
            draw(st.integers(1, 9)) / 2 * (option_bought is not PurchaseOption.RESERVED),
            purchase_option=option_bought,
            initial_replicas=draw(st.integers(0, 2)) if has_fleet else 0,
            start_s=draw(st.sampled_from((0.0, 900.0))),
            drain_s=draw(st.sampled_from((0.0, 60.0))),
            min_up_s=draw(st.sampled_from((0.0, 1.5 * WINDOW_S))),
            billing_increment_s=draw(st.sampled_from((0.0, 0.0, 1.5 * WINDOW_S))),
            prepaid=option_bought is PurchaseOption.RESERVED,
            max_starts=draw(st.sampled_from((None, None, None, 1))),
            max_stops=draw(st.sampled_from((None, None, None, 1))),
            interruptions_per_hour=0.1 if option_bought is PurchaseOption.SPOT else 0.0,
        )
        for role, accelerator, option_bought in kinds
    )
    windows, streams = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    rates = [
        list(np.cumsum(draw(st.lists(st.integers(1, 20), min_size=2, max_size=2))) / 4)
        for _ in options
    ]
    work = [
        [draw(st.sampled_from((1.0, 1.0, 0.5, 1.37, 1.37, np.inf))) for _ in options]
        for _ in range(streams)
    ]
    flip_s = draw(st.sampled_from((0.0, 5.0)))
    return problem(
        options,
        rates,
        [0.0] * windows,
        window_s=WINDOW_S,
        inventory=draw(st.integers(2, 4)),
        has_fleet=has_fleet,
        reserved=draw(st.integers(0, 2)),
        reserved_usd_per_hour=draw(st.sampled_from((0.0, 1.5))),
        streams=tuple(Stream(model="m", bucket=str(k)) for k in range(streams)),
        demand_rps=np.array(
            [[draw(st.integers(0, 12)) / 4 for _ in range(windows)] for _ in range(streams)]
        ),
        work=np.array(work),
        flips=tuple(flips_between(options, lambda _: flip_s)) if draw(st.booleans()) else (),
        ratios=draw(
            st.sampled_from(
                (
                    (),
                    (RatioBounds(model="m", min_ratio=0.5),),
                    (RatioBounds(model="m", max_ratio=1.0),),
                )
            )
        ),
        spot_share_limit=draw(st.sampled_from((None, 0.5))),
        kv_bytes=np.array([1.0, 3.0][:streams]),
        transfer_bytes_per_s_limit=draw(st.sampled_from((None, None, 4.0))),
        links=draw(
            st.sampled_from(
                (
                    (),
                    (),
                    (LinkLimit(prefill="h100", decode="a100", bytes_per_s=1.5),),
                    (
                        LinkLimit(prefill="h100", decode="h100", bytes_per_s=1.0),
                        LinkLimit(prefill=None, decode="a100", bytes_per_s=2.5),
                    ),
                )
            )
        ),
        usd_per_hour_limit=draw(st.sampled_from((None, None, 9.0))),
    )


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=limited_problems())
def test_no_fleet_within_the_limits_is_cheaper(case: Problem) -> None:
    solution = optimize(case)
    assert check(case, solution) == ()
    best = cheapest(case)
    assert solution.feasible == (best is not None)
    if best is not None:
        assert solution.status is PlanStatus.OPTIMAL
        assert solution.usd == pytest.approx(best, rel=2e-4, abs=1e-4)


def test_a_fleet_that_is_exactly_enough_is_found() -> None:
    """Capacities and demands that meet to the last digit, beside coefficients that do not."""
    options = [option(r, "h100", 0.5) for r in (Role.PREFILL, Role.DECODE)]
    options.append(option(Role.AGGREGATED, "a100", 0.5))
    case = problem(
        options,
        [[0.5, 0.75], [0.5, 1.25], [0.5, 0.75]],
        [0.0],
        inventory=2,
        has_fleet=True,
        streams=tuple(Stream(model="m", bucket=str(k)) for k in range(2)),
        demand_rps=np.array([[0.25], [0.75]]),
        work=np.array([[1.0, 1.37, 1.0], [1.0, 1.0, 1.0]]),
    )
    assert optimize(case).replicas.ravel().tolist() == [1, 1, 1]

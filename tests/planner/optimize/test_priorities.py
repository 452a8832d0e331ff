"""No model of lower priority keeps what would let one of higher priority serve more."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planner.domain.fleet import Role
from planner.domain.plan import Plan, PlanStatus
from planner.domain.spec import Spec
from planner.optimize import check, optimize, plan, plan_together
from planner.optimize.inputs import Option, Stream
from planner.optimize.problem import Problem
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.scenarios import NOW
from tests.planner.optimize.test_together import demand, two_models
from tests.planner.optimize.test_unproven import bursty

A = Role.AGGREGATED
MODELS = ("low", "middle", "high")
"""In the order of their priority; names say nothing to the optimizer."""

KINDS = ("x", "y")
PRICES = {"x": 3.0, "y": 1.3}


def of_model(name: str, kind: str) -> Option:
    one = option(A, kind, PRICES[kind])
    return replace(one, shape=replace(one.shape, model=name))


def shared_by(
    rates: list[list[float]], loads: list[float], *, inventory: int, usd: float | None = None
) -> Problem:
    """Models on two kinds of accelerators; rates by model and kind, of one replica and more."""
    names = MODELS[: len(loads)]
    options = [of_model(name, kind) for name in names for kind in KINDS]
    work = np.full((len(names), len(options)), np.inf)
    for k in range(len(names)):
        work[k, 2 * k : 2 * k + 2] = 1.0
    return problem(
        options,
        rates,
        [1.0],
        inventory=inventory,
        best_effort=usd is None,
        shortfall_usd_per_request=usd,
        streams=tuple(Stream(model=name, priority=k) for k, name in enumerate(names)),
        demand_rps=np.array([[load] for load in loads]),
        work=work,
    )


@st.composite
def joint(draw: st.DrawFn, *, usd_per_request: float | None = None) -> Problem:
    """Two or three models on two kinds of accelerators, with loads that need not fit."""
    models = draw(st.integers(2, 3))
    steps = st.lists(st.sampled_from((0.5, 1.0, 1.3, 2.0)), min_size=3, max_size=3)
    rates = [np.cumsum(draw(steps)).tolist() for _ in range(2 * models)]
    loads = [draw(st.sampled_from((0.4, 1.7, 3.0, 5.5))) for _ in range(models)]
    inventory = draw(st.integers(2, 3))
    return shared_by(rates, loads, inventory=inventory, usd=usd_per_request)


def fleets(case: Problem) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every fleet within the inventory that leaves each model a replica, and what it serves."""
    most = case.accelerators[0].inventory
    for counts in product(range(most + 1), repeat=len(case.options)):
        n = np.array(counts)
        per_model = n.reshape(-1, 2)
        if (per_model.sum(axis=0) <= most).all() and (per_model.sum(axis=1) > 0).all():
            rates = np.array([case.capacity[o, 0].at(c) for o, c in enumerate(counts)])
            served = np.minimum(rates.reshape(-1, 2).sum(axis=1), case.demand_rps[:, 0])
            yield n, served


@given(case=joint())
@settings(max_examples=60, deadline=None)
def test_what_is_served_is_the_most_of_one_priority_after_the_other(case: Problem) -> None:
    found = optimize(case)
    assert check(case, found) == ()
    served = case.demand_rps[:, 0] - found.unserved_rps[:, 0]
    best = max(tuple(rates[::-1].round(9)) for _, rates in fleets(case))
    assert served[::-1] == pytest.approx(best, abs=2e-3)


USD_PER_REQUEST = 4e-4

A_LOWER_ONE_MOVES_A_HIGHER_ONE = shared_by(
    [[0.5, 1.0, 1.5]] * 3 + [[0.5, 1.5, 2.0], [1.0, 1.5, 2.0], [0.5, 1.0, 1.5]],
    [0.4, 1.7, 1.7],
    inventory=2,
    usd=USD_PER_REQUEST,
)
"""Without the lowest, the two others stand on y. With it, the highest goes to the dearer x and
serves more there, which owes the middle one nothing beyond what it had."""


@given(case=joint(usd_per_request=USD_PER_REQUEST))
@example(case=A_LOWER_ONE_MOVES_A_HIGHER_ONE)
@settings(max_examples=60, deadline=None)
def test_at_a_price_each_priority_is_served_as_if_lower_ones_were_not_there(case: Problem) -> None:
    found = optimize(case)
    assert check(case, found) == ()
    served = case.demand_rps[:, 0] - found.unserved_rps[:, 0]
    highest = case.stream_indices[-1]
    assert keeps_priorities(case, served, list(fleets(case)), highest), served


Served = list[tuple[np.ndarray, np.ndarray]]


def keeps_priorities(case: Problem, found: np.ndarray, left: Served, k: int) -> bool:
    """Whether stream k and those below get what the cheapest fleets for k and above give it.

    Of fleets that cost the same any may have been meant; of what a higher stream is owed, and not
    of what it got, the lower ones are judged.
    """
    if k < 0:
        return True
    prices = np.array([o.usd_per_hour for o in case.options]).reshape(-1, 2)
    cost = [
        float((prices[k:] * n.reshape(-1, 2)[k:]).sum())
        + USD_PER_REQUEST * 3600 * float((case.demand_rps[k:, 0] - served[k:]).sum())
        for n, served in left
    ]
    most = min(cost) * 1.0005 + 1e-4
    owed = {served[k] for (_, served), usd in zip(left, cost, strict=True) if usd <= most}
    return any(
        keeps_priorities(case, found, [one for one in left if one[1][k] >= rps - 2e-3], k - 1)
        for rps in owed
        if found[k] >= rps - 2e-3
    )


def tight(inventory: int) -> Spec:
    """The load of the model of higher priority is more uneven than the closed form believes."""
    shared = two_models(inventory=inventory, priorities=(1, 0))
    slos = tuple(replace(s, ttft_s=0.5, tpot_s=0.03) for s in shared.slos)
    return replace(shared, slos=slos)


def lacking(made: Plan) -> tuple[bool, float]:
    return made.status is PlanStatus.INFEASIBLE, sum(w.shortfall_rps for w in made.windows)


@given(
    inventory=st.integers(6, 12),
    rate_rps=st.sampled_from((8.0, 12.0, 18.0)),
    low_rps=st.sampled_from((4.0, 12.0, 30.0)),
)
@example(inventory=10, rate_rps=12.0, low_rps=30.0)
@settings(max_examples=3, deadline=None)
def test_a_lower_priority_keeps_no_accelerator_that_the_higher_one_lacks(
    inventory: int, rate_rps: float, low_rps: float
) -> None:
    """Beside the two that answer whoever comes."""
    high = replace(bursty([rate_rps]), model="chat")
    shared = tight(inventory)
    made, _ = plan_together(shared, [high, demand("code", [low_rps])], None, made_at=NOW)
    (cpu,) = shared.accelerators
    all_but_two = replace(shared, accelerators=(replace(cpu, inventory=inventory - 2),))
    assert lacking(made) <= lacking(plan(all_but_two, high, None, made_at=NOW))

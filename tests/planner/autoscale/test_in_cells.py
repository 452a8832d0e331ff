"""Behind one router a cell, what requests experience is that of the cells, not of one queue."""

from dataclasses import replace

import pytest

from planner.autoscale import decide
from planner.autoscale.in_cells import in_cells
from planner.capacity.deployment import predict
from planner.capacity.split import PoolLoad
from planner.domain.fleet import Role
from planner.domain.topology import Cell
from planner.optimize import plan
from planner.optimize.loads import load_of
from tests.planner.optimize.scenarios import NOW, D, P, fleet, forecast, spec

CELLS = (Cell(name="left"), Cell(name="right"))
BUSY = forecast([100.0])


def planned(cells=CELLS, ahead=BUSY, **settings):
    asked = replace(spec(**settings), cells=cells)
    made = plan(asked, ahead, None, made_at=NOW)
    return asked, in_cells(made, asked, ahead, None)


def alone(asked, ahead, replicas, share) -> float:
    """The closed form of some replicas by themselves, with so much of the traffic."""
    load = load_of(ahead.windows[0], asked.forecast.demand_level)
    pools = [
        PoolLoad(profile=asked.profile_of(shape), role=shape.role, replicas=count)
        for shape, count in replicas.items()
    ]
    found = predict(
        pools,
        load.shape,
        asked.slos[0],
        request_rate_rps=load.request_rate_rps * share,
        arrival_cv2=load.arrival_cv2,
        window_s=ahead.windows[0].window_s,
    )
    return found.prediction.attainment_ratio


def test_each_cell_is_predicted_as_if_it_were_alone() -> None:
    asked, made = planned()
    (placement,) = made.placements
    found = placement.attainment
    assert found is not None
    assert sum(c.traffic_ratio for c in found.cells) == pytest.approx(1.0)
    for cell in found.cells:
        replicas = {r.shape: r.replicas for r in placement.within(cell.cell)}
        assert cell.attainment_ratio == pytest.approx(
            alone(asked, BUSY, replicas, cell.traffic_ratio)
        )
    whole = {p.shape: p.replicas for p in made.windows[0].pools}
    assert found.one_router_ratio == pytest.approx(alone(asked, BUSY, whole, 1.0))


def test_what_pooling_was_worth_is_lost_between_routers() -> None:
    _, made = planned()
    found = made.placements[0].attainment
    assert found is not None
    assert found.attainment_ratio < found.one_router_ratio
    assert found.attainment_ratio == pytest.approx(
        sum(c.traffic_ratio * c.attainment_ratio for c in found.cells)
    )


def test_replicas_in_one_cell_are_as_planned() -> None:
    _, made = planned(cells=(Cell(name="only"),))
    assert made.placements[0].attainment is None
    _, quiet = planned(ahead=forecast([1.0]))
    assert len(quiet.placements[0].used_cells) == 1
    assert quiet.placements[0].attainment is None


def test_a_decision_tells_it_too() -> None:
    asked = replace(spec(), cells=CELLS)
    decision = decide(asked, BUSY, fleet(prefill=1, decode=1), now=NOW)
    (placement,) = decision.plan.placements
    assert {r.shape for r in placement.replicas} == {P, D}
    assert placement.count("left", Role.PREFILL) > 0
    assert placement.attainment is not None

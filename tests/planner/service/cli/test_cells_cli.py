"""`poolwise plan` and `poolwise diff` of a spec with cells, and fleets that name them."""

import json

import pytest

from planner.service.documents import read_plan
from tests.planner.service.examples import pool, write_json, write_spec, write_trace

ASKED = ("--spec", "spec.yaml", "--trace", "trace.jsonl")
CELLS = [{"name": "left"}, {"name": "right"}]
NARROW = [{"name": "left", "gpus": [0]}, {"name": "right", "gpus": [1]}]


@pytest.fixture
def with_cells(folder):
    """Gives the example spec cells."""

    def write(cells):
        write_spec(folder, target={"kind": "local", "cells": cells})
        return folder

    return write


def test_without_cells_nothing_is_said_of_them(poolwise):
    status, out, _ = poolwise("plan", *ASKED)
    assert status == 0
    assert "Cells" not in out
    _, out, _ = poolwise("plan", *ASKED, "--json")
    assert json.loads(out)["placements"] == []


def test_a_plan_shows_its_replicas_by_cell(poolwise, with_cells):
    with_cells(CELLS)
    _, out, _ = poolwise("plan", *ASKED)
    assert "Cells, one router in each" in out
    assert "as planned" in out
    _, out, _ = poolwise("plan", *ASKED, "--json")
    answer = json.loads(out)
    assert len(answer["placements"]) == len(answer["windows"])
    first = answer["placements"][0]
    assert first["crossing_ratio"] == 0
    planned = {p["role"]: p["replicas"] for p in answer["windows"][0]["pools"]}
    for role, count in planned.items():
        assert sum(r["replicas"] for r in first["replicas"] if r["role"] == role) == count


def test_attainment_behind_two_routers_is_told_beside_that_of_one(poolwise, with_cells):
    halves = {"left": [0, 1, 2, 3], "right": [4, 5, 6, 7]}
    folder = with_cells([{"name": name, "gpus": gpus} for name, gpus in halves.items()])
    write_trace(folder / "trace.jsonl", rate_rps=40.0)
    _, out, _ = poolwise("plan", *ASKED)
    assert "(one router" in out, out
    _, out, _ = poolwise("plan", *ASKED, "--json")
    (folder / "plan.json").write_text(out)
    told = json.loads(out)["placements"][0]["attainment"]
    assert 0 < told["attainment_ratio"] < told["one_router_ratio"] <= 1
    assert [c["cell"] for c in told["cells"]] == ["left", "right"]
    (again, *_) = read_plan(folder / "plan.json").placements
    assert again.attainment.attainment_ratio == pytest.approx(told["attainment_ratio"])


def test_what_crosses_is_told(poolwise, with_cells):
    folder = with_cells(NARROW)
    _, out, _ = poolwise("plan", *ASKED)
    assert "100.0%" in out
    assert "of the traffic: up to 8 replicas more of one role would not mend it" in out
    _, out, _ = poolwise("plan", *ASKED, "--json")
    (folder / "plan.json").write_text(out)
    read = read_plan(folder / "plan.json")
    assert read.placements[0].crossing_ratio == pytest.approx(1.0)
    assert read.placements[0].capacity_loss_ratio == pytest.approx(1.0)


def test_steps_name_the_cells_of_a_fleet_that_names_them(poolwise, with_cells):
    folder = with_cells(CELLS)
    parts = [pool("prefill", 1, cell="left"), pool("decode", 1, cell="right")]
    write_json(folder / "fleet.json", {"pools": parts})
    status, out, _ = poolwise("diff", *ASKED, "--fleet", "fleet.json")
    assert status == 0
    assert " in left" in out or " in right" in out
    assert "Cells, one router in each" in out
    _, out, _ = poolwise("diff", *ASKED, "--fleet", "fleet.json", "--json")
    answer = json.loads(out)
    assert {step["cell"] for step in answer["steps"]} <= {"left", "right"}
    assert answer["placement"]["moves"] == 1
    assert [p["cell"] for p in answer["from_fleet"]["pools"]] == ["left", "right"]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([pool("prefill", 1, cell="lift")], "cell `lift` is not in the spec; did you mean `left`"),
        ([pool("prefill", 1, cell="left"), pool("decode", 1)], "name the cell of every pool"),
        ([pool("prefill", 1, cell="left")] * 2, "once a cell"),
    ],
)
def test_fleets_that_make_no_sense_are_refused(poolwise, with_cells, parts, said):
    folder = with_cells(CELLS)
    write_json(folder / "fleet.json", {"pools": parts})
    status, _, err = poolwise("plan", *ASKED, "--fleet", "fleet.json")
    assert status == 2
    assert said in err

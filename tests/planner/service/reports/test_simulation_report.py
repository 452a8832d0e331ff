"""The page of a simulation: whole, true, and readable where there is little to show."""

import json
import re

import numpy as np
import pytest

from planner.domain.fleet import ReplicaShape, Role
from planner.service.answers.circumstances import Replicas
from planner.service.answers.simulation import Sampling, replay, sample, window_like
from planner.service.documents.circumstances import CircumstancesDocument
from planner.service.reports.simulation_report import quantiles_over_time, simulation_report
from planner.service.spec.file import read_spec
from planner.simulate.futures import Stopping
from tests.fakes.workloads import poisson_workload
from tests.planner.service.examples import write_spec
from tests.planner.service.reports.reading import read_page

FIGURES = ("plot-latencies", "plot-pools")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What was seen, by the kind of run."""
    spec = read_spec(write_spec(tmp_path_factory.mktemp("spec")))
    pools = tuple(
        Replicas(shape=ReplicaShape(role=role, model="tiny", accelerator="cpu"), replicas=2)
        for role in (Role.PREFILL, Role.DECODE)
    )
    usual = poisson_workload(requests=200, rate_rps=8.0, isl=600, osl=40)
    busy = poisson_workload(requests=2000, rate_rps=80.0, isl=900, osl=40)
    fail = {"at_s": 10, "incident": "fail", "pool": 0, "replica": 1}
    late = {"at_s": 9000, "incident": "drain", "pool": 0, "replica": 1}
    asked = {
        "usual": (usual, {}),
        "events": (usual, {"events": [fail, late]}),
        "stopped": (busy, {"unstable_wait_s": 3.0}),
        "turned_down": (usual, {"early_rejection_s": 1e-3}),
        "single": (poisson_workload(requests=1, rate_rps=1.0), {}),
    }
    found = {
        name: replay(
            spec, pools, requests, model="tiny", circumstances=CircumstancesDocument(**given)
        )
        for name, (requests, given) in asked.items()
    }
    window = window_like(usual)
    for name, duration_s, count in (("futures", 20.0, 8), ("unclear", 20.0, 1), ("empty", 1e-6, 1)):
        sampling = Sampling(window=window, duration_s=duration_s)
        found[name] = sample(spec, pools, sampling, Stopping(most_futures=count), model="tiny")
    return found


KINDS = ("usual", "events", "stopped", "turned_down", "single", "futures", "unclear", "empty")
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_a_page_is_well_formed_loads_nothing_and_shows_no_missing_value(seen, kind):
    html = simulation_report(seen[kind])
    page = read_page(html)
    assert (page.open_tags, page.misnested) == ([], [])
    assert [a for _, a in page.tags if "src" in a or str(a.get("href", "#"))[0] != "#"] == []
    spoken = [a["aria-label"] or "" for _, a in page.tags if "aria-label" in a]
    words = re.findall(r"[A-Za-z]+", " ".join([page.visible, *spoken]))
    assert {w for w in words if w.lower() in {"nan", "inf"} or w in {"None", "NULL"}} == set()


@every_kind
def test_both_figures_are_there_and_are_json(seen, kind):
    page = read_page(simulation_report(seen[kind]))
    for name in FIGURES:
        assert json.loads(page.scripts[name])["data"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("usual", "The objectives hold"),
        ("turned_down", "The objectives do not hold"),
        ("stopped", "The deployment is overloaded"),
        ("futures", "The objectives hold"),
        ("unclear", "It is not clear yet"),
    ],
)
def test_the_headline_says_what_came_out(seen, kind, said):
    assert said in read_page(simulation_report(seen[kind])).visible


def test_the_text_tells_share_outcomes_pools_and_reason(seen):
    usual = read_page(simulation_report(seen["usual"])).visible
    for words in ("200 requests met every objective", "200 finished", "0: prefill:cpu:tp1"):
        assert words in usual
    assert "in 8 sampled futures" in read_page(simulation_report(seen["futures"])).visible
    stopped = read_page(simulation_report(seen["stopped"])).visible
    assert re.search(r"Stopped at .*: pool 0 \(prefill:cpu:tp1\): the first in the line", stopped)


def test_events_and_the_stop_are_drawn(seen):
    def lines(kind):
        figure = json.loads(read_page(simulation_report(seen[kind])).scripts["plot-pools"])
        return {shape["x0"] for shape in figure["layout"].get("shapes", [])}

    assert lines("usual") == set()
    assert lines("events") == {10.0}
    assert lines("stopped") == {seen["stopped"].total.stopped[0].at_s}


def test_quantiles_over_time_leave_out_bins_without_a_value():
    at_s = np.array([0.0, 1.0, 2.0, 119.9])
    middles, values = quantiles_over_time(at_s, np.array([1.0, np.nan, 3.0, 5.0]), 120.0, 0.5)
    assert middles.tolist() == [0.5, 2.5, 119.5]
    assert values.tolist() == [1.0, 3.0, 5.0]

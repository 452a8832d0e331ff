"""`--what-if` of other windows and of lists, and `--pareto` where a point is refused."""

import json
import re
from pathlib import Path

import pytest

from tests.planner.service.examples import spec_data, write_spec, write_trace

PLAN = ("plan", "--spec", "spec.yaml", "--trace", "trace.jsonl")


@pytest.fixture
def changed(poolwise):
    """The plan of one changed spec."""

    def ask(change: str) -> dict:
        status, out, _ = poolwise(*PLAN, "--what-if", change, "--json")
        assert status == 0
        (other,) = json.loads(out)["what_if"]
        return other["plan"]

    return ask


@pytest.mark.parametrize(
    ("change", "windows", "window_s"),
    [
        ("forecast.horizon_windows=5", 5, 60.0),
        ("forecast.window_s=120", 2, 120.0),
        ("forecast.window_s=30,forecast.horizon_windows=3,rate=x1.5", 3, 30.0),
    ],
)
def test_other_windows_are_forecast_anew(changed, change, windows, window_s):
    found = changed(change)["windows"]
    assert [w["window_s"] for w in found] == [window_s] * windows


def test_other_windows_of_a_finished_forecast_are_refused(poolwise, folder):
    _, out, _ = poolwise("forecast", "-s", "spec.yaml", "-t", "trace.jsonl", "--json")
    (folder / "f.json").write_text(out)
    status, _, err = poolwise(
        *PLAN[:3], "--forecast", "f.json", "--what-if", "forecast.horizon_windows=5"
    )
    assert status == 2
    assert "give --trace instead of --forecast" in " ".join(err.split())


def test_a_list_is_one_value(changed):
    plan = changed(
        "target.routes_by=[request_class, uncached_input_tokens],"
        "target.uncached_input_buckets=[700],rate=x1.5"
    )
    traffic = plan["windows"][0]["traffic"]
    assert {part["above_tokens"] for part in traffic} == {0, 700}
    assert {part["request_class"] for part in traffic} == {"default"}


def with_long_requests(folder):
    """One request in eleven is longer than the model's context: 0.9 may be promised, not 0.95."""
    (model,) = spec_data()["models"]
    write_spec(folder, models=[{**model, "max_context_tokens": 1000}])
    with Path("trace.jsonl").open(encoding="utf-8") as trace:
        rows = [json.loads(line) for line in trace]
    for n, row in enumerate(rows):
        row["input_length"] = 2_000 if n % 14 == 0 else 600
    Path("trace.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


def test_a_point_of_the_frontier_that_is_refused_says_so(poolwise, folder):
    with_long_requests(folder)
    status, out, _ = poolwise(*PLAN, "--pareto", "--json")
    assert status == 0
    answer = json.loads(out)
    refused = [p for p in answer["pareto"] if p["plan"] is None]
    assert len(answer["pareto"]) == 21
    assert {p["attainment_ratio"] for p in refused} == {0.95, 0.99}
    assert all("longer than the model's context" in p["refused"] for p in refused)
    assert not any(p["efficient"] for p in refused)
    assert answer["windows"]
    _, table, _ = poolwise(*PLAN, "--pareto")
    assert "Refused" in table


def test_a_horizon_that_is_too_long_is_refused_at_once(poolwise, folder):
    forecast = {"window_s": 60.0, "horizon_windows": 1000}
    data = spec_data()
    offers = {"on_demand": 1.0, "spot": 0.5}
    (accelerator,) = data["accelerators"]
    write_spec(
        folder,
        forecast=forecast,
        accelerators=[{**accelerator, "usd_per_gpu_hour": offers}],
    )
    status, _, err = poolwise(*PLAN)
    assert status == 2
    assert "plan at most 750 windows" in " ".join(err.split())


def test_the_table_shows_every_class_beside_its_promise(poolwise, folder):
    (slo,) = spec_data()["slos"]
    write_spec(folder, slos=[{**slo, "request_class": name} for name in ("chat", "default")])
    _, out, _ = poolwise("forecast", "-s", "spec.yaml", "-t", "trace.jsonl", "--json")
    forecast = json.loads(out)
    for window in forecast["windows"]:
        (demand,) = window["demands"]
        window["demands"] = [demand, {**demand, "request_class": "chat"}]
    Path("f.json").write_text(json.dumps(forecast), encoding="utf-8")
    status, out, _ = poolwise("plan", "-s", "spec.yaml", "--forecast", "f.json")
    assert status == 0
    assert "chat 100.0% of 0.9" in out
    assert "default 100.0% of 0.9" in out


def test_a_change_that_cannot_be_planned_does_not_cost_the_plan(poolwise, folder):
    """The plan as it is and the other change are shown."""
    with_long_requests(folder)
    asked = ("--what-if", "slos.0.attainment_ratio=0.95", "--what-if", "rate=x1.1")
    status, out, _ = poolwise(*PLAN, *asked)
    shown = " ".join(out.split())
    assert status == 0
    assert "Refused - slos.0.attainment_ratio=0.95: " in shown
    assert "rate=x1.1" in shown
    status, out, _ = poolwise(*PLAN, *asked, "--json")
    first, second = json.loads(out)["what_if"]
    assert (first["plan"], first["more_usd_per_hour"]) == (None, None)
    assert first["refused"]
    assert second["plan"]["windows"]
    assert status == 0


def test_a_change_that_no_fleet_keeps_says_what_would_help(poolwise, folder):
    _, out, _ = poolwise(*PLAN, "--what-if", "accelerators.cpu.inventory=2,rate=x20")
    shown = " ".join(out.split())
    assert "infeasible" in shown
    assert "What to relax as well, one of - accelerators.cpu.inventory=2,rate=x20: " in shown


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("accelerators.cpu.inventory=x1.01", "1.01 times 16 is 16 again"),
        ("accelerators.gpu.inventory=4", "accelerators has no `gpu`"),
        ("slos.0.ttft_s", "is no KEY=VALUE"),
        ("rate=2", "rate takes a factor, as in rate=x1.5"),
        ("slos.0.ttft_s=x0", "ttft_s"),
        ("budgt.usd_per_hour=3", "budgt"),
    ],
)
def test_a_change_that_means_nothing_is_refused_before_anything_is_planned(poolwise, change, said):
    status, out, err = poolwise(*PLAN, "--what-if", change)
    assert status == 2
    assert out == ""
    assert said in " ".join(err.split())


def test_explained_plans_that_no_fleet_keeps_say_what_each_change_would_serve(poolwise, folder):
    write_spec(folder, accelerators=[{**spec_data()["accelerators"][0], "inventory": 2}])
    asked = ("--explain", "--what-if", "rate=x.5")
    trace = write_trace(folder / "busy.jsonl", minutes=4, rate_rps=40.0)
    status, out, _ = poolwise("plan", "--spec", "spec.yaml", "--trace", trace, *asked)
    assert status == 1
    shown = " ".join(out.split())
    titles = ("What bound it", "What to relax")
    for title in (
        *titles,
        "Solved again with a small change (by the model, the twin was not asked), it",
    ):
        assert f"{title} - " in shown
    assert re.search(r"one more cpu: serves \d+ requests/s more, for 1.00 USD/h more", shown)
    assert "10% more requests: changes nothing that is served" in shown


def test_a_change_is_not_compared_with_a_plan_that_no_fleet_keeps(poolwise, folder):
    none_left = {**spec_data()["accelerators"][0], "inventory": 0}
    write_spec(folder, accelerators=[none_left])
    asked = ("--explain", "--what-if", "accelerators.0.inventory=16", "--json")
    status, out, _ = poolwise(*PLAN, *asked)
    answer = json.loads(out)
    assert (status, answer["status"], answer["usd_per_hour"]) == (1, "infeasible", 0.0)
    (other,) = answer["what_if"]
    assert (other["plan"]["status"], other["more_usd_per_hour"]) == ("optimal", None)
    assert answer["relaxations"]
    assert answer["binding"][0]["row"] == "keep_inventory[cpu,0]"
    (price,) = answer["shadow_prices"]
    assert price["sentence"].startswith("is not priced: no fleet keeps all rows")


PRICED = {"shortfall_usd_per_request": 0.001}


def test_what_is_left_unserved_is_in_the_difference(poolwise, folder):
    """Three times the requests on the same two replicas: the bill alone would say +0."""
    write_spec(
        folder,
        accelerators=[{**spec_data()["accelerators"][0], "inventory": 2}],
        planning=PRICED,
    )
    trace = write_trace(folder / "busy.jsonl", minutes=4, rate_rps=4.0)
    asked = ("plan", "--spec", "spec.yaml", "--trace", trace, "--what-if", "rate=x20")
    _, out, _ = poolwise(*asked, "--json")
    (other,) = json.loads(out)["what_if"]
    price = other["more_unserved_usd_per_hour"]
    short = other["plan"]["windows"][0]["shortfall_rps"]
    assert price == pytest.approx(3.6 * short, rel=0.2)
    assert other["more_usd_per_hour"] == pytest.approx(0.0)
    assert other["more_in_all_usd_per_hour"] == pytest.approx(price, abs=0.05)
    assert (other["more"], other["unit"]) == (other["more_in_all_usd_per_hour"], "USD/h")
    _, table, _ = poolwise(*asked)
    assert f"unserved +{price:,.2f} USD/h" in table


def test_a_difference_is_in_the_unit_of_what_was_to_be_best(poolwise):
    asked = ("--objective", "accelerators", "--what-if", "rate=x20")
    _, out, _ = poolwise(*PLAN, *asked, "--json")
    (other,) = json.loads(out)["what_if"]
    assert (other["more"] > 0, other["unit"]) == (True, "accelerators")
    _, table, _ = poolwise(*PLAN, *asked)
    assert f"{other['more']:+,.3g} accelerators" in table


def test_the_way_out_of_a_refusal_can_be_tried_beside_it(poolwise, folder):
    with_long_requests(folder)
    text = Path("spec.yaml").read_text(encoding="utf-8")
    Path("spec.yaml").write_text(text.replace("attainment_ratio: 0.9", "attainment_ratio: 0.95"))
    status, out, _ = poolwise(*PLAN)
    assert (status, out) == (2, "")
    asked = ("--what-if", "slos.0.attainment_ratio=0.85")
    status, out, _ = poolwise(*PLAN, *asked)
    shown = " ".join(out.split())
    assert status == 2
    assert "as it is refused" in shown
    assert "Refused - as it is: meet_demand[tiny/default,0]" in shown
    assert "slos.0.attainment_ratio=0.85 optimal" in shown
    status, out, _ = poolwise(*PLAN, *asked, "--json")
    answer = json.loads(out)
    assert "longer than the model's context" in answer["refused"]
    (other,) = answer["what_if"]
    assert (status, other["more_usd_per_hour"]) == (2, None)
    assert other["plan"]["windows"]


def test_every_way_out_of_a_change_is_told(poolwise, folder):
    change = "accelerators.cpu.inventory=2,rate=x20"
    _, out, _ = poolwise(*PLAN, "--what-if", change, "--json")
    (other,) = json.loads(out)["what_if"]
    ways = other["plan"]["relaxations"]
    assert len(ways) > 1
    _, out, _ = poolwise(*PLAN, "--what-if", change)
    shown = " ".join(out.split())
    assert all(f"- {change}: {' '.join(way.split())}" in shown for way in ways)

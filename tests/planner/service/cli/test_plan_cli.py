"""`poolwise plan` with other specs, prices and promises beside the plan."""

import json

import pytest

from planner.service.documents import read_plan
from profiler.files import write_profile
from tests.fakes.profiles import linear_profile
from tests.planner.service.examples import spec_data, write_spec, write_trace

PLAN = ("plan", "--spec", "spec.yaml", "--trace", "trace.jsonl")


@pytest.fixture
def answer(poolwise):
    def ask(*options: str) -> dict:
        status, out, _ = poolwise(*PLAN, *options, "--json")
        assert status == 0
        return json.loads(out)

    return ask


def test_a_changed_spec_is_planned_beside(answer):
    found = answer("--what-if", "accelerators.0.usd_per_gpu_hour.on_demand=x2")
    (other,) = found["what_if"]
    assert other["plan"]["usd_per_hour"] == pytest.approx(2 * found["usd_per_hour"])
    assert other["more_usd_per_hour"] == pytest.approx(found["usd_per_hour"])


def test_more_requests_need_no_less(answer):
    found = answer("--what-if", "rate=x3", "--what-if", "rate=x1.5,slos.0.ttft_s=x0.9")
    costs = [other["plan"]["usd_per_hour"] for other in found["what_if"]]
    assert found["usd_per_hour"] <= costs[1] <= costs[0]
    rates = [other["plan"]["windows"][0]["request_rate_rps"] for other in found["what_if"]]
    assert rates[0] == pytest.approx(2 * rates[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("inventory", "is no KEY=VALUE"),
        ("rate=2", "rate takes a factor"),
        ("rate=x0", "rate takes a factor"),
        ("accelerators.a100.inventory=3", "accelerators has no `a100`"),
        ("pools.0.role.x=1", "has no `x`"),
        ("budget.usd_per_hour=x2", "multiplies a number"),
        ("slos.0.ttft=1", "unknown field `ttft`"),
        ("slos.0.ttft_s=soon", "slos[0].ttft_s"),
        ("slos.0.ttft_s=[", "is no YAML value"),
    ],
)
def test_what_cannot_be_changed_is_named(poolwise, change, said):
    status, _, err = poolwise(*PLAN, "--what-if", change)
    assert status == 2
    assert said in err


def test_small_changes_have_prices_and_rows_their_equations(poolwise, answer):
    found = answer("--explain")
    assert {p["change"] for p in found["shadow_prices"]} >= {"10% more requests"}
    more = next(p for p in found["shadow_prices"] if p["change"] == "10% more requests")
    assert more["usd_per_hour"] >= -1e-9
    _, out, _ = poolwise(*PLAN, "--explain")
    assert "Solved again with a small change" in out
    assert "sum_k work[k,o] * sent[k,o,t] <= capacity" in out
    assert "planner/optimize/constraints.py" in out
    assert answer()["shadow_prices"] == []


def test_the_frontier_is_efficient_and_ordered_by_cost(answer):
    points = answer("--pareto")["pareto"]
    kept = [p for p in points if p["efficient"]]
    assert len(points) == 21
    assert kept
    costs = [p["plan"]["usd_per_hour"] for p in kept]
    assert costs == sorted(costs)
    for point in kept:
        better = [
            q
            for q in kept
            if q["plan"]["usd_per_hour"] < point["plan"]["usd_per_hour"] - 1e-6
            and q["ttft_s"] <= point["ttft_s"]
            and q["attainment_ratio"] >= point["attainment_ratio"]
        ]
        assert better == []


def test_goodput_within_a_budget_says_what_goes_unserved(answer):
    whole = answer()["usd_per_hour"]
    change = f"rate=x40,budget.usd_per_hour={whole}"
    (other,) = answer("--objective", "goodput", "--what-if", change)["what_if"]
    first = other["plan"]["windows"][0]
    assert other["plan"]["status"] in ("optimal", "feasible")
    assert other["plan"]["usd_per_hour"] <= whole + 1e-6
    assert 0 < first["shortfall_rps"] < first["request_rate_rps"]
    assert first["predicted"]["attainment_ratio"] > 0.8  # of those who are served


def test_an_answer_with_comparisons_is_still_a_plan(poolwise, folder):
    _, out, _ = poolwise(*PLAN, "--what-if", "rate=x2", "--pareto", "--explain", "--json")
    (folder / "plan.json").write_text(out)
    plan = read_plan(folder / "plan.json")
    assert plan.plan_id == json.loads(out)["plan_id"]
    assert len(plan.shadow_prices) > 3


TOGETHER = ("plan", "--spec", "both.yaml")


@pytest.fixture
def both(folder):
    """A spec with two models of the same shapes, and a trace for each."""
    data = spec_data()
    (model,), (slo,), pools = data["models"], data["slos"], data["pools"]
    other = "other"
    data["models"] = [{**model, "priority": 1}, {**model, "name": other}]
    data["slos"] = [slo, {**slo, "model": other}]
    data["pools"] = [*pools, *({**pool, "model": other} for pool in pools)]
    data["profiles"] = [*data["profiles"], "other.json"]
    write_profile(linear_profile(profile_id="other", model=other), folder / "other.json")
    (folder / "both.yaml").write_text(json.dumps(data))
    write_trace(folder / "other.jsonl")
    return model["name"]


def test_models_that_share_an_inventory_are_planned_together(poolwise, folder, both):
    traces = ("--model-trace", f"{both}=trace.jsonl", "--model-trace", "other=other.jsonl")
    status, out, err = poolwise(*TOGETHER, *traces, "--json")
    assert status == 0, err
    plans = json.loads(out)["plans"]
    assert [p["model"] for p in plans] == [both, "other"]
    status, out, _ = poolwise(*TOGETHER, *traces)
    assert "What each takes at the most" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model-trace", "trace.jsonl"), "give MODEL=FILE"),
        (("--model-trace", "a=trace.jsonl", "--model-trace", "a=trace.jsonl"), "names a twice"),
        (("--model-trace", "a=trace.jsonl", "--trace", "trace.jsonl"), "does not go with --trace"),
        (("--model-trace", "nobody=trace.jsonl"), "model `nobody` is not in the spec"),
        (("--model-trace", "other=missing.jsonl"), "missing.jsonl"),
    ],
)
def test_traces_of_models_are_checked(poolwise, folder, both, options, said):
    status, _, err = poolwise(*TOGETHER, *options)
    assert status == 2
    assert said in err


@pytest.mark.parametrize("count", [True, "4", 4.0])
def test_replicas_are_counted_in_whole_numbers(poolwise, folder, count):
    fleet = json.loads((folder / "fleet.json").read_text())
    fleet["pools"][0]["ready"] = count
    (folder / "fleet.json").write_text(json.dumps(fleet))
    status, _, err = poolwise(*PLAN, "--fleet", "fleet.json")
    assert status == 2
    assert "pools[0].ready: input should be a valid integer" in err


def test_a_plan_that_no_fleet_keeps_offers_no_steps(poolwise, folder):
    (accelerator,) = spec_data()["accelerators"]
    write_spec(folder, accelerators=[{**accelerator, "inventory": 1}])
    status, out, _ = poolwise(*PLAN, "--fleet", "fleet.json", "--json")
    assert status == 1
    assert json.loads(out)["diff"]["steps"] == []
    _, table, _ = poolwise(*PLAN, "--fleet", "fleet.json")
    assert "none: no fleet keeps the objectives" in table
    assert "nothing to change: the fleet is as planned" not in table

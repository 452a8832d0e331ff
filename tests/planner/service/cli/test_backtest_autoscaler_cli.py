"""`poolwise backtest autoscaler`."""

import json

import pytest

from tests.planner.service.examples import write_spec, write_trace


@pytest.fixture
def backtest(folder, poolwise):
    """The command on four quiet minutes, of which the first warms up."""
    write_spec(folder)
    write_trace(folder / "trace.jsonl", minutes=4, rate_rps=2)

    def command(*options, warm_s="60"):
        arguments = ("backtest", "autoscaler", "-s", "spec.yaml", "-t", "trace.jsonl")
        return poolwise(*arguments, "--warm-s", warm_s, *options)

    return command


def test_each_policy_has_its_attainment_hours_and_price(backtest):
    status, out, err = backtest("--policy", "static", "--policy", "foresight", "--json")
    assert status == 0, err
    said = json.loads(out)
    static, foresight = said["policies"]
    assert (static["policy"], foresight["policy"]) == ("static", "foresight")
    assert static["promise_kept"]
    assert static["attainable_ratio"] >= said["promised_ratio"]
    assert static["requests"] == 360
    assert static["accelerator_hours"] == pytest.approx(2 * 3 / 60, rel=0.1)
    assert static["usd"] > 0
    assert foresight["hours_over_foresight_ratio"] == 1.0


def test_poolwise_steers_by_the_spec_and_its_decisions_are_timed(backtest):
    status, out, err = backtest("--policy", "poolwise", "--json")
    assert status == 0, err
    (own,) = json.loads(out)["policies"]
    assert own["setting"] == "as the spec says"
    assert own["settings_tried"] == 1
    assert own["hours_over_foresight_ratio"] is None
    assert own["most_decided_s"] > 0


def test_people_see_a_table(backtest):
    status, out, err = backtest("--policy", "last_value")
    assert (status, err) == (0, "")
    for said in ("last_value", "at 90 %", "accelerator-h", "promised"):
        assert said in out


def test_a_warm_up_longer_than_the_trace_is_refused(backtest):
    status, _, err = backtest(warm_s="9000")
    assert status == 2
    assert "no request arrives after the warm-up of 9000 s" in err


def test_an_unknown_policy_is_refused(backtest):
    status, _, err = backtest("--policy", "magic")
    assert status == 2
    assert "--policy magic: there are poolwise, last_value, static, foresight" in err

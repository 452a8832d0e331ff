"""`poolwise simulate`: every option does what it says, and bad input is one clear message."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from pyarrow import parquet

from profiler.files import write_profile
from tests.fakes.profiles import linear_profile
from tests.planner.service.answers.test_circumstances import LINK, LINKS
from tests.planner.service.examples import fleet, pool, write_json, write_trace

FIRST = "This page holds all it needs"


@pytest.fixture
def simulate(poolwise, folder):
    """Simulate two prefill and two decode replicas under four requests a second."""
    write_trace(folder / "trace.jsonl", minutes=2, rate_rps=4)
    write_json(folder / "fleet.json", fleet(2, 2))

    def command(options="", *, source="-t trace.jsonl --fleet fleet.json"):
        return poolwise("simulate", "-s", "spec.yaml", *source.split(), *options.split())

    return command


@pytest.fixture
def answer(simulate):
    """The JSON of a simulation that ends well."""

    def command(options="", **more):
        status, out, _ = simulate(f"{options} --json", **more)
        assert status == 0
        return json.loads(out)

    return command


def rows_of(folder):
    return [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_people_see_pools_latencies_outcomes_cost_and_promises(simulate):
    status, out, err = simulate()
    assert (status, err) == (0, "")
    assert "480 requests, 120 s, router least_loaded" in out
    for words in ("prefill:cpu:tp1", "busy", "TTFT", "480 finished", "Cost: 0.13 USD"):
        assert words in out
    assert "default: 100.0% of 480, promised 90.0%: holds" in out


@pytest.mark.parametrize("router", ["round_robin", "least_loaded", "prefix_aware", "by_length"])
def test_every_router_answers_every_request(answer, router):
    found = answer(f"--router {router}")
    assert (found["router"], found["outcomes"]["finished"]) == (router, 480)


def test_a_router_without_what_it_needs_says_so(simulate):
    assert (
        "knows no more than least_loaded" in simulate("--router prefix_aware --no-prefix-cache")[2]
    )
    assert "no pool was given a longest prompt" in simulate("--router by_length")[2]


def test_prompts_longer_than_every_pools_longest_are_rejected_and_flagged(simulate):
    status, out, err = simulate("--router by_length --longest-prompt 0=700")
    assert status == 0
    assert "132 finished, 348 rejected" in out
    assert "every pool's longest prompt is shorter" in err


def test_a_part_of_the_trace_is_replayed(answer):
    part = answer("--from-s 30 --duration-s 45")
    assert (part["requests"], part["duration_s"]) == (180, 45.0)
    assert answer("--from-s 100")["requests"] == 80


def test_clients_go_away_prompts_stay_and_latecomers_are_turned_down(answer):
    assert answer("--patience-s 0.3")["outcomes"]["aborted"] == 480
    assert answer("--early-rejection-s 0.05")["outcomes"]["rejected"] == 480
    usual, local = answer(), answer("--local-prefill-tokens 700")
    assert local["pools"][0]["utilization_ratio"] < usual["pools"][0]["utilization_ratio"]


def test_every_kind_of_event_changes_the_answer(answer):
    usual = answer()
    events = {
        "fail@20s:pool=0,replica=0,restarts=no": "accelerator_hours",
        "reclaim@20s:pool=1,replica=0,notice=5s": "accelerator_hours",
        "drain@20s:pool=1,replica=1": "accelerator_hours",
        "flip@20s:pool=0,replica=1,to=1": "pools",
    }
    for event, changed in events.items():
        assert answer(f"--event {event}")[changed] != usual[changed]


def test_events_of_a_file_and_of_options_both_happen(answer, folder):
    fails = {"at_s": 20, "incident": "fail", "pool": 0, "replica": 0, "restarts": False}
    (folder / "events.yaml").write_text(yaml.safe_dump({"events": [fails]}))
    half = answer("--events events.yaml")
    none = answer(
        "--events events.yaml --event fail@20s:pool=prefill:cpu:tp1,replica=1,restarts=no"
    )
    assert half["outcomes"]["finished"] == 480
    assert none["outcomes"]["rejected"] == 400
    assert "no replica was left" in none["flags"][0]


def test_prompts_that_no_decode_replica_is_left_for_fail_and_are_flagged(answer):
    gone = "--event drain@0s:pool=1,replica=0 --event drain@0s:pool=1,replica=1"
    found = answer(gone)
    assert found["outcomes"]["failed"] == 480
    assert found["flags"] == [
        "failed because no decode replica was left to write the answer: 480 of 480 requests"
    ]


def test_an_event_after_the_end_is_flagged(simulate):
    assert (
        "the drain at 9,000 s comes after the run's end"
        in simulate("--event drain@9000s:pool=0,replica=0")[2]
    )


def test_a_slow_link_shows_in_the_first_token(answer, folder):
    slow = {**LINK, "flow_bytes_per_s": 1e7}
    places = [
        {"pool": 0, "places": [{"rack": 0, "node": 0, "replicas": 2}]},
        {"pool": 1, "places": [{"rack": 1, "node": 1, "replicas": 2}]},
    ]
    text = yaml.safe_dump({"links": {**LINKS, "cross_rack": slow}, "pools": places})
    (folder / "topology.yaml").write_text(text)
    apart = answer("--topology topology.yaml")["latency"]["ttft_p50_s"]
    assert apart > answer()["latency"]["ttft_p50_s"] + 0.2


def test_futures_tell_how_sure_the_answer_is(answer):
    found = answer("--futures 3")
    assert found["futures"] == {
        "count": 3,
        "most": 3,
        "looks": 1,
        "ended_by": "count",
        "half_width_ratio": found["futures"]["half_width_ratio"],
        "confidence_ratio": 0.95,
        "stopped": 0,
    }
    assert 1400 < found["requests"] < 1480
    assert found["predicted"]["attainment_low_ratio"] > 0.98


def test_futures_are_the_same_in_two_processes(answer):
    assert answer("--futures 4 --jobs 2") == answer("--futures 4")


def test_futures_find_as_much_cached_as_the_replicas_kept(poolwise, answer, folder):
    rows = rows_of(folder)
    for number, row in enumerate(rows):
        row["hash_ids"] = [number % 40]
    write_rows(folder / "reuse.jsonl", rows)
    source = "-t reuse.jsonl --fleet fleet.json"
    replayed, drawn = answer(source=source), answer("--futures 4", source=source)
    assert replayed["cached_ratio"] > 0.3
    assert drawn["cached_ratio"] == pytest.approx(replayed["cached_ratio"], abs=0.03)
    assert "of prompt tokens cached, as these replicas did" in drawn["flags"][0]
    _, out, _ = poolwise("forecast", "-s", "spec.yaml", "-t", "reuse.jsonl", "--json")
    (folder / "f.json").write_text(out)
    given = answer("--futures 1", source="--forecast f.json --fleet fleet.json")
    assert "of prompt tokens cached, as was given" in given["flags"][0]


def test_a_coarse_clock_makes_no_bursts(simulate, folder):
    rows = rows_of(folder)
    for row in rows:
        row["timestamp"] = row["timestamp"] // 3000 * 3000
    write_rows(folder / "ticks.jsonl", rows)
    status, out, err = simulate("--json", source="-t ticks.jsonl --fleet fleet.json")
    assert (status, "arrivals sit on a 3.0 s clock" in err) == (0, True)
    assert json.loads(out)["latency"]["ttft_p95_s"] < 0.3


def test_no_more_futures_are_drawn_than_needed(simulate, answer):
    assert answer("--precision 0.01")["futures"]["ended_by"] == "precision"
    assert answer("--until-clear")["futures"]["ended_by"] == "clear"
    assert "clear enough after 8 of at most 64 futures" in simulate("--until-clear --futures 64")[1]


def test_until_clear_fails_when_the_objectives_do_not_hold(simulate):
    status, out, _ = simulate("--until-clear --patience-s 0.3 --json")
    assert (status, json.loads(out)["holds"]) == (1, False)


def test_futures_come_from_a_forecast_too(poolwise, folder, simulate, answer):
    _, out, _ = poolwise("forecast", "-s", "spec.yaml", "-t", "trace.jsonl", "--json")
    (folder / "f.json").write_text(out)
    source = "--forecast f.json --fleet fleet.json"
    high, low = (
        answer(f"--futures 2 --window 1 --duration-s 30 --demand-level {level}", source=source)
        for level in (0.9, 0.1)
    )
    assert high["duration_s"] == 30.0
    assert high["requests"] > low["requests"]
    status, _, err = simulate("--window 9", source=source)
    assert (status, "f.json has windows 0 to 1, not 9" in err) == (2, True)
    assert simulate("--from-s 3", source=source)[0] == 2


def test_futures_run_through_all_windows_of_a_forecast(poolwise, folder, simulate, answer):
    _, out, _ = poolwise("forecast", "-s", "spec.yaml", "-t", "trace.jsonl", "--json")
    (folder / "f.json").write_text(out)
    source = "--forecast f.json --fleet fleet.json"
    whole = answer("--futures 4 --all-windows", source=source)
    first = answer("--futures 4", source=source)
    assert (whole["duration_s"], first["duration_s"]) == (120.0, 60.0)
    assert whole["requests"] == pytest.approx(2 * first["requests"], rel=0.4)
    assert any("stay as they are through all windows" in flag for flag in whole["flags"])
    assert any("one level for all windows" in flag for flag in whole["flags"])
    assert answer("--futures 4 --all-windows --jobs 2", source=source) == whole
    for options in ("--all-windows --demand-level 0.5", "--all-windows --duration-s 5"):
        status, _, err = simulate(options, source=source)
        assert (status, "leave --duration-s and --demand-level out" in err) == (2, True)


def test_every_request_is_a_row_of_the_records(simulate, folder):
    status, _, err = simulate("--futures 2 --records run.parquet")
    table = parquet.read_table(folder / "run.parquet")
    assert (status, f"run.parquet: {table.num_rows:,} requests" in err) == (0, True)
    assert set(table["future"].to_pylist()) == {0, 1}


def test_the_plot_is_one_page_that_is_whole(simulate, folder):
    status, _, err = simulate("--plot run.html --event fail@20s:pool=0,replica=0")
    assert (status, "run.html: open it in a browser" in err) == (0, True)
    assert FIRST in (folder / "run.html").read_text()


def test_overload_stops_with_time_pool_and_reason_and_exit_1(simulate, folder):
    write_trace(folder / "busy.jsonl", minutes=2, rate_rps=60)
    write_json(folder / "one.json", fleet(1, 1))
    source = "-t busy.jsonl --fleet one.json"
    status, out, err = simulate("--unstable-wait-s 20 --plot over.html", source=source)
    assert status == 1
    assert "not arrived" in out
    assert "does NOT hold" in out
    assert "stopped at 25.1 s: pool 0 (prefill:cpu:tp1): the first in the line" in err
    assert "overloaded" in (folder / "over.html").read_text()
    status, out, err = simulate("--unstable-wait-s 20 --futures 2 --json", source=source)
    assert (status, json.loads(out)["holds"]) == (1, False)
    assert "2 of 2 futures were stopped; the first stopped at" in err


def test_a_hole_in_the_trace_is_flagged_and_a_burst_is_not(simulate, folder):
    rows = rows_of(folder)
    for row in rows[240:]:
        row["timestamp"] += 900_000
    write_rows(folder / "hole.jsonl", rows)
    source = "-t hole.jsonl --fleet fleet.json"
    assert "no request arrives for 900 s from 60 s on" in simulate(source=source)[2]
    assert "no request arrives for 900 s from 60 s on" in simulate("--futures 1", source=source)[2]
    part = simulate("--from-s 61", source=source)[2]
    assert "no request arrives for 899 s from 0 s on" in part


def test_a_request_longer_than_any_replica_holds_is_flagged_by_name(simulate, folder):
    rows = rows_of(folder)
    rows[7] |= {"input_length": 300_000, "hash_ids": []}
    write_rows(folder / "long.jsonl", rows)
    status, _, err = simulate(source="-t long.jsonl --fleet fleet.json")
    assert status == 0
    assert "1 of 480 requests, the first is request 7" in err
    assert "at 1.8 s with 300,000 + 40 tokens; 16,384 fit" in err


def test_lengths_outside_the_profile_are_flagged_with_the_pool(simulate, folder):
    write_profile(linear_profile(max_prompt_tokens=500), folder / "tiny.json")
    _, out, err = simulate()
    assert "note: pool 0 (prefill:cpu:tp1, profile profile-" in err
    assert "computed prompts of up to 1,000 tokens but was measured up to 500" in err
    assert "480 of 480 requests lie outside what the profiles measured" in err
    assert "480 finished" in out


def test_what_a_profile_does_not_reach_is_flagged_with_the_pool(simulate, folder):
    whole = linear_profile()
    prefill = replace(whole.prefill, reach=np.array([16.0, 0.0]))
    steps = replace(whole.decode_step, reach=np.array([1_000.0, 0.0]))
    write_profile(replace(whole, prefill=prefill, decode_step=steps), folder / "tiny.json")
    rows = [row | {"hash_ids": [1, 2 + i]} for i, row in enumerate(rows_of(folder))]
    write_rows(folder / "shared.jsonl", rows)
    _, _, err = simulate(source="-t shared.jsonl --fleet fleet.json")
    assert "may decode 64 sequences at once but was measured up to" in err
    assert "tokens: steps of more are extrapolated" in err
    assert "took up to 512 tokens of a prompt from the cache but was not measured so far" in err


def test_an_empty_pool_is_flagged_when_others_can_serve(simulate, folder):
    pools = [pool("prefill", 0), pool("aggregated", 1)]
    write_json(folder / "mixed.json", {"pools": pools})
    status, _, err = simulate(source="-t trace.jsonl --fleet mixed.json")
    assert (status, "pool 0 (prefill:cpu:tp1) is empty" in err) == (0, True)


def test_a_row_out_of_order_is_skipped_and_named(simulate, folder):
    rows = rows_of(folder)
    write_rows(folder / "order.jsonl", [*rows[:100], rows[50], *rows[100:]])
    status, out, err = simulate(source="-t order.jsonl --fleet fleet.json")
    assert (status, "480 requests" in out) == (0, True)
    assert "order.jsonl: skipped: line 101: arrives 12.25 s before the row above" in err


FLEET = "-t trace.jsonl --fleet fleet.json"
BAD_INPUT = [
    (FLEET, "--window 1", "--window is for --plan and --forecast"),
    (FLEET, "--demand-level 0.5", "a trace has one rate"),
    (FLEET, "--from-s 1e6", "no request in the part"),
    (FLEET, "--all-windows", "--all-windows is for --forecast"),
    (FLEET, "--patience-s inf", "--patience-s inf is no interval in seconds"),
    (FLEET, "--event fail", "write one as fail@120s"),
    (FLEET, "--event fail@3s:pool=0,replica=2", "which has replicas 0 to 1"),
    (FLEET, "--event fail@3s:pool=7,replica=0", "names pool 7; the pools are 0 (prefill"),
    (FLEET, "--events none.yaml", "none.yaml: no such file"),
    (FLEET, "--events fleet.json", "fleet.json:1: events is missing"),
    (FLEET, "--topology none.yaml", "docs/simulate.md"),
    (FLEET, "--topology zero.yaml", "links.same_rack.flow_bytes_per_s: input should be greater"),
    (FLEET, "--topology slow.yaml", "more than an hour: correct the bandwidth"),
    (FLEET, "--jobs 2", "--jobs and --backend are for futures"),
    (FLEET, "--longest-prompt 0=9", "the router is least_loaded"),
    (FLEET, "--router by_length --longest-prompt 0", "write POOL=TOKENS"),
    (FLEET, "--plot none/run.html", "--plot: there is no folder"),
    (FLEET, "--plot .", "--plot: . is a folder"),
    (FLEET, "--plot /dev/null", "--plot: /dev/null is no plain file"),
    (FLEET, "--records trace.jsonl", "--records: trace.jsonl is given for something else"),
    (FLEET, "--records x --plot x", "--plot: x is given for something else"),
    ("-t trace.jsonl", "", "give --plan FILE"),
    ("-t trace.jsonl --plan fleet.json --fleet fleet.json", "", "one of them"),
    ("--fleet fleet.json", "", "give --trace FILE, or --forecast FILE"),
    ("-t trace.jsonl --forecast fleet.json --fleet fleet.json", "", "one of them"),
    ("--forecast fleet.json --fleet fleet.json", "", "fleet.json: forecast_id is missing"),
    ("-t trace.jsonl --fleet empty.json", "", "nothing can serve a request"),
    ("-t trace.jsonl --fleet wrong.json", "", "wrong.json: pools[0].role"),
    ("-t trace.jsonl --fleet twice.json", "", "twice.json: a fleet lists each pool once"),
    ("-t trace.jsonl --fleet tp.json", "", "poolwise profile run"),
    ("-t trace.jsonl --fleet huge.json", "", "2,000,000 replicas are more than"),
    ("-t trace.jsonl --fleet broken.json", "", "broken.json:1: not JSON"),
    ("-t reversed.jsonl --fleet fleet.json", "", "reversed.jsonl:1: arrives 0.25 s after"),
]


@pytest.fixture
def bad_files(folder, simulate):
    zero = {**LINK, "flow_bytes_per_s": 0}
    slow = {**LINK, "link_bytes_per_s": 1e-3}
    (folder / "slow.yaml").write_text(yaml.safe_dump({"links": {**LINKS, "same_rack": slow}}))
    (folder / "zero.yaml").write_text(yaml.safe_dump({"links": {**LINKS, "same_rack": zero}}))
    (folder / "broken.json").write_text('{"pools": [')
    write_rows(folder / "reversed.jsonl", rows_of(folder)[::-1])
    write_json(folder / "empty.json", fleet(0, 1))
    write_json(folder / "huge.json", fleet(10**6, 10**6))
    write_json(folder / "tp.json", {"pools": [pool("prefill", 1, tp=4), pool("decode", 1)]})
    write_json(folder / "twice.json", {"pools": [pool("prefill", 1), pool("prefill", 1)]})
    write_json(folder / "wrong.json", {"pools": [pool("prefil", 1)]})
    return folder


def test_bad_input_is_one_clear_message_exit_2_and_no_file(simulate, bad_files):
    before = {path: path.read_bytes() for path in bad_files.iterdir()}
    for source, options, said in BAD_INPUT:
        status, out, err = simulate(options, source=source)
        assert (status, out) == (2, ""), (options, err)
        assert err.startswith("poolwise: ")
        assert said in err
    assert {path: path.read_bytes() for path in bad_files.iterdir()} == before


@pytest.mark.parametrize(
    "options",
    [
        *("--window -1", "--futures 0", "--futures 1e3", "--jobs -1", "--precision 0"),
        *("--precision nan", "--demand-level nan", "--demand-level 2", "--patience-s nan"),
        *("--patience-s -1", "--early-rejection-s 0", "--unstable-wait-s nan", "--from-s -1"),
        *("--duration-s 0", "--duration-s nan", "--local-prefill-tokens -1", "--router best"),
        *("--backend dask", "--json=perhaps", "--nonsense"),
    ],
)
def test_a_value_that_no_option_takes_is_exit_2_and_names_the_option(simulate, options):
    status, out, err = simulate(options)
    assert (status, out) == (2, "")
    assert options.split("=")[0].split()[0] in err

"""`poolwise forecast` and `poolwise backtest forecast`."""

import json
import math
from datetime import timedelta

import numpy as np
import pytest

from tests.planner.service.examples import NOON, history, window, write_json, write_spec


@pytest.fixture
def wavy(folder):
    """Two hours of minutes whose load goes up and down."""
    counts = [int(100 + 40 * math.sin(i / 9) + 7 * (i % 3)) for i in range(120)]
    windows = [window(i - 120, requests=c, cached_tokens=c * 200) for i, c in enumerate(counts)]
    return write_json(folder / "wavy.json", windows)


@pytest.fixture
def answer(poolwise):
    """The JSON that a command prints."""

    def asked(*arguments):
        status, out, err = poolwise(*arguments, "--json")
        assert status == 0, err
        return json.loads(out)

    return asked


def test_people_see_rates_lengths_reuse_and_methods(poolwise, wavy):
    status, out, err = poolwise("forecast", "-H", wavy, "--window-s", "60")
    assert (status, err) == (0, "")
    for said in ("requests/s", "tokens/s", "2026-11-02 12:00", "25.0%", "Methods", "so far"):
        assert said in out


def test_a_history_in_json_is_forecast_like_a_trace(answer, wavy):
    made = answer("forecast", "-H", wavy, "--window-s", "60", "--horizon-windows", "3")
    assert made["made_at"] == NOON.isoformat().replace("+00:00", "Z")
    assert len(made["windows"]) == 3
    (demand,) = made["windows"][0]["demands"]
    assert demand["reuse_ratio"]["values"][3] == pytest.approx(0.25)
    assert made["output_lengths"][0]["remaining"][0]["so_far_tokens"] == 0
    assert made["notes"] == []


def test_an_event_multiplies_its_windows_and_is_named(answer, wavy):
    asked = ("forecast", "-H", wavy, "--window-s", "60")
    plain = answer(*asked)
    launch = answer(*asked, "--event", "launch 2026-11-02T12:01Z/1m x2")
    medians = [
        [w["demands"][0]["request_rate_rps"]["values"][3] for w in made["windows"]]
        for made in (plain, launch)
    ]
    ratios = np.array(medians[1]) / np.array(medians[0])
    assert ratios == pytest.approx([1, 2, 1, 1, 1, 1])
    assert launch["events"] == [
        "launch: x2 from 2026-11-02T12:01:00+00:00 to 2026-11-02T12:02:00+00:00"
    ]


def test_the_specs_events_count_too(answer, folder, wavy):
    event = {
        "name": "sale",
        "start_at": NOON.isoformat(),
        "end_at": (NOON + timedelta(minutes=9)).isoformat(),
        "rate_ratio": 3,
    }
    write_spec(folder, forecast={"window_s": 60.0, "events": [event]})
    made = answer("forecast", "-s", "spec.yaml", "-H", wavy)
    assert made["model"] == "tiny"
    assert made["events"][0].startswith("sale: x3")
    planned = answer("plan", "-s", "spec.yaml", "-t", "trace.jsonl")
    assert planned["status"] in ("optimal", "feasible")


def test_an_event_of_a_class_that_never_came_is_remarked(poolwise, wavy):
    event = "launch 2026-11-02T12:01Z/1m x2 class=gold"
    status, _, err = poolwise("forecast", "-H", wavy, "--window-s", "60", "--event", event)
    assert status == 0
    assert "the history has no class gold, only default" in err


def test_paths_are_drawn_and_printed(answer, poolwise, wavy):
    asked = ("forecast", "-H", wavy, "--window-s", "60", "--horizon-windows", "4", "--paths", "30")
    paths = answer(*asked)["paths"]
    (of_class,) = paths["classes"]
    assert np.array(of_class["request_rate_rps"]).shape == (30, 4)
    assert "past forecasts" in paths["rule"]
    assert answer(*asked)["paths"] == paths
    assert answer(*asked, "--seed", "1")["paths"] != paths
    status, out, err = poolwise(*asked)
    assert status == 0
    assert "path  class" in out
    assert "20 of 30 paths" in err


def test_a_printed_forecast_with_paths_can_be_planned_for(poolwise, folder, wavy):
    _, out, _ = poolwise(*("forecast", "-s", "spec.yaml", "-H", wavy, "--paths", "2", "--json"))
    (folder / "f.json").write_text(out)
    status, out, err = poolwise("plan", "-s", "spec.yaml", "--forecast", "f.json", "--json")
    assert status == 0, err
    assert (
        json.loads(out)["inputs"]["forecast_id"]
        == json.loads((folder / "f.json").read_text())["forecast_id"]
    )


def test_the_plot_is_one_page_that_loads_nothing(poolwise, folder, wavy):
    status, _, err = poolwise("forecast", "-H", wavy, "--window-s", "60", "--html", "f.html")
    assert (status, err) == (0, "f.html: open it in a browser\n")
    page = (folder / "f.html").read_text()
    assert page.rstrip().endswith("</html>")
    assert "requests/s expected in the next" in page
    for loaded in ("<script src", "<link", "@import"):
        assert loaded not in page


def test_a_backtest_tells_scores_per_series_and_horizon(answer, poolwise, wavy):
    told = answer("backtest", "forecast", "-H", wavy, "--horizon", "1", "--horizon", "3")
    assert [(s["series"], s["horizon_windows"]) for s in told["scores"]] == [
        (series, horizon)
        for series in ("request_rate_rps", "input_tokens_per_s", "output_tokens_per_s")
        for horizon in (1, 3)
    ]
    score = told["scores"][0]
    assert score["origins"] == 60
    assert score["mae_ratio"] < 1
    low, high = (score[f"q90_coverage_{end}_ratio"] for end in ("low", "high"))
    assert low <= score["q90_coverage_ratio"] <= high
    nearest = told["horizons"][0]
    ratios = [s["mae_ratio"] for s in told["scores"] if s["horizon_windows"] == 1]
    assert nearest["mae_ratio"] == pytest.approx(np.exp(np.mean(np.log(ratios))))
    assert nearest["worst_mae_ratio"] == max(ratios)
    assert nearest["origins"] == 180
    status, out, _ = poolwise("backtest", "forecast", "-H", wavy)
    assert status == 0
    for said in ("MAE ratio", "MASE", "pinball", "95% interval", "geometric means", "worst"):
        assert said in out


def test_a_backtest_of_a_trace_has_a_plot(poolwise, folder):
    status, _, err = poolwise(
        *("backtest", "forecast", "-t", "trace.jsonl", "--window-s", "20", "--horizon", "2"),
        *("--first-origin", "10", "--html", "b.html"),
    )
    assert status == 0, err
    page = (folder / "b.html").read_text()
    assert page.rstrip().endswith("</html>")
    assert "2 windows ahead" in page


def test_backtest_is_a_group_of_commands(poolwise):
    _, out, err = poolwise("backtest")
    assert "forecast" in out + err
    status, out, _ = poolwise("backtest", "forecast", "--help")
    assert status == 0
    assert "Examples" in out


def gap_at(index, *, minutes=600):
    """A history whose clock jumps forward."""
    jump = timedelta(minutes=minutes)
    return [
        w if i < index else {**w, "start_at": (NOON + timedelta(minutes=i) + jump).isoformat()}
        for i, w in enumerate(history(40))
    ]


@pytest.mark.parametrize(
    ("windows", "said"),
    [
        (gap_at(20), "are not covered by any window and count as unknown"),
        ([window(-1, requests=1)], "one request in all"),
        ([window(-1)], "1 window only"),
        (history(40, requests=0), "no request in 40 windows"),
        (
            [*history(40)[:20], *[window(i, requests=0) for i in range(-20, 0)]],
            "no request arrives for 1,200 s from 2026-11-02T11:40:00+00:00",
        ),
        ([*history(4), window(0, requests=50) | {"window_s": 30.0}], "windows of 30 to 60 s"),
    ],
)
def test_a_poor_history_is_forecast_with_a_remark(poolwise, folder, windows, said):
    write_json(folder / "h.json", windows)
    status, out, err = poolwise("forecast", "-H", "h.json", "--window-s", "60", "--json")
    assert status == 0
    assert said in err
    assert any(said in note for note in json.loads(out)["notes"])


TWICE = [window(-2), window(-2)]
BAD = [
    ("forecast", "give --trace FILE"),
    ("forecast -t trace.jsonl -H wavy.json", "one of them"),
    ("forecast -H none.json", "none.json: no such file"),
    ("forecast -H twice.json", "windows of class default overlap"),
    ("forecast -H negative.json", "history[0].requests"),
    ("forecast -H nothing.json", "no data is not zero traffic"),
    ("forecast -H huge.json", "more than 10,000,000 a request"),
    ("forecast -H text.json", "history[0].requests: input should be a number, not text"),
    ("forecast -H flag.json", "history[0].window_s: input should be a number, not text"),
    ("forecast -H other.json", "history[0]: shape.input_tokens has a mean of 5 tokens"),
    ("forecast -H wavy.json --at 2020-01-01T00:00Z", "no window has ended by 2020"),
    ("forecast -H wavy.json --start-at 2020-01-01T00:00Z", "--start-at is for --trace"),
    ("forecast -H wavy.json --at 2199-01-01T00:00Z", "beyond the history"),
    ("forecast -H wavy.json --window-s 1e9 --horizon-windows 1000", "beyond the history"),
    ("forecast -H wavy.json --event launch", "write one as launch"),
    ("forecast -H wavy.json --html gone/f.html", "there is no folder"),
    ("forecast -H wavy.json --html wavy.json", "given for something else"),
    ("forecast -t unsorted.jsonl --window-s 1", "unsorted.jsonl"),
    ("forecast -t negative.jsonl --window-s 1", "negative.jsonl"),
    ("forecast -t one.jsonl --window-s 60", "not one whole window"),
    ("forecast -t jump.jsonl --window-s 0.01", "clock"),
    ("backtest forecast -H wavy.json --window-s 60", "--window-s is for --trace"),
    ("backtest forecast -H short.json", "leave no origin to score"),
    ("backtest forecast -H mixed.json", "windows of one length"),
    ("backtest forecast -t trace.jsonl --window-s 20 --first-origin 9999", "no origin to score"),
    ("backtest forecast", "give --trace FILE"),
]


@pytest.fixture
def bad_files(folder, wavy):
    write_json(folder / "twice.json", TWICE)
    write_json(folder / "negative.json", [window(-1) | {"requests": -5}])
    write_json(folder / "nothing.json", [])
    write_json(folder / "text.json", [window(-1) | {"requests": "120"}])
    write_json(folder / "flag.json", [window(-1) | {"window_s": True}])
    other = {"input_tokens": [5], "output_tokens": [60], "cached_tokens": [0], "weight": [1]}
    write_json(folder / "other.json", [window(-1, shape=other)])
    write_json(folder / "huge.json", [window(-1) | {"input_tokens": 10**12}])
    write_json(folder / "short.json", history(2))
    write_json(folder / "mixed.json", [*history(9), window(0) | {"window_s": 30.0}])
    row = {"input_length": 100, "output_length": 10, "hash_ids": []}
    for name, stamps in {
        "unsorted": [i * 100 if i % 2 else 9000 - i * 100 for i in range(50)],
        "negative": [-i * 100 for i in range(1, 50)],
        "one": [0],
        "jump": [*range(0, 1000, 10), 10**11, 10**11 + 10, 10**11 + 20],
    }.items():
        lines = [json.dumps({"timestamp": stamp, **row}) for stamp in stamps]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("command", "said"), BAD)
def test_bad_input_is_one_clear_message_and_exit_2(poolwise, bad_files, command, said):
    status, out, err = poolwise(*command.split())
    assert (status, out) == (2, "")
    assert err.startswith("poolwise: ")
    assert said in err


@pytest.fixture
def doubled(folder):
    """The trace with each row written twice."""
    rows = (folder / "trace.jsonl").read_text().splitlines()
    (folder / "twice.jsonl").write_text("".join(f"{row}\n{row}\n" for row in rows))
    return "twice.jsonl"


TWICE_SAID = "rows repeat a row above to the last figure"


@pytest.mark.parametrize("command", ["forecast", "backtest forecast"])
def test_rows_written_twice_are_remarked(poolwise, doubled, command):
    status, out, err = poolwise(*command.split(), "-t", doubled, "--window-s", "20", "--json")
    assert status == 0
    assert f"{doubled}: 1,200 of 2,400 {TWICE_SAID}" in err
    assert any(TWICE_SAID in note for note in json.loads(out)["notes"])


@pytest.mark.parametrize(
    "command", ["plan -s spec.yaml -t", "shapes -s spec.yaml -t", "trace show"]
)
def test_other_commands_remark_on_rows_written_twice_too(poolwise, doubled, command):
    _, out, err = poolwise(*command.split(), doubled)
    assert "1,200 of 2,400 rows repeat a row above" in " ".join((out + err).split())


def test_a_bad_future_changes_no_forecast(poolwise, folder):
    at = ("--at", "1970-01-01T00:05:00Z", "--window-s", "20", "--json")
    _, plain, _ = poolwise("forecast", "-t", "trace.jsonl", *at)
    rows = (folder / "trace.jsonl").read_text().splitlines()
    bad = [row.replace('output_length": ', 'output_length": -') for row in rows[600:]]
    (folder / "bad.jsonl").write_text("".join(f"{row}\n" for row in [*rows[:600], *bad]))
    status, altered, err = poolwise("forecast", "-t", "bad.jsonl", *at)
    assert (status, err) == (0, "")
    assert altered == plain


def test_windows_after_the_instant_may_be_anything_in_a_file(answer, poolwise, folder):
    later = [window(0, requests=-5), {"start_at": "2999-01-01T00:00:00Z"}]
    write_json(folder / "odd.json", [*later, *history(20)])
    write_json(folder / "plain.json", history(20))
    at = ("--at", NOON.isoformat(), "--window-s", "60")
    odd, plain = (answer("forecast", "-H", f"{name}.json", *at) for name in ("odd", "plain"))
    assert odd == plain
    status, _, err = poolwise("forecast", "-H", "odd.json")
    assert (status, "history[0].requests" in err) == (2, True)


def test_another_cache_size_changes_the_reuse_that_is_forecast(answer, poolwise, folder, wavy):
    caches = {
        "cache_tokens": 20_000,
        "reuse": [
            {"cache_tokens": 20_000, "reuse_ratio": 0.3},
            {"cache_tokens": 40_000, "reuse_ratio": 0.6},
        ],
    }
    windows = [w | {"prefix_cache": caches} for w in json.loads((folder / "wavy.json").read_text())]
    told = write_json(folder / "told.json", windows)
    made = answer("forecast", "-H", told, "--window-s", "60", "--cache-tokens", "40000")
    (demand,) = made["windows"][0]["demands"]
    assert demand["reuse_ratio"]["values"][3] == pytest.approx(0.5)
    status, _, err = poolwise("forecast", "-H", wavy, "--cache-tokens", "40000")
    assert (status, "poolwise kv --json" in err) == (2, True)

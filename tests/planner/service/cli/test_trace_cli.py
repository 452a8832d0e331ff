"""`poolwise trace`: shows, converts and synthesizes, and says what is wrong in one message."""

import gzip
import json
from pathlib import Path

import pytest
import yaml

from forecaster.readers import TraceFormat, read_trace
from planner.domain.errors import SpecError
from planner.service.documents.trace_description import EXAMPLE, parse_trace_description

MINIMAL = {
    "duration_s": 600,
    "classes": [
        {"request_rate_rps": 2, "isl": {"p50": 500, "p99": 2000}, "osl": {"p50": 20, "p99": 90}}
    ],
}


@pytest.fixture
def trace(poolwise, folder):
    """A command on traces, in a folder with `trace.jsonl`."""

    def command(*arguments):
        return poolwise("trace", *arguments)

    return command


def described(**fields):
    (part,) = MINIMAL["classes"]
    return {**MINIMAL, "classes": [{**part, **fields}]}


def test_people_see_span_rate_lengths_and_rows(trace):
    status, out, err = trace("show", "trace.jsonl")
    assert (status, err) == (0, "")
    for words in ("trace.jsonl: Mooncake JSONL", "requests/s", "ISL", "p99.9", "0 refused"):
        assert words in out


def test_machines_get_the_same_in_json(trace):
    status, out, _ = trace("show", "trace.jsonl", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["requests"] == found["rows_read"] == len(read_trace_here().workload)
    assert sum(map(sum, found["joint"]["share"])) == pytest.approx(1.0)
    assert found["isl"]["p50"] <= found["isl"]["p99_9"] <= found["isl"]["max"]


def read_trace_here(name="trace.jsonl"):
    return read_trace(Path(name))


def test_plots_are_one_page_that_loads_nothing(trace, folder):
    status, _, err = trace("show", "trace.jsonl", "--html", "plots.html")
    page = (folder / "plots.html").read_text()
    assert status == 0
    assert "plots: plots.html" in err
    assert "default-src 'none'" in page
    for name in ("rate", "lengths", "joint"):
        assert f'data-plot="plot-{name}"' in page


def test_plots_never_replace_the_trace(trace):
    status, _, err = trace("show", "trace.jsonl", "--html", "trace.jsonl")
    assert status == 2
    assert "trace.jsonl is given for something else, too" in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\x00\x01\x02", "the file is none of"),
        (b"a,b\n1,2\n", "the file is none of"),
        (b"PAR1\x15\x04", "the file is none of"),
        (b'{"timestamp": 0, "input_length": 5}\n', "output_length is missing"),
        (b"Timestamp,Request tokens\n1,2\n", "lacks the column Response tokens"),
        pytest.param(
            gzip.compress(b"Timestamp,Request tokens,Response tokens\n1,2,3\n")[:30],
            "cut off",
            id="cut-gzip",  # its bytes hold the time: processes would name the test apart
        ),
    ],
)
@pytest.mark.parametrize("command", [("show", "bad"), ("convert", "bad", "out.csv")])
def test_a_bad_file_is_one_message(trace, folder, content, said, command):
    (folder / "bad").write_bytes(content)
    status, out, err = trace(*command)
    assert (status, out) == (2, "")
    assert said in err
    assert not (folder / "out.csv").exists()


def test_a_clock_jump_is_shown_and_can_be_cut_off(trace, folder):
    rows = [f"{s},m,9,9,18,x" for s in [*range(300), *range(10**6, 10**6 + 300)]]
    (folder / "jump.csv").write_text(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + "\n".join(rows)
    )
    assert "a jump of the clock?" in trace("show", "jump.csv")[1]
    status, _, err = trace("synthesize", "--like", "jump.csv", "out.csv")
    assert (status, "--until or --from cuts there" in err) == (2, True)
    assert trace("convert", "jump.csv", "head.csv", "--until", "300")[0] == 0
    assert len(read_trace_here("head.csv").workload) == 300


@pytest.mark.parametrize("kind", TraceFormat)
def test_what_is_converted_and_back_is_the_same(trace, kind):
    assert trace("convert", "trace.jsonl", "there.gz", "--to", kind.value)[0] == 0
    assert trace("convert", "there.gz", "back.jsonl")[0] == 0
    was, now = read_trace_here().workload, read_trace_here("back.jsonl").workload
    assert now.input_tokens.tolist() == was.input_tokens.tolist()
    assert now.output_tokens.tolist() == was.output_tokens.tolist()
    assert now.arrival_offset_s.tolist() == pytest.approx(was.arrival_offset_s.tolist(), abs=2e-3)


def test_what_a_format_cannot_hold_is_said(trace):
    trace("synthesize", "--spec", write_spec(described(reuse_ratio=0.4)), "shared.jsonl")
    status, out, err = trace("convert", "shared.jsonl", "plain.csv")
    assert status == 0
    assert "plain.csv: Azure CSV" in out
    assert "prefix blocks and cached tokens are lost" in err


def write_spec(data, name="traffic.yaml"):
    Path(name).write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return name


def test_a_part_is_cut_out_then_rate_and_lengths_change(trace):
    options = ["--from", "60", "--until", "120", "--rate-ratio", "0.5", "--length-ratio", "2"]
    status, out, _ = trace("convert", "trace.jsonl", "part.csv", *options)
    was = read_trace_here().workload.between(60, 120)
    now = read_trace_here("part.csv").workload
    assert status == 0
    assert "in 120 s" in out
    assert now.input_tokens.tolist() == (2 * was.input_tokens).tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["out.csv", "--from", "9e8"], "has no request between"),
        (["out.csv", "--rate-ratio", "0"], "--rate-ratio 0: give"),
        (["out.csv", "--length-ratio", "nan"], "--length-ratio nan: give"),
        (["out.csv", "--until", "-1"], "--until -1 is no interval"),
        (["out.txt"], "its ending tells no format; give --to"),
        (["absent/out.csv"], "there is no folder"),
        (["trace.jsonl", "--force"], "is given for something else"),
    ],
)
def test_what_cannot_be_converted_is_said(trace, folder, options, said):
    before = (folder / "trace.jsonl").read_bytes()
    status, _, err = trace("convert", "trace.jsonl", *options)
    assert (status, said in err) == (2, True), err
    assert (folder / "trace.jsonl").read_bytes() == before


def test_a_file_that_exists_is_replaced_only_by_force(trace, folder):
    (folder / "out.csv").write_text("mine")
    status, _, err = trace("convert", "trace.jsonl", "out.csv")
    assert (status, "give --force" in err) == (2, True)
    assert (folder / "out.csv").read_text() == "mine"
    assert trace("convert", "trace.jsonl", "out.csv", "--force")[0] == 0
    assert (folder / "out.csv").read_text().startswith("TIMESTAMP")


def test_the_example_is_a_description_that_works(trace, folder):
    status, out, _ = trace("synthesize", "--example")
    assert (status, out) == (0, EXAMPLE)
    write_spec(out.replace("duration_s: 86400", "duration_s: 3600"))
    assert trace("synthesize", "--spec", "traffic.yaml", "a.jsonl", "--seed", "3")[0] == 0
    assert trace("synthesize", "--spec", "traffic.yaml", "b.jsonl", "--seed", "3")[0] == 0
    assert (folder / "a.jsonl").read_bytes() == (folder / "b.jsonl").read_bytes()
    drawn = read_trace_here("a.jsonl").workload
    assert set(drawn.request_class.tolist()) == {"chat", "batch"}


def test_machines_are_told_what_was_written(trace):
    status, out, err = trace("convert", "trace.jsonl", "out.csv", "--until", "60", "--json")
    found = json.loads(out)
    assert (status, err, found["format"], found["duration_s"]) == (0, "", "azure", 60.0)
    assert found["requests"] == len(read_trace_here("out.csv").workload)
    assert found["reuse_ratio"] is None


def test_a_trace_like_another_is_drawn(trace):
    assert trace("synthesize", "--like", "trace.jsonl", "more.jsonl")[0] == 0
    was, now = read_trace_here().workload, read_trace_here("more.jsonl").workload
    assert now.request_rate_rps == pytest.approx(was.request_rate_rps, rel=0.3)


def test_clients_are_chosen_and_named(trace, folder):
    for client in range(3):
        (folder / f"chunk-{client}-trace.csv").write_text("0,1.0,1.5,Gamma,1,1\n600,2,1,Gamma,1,1")
        lengths = {"input_tokens": f"{{{100 + client}: 1.0}}", "output_tokens": "{9: 1.0}"}
        (folder / f"chunk-{client}-dataset.json").write_text(json.dumps({"0": lengths}))
    status, _, err = trace(
        "synthesize", "--servegen", ".", "--clients", "name:1", "--by-client", "one.csv"
    )
    assert status == 0
    assert "1 of 3 clients: 1" in err
    drawn = read_trace_here("one.csv").workload
    assert set(drawn.input_tokens.tolist()) == {101}
    assert set(drawn.request_class.tolist()) == {"client-1"}
    for options, said in [
        (["--clients", "4"], "3 clients have requests in that time, 4 were asked for"),
        (["--clients", "few"], "--clients few: give a number"),
        (["--clients", "name:7"], "there is no client 7"),
        (["--until", "1e6"], "the table holds 0 s to 1200 s"),
    ]:
        status, _, err = trace("synthesize", "--servegen", ".", "x.csv", *options)
        assert (status, said in err) == (2, True), err


@pytest.mark.parametrize(
    "options",
    [[], ["out.csv"], ["--spec", "a", "--like", "b", "out.csv"], ["--spec", "a"]],
)
def test_one_source_and_a_file_are_needed(trace, options):
    status, _, err = trace("synthesize", *options)
    assert (status, "give one of --spec, --template, --like and --servegen, and OUT" in err) == (
        2,
        True,
    )


def test_options_of_clients_need_clients(trace):
    status, _, err = trace("synthesize", "--like", "trace.jsonl", "o.csv", "--clients", "2")
    assert (status, "are for --servegen" in err) == (2, True)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({**MINIMAL, "duration": 5}, "unknown field `duration`; did you mean `duration_s`?"),
        ({**MINIMAL, "duration_s": 0}, "duration_s: input should be greater than 0"),
        (described(isl={"p50": 5}), "classes[0].isl: give p50 and p99, or levels and values"),
        (described(isl={"p50": 5, "p99": 1}), "classes[0].isl: lengths need 1 <= p50 <= p99"),
        (described(osl={"tokens": [2, 1], "weight": [1, 1]}), "tokens must be at least 1"),
        (described(arrival_cv=51), "classes[0].arrival_cv: input should be less than"),
        (described(request_rate=1), "unknown field `request_rate` in classes[0]"),
        (described(daily={"hourly": [1, 2]}), "classes[0].daily: a day has 24 hourly factors"),
        (described(daily={"peak_hour": 3}), "classes[0].daily: give hourly, or peak_hour and"),
        (described(sessions={"turns": 2}), "classes[0].sessions.growth is missing: add it"),
        (
            {
                **described(request_rate_rps=0.1, daily={"peak_hour": 3, "peak_to_trough": 2}),
                "duration_s": 1e8,
            },
            "classes[0]: a daily profile may last 1000 days",
        ),
        (
            described(
                sessions={
                    "turns": 9000,
                    "growth": {"p50": 5, "p99": 9},
                    "think_time_s": {"p50": 1e6, "p99": 1e7},
                }
            ),
            "classes[0]: sessions last too long",
        ),
        ({**MINIMAL, "classes": []}, "classes: list should have at least 1 item"),
        ({**MINIMAL, "duration_s": 1e8}, "are more than 20,000,000"),
        ({**MINIMAL, "classes": MINIMAL["classes"] * 2}, "request_class `default` is given twice"),
        ({**MINIMAL, "start_at": "2026-01-01"}, "start_at: "),
    ],
)
def test_a_wrong_description_is_told_by_field(data, said):
    with pytest.raises(SpecError) as raised:
        parse_trace_description(yaml.safe_dump(data), where="traffic.yaml")
    assert said in str(raised.value)
    assert str(raised.value).startswith("traffic.yaml:")


def test_a_description_that_draws_nothing_is_told(trace):
    spec = write_spec({**described(request_rate_rps=1e-6), "duration_s": 1})
    status, _, err = trace("synthesize", "--spec", spec, "none.csv")
    assert (status, "no request was drawn" in err) == (2, True)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "duration_s: .nan", "\x00"])
def test_what_is_no_description_is_one_message(trace, text):
    status, _, err = trace("synthesize", "--spec", write_spec(text), "none.csv")
    assert status == 2
    assert err.startswith("poolwise: traffic.yaml")

"""The command line: answers, exit status, and one clear message for whatever is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest

from planner.domain.fleet import Role
from planner.service.cli import plan as plan_module
from planner.service.documents import read_plan
from profiler.files import write_profile
from tests.fakes.profiles import interrupted, linear_profile
from tests.planner.service.examples import (
    NOON,
    fleet,
    history,
    spec_data,
    window,
    write_json,
    write_spec,
    write_trace,
)
from tests.planner.service.imagined import BUSY


def in_a_process(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "planner.service.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **more,
    )


def test_plan_prints_the_promised_keys(poolwise):
    status, out, _ = poolwise("plan", "--spec", "spec.yaml", "--trace", "trace.jsonl", "--json")
    assert status == 0
    plan = json.loads(out)
    assert plan["status"] in ("optimal", "feasible")
    assert plan.keys() >= {"usd_per_hour", "windows", "binding", "rejected", "solver", "inputs"}
    first = plan["windows"][0]
    assert {pool["role"] for pool in first["pools"]} == {"prefill", "decode"}
    assert first["predicted"]["ttft_p95_s"] < 0.5
    assert len(plan["windows"]) == 2


def test_plan_gives_the_same_answer_twice_in_all_but_elapsed_times(poolwise):
    plans = []
    for _ in range(2):
        _, out, _ = poolwise("plan", "--spec", "spec.yaml", "--trace", "trace.jsonl", "--json")
        plans.append(json.loads(out))
        plans[-1]["solver"].pop("wall_s")
    assert plans[0] == plans[1]


def test_plan_shows_tables_and_steps_to_people(poolwise):
    status, out, _ = poolwise(
        "plan", "--spec", "spec.yaml", "--trace", "trace.jsonl", "--fleet", "fleet.json"
    )
    assert status == 0
    for word in ("USD/h", "prefill:cpu:tp1", "TTFT p95", " ms", "Solved by", "Steps"):
        assert word in out


def test_a_printed_plan_can_be_simulated(poolwise, folder):
    _, out, _ = poolwise("plan", "--spec", "spec.yaml", "--trace", "trace.jsonl", "--json")
    (folder / "plan.json").write_text(out)
    assert read_plan(folder / "plan.json").windows[0].replicas(Role.DECODE) > 0
    status, out, _ = poolwise(
        "simulate", "-s", "spec.yaml", "-t", "trace.jsonl", "--plan", "plan.json", "--json"
    )
    assert status == 0
    assert json.loads(out)["latency"]["attainment_ratio"] > 0.85


def test_a_fleet_can_be_simulated_for_people(poolwise):
    status, out, _ = poolwise(
        "simulate", "-s", "spec.yaml", "-t", "trace.jsonl", "--fleet", "fleet.json"
    )
    assert status == 0
    assert "Attainment" in out


def test_a_forecast_can_be_planned_for(poolwise, folder):
    status, out, _ = poolwise("forecast", "-s", "spec.yaml", "-t", "trace.jsonl", "--json")
    assert status == 0
    (folder / "f.json").write_text(out)
    status, out, _ = poolwise("plan", "-s", "spec.yaml", "--forecast", "f.json", "--json")
    assert status == 0
    wanted = json.loads((folder / "f.json").read_text())["forecast_id"]
    assert json.loads(out)["inputs"]["forecast_id"] == wanted


def test_a_forecast_uses_nothing_after_the_instant_it_is_asked_for(poolwise):
    at = "1970-01-01T00:05:00Z"
    status, out, _ = poolwise(
        "forecast", "-t", "trace.jsonl", "--window-s", "60", "--at", at, "--json"
    )
    assert status == 0
    assert json.loads(out)["made_at"] == at
    status, out, _ = poolwise("forecast", "-t", "trace.jsonl", "--window-s", "60")
    assert (status, "requests/s" in out) == (0, True)


def test_recommend_prints_the_promised_keys(poolwise):
    status, out, _ = poolwise("recommend", "-s", "spec.yaml", "-H", "history.json", "--json")
    assert status == 0
    data = json.loads(out)
    assert data.keys() >= {"pools", "forecast", "plan_id"}
    keys = {"role", "accelerator", "tp", "replicas", "replicas_now", "reason"}
    assert all(pool.keys() >= keys for pool in data["pools"])


def test_recommend_says_nothing_of_windows_after_its_instant(poolwise, folder):
    later = [window(0, requests=-5), window(1, request_class="gold")]
    write_json(folder / "odd.json", [*history(), *later])
    write_json(folder / "plain.json", history())
    asked = ("recommend", "-s", "spec.yaml", "--fleet", "fleet.json", "--now", NOON.isoformat())
    odd, plain = (poolwise(*asked, "-H", f, "--json") for f in ("odd.json", "plain.json"))
    assert (odd[0], odd[1]) == (0, plain[1])


def test_recommend_remarks_on_answers_that_were_not_counted(poolwise, folder):
    write_json(folder / "silent.json", [{**w, "output_tokens": 0} for w in history()])
    asked = ("recommend", "-s", "spec.yaml", "--fleet", "fleet.json", "-H", "silent.json")
    status, _, err = poolwise(*asked)
    assert (status, "without a single output token" in " ".join(err.split())) == (0, True)


def test_recommend_reads_standard_input_and_a_fleet_beside_it(folder):
    text = json.dumps(history(**BUSY))
    arguments = ("recommend", "-s", "spec.yaml", "-H", "-", "--fleet", "fleet.json")
    done = in_a_process(*arguments, input=text, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "prefill:cpu:tp1" in done.stdout


def test_a_spec_that_cannot_be_kept_prints_what_to_relax_and_fails(poolwise, folder):
    pools = [
        {"model": "tiny", "role": role, "accelerator": "cpu", "max_replicas": 1}
        for role in ("prefill", "decode")
    ]
    write_spec(folder, pools=pools)
    write_trace(folder / "busy.jsonl", minutes=2, rate_rps=60)
    status, out, _ = poolwise("plan", "-s", "spec.yaml", "-t", "busy.jsonl", "--json")
    assert status == 1
    plan = json.loads(out)
    assert plan["status"] == "infeasible"
    assert plan["relaxations"]


def test_an_estimate_is_labelled_in_every_output(poolwise, folder):
    changes = {
        "accelerators": [
            {"name": "h100", "per_node": 8, "inventory": 8, "usd_per_gpu_hour": {"on_demand": 4}}
        ],
        "pools": [
            {"model": "tiny", "role": role, "accelerator": "h100"} for role in ("prefill", "decode")
        ],
        "profiles": None,
    }
    write_spec(folder, **changes)
    command = ("plan", "-s", "spec.yaml", "-t", "trace.jsonl", "--allow-estimates")
    _, out, _ = poolwise(*command)
    assert "ESTIMATED" in out
    _, out, _ = poolwise(*command, "--json")
    assert json.loads(out)["estimated"] is True
    _, _, err = poolwise("validate", "-s", "spec.yaml", "--allow-estimates")
    assert "ESTIMATED" in err


def test_an_interrupted_profile_is_labelled_in_every_output(poolwise, folder):
    write_profile(interrupted(linear_profile()), folder / "tiny.json")
    asked = ("-s", "spec.yaml", "-t", "trace.jsonl")
    for command in (
        ("plan", *asked),
        ("shapes", *asked),
        ("simulate", *asked, "--fleet", "fleet.json"),
        ("recommend", "-s", "spec.yaml", "--history", "history.json"),
    ):
        _, out, _ = poolwise(*command)
        assert "INCOMPLETE profiles" in out, command
        _, out, _ = poolwise(*command, "--json")
        assert json.loads(out)["incomplete"] is True, command
    _, _, err = poolwise("validate", "-s", "spec.yaml")
    assert "INCOMPLETE" in err
    _, out, _ = poolwise("validate", "-s", "spec.yaml", "--json")
    assert json.loads(out)["profiles"][0]["incomplete"] is True


def test_validate_says_what_is_there_and_prints_the_schema(poolwise):
    status, out, _ = poolwise("validate", "--spec", "spec.yaml")
    assert (status, "is valid" in out, "measured" in out) == (0, True, True)
    status, out, _ = poolwise("validate", "--spec", "spec.yaml", "--json")
    assert json.loads(out)["valid"] is True
    status, out, _ = poolwise("validate", "--schema")
    jsonschema.validate(spec_data(), json.loads(out))


def test_profile_show_shows_times_and_where_they_come_from(poolwise):
    status, out, _ = poolwise("profile", "show", "tiny.json")
    assert status == 0
    for word in ("Prefill", "Decode step", "ms", "tokens", "measured"):
        assert word in out
    status, out, _ = poolwise("profile", "show", "tiny.json", "--json")
    assert json.loads(out)["model"] == linear_profile().model


BAD_INPUT = [
    ("plan -s none.yaml -t trace.jsonl", "none.yaml: no such file"),
    ("plan -s spec.yaml -t none.jsonl", "none.jsonl"),
    ("plan -s spec.yaml -t bad.jsonl", "bad.jsonl"),
    ("plan -s spec.yaml -t empty.jsonl", "empty.jsonl"),
    ("plan -s spec.yaml", "--trace FILE"),
    ("plan -s spec.yaml -t trace.jsonl --forecast f.json", "one of them"),
    ("plan -s spec.yaml --forecast history.json", "history.json"),
    ("plan -s ms.yaml -t trace.jsonl", "not milliseconds"),
    ("plan -s unknown.yaml -t trace.jsonl", "did you mean `slos`?"),
    ("plan -s noprofile.yaml -t trace.jsonl", "--allow-estimates"),
    ("plan -s badprofile.yaml -t trace.jsonl", "bad.json:1: not JSON"),
    ("plan -s goneprofile.yaml -t trace.jsonl", "no such profile file"),
    ("plan -s spec.yaml -t trace.jsonl --fleet history.json", "history.json"),
    ("plan -s spec.yaml -t trace.jsonl --at yesterday", "--at"),
    ("plan -s spec.yaml -t trace.jsonl --at 2026-01-01T00:00", "no time zone"),
    ("plan -s spec.yaml -t trace.jsonl --at 1970-01-01T00:00Z", "no request arrives before"),
    ("plan -s spec.yaml -t trace.jsonl --at 9999-12-31T00:00Z", "between 1970 and 2200"),
    ("plan -s spec.yaml -t trace.jsonl --model big", "model `big` is not in the spec"),
    ("plan -s spec.yaml -t short.jsonl", "shorter windows"),
    ("simulate -s spec.yaml -t trace.jsonl", "--plan FILE"),
    ("simulate -s spec.yaml -t trace.jsonl --plan fleet.json", "fleet.json"),
    ("simulate -s spec.yaml -t trace.jsonl --fleet nobody.json", "nothing can serve"),
    ("simulate -s spec.yaml -t trace.jsonl --fleet fleet.json --from-s 1e9", "no request"),
    ("forecast -t none.jsonl", "none.jsonl"),
    ("recommend -s spec.yaml -H none.json", "none.json: no such file"),
    ("recommend -s spec.yaml -H bare.json", "has no fleet"),
    ("recommend -s spec.yaml -H nothing.json", "no data is not zero traffic"),
    ("recommend -s spec.yaml -H batch.json", "class `batch`"),
    ("validate", "--schema"),
    ("validate -s bad.json", "bad.json"),
    ("profile show none.json", "none.json: no such profile file"),
    ("profile show spec.yaml", "not JSON"),
    (
        "profile import --from aiconfigurator --model m --accelerator h100 --out gone/p.json",
        "there is no folder",
    ),
    ("serve -s none.yaml", "none.yaml"),
    ("serve -s spec.yaml --insecure-local --host 0.0.0.0", "loopback"),
]


@pytest.fixture
def bad_files(folder):
    (folder / "bad.jsonl").write_text('{"timestamp": 0, "input_length": "long"}\n' * 3)
    (folder / "empty.jsonl").write_text("")
    (folder / "bad.json").write_text("{")
    write_trace(folder / "short.jsonl", minutes=0.5)
    write_json(folder / "bare.json", history())
    write_json(folder / "nothing.json", {"history": [], "fleet": fleet()})
    write_json(folder / "nobody.json", {"pools": []})
    batch = [window(-1, request_class="batch")]
    write_json(folder / "batch.json", {"history": batch, "fleet": fleet()})
    slo = {"model": "tiny", "ttft_s": 500, "tpot_s": 50}
    gold = {"model": "tiny", "request_class": "gold", "ttft_s": 0.5, "tpot_s": 0.05}
    for name, changes in {
        "ms": {"slos": [slo]},
        "unknown": {"slo": []},
        "noprofile": {"profiles": []},
        "badprofile": {"profiles": ["bad.json"]},
        "goneprofile": {"profiles": ["gone.json"]},
        "local": {"target": {"kind": "local"}},
        "gold": {"slos": [gold]},
    }.items():
        write_spec(folder, **changes).rename(folder / f"{name}.yaml")
    return write_spec(folder)


@pytest.mark.parametrize(("command", "said"), BAD_INPUT)
def test_bad_input_is_one_clear_message_and_exit_2(poolwise, bad_files, command, said):
    command = command.replace("spec.yaml -H batch", "gold.yaml -H batch")
    status, out, err = poolwise(*command.split())
    assert status == 2
    assert out == ""
    assert err.startswith("poolwise: ")
    assert said in err


@pytest.mark.parametrize(
    "command", ["plan --nonsense", "nonsense", "plan", "forecast -t x --window-s zero", "profile"]
)
def test_wrong_usage_is_exit_2(poolwise, command):
    status, out, err = poolwise(*command.split())
    assert status == 2
    assert "Usage" in out + err


def test_an_unexpected_error_is_one_line_and_its_traceback_is_in_a_log(
    poolwise, folder, monkeypatch
):
    def broken(*_arguments, **_more):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(plan_module.output, "working", broken)
    status, out, err = poolwise("plan", "-s", "spec.yaml", "-t", "trace.jsonl")
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    log = err.rstrip().rsplit(" ", 1)[-1]
    assert str(folder / "state") in log
    assert "ZeroDivisionError: oops" in Path(log).read_text()


def test_the_version_and_help_need_no_heavy_library():
    program = (
        "import sys; from planner.service.cli.main import run; run(['--help']);"
        "heavy = {'numpy', 'pydantic', 'scipy', 'pandas', 'fastapi', 'sqlalchemy', 'ortools'};"
        "sys.exit(','.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for command in (
        *("plan", "simulate", "forecast", "backtest", "trace"),
        *("recommend", "serve", "validate", "profile"),
    ):
        assert command in done.stdout


def test_the_version_is_the_packages(poolwise):
    assert poolwise("--version")[1] == f"poolwise {version('poolwise')}\n"


@pytest.mark.parametrize(
    "command",
    [
        *("plan", "simulate", "forecast", "backtest forecast"),
        *("recommend", "serve", "validate", "profile show"),
        *("trace show", "trace convert", "trace synthesize"),
    ],
)
def test_every_command_has_help_with_an_example(poolwise, command):
    status, out, _ = poolwise(*command.split(), "--help")
    assert status == 0
    assert "Example" in out
    assert "--json" in out


def test_a_closed_pipe_is_quiet(folder):
    done = subprocess.run(
        f"{sys.executable} -m planner.service.cli.main validate --schema | head -c 10",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
    )
    assert (done.stderr, len(done.stdout)) == ("", 10)


def test_ctrl_c_ends_quietly_with_130(folder):
    fifo = folder / "fifo.json"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "planner.service.cli.main", "profile", "show", str(fifo)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    with fifo.open("w"):  # opens when the command does, which then waits
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")


def test_shells_complete_commands():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("poolwise"))],
        env={
            **os.environ,
            "_POOLWISE_COMPLETE": "complete_bash",
            "COMP_WORDS": "poolwise back",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["backup", "backtest"]


def test_the_installed_command_answers():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("poolwise")), "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("poolwise ")

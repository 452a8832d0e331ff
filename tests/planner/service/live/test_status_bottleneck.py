"""What `poolwise status` says the deployment is short of, from live pages of stub workers."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.planner.service.examples import write_spec
from tests.serving.diagnosis.live import LoadedWorker, running
from tests.serving.telemetry.servers import Served, serving

INTERVAL = ("--interval", "2", "--deadline", "5")
CALM_PREFILL = LoadedWorker(running=0, prefill_s=0.02)
CALM_DECODE = LoadedWorker(running=2, prefill_s=0.01)
FLOODED = LoadedWorker(running=1, waiting=6, queue_s=3.0, prefill_s=0.5)
PAGES = Path(__file__).parents[3] / "serving" / "telemetry" / "pages"


@pytest.fixture
def status(poolwise):
    """Runs the command on a prefill and a decode worker."""

    def run(prefill: LoadedWorker, decode: LoadedWorker, *options: str) -> tuple[int, str, str]:
        with ExitStack() as stack:
            urls = [stack.enter_context(running(worker)) for worker in (prefill, decode)]
            named = [f"{r}={u}" for r, u in zip(("prefill", "decode"), urls, strict=True)]
            workers = [text for name in named for text in ("--worker", name)]
            return poolwise("status", *workers, *INTERVAL, *options)

    return run


def test_a_shortage_is_named_with_its_evidence_in_one_line(status) -> None:
    code, out, _ = status(FLOODED, CALM_DECODE, "--json")
    told = json.loads(out)
    assert (code, told["bottleneck"]) == (0, "prefill")
    why = told["bottleneck_why"]
    assert why.startswith("prefill of the prefill workers: prompts wait for other prompts")
    assert "time with a prompt in work: 100%; requests that wait for prefill: 6.0" in why
    assert "add prefill workers" in why
    assert "\n" not in why


def test_people_see_it_too(status) -> None:
    _, out, _ = status(FLOODED, CALM_DECODE)
    assert "measured: prefill of the prefill workers" in " ".join(out.split())


def test_without_an_objective_slow_answers_are_not_known_and_the_way_on_is_told(status) -> None:
    _, out, _ = status(CALM_PREFILL, CALM_DECODE, "--json")
    told = json.loads(out)
    assert told["bottleneck"] is None
    assert "needs an objective or a profile to compare with" in told["bottleneck_why"]
    assert "`poolwise diagnose` watches for longer" in told["bottleneck_why"]


def test_with_a_spec_room_is_told_as_none(status, folder) -> None:
    spec = write_spec(folder)
    _, out, _ = status(CALM_PREFILL, CALM_DECODE, "--spec", str(spec), "--json")
    told = json.loads(out)
    assert told["bottleneck"] == "none"
    assert told["bottleneck_why"].startswith("nothing is the bottleneck: no request is held up")


def test_without_traffic_nothing_is_short(status) -> None:
    idle = LoadedWorker(rate_rps=0.0, running=0, usage=0.0)
    _, out, _ = status(idle, idle, "--json")
    told = json.loads(out)
    assert (told["bottleneck"], "there is no traffic" in told["bottleneck_why"]) == ("none", True)


def test_without_engines_it_is_not_known_and_accelerators_are_shown(poolwise) -> None:
    with serving(Served((PAGES / "dcgm.txt").read_text())) as exporter:
        code, out, _ = poolwise(
            "status", "--hardware", exporter.url, "--interval", "0.2", "--deadline", "5"
        )
    assert code == 0
    shown = " ".join(out.split())
    assert "not known: no engine answers" in shown
    assert "Accelerators, by their exporters" in shown

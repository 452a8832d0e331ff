"""`poolwise diagnose` against stub workers, and what it refuses."""

import json

import pytest

from profiler.files import write_profile
from serving.kv.events import EventAddress, events_address
from serving.kv.subscriber import EventFeed
from serving.workers.processes import free_ports
from tests.fakes.profiles import linear_profile
from tests.serving.diagnosis.live import LoadedWorker, running
from tests.serving.kv.wire import mixed, payload, publisher, removed, stored

FLOODED = LoadedWorker(running=1, waiting=8, queue_s=2.0, prefill_s=0.4)
CALM = LoadedWorker(running=2)


@pytest.fixture
def diagnose(poolwise):
    def command(*arguments):
        return poolwise("diagnose", "--for", "1.5", "--interval", "0.1", *arguments)

    return command


def test_a_flooded_prefill_worker_is_named_with_evidence_and_what_to_do(diagnose):
    with running(FLOODED) as prefill, running(CALM) as decode:
        status, out, _ = diagnose("--worker", f"prefill={prefill}", "--worker", f"decode={decode}")
    assert status == 0
    assert "Bottleneck: prefill" in out
    assert "wait in the queue: 2.00 s, against 400.0 ms of prefill itself" in " ".join(out.split())
    assert "add prefill workers" in out


def test_json_says_the_same_to_machines(diagnose):
    with running(FLOODED) as prefill, running(CALM) as decode:
        status, out, _ = diagnose(
            "--worker", f"prefill={prefill}", "--worker", f"decode={decode}", "--json"
        )
    found = json.loads(out)
    assert (status, found["bottleneck"], found["role"]) == (0, "prefill", "prefill")
    assert found["experiment"] is None
    assert {e["unit"] for e in found["evidence"]} >= {"ratio", "s", "requests"}


def test_what_telemetry_does_not_tell_is_said_and_an_experiment_named(diagnose):
    with running(LoadedWorker(rate_rps=5.0)) as prefill, running(CALM) as decode:
        _, out, _ = diagnose(
            "--worker", f"prefill={prefill}", "--worker", f"decode={decode}", "--json"
        )
    found = json.loads(out)
    assert found["bottleneck"] is None
    assert "--experiment" in found["action"]


def test_nobody_answering_is_an_error_and_not_a_finding(diagnose):
    status, out, err = diagnose("--worker", "prefill=http://127.0.0.1:1")
    assert (status, out) == (1, "")
    assert "no worker answers" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--worker", "http://a:1"], "ROLE=URL"),
        (["--worker", "cook=http://a:1"], "prefill, decode, aggregated"),
        (["--worker", "prefill=http://a:1", "--interval", "9"], "five times --interval"),
        (["--worker", "prefill=http://a:1", "--experiment"], "--url"),
        (["--worker", "prefill=http://a:1", "--spec", "missing.yaml"], "missing.yaml"),
    ],
)
def test_bad_input_is_refused(poolwise, folder, arguments, said):
    status, _, err = poolwise("diagnose", *arguments)
    assert status == 2
    assert said in err


def test_an_experiment_is_capped_and_needs_consent(poolwise, folder):
    write_profile(linear_profile(), folder / "p.json")
    trial = ["--worker", "prefill=http://a:1", "--experiment", "--url", "http://a:1"]
    status, _, err = poolwise("diagnose", *trial, "--profile", "p.json", "--extra", "0.9", "--yes")
    assert status == 2
    assert "at most 0.3" in err
    status, _, err = poolwise("diagnose", *trial, "--profile", "p.json")
    assert status in (1, 2)
    assert "adds 10% of a saturated replica's load" in err


def test_a_cache_that_evicts_what_comes_again_is_named_from_its_events(diagnose):
    port, replay = free_ports(2)
    text = events_address(port, replay)
    address = EventAddress.parse(text)
    with running(FLOODED) as prefill, publisher(address.events, address.replay) as sender:
        for turn in range(20):  # ten prompts of 200 blocks in turn, in a cache of 1,000
            prompt = [mixed(1000 * (turn % 10) + i) for i in range(200)]
            sender.send(payload(stored(prompt, tokens=16), at_s=100.0 * turn))
            sender.send(payload(removed(prompt), at_s=100.0 * turn + 50.0))
        status, out, _ = diagnose("--worker", f"prefill={prefill}", "--events", text, "--json")
    found = json.loads(out)
    assert (status, found["bottleneck"], found["role"]) == (0, "memory", "prefill")
    figures = {e["what"]: (e["value"], e["bound"]) for e in found["evidence"]}
    assert figures["of stored blocks, evicted by that worker before"] == (0.5, None)
    assert figures["prompt computing that is avoidable"][0] == pytest.approx(0.5, abs=0.05)


def test_events_that_another_view_takes_are_done_without(diagnose):
    (port,) = free_ports(1)
    text = events_address(port)
    with running(FLOODED) as prefill, EventFeed({"w": EventAddress.parse(text)}):
        status, out, _ = diagnose("--worker", f"prefill={prefill}", "--events", text, "--json")
    found = json.loads(out)
    assert (status, found["bottleneck"]) == (0, "prefill")
    assert any("another view listens there" in u["reason"] for u in found["unjudged"])

"""Each API call of an apply, hit by every fault: as before, as planned, or completed.

The apply grows prefill from 1 to 2 and shrinks decode from 2 to 1. After each fault the cluster is
healed and a fresh actuator plans again from what it reads. Whatever was hit, no count may be
written twice over and none may fall below the floor.
"""

import subprocess
import sys
import time
from collections import Counter

import pytest

from actuators.actuator import carry_out
from planner.domain.errors import PoolwiseError
from tests.actuators.kubernetes.rig import Rig, rigged
from tests.actuators.kubernetes.towards import GOAL, towards

BEFORE, PLANNED = {"prefill": 1, "decode": 2}, {"prefill": 2, "decode": 1}
FAULTS = {
    **{str(code): {"status": code} for code in (403, 404, 409, 422, 429, 500)},
    "timeout": {"hang": True},
    "cut before": {"cut": True, "moment": "before"},
    "cut after": {"cut": True, "moment": "after"},
}
KILLS = ("before", "after")


def calls_of_an_apply() -> list[dict[str, object]]:
    """Each call that an undisturbed apply makes, as a fault would match it: the nth of its kind."""
    with rigged() as rig:
        actuator = rig.actuator()
        carry_out(actuator, towards(actuator.read_fleet(), GOAL))
        seen: Counter[tuple[object, ...]] = Counter()
        made = []
        for call in rig.cluster.calls:
            named = call.name if call.resource == "deployments" else None
            matched = {
                "verb": call.verb,
                "resource": call.resource,
                "subresource": call.subresource,
                "name": named,
                "dry_run": call.dry_run,
            }
            kind = tuple(matched.values())
            seen[kind] += 1
            made.append({**matched, "nth": seen[kind]})
    return made


CALLS = calls_of_an_apply()


def label(call: dict[str, object]) -> str:
    dry = " dry run" if call["dry_run"] else ""
    part = f"/{call['subresource']}" if call["subresource"] else ""
    name = f"{call['verb']} {call['resource']}{part} {call['name'] or ''}{dry} {call['nth']}"
    return name.replace("  ", " ")


def hit(*, by_kills: bool) -> list[object]:
    """Calls to hit, all of them by `make soak`: each kind once in every run, or one write."""
    first = [call for call in CALLS if call["nth"] == 1]
    if by_kills:  # each costs a process
        first = [c for c in first if c["subresource"] == "scale" and not c["dry_run"]][:1]
    return [
        pytest.param(call, id=label(call), marks=() if call in first else pytest.mark.soak)
        for call in CALLS
    ]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("actuators.kubernetes.client.PAUSE_S", 0.01)
    monkeypatch.setattr("actuators.kubernetes.client.MAX_RETRY_AFTER_S", 0.01)


def counts(rig: Rig) -> dict[str, int]:
    return {name: rig.replicas(name) for name in BEFORE}


def check(rig: Rig, error: PoolwiseError | None) -> None:
    """Where the fleet is after the fault, and after a rerun."""
    after = counts(rig)
    assert BEFORE["prefill"] <= after["prefill"] <= PLANNED["prefill"]
    assert PLANNED["decode"] <= after["decode"] <= BEFORE["decode"]
    if error is None:
        assert after == PLANNED
    elif "nothing was touched" in str(error):
        assert after == BEFORE
    rig.cluster.heal()
    rig.simulation.step(300.0)
    again = rig.actuator()
    carry_out(again, towards(again.read_fleet(), GOAL))
    assert counts(rig) == PLANNED
    # One change of each spec, whatever was sent: a repeated step would have made two.
    for name in BEFORE:
        assert rig.cluster.get("deployments", name)["metadata"]["generation"] == 2
    sent = [
        (w.name, w.body["spec"]["replicas"]) for w in rig.cluster.writes if w.subresource == "scale"
    ]
    assert set(sent) <= {("prefill", 2), ("decode", 1)}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", hit(by_kills=False))
def test_a_fault_leaves_the_fleet_as_it_was_or_as_planned(call, fault, monkeypatch):
    if fault == "timeout":
        monkeypatch.setattr("actuators.kubernetes.resources.REQUEST_TIMEOUT_S", 1.0)
    with rigged() as rig:
        rig.cluster.fault(**call, **FAULTS[fault], times=1)
        actuator = rig.actuator()
        error = None
        try:
            carry_out(actuator, towards(actuator.read_fleet(), GOAL))
        except PoolwiseError as caught:
            error = caught
        assert error is None or "\n" not in str(error)
        monkeypatch.setattr("actuators.kubernetes.resources.REQUEST_TIMEOUT_S", 30.0)
        check(rig, error)


@pytest.mark.parametrize("moment", KILLS)
@pytest.mark.parametrize("call", hit(by_kills=True))
def test_a_killed_apply_is_completed_by_the_next(tmp_path, call, moment):
    with rigged() as rig:
        rig.simulation.startup_s, rig.simulation.drain_s = 3.0, 1.0
        path = rig.cluster.kubeconfig(tmp_path / "config")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.actuators.kubernetes.apply_once", str(path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        kill = rig.cluster.fault(**call, times=1, moment=moment, hook=lambda _c: process.kill())
        with rig.simulation.running(speed=20.0):
            _, said = process.communicate(timeout=60)
        if not kill.struck and process.returncode == 0:
            pytest.skip("it looked less often this time, and was done before that call")
        assert process.returncode == -9, said
        time.sleep(0.05)
        check(rig, PoolwiseError("killed"))

"""Two `poolwise serve` on one database: one acts, whatever happens to it."""

import os
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.actuators.kubernetes.rig import deployment
from tests.kubernetes import FakeCluster
from tests.kubernetes.access import Rule
from tests.kubernetes.simulation import ControllerSimulation
from tests.planner.service.election.processes import (
    DEADLINE_S,
    LEASE_S,
    SLACK_S,
    TAKEOVER_S,
    eventually,
    two,
)
from tests.planner.service.election.proxy import wire_to
from tests.planner.service.examples import fleet, history, write_spec
from tests.planner.service.imagined import BUSY

FAST = {"mode": "auto", "slow_interval_s": 1}


@pytest.fixture
def cluster():
    with FakeCluster(crds="all") as fake:
        fake.load(deployment("prefill", 1))
        fake.load(deployment("decode", 1))
        yield fake


EVERYWHERE = pytest.mark.parametrize(
    "environs",
    ["postgresql", *(pytest.param(x, marks=pytest.mark.soak) for x in ("sqlite", "kubernetes"))],
    indirect=True,
)


@pytest.fixture
def environs(request, tmp_path):
    """What each of the two processes is told, by where the lease is kept."""
    where = getattr(request, "param", "sqlite")
    url = f"sqlite:///{tmp_path / 'poolwise.db'}"
    if where == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    told = {"POOLWISE_DATABASE_URL": url}
    if where == "kubernetes":
        config = request.getfixturevalue("cluster").kubeconfig(tmp_path / "config")
        told |= {
            "POOLWISE_LEADER_ELECTION": "kubernetes",
            "POOLWISE_LEASE_NAMESPACE": "default",
            "KUBECONFIG": str(config),
        }
    return told, told


@EVERYWHERE
def test_one_acts_and_the_other_serves_and_says_who(tmp_path, environs):
    write_spec(tmp_path, loop={"mode": "advise", "slow_interval_s": 1})
    with two(tmp_path, *environs) as (leader, follower):
        eventually(lambda: leader.ticks() >= 3, SLACK_S)
        assert follower.ticks() == 0
        told = eventually(lambda: (t := follower.leader())["leader"] and t, SLACK_S)
        assert told["leader"] == leader.leader()["identity"] != told["identity"]
        assert (told["leads"], told["term"]) == (False, leader.leader()["term"])
        assert 'poolwise_leader{deployment="shop"} 0.0' in follower.get("/metrics").text
        assert 'poolwise_leader{deployment="shop"} 1.0' in leader.get("/metrics").text

        # A follower plans and takes approvals; what moves the fleet it leaves to the leader.
        assert follower.put("/v1/deployments/shop/fleet", fleet()).status_code == 200
        plan = follower.post("/v1/plans", {"history": history(**BUSY)}).json()
        path = f"/v1/plans/{plan['plan_id']}"
        assert follower.post(f"{path}/approve").json()["approval"]["state"] == "approved"
        applied = follower.post(f"{path}/apply")
        assert applied.json()["approval"]["state"] == "applied", applied.text
        assert leader.get(path).json()["approval"]["state"] == "applied"
        back = follower.post(f"{path}/rollback")
        assert back.json()["approval"]["state"] == "rolled_back", back.text
        assert follower.post("/v1/plans/plan-9/apply").status_code == 404


@EVERYWHERE
def test_a_leader_that_is_killed_is_followed_within_its_lease(tmp_path, environs):
    write_spec(tmp_path, loop=FAST)
    with two(tmp_path, *environs) as (leader, follower):
        eventually(lambda: leader.ticks() >= 1 and follower.leader()["leader"], SLACK_S)
        before = leader.leader()
        leader.kill(signal.SIGKILL)
        began = time.monotonic()
        eventually(follower.leads, TAKEOVER_S + SLACK_S)
        assert time.monotonic() - began > DEADLINE_S - 1  # it did not jump the queue
        assert follower.leader()["term"] == before["term"] + 1
        eventually(lambda: follower.ticks() >= 1, SLACK_S)


def test_a_leader_that_stops_cleanly_is_followed_at_once(tmp_path, environs):
    write_spec(tmp_path, loop=FAST)
    a, b = ({**e, "POOLWISE_LEASE_DURATION_S": "600"} for e in environs)
    with two(tmp_path, a, b) as (leader, follower):
        eventually(lambda: follower.leader()["leader"], SLACK_S)
        leader.kill(signal.SIGTERM)
        assert leader.process.wait(60) == 0
        eventually(follower.leads, SLACK_S)


def test_without_the_election_both_act(tmp_path, environs):
    write_spec(tmp_path, loop=FAST)
    a, b = ({**e, "POOLWISE_LEADER_ELECTION": "off"} for e in environs)
    with two(tmp_path, a, b) as (one, other):
        eventually(lambda: one.ticks() >= 3 and other.ticks() >= 3, SLACK_S)
        assert one.leads()
        assert other.leads()


def observed_lately():
    """A heavy load until now."""
    now = datetime.now(UTC)
    shift = now - datetime.fromisoformat(history()[-1]["start_at"]) - timedelta(minutes=1)
    moved = history(**BUSY)
    for one in moved:
        start_at = datetime.fromisoformat(one["start_at"]) + shift
        one["start_at"] = start_at.isoformat()
    return {"history": moved}


@pytest.mark.parametrize(
    "environs",
    [pytest.param("postgresql", marks=pytest.mark.soak), "kubernetes"],
    indirect=True,
)
def test_a_leader_that_is_stopped_in_the_middle_of_an_apply_writes_no_more(
    tmp_path, environs, cluster
):
    """Stopped right after its first write; by the time it wakes up another one leads."""
    everything = Rule(verbs=("*",))
    environs = [
        {**told, "KUBECONFIG": str(cluster.kubeconfig(tmp_path / name, token=token))}
        for told, name in zip(environs, ("a", "b"), strict=True)
        for token in [cluster.token_with(everything, name=name)]
    ]
    target = {
        "kind": "kubernetes",
        "objects": [
            {"role": "prefill", "kind": "Deployment", "name": "prefill"},
            {"role": "decode", "kind": "Deployment", "name": "decode"},
        ],
    }
    write_spec(tmp_path, loop=FAST, target=target)
    simulation = ControllerSimulation(cluster, startup_s=30.0, drain_s=10.0)
    with simulation.running(speed=30.0), two(tmp_path, *environs) as (leader, follower):

        def writes():
            scaled = [c for c in cluster.writes if c.resource == "deployments" and not c.dry_run]
            return [call.user.rsplit(":", 1)[-1] for call in scaled]

        stop = cluster.fault(
            verb="patch",
            resource="deployments",
            dry_run=False,
            moment="after",
            hook=lambda _call: os.kill(leader.process.pid, signal.SIGSTOP),
        )
        leader.post("/v1/deployments/shop/observations", observed_lately())
        eventually(lambda: stop.struck, 3 * SLACK_S)
        assert writes() == ["a"]
        eventually(follower.leads, TAKEOVER_S + SLACK_S)
        term = follower.leader()["term"]

        def grown():
            return sum(
                cluster.get("deployments", name)["spec"]["replicas"]
                for name in ("prefill", "decode")
            )

        # What the stopped one had begun is settled, and the fleet still reaches a plan.
        eventually(lambda: "b" in writes(), 3 * SLACK_S)
        leader.kill(signal.SIGCONT)
        eventually(lambda: not leader.leads(), SLACK_S)
        time.sleep(LEASE_S)
        assert follower.leader()["term"] == term, "too busy a machine: the lease went on"
        assert writes().count("a") == 1
        assert grown() > 2
        assert f"{leader.leader()['identity']} leads no longer" in leader.log.read_text()


def test_a_leader_that_is_cut_off_from_the_database_stops_before_another_begins(tmp_path, postgres):
    write_spec(tmp_path, loop=FAST)
    url = postgres.new_database()
    with wire_to(postgres.port) as wire:
        cut_off = {"POOLWISE_DATABASE_URL": url.replace(f":{postgres.port}/", f":{wire.port}/")}
        with two(tmp_path, cut_off, {"POOLWISE_DATABASE_URL": url}) as (leader, follower):
            eventually(lambda: follower.leader()["leader"], SLACK_S)
            before = leader.leader()
            wire.cut()

            def took_over():
                later, earlier = follower.leads(), leader.leads()  # in this order
                assert not (later and earlier)
                return later

            eventually(took_over, TAKEOVER_S + SLACK_S)
            assert follower.leader()["term"] == before["term"] + 1
            wire.mend()
            eventually(
                lambda: leader.leader()["leader"] == follower.leader()["identity"], 2 * SLACK_S
            )
            assert not leader.leads()
            assert follower.leads()

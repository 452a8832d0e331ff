"""`poolwise serve` killed while it moves a cluster: the next start says how far it came."""

import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.actuators.kubernetes.rig import deployment
from tests.kubernetes import FakeCluster
from tests.kubernetes.simulation import ControllerSimulation
from tests.planner.service.examples import history, write_spec
from tests.planner.service.test_server import hand_in, served

SPEED = 20.0
LOAD = {"requests": 1000, "isl": 1200, "osl": 80}
LOOP = {"mode": "approve", "slow_interval_s": 3600}
REST = ((1, "before"), (1, "after"), (2, "before"))
OBJECTS = [
    {"role": "prefill", "kind": "Deployment", "name": "prefill"},
    {"role": "decode", "kind": "Deployment", "name": "decode"},
]


@dataclass
class Site:
    """A cluster, a folder with a spec for it, and a plan that was approved."""

    cluster: FakeCluster
    folder: Any
    path: str = ""
    planned: dict[str, int] = field(default_factory=dict)

    def ask(self, facts, verb, path) -> httpx.Response:
        return httpx.request(verb, f"{facts['url']}{path}", json=None, timeout=60)

    def plan(self, facts) -> None:
        body = {"history": history(**LOAD)}
        plan = httpx.post(f"{facts['url']}/v1/plans", json=body, timeout=60).json()
        self.path = f"/v1/plans/{plan['plan_id']}"
        pools = plan["windows"][0]["pools"]
        self.planned = {pool["role"]: pool["replicas"] for pool in pools}
        assert self.ask(facts, "POST", f"{self.path}/approve").status_code == 200

    def observe(self, facts) -> None:
        """Hand in load, without which nothing is taken away."""
        with httpx.Client(base_url=facts["url"], timeout=60) as client:
            hand_in(client, "/v1/deployments/shop")

    def killed_at(self, process, facts, number: int, moment: str, what: str = "apply") -> None:
        """Kill the server at the so-manieth write of a count, while it is asked to move."""
        write = {"verb": "patch", "resource": "deployments", "subresource": "scale"}
        self.cluster.fault(
            **write, dry_run=False, nth=number, moment=moment, hook=lambda _call: process.kill()
        )
        with pytest.raises(httpx.TransportError):
            pytest.fail(self.ask(facts, "POST", f"{self.path}/{what}").text)
        assert process.wait(timeout=30) == -9
        self.cluster.heal()

    def moved(self, facts, what: str) -> str:
        """The plan's state after it was asked to move."""
        answer = self.ask(facts, "POST", f"{self.path}/{what}").json()
        return answer["approval"]["state"] if "approval" in answer else answer["detail"]

    def settled(self, facts) -> dict[str, Any]:
        """The plan's approval once the lease of the process that is gone has run out."""
        until = time.monotonic() + 90
        while time.monotonic() < until:
            approval: dict[str, Any] = self.ask(facts, "GET", self.path).json()["approval"]
            if approval["state"] not in ("applying", "rolling_back"):
                return approval
            time.sleep(0.2)
        raise AssertionError(approval)

    def counts(self) -> dict[str, int]:
        return {
            name: self.cluster.get("deployments", name)["spec"]["replicas"] for name in self.planned
        }

    def await_pods(self) -> None:
        """Until all that were asked for are ready."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            states = [self.cluster.get("deployments", name)["status"] for name in self.planned]
            if [s.get("readyReplicas", 0) for s in states] == list(self.planned.values()):
                return
            time.sleep(0.1)
        raise AssertionError(states)

    def generations(self) -> dict[str, int]:
        return {
            name: self.cluster.get("deployments", name)["metadata"]["generation"]
            for name in self.planned
        }


@pytest.fixture
def site(tmp_path):
    with FakeCluster(crds="all") as cluster:
        cluster.load(deployment("prefill", 1))
        cluster.load(deployment("decode", 1))
        simulation = ControllerSimulation(cluster, startup_s=10.0, drain_s=5.0)
        simulation.step()
        simulation.step(60.0)
        target = {
            "kind": "kubernetes",
            "kubeconfig": str(cluster.kubeconfig(tmp_path / "config")),
            "objects": OBJECTS,
        }
        write_spec(tmp_path, target=target, loop=LOOP)
        with simulation.running(every_s=0.1, speed=SPEED):
            yield Site(cluster, tmp_path)


@pytest.mark.parametrize(
    ("number", "moment"),
    [(2, "after"), *(pytest.param(*one, marks=pytest.mark.soak) for one in REST)],
)
def test_a_plan_whose_server_was_killed_failed_at_its_step_and_is_completed(site, number, moment):
    with served(site.folder, "--insecure-local") as (process, facts):
        site.plan(facts)
        site.killed_at(process, facts, number, moment)
    with served(site.folder, "--insecure-local") as (_, facts):
        approval = site.settled(facts)
        assert approval["state"] == "failed"
        assert f"failed at step {number} of " in approval["reason"]
        assert "stopped while it was being applied; the fleet is now prefill" in approval["reason"]
        assert site.moved(facts, "apply") == "applied"
    assert site.counts() == site.planned
    assert site.generations() == site.planned  # one change per replica: no step was applied twice


@pytest.mark.soak
def test_a_plan_that_got_there_without_its_server_is_finished(site):
    with served(site.folder, "--insecure-local") as (process, facts):
        site.plan(facts)
        starts = sum(site.planned.values()) - 2
        site.killed_at(process, facts, starts, "after")
    site.await_pods()
    with served(site.folder, "--insecure-local") as (_, facts):
        approval = site.settled(facts)
        assert approval["state"] == "applied"
        assert (
            "the service stopped meanwhile; the fleet is where it was to be" in (approval["reason"])
        )
    assert site.generations() == site.planned


def test_a_rollback_whose_server_was_killed_stopped_at_its_step_and_is_completed(site):
    with served(site.folder, "--insecure-local") as (process, facts):
        site.plan(facts)
        assert site.moved(facts, "apply") == "applied"
        site.observe(facts)
        site.killed_at(process, facts, 2, "after", "rollback")
    with served(site.folder, "--insecure-local") as (_, facts):
        site.observe(facts)
        approval = site.settled(facts)
        assert approval["state"] == "failed"
        assert approval["reason"].startswith("the rollback stopped: failed at step ")
        assert site.moved(facts, "rollback") == "rolled_back"
    assert site.counts() == {"prefill": 1, "decode": 1}
    assert site.generations() == {name: 2 * n - 1 for name, n in site.planned.items()}

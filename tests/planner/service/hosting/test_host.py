"""Deployments that are added to a running server, and retired from it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from planner import rollout
from planner.domain.errors import NotLeaderError, SpecError, UnknownDeploymentError
from planner.service.api import Service, create_app
from planner.service.api.examples import FLEET, MINUTES, SPEC
from planner.service.election.elector import Elector, NoElection
from planner.service.election.leadership import Leadership
from planner.service.hosting.host import Host, Shared
from planner.service.loop.scheduler import make_scheduler
from planner.service.security.access import AccessRole
from planner.service.security.tokens import hash_of, new_token
from planner.service.settings import read_settings
from planner.service.spec.versions import SpecReader
from planner.service.store import open_store
from planner.service.store.profiles import StoredProfiles
from planner.service.telemetry.metrics import Metrics
from planner.service.telemetry.notifying import Notifier
from tests.planner.service.clients import Client
from tests.planner.service.election.conftest import TIMING
from tests.planner.service.examples import NOON
from tests.planner.service.imagined import make_deployment

MILL = {**SPEC, "name": "mill"}
HERE = "/v1/deployments/mill"


class Process:
    """A server's process on a store, without a socket; its ticks are not begun."""

    def __init__(self, store, folder):
        metrics = Metrics()
        settings = read_settings({"HOME": str(folder), "POOLWISE_WATCH_INTERVAL_S": "0"})
        self.metrics = metrics
        self.host = Host(
            Shared(
                store=store,
                settings=settings,
                reader=SpecReader(profiles=StoredProfiles(access=store.access)),
                election=NoElection(),
                lease="poolwise",
                metrics=metrics,
                scheduler=make_scheduler(metrics),
                notifier=Notifier((), metrics.registry),
            )
        )
        self.host.shared.scheduler.start(paused=True)
        app = create_app(
            Service(
                registry=self.host.registry,
                store=store,
                lease="poolwise",
                host=self.host,
                metrics=metrics,
                clock=lambda: datetime.now(UTC),
                answer_within_s=600,  # on a busy machine a plan is to be no job
            )
        )
        self.clients = {role: Client(app, token_of(store, role)) for role in AccessRole}

    @property
    def admin(self):
        return self.clients[AccessRole.ADMIN]

    def jobs(self):
        return {str(job.id) for job in self.host.shared.scheduler.get_jobs()}

    def names(self):
        return [d["name"] for d in self.admin.get("/v1/deployments").json()["deployments"]]

    def end(self):
        self.host.stop()
        self.host.shared.scheduler.shutdown()


def token_of(store, role):
    token = new_token()
    name = f"{role}-{hash_of(token)[:8]}"
    store.tokens().create(hash_of(token), name=name, role=role, at=datetime.now(UTC), by="test")
    return token


@pytest.fixture
def begin(tmp_path):
    """Begins processes on one store."""
    store, begun = open_store(f"sqlite:///{tmp_path / 'poolwise.db'}"), []

    def process():
        begun.append(Process(store, tmp_path))
        return begun[-1]

    yield process
    for one in begun:
        one.end()
    store.close()


def test_an_admin_adds_a_deployment_and_nobody_else_may(begin):
    server = begin()
    assert server.names() == []
    for role in (AccessRole.VIEWER, AccessRole.OPERATOR, AccessRole.APPROVER):
        assert server.clients[role].put(HERE, MILL).status_code == 403, role
    assert server.admin.put(HERE, SPEC).status_code == 422  # it is demo's
    broken = server.admin.put(HERE, {**MILL, "slos": []})
    assert (broken.status_code, "slos" in broken.text) == (422, True)
    assert server.names() == []

    added = server.admin.put(HERE, MILL)
    assert (added.status_code, added.json()["version"]) == (201, 1), added.text
    assert server.names() == ["mill"]
    assert {"slow:mill", "tidy:mill"} <= server.jobs()
    assert 'poolwise_loop_interval_seconds{deployment="mill"}' in server.metrics.text().decode()
    promised = {**MILL, "slos": [{**SPEC["slos"][0], "ttft_s": 0.45}]}
    again = server.clients[AccessRole.APPROVER].put(HERE, promised)
    assert (again.status_code, again.json()["version"]) == (200, 2), again.text


def test_a_retired_deployment_is_history_and_comes_back_by_being_put(begin):
    server = begin()
    server.admin.put(HERE, MILL)
    server.admin.put(f"{HERE}/fleet", FLEET)
    made = server.admin.post("/v1/plans", {"history": MINUTES}).json()
    assert made["approval"]["state"] == "pending"
    assert server.clients[AccessRole.APPROVER].delete(HERE).status_code == 403
    assert server.admin.delete(HERE).status_code == 204
    assert (server.names(), server.jobs()) == ([], set())
    assert 'deployment="mill"' not in server.metrics.text().decode()
    assert server.admin.get(f"{HERE}/fleet").status_code == 404
    kept = server.admin.get(f"/v1/plans/{made['plan_id']}").json()["approval"]
    assert (kept["state"], kept["reason"]) == ("superseded", "deployment mill was retired")
    refused = server.admin.post(f"/v1/plans/{made['plan_id']}/approve")
    assert (refused.status_code, refused.json()["title"]) == (404, "Unknown deployment")
    assert server.admin.delete(HERE).status_code == 404

    assert server.admin.put(HERE, MILL).status_code == 201
    assert server.admin.get(f"{HERE}/fleet").status_code == 200
    done = [entry["action"] for entry in server.admin.get("/v1/audit?limit=99").json()["lines"]]
    assert [a for a in done if a.startswith("deployment.")] == [
        *("deployment.add", "deployment.retire", "deployment.add")
    ]


def test_other_processes_follow_and_a_restart_serves_what_was_added(begin):
    first, second = begin(), begin()
    first.admin.put(HERE, MILL)
    assert second.names() == []
    second.host.follow()
    assert second.names() == ["mill"]
    tight = {**MILL, "slos": [{**SPEC["slos"][0], "ttft_s": 0.45}]}
    second.admin.put(HERE, tight)
    first.host.follow()
    assert first.admin.get(HERE).json()["spec"]["slos"][0]["ttft_s"] == 0.45
    restarted = begin()
    restarted.host.follow()
    assert restarted.admin.get(HERE).json()["version"] == 2
    second.admin.delete(HERE)
    first.host.follow()
    assert first.names() == []
    after = begin()
    after.host.follow()
    assert after.names() == []


def test_a_spec_that_cannot_be_read_any_more_keeps_no_other_from_being_served(begin):
    server = begin()
    server.admin.put(HERE, MILL)
    server.admin.put("/v1/deployments/forge", {**SPEC, "name": "forge"})
    read = SpecReader.read

    class Older(SpecReader):
        """A version that does not know something in the spec of mill."""

        def read(self, content, *, allow_estimates):
            if content["name"] == "mill":
                raise SpecError("spec: unknown field")
            return read(self, content, allow_estimates=allow_estimates)

    older = begin()
    reader = Older(profiles=older.host.shared.reader.profiles)
    older.host.shared = replace(older.host.shared, reader=reader)
    older.host.follow()
    assert older.names() == ["forge"]


def promising(ttft_s):
    return {**MILL, "slos": [{**SPEC["slos"][0], "ttft_s": ttft_s}]}


def put_late(served, content):
    """A spec that was on its way when its deployment was retired."""
    served.specs.put(content, allow_estimates=False, by="bob", at=datetime.now(UTC))


def test_a_spec_that_comes_while_its_deployment_is_retired_has_nothing_tick(begin):
    server, other = begin(), begin()
    server.admin.put(HERE, MILL)
    other.host.follow()
    gone, gone_there = server.host.registry.get("mill"), other.host.registry.get("mill")
    assert server.admin.delete(HERE).status_code == 204
    for served in (gone, gone_there):  # one process has followed, the other has not yet
        with pytest.raises(UnknownDeploymentError, match="retired meanwhile"):
            put_late(served, promising(0.45))
    assert not any("mill" in job for job in server.jobs())
    assert server.admin.put(HERE, promising(0.6)).status_code == 201
    gone.specs.follow()  # a tick of the one that is gone takes over nothing
    job = server.host.shared.scheduler.get_job("slow:mill")
    assert server.host.registry.get("mill").leadership in job.func.args


def test_of_two_processes_that_are_told_of_one_target_at_once_one_refuses(begin):
    one, other = begin(), begin()
    local = {"target": {"kind": "local"}}
    assert one.admin.put(HERE, {**MILL, **local}).status_code == 201
    assert other.names() == []  # it has not heard of it
    late = other.admin.put("/v1/deployments/forge", {**SPEC, "name": "forge", **local})
    assert late.status_code == 422
    assert "is steered by deployment mill already" in late.json()["detail"]
    other.host.follow()
    assert other.names() == ["mill"]
    assert one.admin.delete(HERE).status_code == 204
    other.host.follow()
    again = other.admin.put("/v1/deployments/forge", {**SPEC, "name": "forge", **local})
    assert (again.status_code, again.json()["version"]) == (201, 1), again.text


def test_a_plan_that_moves_the_fleet_keeps_its_deployment_from_being_retired(begin):
    server = begin()
    server.admin.put(HERE, MILL)
    server.admin.put(f"{HERE}/fleet", FLEET)
    plan = server.admin.post("/v1/plans", {"history": MINUTES}).json()["plan_id"]
    server.admin.post(f"/v1/plans/{plan}/approve")
    store = server.host.shared.store
    store.change_approval(
        plan,
        lambda a: rollout.begin(a, by="ann", at=datetime.now(UTC)),
        action="plan.begin",
    )
    refused = server.admin.delete(HERE)
    assert refused.status_code == 409
    assert f"plan {plan} of mill is applying" in refused.json()["detail"]
    assert server.names() == ["mill"]


def test_of_two_servers_with_other_specs_only_the_later_one_writes(tmp_path):
    deployment = make_deployment(tmp_path)
    store = deployment.store
    try:
        own, shared = (
            Elector(store.lease(name), store.lease(name), identity=who, timing=TIMING)
            for name, who in (("shop", "alone"), ("poolwise", "several"))
        )
        for elector in (own, shared):
            elector.step()
        alone = Leadership(own, deployment, lambda *_: deployment.actuator, lease="shop")
        several = Leadership(shared, deployment, lambda *_: deployment.actuator, lease="poolwise")
        first = alone.leading()
        second = several.leading()
        assert (first is None, second is None) == (False, False)
        with pytest.raises(NotLeaderError, match="several leads since"):
            first.store.put_fleet("shop", deployment.actuator.fleet, received_at=NOON, actor="a")
        second.store.put_fleet("shop", deployment.actuator.fleet, received_at=NOON, actor="b")
        several.end()
        assert several.leading() is None
        assert not second.leads()
    finally:
        store.close()


def test_nobody_loosens_who_approves_through_a_process_that_has_not_followed_yet(begin):
    first, second = begin(), begin()
    assert first.admin.put(HERE, MILL).status_code == 201
    second.host.follow()
    strict = {**MILL, "approval": {"requester_may_approve": False}}
    assert first.admin.put(HERE, strict).json()["version"] == 2
    refused = second.clients[AccessRole.APPROVER].put(HERE, MILL)
    assert (refused.status_code, "by admins only" in refused.text) == (403, True)
    assert first.admin.get(HERE).json()["version"] == 2

"""A spec whose target is a cluster: checked, planned for, applied to the fake API server."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from planner.domain.errors import SpecError
from planner.domain.fleet import Role
from planner.domain.rollout import ApprovalState
from planner.service.cli.main import app
from planner.service.kubernetes_target import kubernetes_actuator
from planner.service.loop import Outcome, tick
from planner.service.spec_file import read_spec
from tests.actuators.kubernetes.rig import deployment
from tests.kubernetes import FakeCluster
from tests.kubernetes.simulation import ControllerSimulation
from tests.planner.service.examples import NOON, history, write_spec
from tests.planner.service.imagined import BUSY, make_deployment, observe

OBJECTS = [
    {"role": "prefill", "kind": "Deployment", "name": "prefill"},
    {"role": "decode", "kind": "Deployment", "name": "decode"},
]


@pytest.fixture
def cluster():
    with FakeCluster(crds="all") as fake:
        fake.load(deployment("prefill", 1))
        fake.load(deployment("decode", 1))
        yield fake


@pytest.fixture
def target(cluster, tmp_path):
    return {
        "kind": "kubernetes",
        "kubeconfig": str(cluster.kubeconfig(tmp_path / "config")),
        "objects": OBJECTS,
        "progress_deadline_s": 600,
    }


def simulated(cluster, *, gpus=None):
    simulation = ControllerSimulation(cluster, startup_s=60.0, drain_s=10.0)
    if gpus is not None:
        simulation.gpus("NVIDIA-H100-80GB-HBM3", gpus)
    simulation.step()
    simulation.step(120.0)
    cluster.forget_calls()
    return simulation


def on_the_clock_of(simulation, actuator):
    """Waiting moves the cluster's clock instead of ours."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds
        simulation.step(seconds)

    return replace(actuator, clock=lambda: now[0], sleep=sleep, poll_s=10.0)


def test_validate_shows_the_cluster_and_changes_nothing(cluster, target, tmp_path):
    simulated(cluster)
    path = write_spec(tmp_path, target=target)
    shown = CliRunner().invoke(app, ["validate", "--spec", str(path), "--json"])
    assert shown.exit_code == 0, shown.output
    pools = json.loads(shown.stdout)["cluster"]
    assert [(p["count"], p["ready"], p["problems"]) for p in pools] == [
        ("Deployment prefill", 1, []),
        ("Deployment decode", 1, []),
    ]
    assert cluster.writes == []
    table = CliRunner().invoke(app, ["validate", "--spec", str(path)])
    assert table.exit_code == 0
    assert "Deployment decode" in table.stdout


def test_validate_names_what_stands_in_the_way(cluster, target, tmp_path):
    cluster.create(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "auto", "namespace": "default"},
            "spec": {
                "maxReplicas": 4,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "decode"},
            },
        }
    )
    simulated(cluster)
    path = write_spec(tmp_path, target=target)
    refused = CliRunner().invoke(app, ["validate", "--spec", str(path), "--json"])
    assert refused.exit_code == 1
    assert "scaled by HorizontalPodAutoscaler auto" in refused.stdout
    assert json.loads(refused.stdout)["valid"] is False


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ([{"role": "decode", "kind": "RayService", "name": "x"}], "RayService cannot be steered"),
        ([{"role": "decode", "kind": "DynamoGraphDeployment", "name": "x"}], "needs `part`"),
        ([{"role": "decode", "kind": "Deployment", "name": "x", "part": "y"}], "has no parts"),
        ([{"role": "cook", "kind": "Deployment", "name": "x"}], "'prefill', 'decode'"),
    ],
)
def test_objects_that_cannot_be_are_refused_with_their_line(tmp_path, objects, said):
    path = write_spec(tmp_path, target={"kind": "kubernetes", "objects": objects})
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    assert said in str(caught.value)
    assert "spec.yaml:" in str(caught.value)


def test_objects_go_with_a_cluster_only(tmp_path):
    path = write_spec(tmp_path, target={"kind": "dry_run", "objects": OBJECTS})
    with pytest.raises(SpecError, match="objects go with kind kubernetes, not with dry_run"):
        read_spec(path)


def busy(tmp_path, simulation, target, **changes):
    made = make_deployment(tmp_path, loop={"mode": "auto"}, target=target, **changes)
    actuator = on_the_clock_of(simulation, kubernetes_actuator(made.spec))
    made = replace(made, actuator=actuator)
    observe(made, history(**BUSY))
    return made


def test_the_loop_grows_a_cluster(cluster, target, tmp_path):
    simulation = simulated(cluster)
    service = busy(tmp_path, simulation, target)
    try:
        report = tick(service, now=NOON)
        assert report.outcome is Outcome.APPLIED, report.reason
        fleet = service.actuator.read_fleet()
        wanted = {p.shape.role: p.replicas for p in report.decision.plan.windows[0].pools}
        for role in (Role.PREFILL, Role.DECODE):
            assert fleet.replicas(role) == wanted[role]
        assert fleet.replicas(Role.PREFILL) > 1
    finally:
        service.store.close()


def test_what_could_not_be_had_is_left_out_of_the_next_plan_for_a_while(cluster, target, tmp_path):
    simulation = simulated(cluster, gpus=3)
    service = busy(tmp_path, simulation, target)
    try:
        report = tick(service, now=NOON)
        assert report.outcome is Outcome.FAILED
        assert "found no cpu within 600 s" in report.reason
        (out,) = service.store.stock_outs("shop", at=NOON)
        later = out.until_at + timedelta(seconds=1)
        assert service.plannable(now=NOON).accelerators[0].inventory == 3
        assert service.plannable(now=later).accelerators[0].inventory == 16
    finally:
        service.store.close()


def with_a_stuck_pod(cluster, simulation):
    """One of the prefill pods that come never becomes ready."""
    known = {pod["metadata"]["name"] for pod in cluster.objects("pods", "default")}
    chosen = []

    def stuck(pod):
        name = pod["metadata"]["name"]
        if name not in known and pod["metadata"]["labels"]["app"] == "prefill" and not chosen:
            chosen.append(name)
        return name in chosen

    simulation.stuck = stuck
    return chosen


def test_a_step_that_misses_its_deadline_is_taken_back_and_what_serves_stays(
    cluster, target, tmp_path
):
    simulation = simulated(cluster)
    service = busy(tmp_path, simulation, target)
    stuck = with_a_stuck_pod(cluster, simulation)
    try:
        report = tick(service, now=NOON)
        (record,) = service.store.plans("shop", limit=5)
        wanted = record.plan.windows[0].replicas(Role.PREFILL)
        for said in (report.reason, record.approval.reason):
            assert "failed at step" in said
            assert "replicas are ready after 600 s" in said
        assert report.reason.endswith("it was rolled back")
        assert record.approval.state is ApprovalState.ROLLED_BACK
        fleet = service.actuator.read_fleet()
        prefill = next(p for p in fleet.pools if p.shape.role is Role.PREFILL)
        assert (prefill.ready, prefill.starting) == (wanted - 1, 0)
        assert wanted > 2
        simulation.step(60.0)
        assert stuck[0] not in {p["metadata"]["name"] for p in cluster.objects("pods", "default")}
    finally:
        service.store.close()


def test_without_that_policy_the_pod_that_does_not_come_stays(cluster, target, tmp_path):
    simulation = simulated(cluster)
    service = busy(tmp_path, simulation, target, guards={"roll_back_late_plans": False})
    stuck = with_a_stuck_pod(cluster, simulation)
    try:
        report = tick(service, now=NOON)
        (record,) = service.store.plans("shop", limit=5)
        assert record.approval.state is ApprovalState.FAILED
        assert record.approval.reason == report.reason
        simulation.step(60.0)
        assert stuck[0] in {p["metadata"]["name"] for p in cluster.objects("pods", "default")}
    finally:
        service.store.close()

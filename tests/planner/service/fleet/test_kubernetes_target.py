"""A spec whose target is a cluster: checked, planned for, applied to the fake API server."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from planner.domain.errors import InputError, SpecError
from planner.domain.fleet import Role
from planner.domain.rollout import ApprovalState
from planner.service.cli.main import app
from planner.service.election.elector import NoElection
from planner.service.election.leadership import Leadership
from planner.service.fleet.kubernetes_target import kubernetes_actuator
from planner.service.loop.scheduler import look_at_target, tick_as_leader
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.spec.file import read_spec
from planner.service.telemetry.metrics import Metrics
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


def broken(cluster):
    """An autoscaler on prefill, and decode under another name."""
    cluster.create(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "auto", "namespace": "default"},
            "spec": {
                "maxReplicas": 4,
                "scaleTargetRef": {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": "prefill",
                },
            },
        }
    )
    return [OBJECTS[0], {**OBJECTS[1], "name": "nobody"}]


def test_validate_names_all_broken_targets_in_one_go(cluster, target, tmp_path):
    objects = broken(cluster)
    simulated(cluster)
    path = write_spec(tmp_path, target={**target, "objects": objects})
    refused = CliRunner().invoke(app, ["validate", "--spec", str(path), "--json"])
    assert refused.exit_code == 1
    facts = json.loads(refused.stdout)
    assert len(facts["problems"]) == 2
    assert "scaled by HorizontalPodAutoscaler auto" in facts["problems"][0]
    assert "Deployment nobody: the API server answered 404" in facts["problems"][1]
    assert [(p["ready"], len(p["problems"])) for p in facts["cluster"]] == [(1, 1), (None, 1)]

    shown = CliRunner().invoke(app, ["validate", "--spec", str(path)])
    assert shown.exit_code == 1
    assert "HorizontalPodAutoscaler auto" in str(shown.exception or shown.output)
    assert "Deployment nobody" in str(shown.exception or shown.output)


def test_validate_names_a_pool_without_an_object_beside_another_s_problem(
    cluster, target, tmp_path
):
    objects = broken(cluster)[:1]
    path = write_spec(tmp_path, target={**target, "objects": objects})
    refused = CliRunner().invoke(app, ["validate", "--spec", str(path), "--json"])
    problems = json.loads(refused.stdout)["problems"]
    assert "scaled by HorizontalPodAutoscaler auto" in problems[0]
    assert "pool decode:cpu:tp1 needs exactly one object that holds its count" in problems[1]


def found_by_labels(cluster, target):
    """The same two Deployments, to be found instead of listed."""
    for role in ("prefill", "decode"):
        one = cluster.get("deployments", role)
        one["metadata"]["labels"] = {"team": "chat", "llm-d.ai/role": role}
        one["spec"]["template"]["spec"].pop("nodeSelector")
        cluster.update(one)
    given = {key: value for key, value in target.items() if key != "objects"}
    return {**given, "selector": "team=chat"}


def test_validate_shows_what_a_selector_found(cluster, target, tmp_path):
    target = found_by_labels(cluster, target)
    simulated(cluster)
    path = write_spec(tmp_path, target=target)
    shown = CliRunner().invoke(app, ["validate", "--spec", str(path), "--json"])
    assert shown.exit_code == 0, shown.output
    assert [
        (p["count"], p["found_by"], p["ready"]) for p in json.loads(shown.stdout)["cluster"]
    ] == [
        ("Deployment prefill", "role by llm-d.ai/role", 1),
        ("Deployment decode", "role by llm-d.ai/role", 1),
    ]
    table = CliRunner().invoke(app, ["validate", "--spec", str(path)])
    assert table.exit_code == 0
    assert "role by llm-d.ai/role" in table.stdout


def test_what_a_selector_found_is_steered(cluster, target, tmp_path):
    target = found_by_labels(cluster, target)
    simulation = simulated(cluster)
    service = busy(tmp_path, simulation, target)
    try:
        assert tick(service, now=NOON).outcome is Outcome.APPLIED
        assert service.actuator.read_fleet().replicas(Role.PREFILL) > 1
    finally:
        service.store.close()


def test_a_selector_that_leaves_something_open_is_refused(cluster, target, tmp_path):
    target = found_by_labels(cluster, target)
    one = cluster.get("deployments", "decode")
    del one["metadata"]["labels"]["llm-d.ai/role"]
    cluster.update(one)
    path = write_spec(tmp_path, target=target)
    with pytest.raises(InputError, match=r"Deployment decode .* lacks the label poolwise\.io/role"):
        kubernetes_actuator(read_spec(path))
    refused = CliRunner().invoke(app, ["validate", "--spec", str(path), "--json"])
    assert refused.exit_code == 1
    (problem,) = json.loads(refused.stdout)["problems"]
    assert "Deployment decode matches target.selector, but lacks the label" in problem


def test_objects_and_a_selector_are_not_given_together(tmp_path):
    both = {"kind": "kubernetes", "objects": OBJECTS, "selector": "team=chat"}
    with pytest.raises(SpecError, match="give objects or selector, not both"):
        read_spec(write_spec(tmp_path, target=both))
    with pytest.raises(SpecError, match="a selector goes with kind kubernetes, not with dry_run"):
        read_spec(write_spec(tmp_path, target={"kind": "dry_run", "selector": "team=chat"}))


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ([{"role": "decode", "kind": "RayService", "name": "x"}], "RayService cannot be steered"),
        ([{"role": "decode", "kind": "DynamoGraphDeployment", "name": "x"}], "needs `part`"),
        ([{"role": "decode", "kind": "Deployment", "name": "x", "part": "y"}], "has no parts"),
        (
            [{"role": "decode", "kind": "LLMInferenceService", "name": "x", "part": "y"}],
            "is prefill or decode, not y",
        ),
        ([{"role": "cook", "kind": "Deployment", "name": "x"}], "'prefill', 'decode'"),
    ],
)
def test_objects_that_cannot_be_are_refused_with_their_line(tmp_path, objects, said):
    path = write_spec(tmp_path, target={"kind": "kubernetes", "objects": objects})
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    assert said in str(caught.value)
    assert "spec.yaml:" in str(caught.value)


def test_objects_do_not_go_with_local_processes(tmp_path):
    path = write_spec(tmp_path, target={"kind": "local", "objects": OBJECTS})
    with pytest.raises(SpecError, match="do not go with kind local"):
        read_spec(path)


@pytest.mark.parametrize("kind", ["dry_run", "metrics", "kubernetes"])
def test_objects_are_in_the_targets_namespace_unless_they_say_another(tmp_path, kind):
    objects = [OBJECTS[0], OBJECTS[1] | {"namespace": "other"}]
    target = {"kind": kind, "namespace": "serving", "objects": objects}
    cluster = read_spec(write_spec(tmp_path, target=target)).cluster
    assert [one.namespace for one in cluster.located] == ["serving", "other"]


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


def test_a_stock_out_is_planned_around_at_once(cluster, target, tmp_path):
    simulation = simulated(cluster, gpus=3)
    service = busy(tmp_path, simulation, target)
    try:
        leadership = Leadership(NoElection(), service, lambda _store, _reign: service.actuator)
        tick_as_leader(leadership, Metrics())
        second, first = service.store.decisions("shop", limit=9)
        assert first.outcome == "failed"
        assert second.plan_id != first.plan_id
        assert "no more than 3 cpu could be had" in second.reason
    finally:
        service.store.close()


def test_a_cluster_that_cannot_be_read_is_told_at_the_start(cluster, target, tmp_path, caplog):
    cluster.delete("deployments", "decode")
    service = busy(tmp_path, simulated(cluster), target)
    try:
        look_at_target(service)
        (said,) = [r.getMessage() for r in caplog.records if r.name == "poolwise.loop"]
        assert "deployment=shop its fleet cannot be read: could not" in said
        assert "404" in said
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

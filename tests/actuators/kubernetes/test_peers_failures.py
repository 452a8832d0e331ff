"""Failures that NVIDIA Dynamo's planner was reported for, reproduced here, and absent."""

import pytest

from actuators.actuator import carry_out
from actuators.kubernetes.draining import cut_short
from planner.domain.errors import ApplyError
from planner.domain.fleet import Role
from planner.domain.rollout import StepKind
from planner.domain.target import ClusterTarget
from tests.actuators.kubernetes.rig import DECODE, PREFILL, counted, deployment, grown, rigged


def sleeping(command):
    return {"preStop": {"exec": {"command": ["sh", "-c", command]}}}


BOTH = (
    (StepKind.START, PREFILL),
    (StepKind.ROUTE, PREFILL),
    (StepKind.START, DECODE),
    (StepKind.ROUTE, DECODE),
)


def test_14194_the_first_target_is_not_written_before_the_second_is_known_to_be_valid():
    with rigged() as rig:
        actuator = rig.actuator()
        diff = grown(actuator, *BOTH)
        rig.cluster.webhook("limits", lambda r: "at most 2" if "decode" in str(r) else None)
        with pytest.raises(ApplyError, match=r"nothing was touched.*at most 2"):
            carry_out(actuator, diff)
        assert rig.cluster.writes == []
        assert (rig.replicas("prefill"), rig.replicas("decode")) == (1, 2)


def test_10525_success_is_not_told_before_the_replica_was_seen():
    with rigged() as rig:
        actuator = rig.actuator()
        diff = grown(actuator, *BOTH)
        rig.simulation.stuck = lambda pod: pod["metadata"]["labels"]["app"] == "prefill"
        with pytest.raises(ApplyError, match=r"failed at step 1 of 4 .* replicas are ready after"):
            carry_out(actuator, diff)
        assert rig.replicas("decode") == 2  # what followed was not begun


def test_13538_after_a_404_on_scale_no_parent_is_written_instead():
    with rigged() as rig:
        actuator = rig.actuator()
        diff = grown(actuator, *BOTH)
        rig.cluster.fault(resource="deployments", subresource="scale", verb="patch", status=404)
        with pytest.raises(ApplyError, match=r"nothing was touched.*404"):
            carry_out(actuator, diff)
        assert rig.cluster.writes == []
        rig.cluster.heal()
        rig.cluster.fault(
            resource="deployments", subresource="scale", verb="patch", dry_run=False, status=404
        )
        again = rig.actuator()
        with pytest.raises(ApplyError, match=r"failed at step 1 of 4.*404"):
            carry_out(again, grown(again, *BOTH))
        assert {w.subresource for w in rig.cluster.writes} == {"scale"}


def test_4420_a_count_that_a_person_edited_is_left_and_told():
    with rigged() as rig:
        actuator = rig.actuator()
        diff = grown(actuator, *BOTH)

        def by_hand(_call):
            rig.cluster.scale("deployments", "decode", 7, manager="kubectl")

        rig.cluster.fault(verb="patch", resource="deployments", dry_run=False, hook=by_hand)
        with pytest.raises(ApplyError, match=r"failed at step 1 of 4.* has 7 replicas, not 2"):
            carry_out(actuator, diff)
        assert rig.replicas("decode") == 7
        assert [w.name for w in rig.cluster.writes if w.manager == "poolwise"] == ["prefill"]


def test_4420_a_child_of_a_graph_is_no_target():
    pod = {"containers": [{"name": "engine", "image": "vllm"}]}
    with rigged() as rig:
        rig.cluster.create(
            {
                "apiVersion": "nvidia.com/v1beta1",
                "kind": "DynamoGraphDeployment",
                "metadata": {"name": "chat", "namespace": "default"},
                "spec": {
                    "components": [{"name": "decode", "replicas": 2, "podTemplate": {"spec": pod}}]
                },
            }
        )
        rig.simulation.step(200.0)
        rig.objects = (counted(Role.PREFILL, "prefill"), counted(Role.DECODE, "chat-decode"))
        actuator = rig.actuator()
        diff = grown(actuator, (StepKind.START, DECODE))
        rig.cluster.forget_calls()
        with pytest.raises(ApplyError, match="belongs to DynamoGraphDeployment chat"):
            carry_out(actuator, diff)
        assert rig.cluster.writes == []


@pytest.mark.parametrize(
    ("shutdown_s", "grace_s", "said"),
    [(60, 30, "may take 60 s: make the first larger"), (0, 30, "give vLLM --shutdown-timeout")],
)
def test_13559_a_scale_down_that_would_end_running_requests_is_refused(shutdown_s, grace_s, said):
    with rigged() as rig:
        rig.cluster.delete("deployments", "decode")
        rig.simulation.step(300.0)
        text = deployment("decode", 2, shutdown_s=shutdown_s)
        rig.cluster.load(text.replace("Seconds: 130", f"Seconds: {grace_s}"))
        rig.simulation.step(200.0)
        rig.simulation.step(200.0)
        rig.target = ClusterTarget(progress_deadline_s=600.0)
        actuator = rig.actuator()
        diff = grown(actuator, (StepKind.DRAIN, DECODE), (StepKind.STOP, DECODE))
        rig.cluster.forget_calls()
        with pytest.raises(ApplyError, match=said):
            carry_out(actuator, diff)
        assert rig.cluster.writes == []


def test_13559_a_drain_after_starts_of_the_same_pool_is_looked_at_too():
    """Though the count never falls below where it began, a pod that serves may be told to end."""
    with rigged() as rig:
        rig.target = ClusterTarget(drain_s=200.0)
        actuator = rig.actuator()
        diff = grown(actuator, (StepKind.START, DECODE), (StepKind.DRAIN, DECODE))
        with pytest.raises(ApplyError, match=r"nothing was touched.*target\.drain_s asks for 200"):
            carry_out(actuator, diff)
        assert rig.cluster.writes == []


@pytest.mark.parametrize(
    ("containers", "grace_s", "drains"),
    [
        ([{"args": ["--shutdown-timeout=60"]}], 90, True),
        ([{"args": ["--shutdown-timeout=60"]}], 61, True),
        ([{"args": ["--shutdown-timeout=60"]}], 60, False),  # it has to end within it
        ([{"args": ["--shutdown-timeout=5"]}], 90, False),  # as long as Dynamo's planner gave
        ([{"args": ["--shutdown-timeout=0"], "lifecycle": sleeping("sleep 5")}], 90, False),
        ([{"args": ["--shutdown-timeout=0"], "lifecycle": sleeping("sleep 40")}], 90, True),
        ([{"args": ["--shutdown-timeout=60", "--shutdown-timeout=1"]}], 90, False),
        ([{"args": ["serve"]}, {"lifecycle": sleeping("sleep 5")}], 90, False),  # a sidecar's
        ([{"args": ["serve"], "lifecycle": sleeping("sleep 5")}], 90, False),
        ([{"args": ["--shutdown-timeout=20"], "lifecycle": sleeping("sleep 2m")}], 130, False),
        ([{"args": ["--shutdown-timeout=20"], "lifecycle": sleeping("sleep 2m")}], 150, True),
    ],
)
def test_13559_only_an_engine_that_drains_passes(containers, grace_s, drains):
    pod = {"spec": {"terminationGracePeriodSeconds": grace_s, "containers": containers}}
    assert (cut_short(pod, least_s=20.0) == "") is drains

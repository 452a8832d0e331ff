"""Two Poolwise with a database each at one object: the second one leaves it, and says why."""

from dataclasses import replace

import pytest

from actuators.actuator import carry_out
from planner.domain.errors import ApplyError
from planner.domain.fleet import Role
from planner.domain.rollout import StepKind
from tests.actuators.kubernetes.rig import DECODE, PREFILL, counted, grown, rigged
from tests.actuators.kubernetes.test_kinds import CASES, prepared
from tests.kubernetes import FakeCluster

GROW = (StepKind.START, PREFILL), (StepKind.START, DECODE)


def apply_as(rig, instance, *steps):
    actuator = rig.actuator(instance=instance)
    carry_out(actuator, grown(actuator, *(steps or GROW)))


@pytest.mark.parametrize("case", ["Deployment", *sorted(CASES)])
def test_what_another_instance_scales_is_left_and_said(case):
    objects, targets = CASES.get(case, ([], ()))
    with FakeCluster(crds="all") as cluster:
        if case == "Deployment":
            with rigged() as rig:
                check(rig, rig.cluster)
        else:
            check(prepared(cluster, objects, targets), cluster)


def check(rig, cluster):
    apply_as(rig, "first")
    apply_as(rig, "first")  # after a restart, or another replica with the same database
    rig.simulation.step(300.0)
    cluster.forget_calls()
    with pytest.raises(ApplyError, match="nothing was touched") as caught:
        apply_as(rig, "second")
    said = str(caught.value)
    assert said.count("is scaled by another Poolwise (poolwise-first, last at 20") == 2
    assert "this one is poolwise-second: stop that one for good, then write " in said
    assert "target.take_over_from: [poolwise-first] here" in said
    assert cluster.writes == []


def test_an_instance_that_is_to_take_over_does_and_the_other_one_leaves_it_then():
    with rigged() as rig:
        apply_as(rig, "first")
        rig.target = replace(rig.target, take_over_from=("poolwise-first",))
        apply_as(rig, "second")
        rig.target = replace(rig.target, take_over_from=())
        apply_as(rig, "second")
        with pytest.raises(ApplyError, match=r"another Poolwise \(poolwise-second, last at"):
            apply_as(rig, "first")
        assert (rig.replicas("prefill"), rig.replicas("decode")) == (4, 5)


def test_a_count_that_a_person_wrote_last_belongs_to_no_instance():
    with rigged() as rig:
        apply_as(rig, "first")
        for name in ("prefill", "decode"):
            rig.cluster.scale("deployments", name, 1, manager="kubectl")
        rig.simulation.step(300.0)
        apply_as(rig, "second")
        assert rig.replicas("prefill") == 2


def test_what_was_written_before_instances_had_names_is_taken():
    with rigged() as rig:
        actuator = rig.actuator()
        carry_out(actuator, grown(actuator, *GROW))
        apply_as(rig, "first")
        with pytest.raises(ApplyError, match="poolwise-first"):
            apply_as(rig, "second")


def test_each_part_of_an_object_has_its_own_holder():
    objects, targets = CASES["DynamoGraphDeployment"]
    with FakeCluster(crds="all") as cluster:
        rig = prepared(cluster, objects, targets)
        apply_as(rig, "first", (StepKind.START, PREFILL))
        apply_as(rig, "second", (StepKind.START, DECODE))
        with pytest.raises(ApplyError, match=r"chat \(prefill\) is scaled by .*poolwise-first"):
            apply_as(rig, "second", (StepKind.START, PREFILL))


def test_the_same_component_through_another_version_of_its_kind_is_held_too():
    objects, targets = CASES["DynamoGraphDeployment"]
    older = tuple(
        counted(
            role,
            "chat",
            "DynamoGraphDeployment",
            api_version="nvidia.com/v1alpha1",
            part=role.value,
        )
        for role in (Role.PREFILL, Role.DECODE)
    )
    with FakeCluster(crds="all") as cluster:
        rig = prepared(cluster, objects, targets)
        apply_as(rig, "first")
        rig.objects = older
        with pytest.raises(ApplyError, match="another Poolwise"):
            apply_as(rig, "second")

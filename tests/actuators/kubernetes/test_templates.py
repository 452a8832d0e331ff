"""What the pods of a pool are made of: the same for replicas of one template, wherever they are."""

import copy

import pytest

from actuators.kubernetes.templates import template_of
from tests.actuators.kubernetes.rig import DECODE
from tests.actuators.kubernetes.test_kinds import CASES, prepared
from tests.kubernetes import FakeCluster


@pytest.fixture
def groups():
    """Sets of a leader and a worker each, whose images differ."""
    objects, targets = CASES["LeaderWorkerSet"]
    with FakeCluster(crds="all") as cluster:
        made = copy.deepcopy(objects)
        for one in made:
            group = one["spec"]["leaderWorkerTemplate"]
            group["leaderTemplate"] = copy.deepcopy(group["workerTemplate"])
            group["leaderTemplate"]["spec"]["containers"][0]["image"] = "vllm:leader"
        yield prepared(cluster, made, targets)


def templates(rig):
    actuator = rig.actuator()
    actuator.read_fleet()
    return actuator.templates()[DECODE]


def test_a_group_that_goes_changes_no_template(groups):
    """The next group is told another place, and its newest pod is a worker, not the leader."""
    groups.cluster.scale("leaderworkersets", "decode", 3)
    groups.simulation.step(60.0)
    broken = template_of(groups.cluster.get("pods", "decode-2"))
    worker = template_of(groups.cluster.get("pods", "decode-2-1"))
    assert broken != worker
    assert templates(groups) == {broken, worker}
    groups.cluster.scale("leaderworkersets", "decode", 2)
    for _ in range(3):
        groups.simulation.step(60.0)
    assert templates(groups) == {broken, worker}


def test_a_mended_variable_is_another_template(groups):
    pod = groups.cluster.get("pods", "decode-1")
    mended = copy.deepcopy(pod)
    mended["spec"]["containers"][0]["env"].append({"name": "HF_TOKEN", "value": "x"})
    moved = copy.deepcopy(pod)
    moved["spec"]["containers"][0]["env"][0]["value"] = "decode-7"
    assert template_of(mended) != template_of(pod)
    assert template_of(moved) == template_of(pod)

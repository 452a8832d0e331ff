"""Objects of pools are found by their labels, and what labels leave open is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from actuators.kubernetes.discovery import discover
from planner.domain.errors import PoolwiseError
from planner.domain.fleet import Role
from planner.domain.target import ClusterTarget
from tests.actuators.kubernetes.rig import DECODE, PREFILL, deployment
from tests.actuators.kubernetes.test_kinds import CASES
from tests.kubernetes import FakeCluster
from tests.kubernetes.access import Rule
from tests.kubernetes.simulation import ControllerSimulation

ROOT = Path(__file__).resolve().parents[3]
PART_OF = {"app.kubernetes.io/part-of": "chat"}
CHAT = ClusterTarget(selector="app.kubernetes.io/part-of=chat")
LLM_D = "llm-d.ai/role"
SHAPES = (PREFILL, DECODE)
B200 = replace(DECODE, accelerator="b200")


def labelled(one, **labels):
    """An object with labels more; `role` is llm-d's."""
    named = {{"role": LLM_D}.get(k, f"poolwise.io/{k}"): v for k, v in labels.items()}
    metadata = one["metadata"]
    return {
        **one,
        "metadata": {**metadata, "labels": {**metadata.get("labels", {}), **PART_OF, **named}},
    }


def engine(name, **labels):
    return labelled(yaml.safe_load(deployment(name, 2)), **labels)


def look(*objects, shapes=SHAPES, cluster=CHAT):
    with FakeCluster(crds="all") as fake:
        for one in objects:
            fake.create(one)
        return discover(fake.client(), cluster, shapes)


def names(found):
    return {(t.role, t.accelerator, t.tp): t.label for t, _by in found.found}


def test_pools_are_told_by_labels_placement_and_arguments():
    other = engine("large", role="decode")
    pod = other["spec"]["template"]["spec"]
    pod["nodeSelector"] = {"nvidia.com/gpu.product": "NVIDIA-B200"}
    pod["containers"][0]["args"] += ["--tensor-parallel-size", "8"]
    found = look(
        engine("p", role="prefill"),
        engine("d", role="decode"),
        other,
        yaml.safe_load(deployment("someone-else-s", 1)),
        shapes=(*SHAPES, replace(B200, tp=8), replace(B200, tp=4)),
    )
    assert found.problems == (
        "pool decode:b200:tp4: target.selector app.kubernetes.io/part-of=chat matches no object "
        "of it in namespace default; give its object that label and poolwise.io/role=decode",
    )
    assert names(found) == {
        (Role.PREFILL, "h100", 1): "Deployment p",
        (Role.DECODE, "h100", 1): "Deployment d",
        (Role.DECODE, "b200", 8): "Deployment large",
    }
    assert [by for target, by in found.found if target.name == "large"] == [
        "role by llm-d.ai/role, accelerator by nvidia.com/gpu.product, tp by its engine's arguments"
    ]


SINGLE = {"StatefulSet", "LeaderWorkerSet", "PodClique", "VLLMRuntime"}


@pytest.mark.parametrize("case", sorted(set(CASES) - {"DynamoGraphDeployment v1alpha1"}))
def test_objects_of_every_kind_are_found(case):
    objects, targets = CASES[case]
    with FakeCluster(crds="all") as fake:
        for one in objects:
            role = {"role": one["metadata"]["name"]} if case in SINGLE else {}
            fake.create(labelled(one, **role))
        ControllerSimulation(fake).step()
        if case == "PodCliqueScalingGroup":  # made by the set, which holds no count of a role
            for one in fake.objects("podcliquescalinggroups", "default"):
                role = one["metadata"]["name"].rpartition("-")[2]
                fake.update(labelled(one, role=role))
        found = discover(fake.client(), CHAT, SHAPES)
    assert found.problems == ()
    assert [t.label for t, _by in sorted(found.found, key=lambda f: f[0].role)] == [
        t.label for t in sorted(targets, key=lambda t: t.role)
    ]


def test_a_component_with_an_adapter_is_found_by_its_adapter():
    (graph,), _targets = CASES["DynamoGraphDeployment"]
    components = [{**c, "scalingAdapter": {}} for c in graph["spec"]["components"]]
    frontend = {"name": "Frontend", "type": "frontend", "replicas": 1}
    found = look(labelled({**graph, "spec": {"components": [*components, frontend]}}))
    assert found.problems == ()
    assert set(names(found).values()) == {
        "DynamoGraphDeploymentScalingAdapter chat-prefill",
        "DynamoGraphDeploymentScalingAdapter chat-decode",
    }
    assert found.left_out == (
        "DynamoGraphDeployment chat (Frontend) is left out: it is frontend, no worker",
    )


def test_a_worker_beside_prefill_is_told_by_its_pod_template():
    (graph,), _targets = CASES["DynamoGraphDeployment"]
    prefill, decode = graph["spec"]["components"]
    unclear = {**decode, "name": "workers", "type": "worker"}
    found = look(labelled({**graph, "spec": {"components": [prefill, unclear]}}))
    assert found.problems == (
        "DynamoGraphDeployment chat (workers) matches target.selector, but lacks the label "
        "poolwise.io/role: make it prefill, decode, aggregated, or narrow the selector",
    )
    template = {**decode["podTemplate"], "metadata": {"labels": {"poolwise.io/role": "decode"}}}
    told = {**unclear, "podTemplate": template}
    found = look(labelled({**graph, "spec": {"components": [prefill, told]}}))
    assert found.problems == ()
    assert names(found)[Role.DECODE, "h100", 1] == "DynamoGraphDeployment chat (workers)"


def test_the_example_deployment_is_found():
    folder = ROOT / "deploy" / "examples" / "vllm-pd"
    cluster = ClusterTarget(selector="app.kubernetes.io/name=poolwise")
    with FakeCluster() as fake:
        fake.load((folder / "cell-local.yaml").read_text())
        found = discover(fake.client(), cluster, [replace(s, tp=2) for s in SHAPES])
    assert found.problems == ()
    assert set(names(found).values()) == {
        "Deployment poolwise-local-prefill",
        "Deployment poolwise-local-decode",
    }
    assert found.left_out == (
        "Deployment poolwise-local-router is left out: it is router, no worker",
    )


def test_a_router_is_no_worker_and_what_may_not_be_listed_is_told():
    router = engine("router")
    router["metadata"]["labels"]["app.kubernetes.io/component"] = "router"
    with FakeCluster(crds="all") as fake:
        for one in (engine("p", role="prefill"), engine("d", role="decode"), router):
            fake.create(one)
        token = fake.token_with(Rule(verbs=("list",), groups=("apps",), resources=("deployments",)))
        found = discover(fake.client(token), CHAT, SHAPES)
    assert found.problems == ()
    assert len(found.found) == 2
    assert "Deployment router is left out: it is router, no worker" in found.left_out
    assert "stormservices were not looked at: this account may not list them" in found.left_out


BOTH = (engine("p", role="prefill"), engine("d", role="decode"))


@pytest.mark.parametrize(
    ("objects", "shapes", "said"),
    [
        (
            (engine("x"), engine("d", role="decode")),
            SHAPES,
            "Deployment x matches target.selector, but lacks the label poolwise.io/role: make it "
            "prefill, decode, aggregated, or narrow the selector",
        ),
        (
            (*BOTH, engine("x", role="cook")),
            SHAPES,
            "Deployment x matches target.selector, but its label llm-d.ai/role is cook",
        ),
        (
            (*BOTH, engine("x", role="decode")),
            SHAPES,
            "Deployment d and Deployment x are all of pool decode:h100:tp1: narrow",
        ),
        (
            BOTH,
            (*SHAPES, replace(DECODE, tp=2)),
            "Deployment d matches target.selector, but may be decode:h100:tp1 or decode:h100:tp2: "
            "it lacks the label poolwise.io/tp",
        ),
        (
            (engine("p", role="prefill"), engine("d", role="decode", accelerator="h200")),
            SHAPES,
            "its label poolwise.io/accelerator is h200, which is no accelerator of the spec",
        ),
        (
            (engine("p", role="prefill"), engine("d", role="decode", tp="2")),
            SHAPES,
            "Deployment d matches target.selector, but is decode:h100:tp2 (",
        ),
        (
            BOTH,
            (replace(PREFILL, accelerator="b200"), replace(DECODE, accelerator="b200")),
            "it is placed on NVIDIA-H100-80GB-HBM3, which is no accelerator of the spec",
        ),
        (
            (engine("p", role="prefill"),),
            SHAPES,
            "pool decode:h100:tp1: target.selector app.kubernetes.io/part-of=chat matches no",
        ),
    ],
)
def test_what_labels_leave_open_is_refused_with_the_object_and_the_label(objects, shapes, said):
    found = look(*objects, shapes=shapes)
    assert any(said in problem for problem in found.problems), found.problems
    assert not any("\n" in problem for problem in found.problems)


def test_a_selector_that_cannot_be_read_is_told():
    with pytest.raises(PoolwiseError, match=r"could not list .* by target.selector: .* 400"):
        look(cluster=replace(CHAT, selector="a b"))

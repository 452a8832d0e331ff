"""What stands in the way is told in one sentence before anything moves."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from actuators.actuator import carry_out
from actuators.kinds import count_path
from actuators.kubernetes.actuator import KubernetesActuator
from actuators.kubernetes.connection import connect
from actuators.kubernetes.counts import Counter
from actuators.kubernetes.ownership import other_owners
from planner.domain.errors import ApplyError, InputError, PoolwiseError
from planner.domain.fleet import Role
from planner.domain.rollout import StepKind
from planner.domain.target import ClusterTarget
from tests.actuators.kubernetes.rig import DECODE, OPTION, PREFILL, counted, grown, rigged
from tests.kubernetes.access import Rule

ROOT = Path(__file__).resolve().parents[3]
GROW = ((StepKind.START, PREFILL), (StepKind.START, DECODE))
READS = Rule(verbs=("get",), groups=("apps",), resources=("deployments", "deployments/scale"))
PODS = Rule(verbs=("list",), groups=("",), resources=("pods",))
WRITES = Rule(verbs=("patch",), groups=("apps",), resources=("deployments/scale",))
LOOKS = Rule(verbs=("list",), groups=("autoscaling", "keda.sh"), resources=("*",))
MARKS = Rule(verbs=("patch",), groups=("",), resources=("pods",))


def refused(rig, *, match):
    actuator = rig.actuator()
    with pytest.raises(ApplyError, match=match) as caught:
        carry_out(actuator, grown(actuator, *GROW))
    assert "nothing was touched" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert rig.cluster.writes == []


def test_the_least_rights_are_enough():
    with rigged() as rig:
        rig.token = rig.cluster.token_with(READS, PODS, WRITES, LOOKS)
        actuator = rig.actuator()
        carry_out(actuator, grown(actuator, *GROW))
        carry_out(actuator, grown(actuator, (StepKind.DRAIN, DECODE), (StepKind.STOP, DECODE)))
        assert (rig.replicas("prefill"), rig.replicas("decode")) == (2, 2)


def test_the_role_that_is_shipped_is_enough():
    path = ROOT / "deploy" / "poolwise" / "components" / "scale-deployments" / "role.yaml"
    role, _binding = yaml.safe_load_all(path.read_text())
    rules = [
        Rule(verbs=tuple(r["verbs"]), groups=tuple(r["apiGroups"]), resources=tuple(r["resources"]))
        for r in role["rules"]
    ]
    with rigged() as rig:
        rig.token = rig.cluster.token_with(*rules)
        actuator = rig.actuator()
        carry_out(actuator, grown(actuator, *GROW))
        carry_out(actuator, grown(actuator, (StepKind.DRAIN, DECODE), (StepKind.STOP, DECODE)))
        assert (rig.replicas("prefill"), rig.replicas("decode")) == (2, 2)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ((READS, PODS, LOOKS), r"may not patch deployments.apps/scale in namespace default"),
        (
            (READS, PODS, WRITES),
            r"may not list horizontalpodautoscalers.autoscaling in namespace default",
        ),
    ],
)
def test_a_missing_right_is_named(rules, said):
    with rigged() as rig:
        rig.token = rig.cluster.token_with(*rules)
        refused(rig, match=said)


def test_an_expired_token_is_told():
    with rigged() as rig:
        rig.token = rig.cluster.token_with(READS, PODS)
        actuator = rig.actuator()
        rig.cluster.revoke(rig.token)
        with pytest.raises(PoolwiseError, match="not valid or has expired; renew it"):
            actuator.read_fleet()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (counted(Role.DECODE, "nobody"), r"Deployment nobody.* 404 .* check name, namespace"),
        (
            counted(Role.DECODE, "decode", "PodClique", api_version="grove.io/v9"),
            r"PodClique decode.* 404 .* its CRD is installed",
        ),
        (
            counted(Role.DECODE, "decode", namespace="elsewhere"),
            r"Deployment elsewhere/decode.* 404",
        ),
    ],
)
def test_what_is_not_there_is_told(target, said):
    with rigged() as rig:
        rig.objects = (counted(Role.PREFILL, "prefill"), target)
        with pytest.raises(PoolwiseError, match=said):
            rig.actuator().read_fleet()


def test_an_unknown_kind_is_told():
    with pytest.raises(InputError, match="kind RayService is not known; give one of"):
        count_path("RayService", "ray.io/v1", "")


def test_an_unreachable_cluster_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("actuators.kubernetes.client.PAUSE_S", 0.0)
    with rigged() as rig:
        path = rig.cluster.kubeconfig(tmp_path / "config")
    api = connect(ClusterTarget(kubeconfig=str(path)))
    actuator = KubernetesActuator(
        api=api, cluster=ClusterTarget(), shapes=[(PREFILL, OPTION)], objects=(rig.objects[0],)
    )
    with pytest.raises(PoolwiseError, match=r"cannot be reached .*refused.*; check the kubeconfig"):
        actuator.read_fleet()


@pytest.mark.parametrize(
    "target",
    [ClusterTarget(kubeconfig="/nowhere/config"), ClusterTarget(context="no-such-context")],
)
def test_no_usable_kubeconfig_is_told(target, tmp_path, monkeypatch):
    with rigged() as rig:
        path = rig.cluster.kubeconfig(tmp_path / "config")
    if target.kubeconfig is None:
        target = replace(target, kubeconfig=str(path))
    with pytest.raises(InputError, match=r"no cluster to talk to.*: .*target\.kubeconfig"):
        connect(target)


def autoscaler(version, kind, **spec):
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": "auto", "namespace": "default"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "decode"}, **spec},
    }


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (
            autoscaler("autoscaling/v2", "HorizontalPodAutoscaler", maxReplicas=5),
            "scaled by HorizontalPodAutoscaler auto",
        ),
        (
            autoscaler(
                "keda.sh/v1alpha1", "ScaledObject", triggers=[{"type": "cpu", "metadata": {}}]
            ),
            "scaled by ScaledObject auto",
        ),
    ],
)
def test_an_autoscaler_on_the_same_object_is_refused(manifest, said):
    with rigged() as rig:
        if manifest["kind"] != "ScaledObject":
            manifest["spec"]["scaleTargetRef"]["apiVersion"] = "apps/v1"
        rig.cluster.create(manifest)
        rig.cluster.forget_calls()
        refused(rig, match=said)


def test_an_object_of_another_object_is_refused():
    with rigged() as rig:
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}}
        made = rig.cluster.create(owner | {"data": {}})
        decode = rig.cluster.get("deployments", "decode")
        decode["metadata"]["ownerReferences"] = [
            {
                "apiVersion": "nvidia.com/v1beta1",
                "kind": "DynamoGraphDeployment",
                "name": "chat",
                "uid": made["metadata"]["uid"],
                "controller": True,
            }
        ]
        rig.cluster.update(decode)
        rig.cluster.forget_calls()
        refused(rig, match="belongs to DynamoGraphDeployment chat, which would set it back")


def test_a_gitops_tool_that_keeps_the_count_is_refused():
    with rigged() as rig:
        rig.cluster.scale("deployments", "decode", 2, manager="argocd-controller")
        decode = rig.cluster.get("deployments", "decode")
        decode["spec"]["replicas"] = 3
        rig.cluster.update(decode, manager="argocd-controller")
        rig.simulation.step(200.0)
        rig.cluster.forget_calls()
        refused(rig, match="argocd-controller keeps its count")


def test_a_count_that_a_gitops_tool_ignores_by_now_is_taken_once_a_person_has_set_it():
    """Its entry stays for as long as nobody changes the count, whatever it is told to ignore."""
    with rigged() as rig:
        rig.cluster.scale("deployments", "decode", 3, manager="argocd-controller")
        rig.simulation.step(200.0)
        rig.cluster.forget_calls()
        refused(rig, match=r"argocd-controller keeps its count.* by `kubectl scale`, so that")
        rig.cluster.scale("deployments", "decode", 4, manager="kubectl")
        rig.simulation.step(200.0)
        actuator = rig.actuator()
        carry_out(actuator, grown(actuator, *GROW))
        assert rig.replicas("decode") == 5


@pytest.mark.parametrize(
    ("manager", "refuses"), [("helm", False), ("kubectl", False), ("somebody", True)]
)
def test_whoever_applies_on_the_servers_side_by_hand_keeps_nothing(manager, refuses):
    fields = {"f:spec": {"f:replicas": {}}}
    entry = {"manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields}
    with rigged() as rig:
        counter = Counter(rig.cluster.client(), counted(Role.DECODE, "decode"), "default")
        document = {**counter.object()}
        document["metadata"] = {**document["metadata"], "managedFields": [entry]}
        told = other_owners(counter.api, counter, document)
    assert [text for text in told if "keeps its count" in text] == (
        [
            f"Deployment decode: {manager} keeps its count, and would write its own back: let it "
            "ignore this field, then change the count once by `kubectl scale`, so that the field "
            "is no longer its own; or take the pool out of the spec"
        ]
        if refuses
        else []
    )

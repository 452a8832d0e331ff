"""Every kustomization renders, and an API server takes every object."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner.service.election.cluster_lease import ClusterLease
from planner.service.election.elector import Elector
from planner.service.settings import ElectionCarrier, read_settings
from planner.service.store import open_store
from tests.kubernetes import FakeCluster
from tests.kubernetes.access import service_account

DEPLOY = Path(__file__).parents[2] / "deploy"
KUSTOMIZATIONS = sorted(
    path.parent
    for path in DEPLOY.rglob("kustomization.yaml")
    if yaml.safe_load(path.read_text())["kind"] == "Kustomization"
)
COMPONENTS = sorted((DEPLOY / "poolwise" / "components").iterdir())
REPLICATED = DEPLOY / "poolwise" / "overlays" / "replicated"
STEERING = [path for path in KUSTOMIZATIONS if "poolwise" in path.relative_to(DEPLOY).parts]
CLAIM = "PersistentVolumeClaim"
FOREIGN = frozenset({"ServiceMonitor"})
"""Kinds of operators whose definitions the fake does not have."""

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="needs kubectl, which renders kustomizations"
)


def _rendered(folder: Path) -> list[dict[str, object]]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True
    )
    return list(yaml.safe_load_all(done.stdout))


def _create(cluster: FakeCluster, objects: list[dict[str, object]]) -> None:
    for namespace in ("poolwise", "serving"):
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for made in objects:
        if made["kind"] not in FOREIGN:
            cluster.create(made)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda p: p.relative_to(DEPLOY).as_posix())
def test_an_api_server_takes_every_object(folder: Path) -> None:
    with FakeCluster(crds="all") as cluster:
        _create(cluster, _rendered(folder))
        assert cluster.objects("deployments")


def test_selectors_name_poolwise_only() -> None:
    own = {"matchLabels": {"app.kubernetes.io/name": "poolwise-planner"}}
    specs = {o["kind"]: o.get("spec", {}) for o in _rendered(DEPLOY / "poolwise" / "base")}
    assert specs["NetworkPolicy"]["podSelector"] == own
    assert specs["PodDisruptionBudget"]["selector"] == own


def test_poolwise_may_scale_and_nothing_else() -> None:
    with FakeCluster() as cluster:
        _create(cluster, _rendered(DEPLOY / "poolwise" / "overlays" / "scale-deployments"))
        for name in ("decode", "alien"):
            labels = {"app": name}
            namespace = "serving" if name == "decode" else "default"
            container = {"name": "engine", "image": "vllm"}
            template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
            cluster.create(
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": {
                        "replicas": 1,
                        "selector": {"matchLabels": labels},
                        "template": template,
                    },
                }
            )
        from kubernetes.client import AppsV1Api
        from kubernetes.client.exceptions import ApiException

        token = cluster.token(service_account("poolwise", "poolwise"))
        api = AppsV1Api(cluster.client(token))
        body = {"spec": {"replicas": 3}}
        scaled = api.patch_namespaced_deployment_scale("decode", "serving", body)
        assert scaled.spec.replicas == 3
        with pytest.raises(ApiException, match="403"):
            api.patch_namespaced_deployment("decode", "serving", body)
        with pytest.raises(ApiException, match="403"):
            api.patch_namespaced_deployment_scale("alien", "default", body)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda path: path.name)
def test_every_component_is_part_of_an_overlay(component: Path) -> None:
    used = {
        (folder / named).resolve()
        for folder in KUSTOMIZATIONS
        for named in yaml.safe_load((folder / "kustomization.yaml").read_text()).get(
            "components", ()
        )
    }
    assert component in used


def _deployment(objects: list[dict[str, object]]) -> dict[str, Any]:
    (found,) = [made for made in objects if made["kind"] == "Deployment"]
    return found["spec"]


def _told(objects: list[dict[str, object]]) -> dict[str, str]:
    """The environment that the pod's container gets."""
    fields = {"metadata.namespace": "poolwise"}
    told = {}
    for one in _deployment(objects)["template"]["spec"]["containers"][0]["env"]:
        source = one.get("valueFrom", {})
        if "secretKeyRef" in source:
            assert source["secretKeyRef"] == {"name": "poolwise-database", "key": "url"}
            told[one["name"]] = "sqlite://"
        elif "fieldRef" in source:
            told[one["name"]] = fields[source["fieldRef"]["fieldPath"]]
        else:
            told[one["name"]] = one["value"]
    return told


def test_two_replicas_share_a_database_and_elect_a_leader() -> None:
    objects = _rendered(REPLICATED)
    spec, told = _deployment(objects), _told(objects)
    settings = read_settings(told)
    assert spec["replicas"] == 2
    assert spec["strategy"]["type"] == "RollingUpdate"
    assert "POOLWISE_DATABASE_URL" in told
    assert settings.election.carrier is ElectionCarrier.KUBERNETES
    grace_s = spec["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > settings.election.timing.lease_duration_s
    container = spec["template"]["spec"]["containers"][0]
    assert {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("readiness", "liveness")} == {
        "/readyz",
        "/healthz",
    }
    budgets = {o["kind"]: o["spec"] for o in objects if o["kind"] == "PodDisruptionBudget"}
    assert budgets["PodDisruptionBudget"]["maxUnavailable"] < spec["replicas"]


def test_one_replica_keeps_no_second_one_beside_it() -> None:
    spec = _deployment(_rendered(DEPLOY / "poolwise" / "base"))
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


@pytest.mark.parametrize("folder", STEERING, ids=lambda path: path.name)
def test_the_next_pod_steers_under_the_name_of_the_last_one(folder: Path) -> None:
    """The name is in the database: one that goes with its pod would leave its own counts."""
    objects = _rendered(folder)
    claims = {made["metadata"]["name"] for made in objects if made["kind"] == CLAIM}
    volumes = {v["name"]: v for v in _deployment(objects)["template"]["spec"]["volumes"]}
    if "POOLWISE_DATABASE_URL" in _told(objects):
        assert "emptyDir" in volumes["state"]
        assert not claims
    else:
        assert {volumes["state"]["persistentVolumeClaim"]["claimName"]} == claims


def test_poolwise_leads_by_its_own_lease_and_may_touch_no_other(tmp_path: Path) -> None:
    objects = _rendered(REPLICATED)
    election = read_settings(_told(objects)).election
    store = open_store(f"sqlite:///{tmp_path / 'poolwise.db'}")
    with FakeCluster() as cluster:
        _create(cluster, objects)
        api = cluster.client(cluster.token(service_account("poolwise", "poolwise")))
        namespace, name = election.lease_namespace, election.lease_name
        lease = ClusterLease(api=api, namespace=namespace, name=name)
        elector = Elector(lease, store.lease("shop"), identity="a", timing=election.timing)
        elector.step()  # creates it
        elector.step()  # renews it
        assert elector.term() == 1
        made = cluster.get("leases", name, namespace)
        assert made["spec"]["holderIdentity"] == "a"
        elector.stop()

        from kubernetes.client import CoordinationV1Api
        from kubernetes.client.exceptions import ApiException

        other = {"metadata": {"name": "kube-scheduler"}, "spec": {"holderIdentity": "x"}}
        for where in (namespace, "serving"):
            cluster.create(
                {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    **other,
                    "metadata": {**other["metadata"], "namespace": where},
                }
            )
        leases = CoordinationV1Api(api)
        for refused in (
            lambda: leases.read_namespaced_lease("kube-scheduler", namespace),
            lambda: leases.replace_namespaced_lease("kube-scheduler", namespace, other),
            lambda: leases.delete_namespaced_lease(name, namespace),
            lambda: leases.list_namespaced_lease(namespace),
            lambda: leases.read_namespaced_lease("kube-scheduler", "serving"),
        ):
            with pytest.raises(ApiException, match="403"):
                refused()
    store.close()

"""Every kustomization renders, and an API server takes every object."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.kubernetes import FakeCluster
from tests.kubernetes.access import service_account

DEPLOY = Path(__file__).parents[2] / "deploy"
KUSTOMIZATIONS = sorted(p.parent for p in DEPLOY.rglob("kustomization.yaml"))
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

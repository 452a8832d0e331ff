"""The fake API server serves kubectl as well, over HTTPS with a token."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import client as k8s
from kubernetes import watch

from tests.kubernetes.access import Rule
from tests.kubernetes.cluster import FakeCluster
from tests.kubernetes.site import deployment

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes the certificate, is missing"
)
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is missing")


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[FakeCluster]:
    with FakeCluster(tls_folder=tmp_path) as running:
        running.create(deployment("decode", 1))
        yield running


def kubectl(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["kubectl", "--request-timeout=20s", *words],
        env={**os.environ, "KUBECONFIG": str(config), "HOME": str(config.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@needs_kubectl
def test_kubectl_scales_with_a_token_that_may(secured: FakeCluster, tmp_path: Path) -> None:
    rules = [
        Rule(verbs=("get",), groups=("apps",), resources=("deployments",)),
        Rule(verbs=("get", "patch", "update"), groups=("apps",), resources=("deployments/scale",)),
    ]
    config = secured.kubeconfig(tmp_path / "config", secured.token_with(*rules))
    done = kubectl(config, "scale", "deployment/decode", "--replicas=4")
    assert done.returncode == 0, done.stderr
    assert secured.get("deployments", "decode")["spec"]["replicas"] == 4
    refused = kubectl(config, "delete", "deployment/decode")
    assert refused.returncode == 1
    assert 'cannot delete resource "deployments"' in refused.stderr


@needs_kubectl
def test_kubectl_tries_manifests_on_the_server(secured: FakeCluster, tmp_path: Path) -> None:
    manifest = tmp_path / "prefill.yaml"
    manifest.write_text(yaml.safe_dump(deployment("prefill", 1)))
    config = secured.kubeconfig(tmp_path / "config")
    words = ("apply", "--server-side", "--dry-run=server", "--validate=ignore", "-f")
    done = kubectl(config, *words, str(manifest))
    assert done.returncode == 0, done.stderr
    assert "prefill serverside-applied (server dry run)" in done.stdout
    assert not secured.objects("deployments", having=lambda at: at["name"] == "prefill")


def test_the_official_client_checks_the_certificate(secured: FakeCluster) -> None:
    apps = k8s.AppsV1Api(secured.client())
    stream = watch.Watch().stream(apps.list_namespaced_deployment, "default", timeout_seconds=1)
    assert [event["object"].metadata.name for event in stream] == ["decode"]
    configuration = k8s.Configuration(host=secured.url)
    configuration.retries = False
    with pytest.raises(Exception, match="certificate verify failed"):
        k8s.VersionApi(k8s.ApiClient(configuration)).get_code()

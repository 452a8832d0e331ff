"""Faults that a test orders strike the call they name, at the moment they name, and no other."""

import subprocess
import sys
from pathlib import Path

import pytest
import urllib3
from kubernetes import client as k8s
from kubernetes.client import ApiException

from tests.kubernetes.cluster import FakeCluster
from tests.kubernetes.faults import Call
from tests.kubernetes.site import deployment

SCALE = {"verb": "patch", "resource": "deployments", "subresource": "scale"}


@pytest.fixture
def apps(cluster: FakeCluster) -> k8s.AppsV1Api:
    """A client that does not try again, and a Deployment of two replicas."""
    cluster.create(deployment("decode", 2))
    client = cluster.client()
    client.configuration.retries = False
    return k8s.AppsV1Api(k8s.ApiClient(client.configuration))


def scale_to(apps: k8s.AppsV1Api, replicas: int, timeout_s: float = 5.0) -> None:
    apps.patch_namespaced_deployment_scale(
        "decode", "default", {"spec": {"replicas": replicas}}, _request_timeout=timeout_s
    )


def count(cluster: FakeCluster) -> int:
    return int(cluster.get("deployments", "decode")["spec"]["replicas"])


@pytest.mark.parametrize("status", [403, 404, 409, 422, 429, 500, 503])
def test_an_ordered_status_is_answered_once_and_nothing_is_written(
    cluster: FakeCluster, apps: k8s.AppsV1Api, status: int
) -> None:
    cluster.fault(**SCALE, status=status, retry_after_s=7)
    with pytest.raises(ApiException) as caught:
        scale_to(apps, 5)
    assert caught.value.status == status
    assert (caught.value.headers.get("Retry-After") == "7") == (status == 429)
    assert count(cluster) == 2
    scale_to(apps, 5)
    assert count(cluster) == 5


def test_a_status_after_the_write_hides_that_it_took_effect(
    cluster: FakeCluster, apps: k8s.AppsV1Api
) -> None:
    cluster.fault(**SCALE, status=500, moment="after")
    with pytest.raises(ApiException):
        scale_to(apps, 5)
    assert count(cluster) == 5


@pytest.mark.parametrize(("moment", "left"), [("before", 2), ("after", 5)])
def test_a_cut_connection_leaves_the_write_undone_or_done(
    cluster: FakeCluster, apps: k8s.AppsV1Api, moment: str, left: int
) -> None:
    cluster.fault(**SCALE, cut=True, moment=moment)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        scale_to(apps, 5)
    assert count(cluster) == left


@pytest.mark.parametrize(("moment", "left"), [("before", 2), ("after", 5)])
def test_a_call_that_hangs_runs_into_the_clients_timeout(
    cluster: FakeCluster, apps: k8s.AppsV1Api, moment: str, left: int
) -> None:
    cluster.fault(**SCALE, hang=True, moment=moment)
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        scale_to(apps, 5, timeout_s=0.3)
    assert count(cluster) == left


def test_a_slow_write_lands_after_the_client_gave_up(
    cluster: FakeCluster, apps: k8s.AppsV1Api
) -> None:
    cluster.fault(**SCALE, latency_s=1.0)
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        scale_to(apps, 5, timeout_s=0.2)
    assert count(cluster) == 2
    with cluster.api.store.changed:
        assert cluster.api.store.changed.wait_for(lambda: count(cluster) == 5, timeout=30)


def test_the_nth_call_is_hit_and_the_others_are_not(
    cluster: FakeCluster, apps: k8s.AppsV1Api
) -> None:
    cluster.fault(**SCALE, nth=2, times=2, status=409)
    codes = []
    for replicas in (3, 4, 5, 6):
        try:
            scale_to(apps, replicas)
            codes.append(200)
        except ApiException as error:
            codes.append(error.status)
    assert codes == [200, 409, 409, 200]


def test_a_fault_can_spare_dry_runs(cluster: FakeCluster, apps: k8s.AppsV1Api) -> None:
    cluster.fault(**SCALE, dry_run=False, times=None, status=403)
    apps.patch_namespaced_deployment_scale(
        "decode", "default", {"spec": {"replicas": 3}}, dry_run="All"
    )
    with pytest.raises(ApiException):
        scale_to(apps, 3)
    cluster.heal()
    scale_to(apps, 3)


def test_a_hook_lets_another_write_in_between(cluster: FakeCluster, apps: k8s.AppsV1Api) -> None:
    scale = apps.read_namespaced_deployment_scale("decode", "default")
    scale.spec.replicas = 3

    def rival(call: Call) -> None:
        cluster.scale("deployments", call.name, 9, manager="hpa")

    cluster.fault(verb="update", hook=rival)
    with pytest.raises(ApiException) as caught:
        apps.replace_namespaced_deployment_scale("decode", "default", scale)
    assert caught.value.status == 409
    assert count(cluster) == 9


@pytest.mark.parametrize(("moment", "left"), [("before", 2), ("after", 5)])
def test_a_hook_kills_the_client_around_its_call(
    cluster: FakeCluster, apps: k8s.AppsV1Api, tmp_path: Path, moment: str, left: int
) -> None:
    script = tmp_path / "scale.py"
    script.write_text(
        "import sys\n"
        "from kubernetes import client, config\n"
        "config.load_kube_config(sys.argv[1])\n"
        "client.AppsV1Api().patch_namespaced_deployment_scale(\n"
        "    'decode', 'default', {'spec': {'replicas': 5}})\n"
    )
    kubeconfig = cluster.kubeconfig(tmp_path / "kubeconfig")
    started: list[subprocess.Popen[bytes]] = []
    # Cut as well: a killed client cannot be answered, and the call is not to go on.
    cluster.fault(**SCALE, moment=moment, hook=lambda _call: started[0].kill(), cut=True)
    started.append(subprocess.Popen([sys.executable, str(script), str(kubeconfig)]))
    assert started[0].wait(60) == -9
    assert count(cluster) == left


def test_the_log_tells_writes_from_reads_and_dry_runs(
    cluster: FakeCluster, apps: k8s.AppsV1Api
) -> None:
    cluster.forget_calls()
    apps.read_namespaced_deployment("decode", "default")
    body = {"spec": {"replicas": 4}}
    apps.patch_namespaced_deployment_scale("decode", "default", body, dry_run="All")
    apps.patch_namespaced_deployment_scale("decode", "default", body, field_manager="poolwise")
    assert [(c.verb, c.subresource, c.dry_run) for c in cluster.calls] == [
        ("get", "", False), ("patch", "scale", True), ("patch", "scale", False),
    ]  # fmt: skip
    (write,) = cluster.writes
    assert (write.name, write.manager, write.body, write.code) == ("decode", "poolwise", body, 200)
    assert write.user == "kubernetes-admin"


def test_a_revoked_token_is_refused(cluster: FakeCluster) -> None:
    token = cluster.token_with(name="short")
    cluster.revoke(token)
    with pytest.raises(ApiException) as caught:
        k8s.AppsV1Api(cluster.client(token)).list_namespaced_deployment("default")
    assert caught.value.status == 401

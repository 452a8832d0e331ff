"""Counts written by `/scale` against the fake API server."""

from collections.abc import Iterator

import pytest

from actuators.kubernetes.client import ClusterError
from actuators.kubernetes.scale import ScaleTarget, read_scale, write_scale
from tests.kubernetes import FakeCluster
from tests.kubernetes.access import Rule

DECODE = ScaleTarget(
    group="apps", version="v1", plural="deployments", namespace="default", name="decode"
)
MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: decode}
spec:
  replicas: 2
  selector: {matchLabels: {app: decode}}
  template:
    metadata: {labels: {app: decode}}
    spec: {containers: [{name: vllm, image: vllm}]}
"""


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster() as fake:
        fake.load(MANIFEST)
        yield fake


def _live(cluster: FakeCluster) -> int:
    return read_scale(cluster.client(), DECODE).replicas


def test_a_count_is_written_under_our_own_name(cluster: FakeCluster) -> None:
    api = cluster.client()
    write_scale(api, DECODE, read=read_scale(api, DECODE), replicas=3)
    assert _live(cluster) == 3
    assert [w.manager for w in cluster.writes] == ["poolwise"]


def test_zero_is_a_count(cluster: FakeCluster) -> None:
    api = cluster.client()
    assert write_scale(api, DECODE, read=read_scale(api, DECODE), replicas=0).replicas == 0


def test_a_dry_run_stores_nothing(cluster: FakeCluster) -> None:
    api = cluster.client()
    write_scale(api, DECODE, read=read_scale(api, DECODE), replicas=3, dry_run=True)
    assert _live(cluster) == 2


def test_a_count_that_someone_else_changed_is_not_overwritten(cluster: FakeCluster) -> None:
    api = cluster.client()
    read = read_scale(api, DECODE)
    cluster.scale("deployments", "decode", 9, manager="hpa")
    with pytest.raises(ClusterError, match="someone else changed it") as caught:
        write_scale(api, DECODE, read=read, replicas=3)
    assert caught.value.status == 409
    assert _live(cluster) == 9


@pytest.mark.parametrize("status", [403, 404])
def test_a_refused_write_is_tried_on_no_other_path(cluster: FakeCluster, status: int) -> None:
    api = cluster.client()
    read = read_scale(api, DECODE)
    cluster.forget_calls()
    cluster.fault(verb="patch", resource="deployments", subresource="scale", status=status)
    with pytest.raises(ClusterError) as caught:
        write_scale(api, DECODE, read=read, replicas=3)
    assert caught.value.status == status
    assert [(c.verb, c.subresource) for c in cluster.calls] == [("patch", "scale")]


def test_get_and_patch_on_scale_is_enough(cluster: FakeCluster) -> None:
    rule = Rule(
        verbs=("get", "patch"),
        groups=("apps",),
        resources=("deployments/scale",),
        namespaces=("default",),
    )
    api = cluster.client(cluster.token_with(rule))
    assert write_scale(api, DECODE, read=read_scale(api, DECODE), replicas=3).replicas == 3


def test_an_expired_token_is_said_in_one_sentence(cluster: FakeCluster) -> None:
    token = cluster.token_with(Rule(verbs=("get",), groups=("apps",), resources=("*",)))
    cluster.revoke(token)
    with pytest.raises(ClusterError, match="has expired; renew it"):
        read_scale(cluster.client(token), DECODE)


@pytest.mark.parametrize(("moment", "live"), [("before", 2), ("after", 3)])
def test_a_cut_write_is_never_sent_twice(cluster: FakeCluster, moment: str, live: int) -> None:
    api = cluster.client()
    read = read_scale(api, DECODE)
    cluster.forget_calls()
    cluster.fault(verb="patch", cut=True, moment=moment)
    with pytest.raises(ClusterError, match="not known whether"):
        write_scale(api, DECODE, read=read, replicas=3)
    assert sum(c.verb == "patch" for c in cluster.calls) == 1
    assert _live(cluster) == live

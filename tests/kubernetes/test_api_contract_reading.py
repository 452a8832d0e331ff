"""Lists, watches, discovery and access: the same on the fake and on a real cluster."""

import json
import threading
import time
from typing import Any

import kubernetes
import pytest
from kubernetes import client as k8s
from kubernetes.client import ApiException

from tests.kubernetes.site import GROUP, JSON, Site

Object = dict[str, Any]


def refused(caught: pytest.ExceptionInfo[ApiException]) -> Object:
    return json.loads(caught.value.body)


def config_map(site: Site, name: str, **labels: str) -> str:
    """Create a ConfigMap; returns its resourceVersion."""
    body = {"metadata": {"name": name, "labels": labels}, "data": {"a": "b"}}
    made = site.core.create_namespaced_config_map(site.namespace, body)
    return str(made.metadata.resource_version)


def names(listed: Any) -> list[str]:
    return [
        item.metadata.name for item in listed.items if not item.metadata.name.startswith("kube")
    ]


# -- lists -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("role=prefill", ["a"]),
        ("role!=prefill", ["b", "c"]),
        ("role in (prefill,decode)", ["a", "b"]),
        ("role notin (prefill)", ["b", "c"]),
        ("role", ["a", "b"]),
        ("!role", ["c"]),
        ("role,zone=x", ["b"]),
    ],
)
def test_a_label_selector_picks(site: Site, selector: str, expected: list[str]) -> None:
    config_map(site, "a", role="prefill")
    config_map(site, "b", role="decode", zone="x")
    config_map(site, "c")
    assert names(site.core.list_namespaced_config_map(site.namespace, label_selector=selector)) == (
        expected
    )


def test_a_field_selector_picks_and_an_unsupported_one_is_400(site: Site) -> None:
    config_map(site, "a")
    config_map(site, "b")
    listed = site.core.list_namespaced_config_map(site.namespace, field_selector="metadata.name=b")
    assert names(listed) == ["b"]
    with pytest.raises(ApiException) as caught:
        site.core.list_namespaced_config_map(site.namespace, field_selector="data.a=b")
    assert "field label not supported: data.a" in refused(caught)["message"]


def test_a_list_in_pages_shows_the_state_of_its_first_page(site: Site) -> None:
    for name in ("a", "b", "c"):
        config_map(site, name, mine="yes")
    first = site.core.list_namespaced_config_map(site.namespace, limit=2, label_selector="mine")
    assert names(first) == ["a", "b"]
    site.core.delete_namespaced_config_map("c", site.namespace)
    rest = site.core.list_namespaced_config_map(
        site.namespace, limit=2, label_selector="mine", _continue=first.metadata._continue
    )
    assert names(rest) == ["c"]
    assert not rest.metadata._continue
    assert rest.metadata.resource_version == first.metadata.resource_version


def test_items_of_a_custom_list_name_their_kind_and_builtin_ones_do_not(site: Site) -> None:
    config_map(site, "a")
    site.pools.create("a", {"engine": "vllm"})
    path = f"/api/v1/namespaces/{site.namespace}/configmaps"
    listed = site.raw("GET", path)[1]
    assert listed["kind"] == "ConfigMapList"
    assert "kind" not in listed["items"][0]
    assert site.pools.list()["items"][0]["kind"] == "Pool"


# -- watches -----------------------------------------------------------------------------------


def watched(site: Site, **how: Any) -> list[Object]:
    """The events of a watch on ConfigMaps, until it ends by itself."""
    watch = kubernetes.watch.Watch()
    how = {"timeout_seconds": 1, **how}
    return [
        {"type": event["type"], **event["raw_object"]["metadata"]}
        for event in watch.stream(site.core.list_namespaced_config_map, site.namespace, **how)
        if not event["raw_object"]["metadata"].get("name", "").startswith("kube")
    ]


def test_a_watch_ends_after_its_timeout(site: Site) -> None:
    began = time.monotonic()
    assert watched(site, resource_version=config_map(site, "a")) == []
    assert time.monotonic() - began >= 0.9


def test_a_watch_tells_what_happened_since_a_version(site: Site) -> None:
    since = config_map(site, "a")
    config_map(site, "b")
    site.core.patch_namespaced_config_map("b", site.namespace, {"data": {"c": "d"}})
    site.core.delete_namespaced_config_map("b", site.namespace)
    events = watched(site, resource_version=since)
    assert [(e["type"], e["name"]) for e in events] == [
        ("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "b"),
    ]  # fmt: skip


def test_a_watch_without_a_version_starts_with_what_is_there(site: Site) -> None:
    config_map(site, "a")
    assert [(e["type"], e["name"]) for e in watched(site)] == [("ADDED", "a")]


def test_an_object_that_leaves_the_selector_is_deleted_for_the_watch(site: Site) -> None:
    since = config_map(site, "a", role="decode")
    patch = {"metadata": {"labels": {"role": "prefill"}}}
    site.core.patch_namespaced_config_map("a", site.namespace, patch)
    events = watched(site, resource_version=since, label_selector="role=decode")
    assert [e["type"] for e in events] == ["DELETED"]
    events = watched(site, resource_version=since, label_selector="role=prefill")
    assert [e["type"] for e in events] == ["ADDED"]


def test_a_running_watch_sees_a_later_write(site: Site) -> None:
    since = config_map(site, "a")
    late = threading.Timer(0.3, config_map, (site, "b"))
    late.start()
    events = watched(site, resource_version=since, timeout_seconds=3)
    late.join()
    assert [e["name"] for e in events] == ["b"]


def test_a_watch_sends_a_bookmark_before_it_ends(site: Site) -> None:
    since = config_map(site, "a")
    events = watched(site, resource_version=since, allow_watch_bookmarks=True, timeout_seconds=4)
    assert [e["type"] for e in events] == ["BOOKMARK"]
    assert int(events[0]["resourceVersion"]) >= int(since)


def test_a_watch_from_a_forgotten_version_is_410(site: Site) -> None:
    config_map(site, "a")
    config_map(site, "b")
    if site.fake is not None:
        site.fake.compact()
    with pytest.raises(ApiException) as caught:
        watched(site, resource_version="1")
    assert caught.value.status == 410
    assert "Expired: too old resource version: 1" in caught.value.reason


def test_a_running_watch_outlives_forgetting(site: Site) -> None:
    if site.fake is None:
        pytest.skip("a real cluster forgets after five minutes")
    since = config_map(site, "a")
    site.core.create_namespaced_service_account(site.namespace, {"metadata": {"name": "x"}})
    forget = threading.Timer(0.5, site.fake.compact)
    late = threading.Timer(1.0, config_map, (site, "b"))
    forget.start()
    late.start()
    events = watched(site, resource_version=since, timeout_seconds=2)
    late.join()
    assert [e["name"] for e in events] == ["b"]


def test_a_page_from_a_forgotten_version_is_410(site: Site) -> None:
    if site.fake is None:
        pytest.skip("a real cluster forgets after five minutes")
    for name in ("a", "b"):
        config_map(site, name)
    first = site.core.list_namespaced_config_map(site.namespace, limit=1)
    config_map(site, "c")
    site.fake.compact()
    with pytest.raises(ApiException) as caught:
        site.core.list_namespaced_config_map(
            site.namespace, limit=1, _continue=first.metadata._continue
        )
    assert (caught.value.status, refused(caught)["reason"]) == (410, "Expired")


# -- discovery ---------------------------------------------------------------------------------


def test_discovery_names_kinds_and_their_scale(site: Site) -> None:
    assert k8s.VersionApi(site.client).get_code().major == "1"
    groups = {group.name for group in k8s.ApisApi(site.client).get_api_versions().groups}
    assert {"apps", "autoscaling", "coordination.k8s.io", GROUP} <= groups
    resources = {r.name: r for r in site.apps.get_api_resources().resources}
    assert resources["deployments/scale"].kind == "Scale"
    own = site.raw("GET", f"/apis/{GROUP}/v1")[1]["resources"]
    assert {r["name"] for r in own} == {"pools", "pools/status", "pools/scale"}


def test_a_kind_whose_definition_is_missing_is_404(site: Site) -> None:
    code, answer = site.raw("GET", "/apis/not-installed.test/v1/namespaces/default/things/a")
    assert code == 404
    assert "404 page not found" in (answer if isinstance(answer, str) else answer["message"])
    assert site.raw("GET", "/apis/not-installed.test/v1")[0] == 404


def test_a_subresource_that_a_kind_lacks_is_404(site: Site) -> None:
    config_map(site, "a")
    code, _ = site.raw("GET", f"/api/v1/namespaces/{site.namespace}/configmaps/a/scale")
    assert code == 404


# -- access ------------------------------------------------------------------------------------

SCALES = [{"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get", "patch"]}]


def test_an_unknown_token_is_401(site: Site) -> None:
    stranger = site.with_token("no-such-token")
    with pytest.raises(ApiException) as caught:
        stranger.apps.list_namespaced_deployment(site.namespace)
    status = refused(caught)
    assert (status["code"], status["reason"]) == (401, "Unauthorized")
    assert status["message"] == "Unauthorized"


def test_get_and_patch_on_scale_are_enough_to_scale(site: Site) -> None:
    site.deployment(replicas=0)
    limited = site.limited(SCALES)
    limited.apps.patch_namespaced_deployment_scale(
        "decode", site.namespace, {"spec": {"replicas": 1}}
    )
    scale = limited.apps.read_namespaced_deployment_scale("decode", site.namespace)
    assert scale.spec.replicas == 1


def test_what_no_rule_grants_is_403_and_says_who_may_not_do_what(site: Site) -> None:
    site.deployment(replicas=0)
    limited = site.limited(SCALES)
    user = f"system:serviceaccount:{site.namespace}:limited"
    with pytest.raises(ApiException) as caught:
        limited.apps.read_namespaced_deployment("decode", site.namespace)
    status = refused(caught)
    assert (status["code"], status["reason"]) == (403, "Forbidden")
    assert status["message"] == (
        f'deployments.apps "decode" is forbidden: User "{user}" cannot get resource '
        f'"deployments" in API group "apps" in the namespace "{site.namespace}"'
    )
    with pytest.raises(ApiException) as caught:
        limited.core.list_node()
    assert refused(caught)["message"] == (
        f'nodes is forbidden: User "{user}" cannot list resource "nodes" in API group "" at the '
        "cluster scope"
    )
    path = f"/apis/apps/v1/namespaces/{site.namespace}/statefulsets/x/scale"
    code, status = limited.raw("PATCH", path, [], JSON)
    assert code == 403
    assert 'cannot patch resource "statefulsets/scale"' in status["message"]


def test_access_is_refused_before_existence_is_told(site: Site) -> None:
    limited = site.limited(SCALES)
    with pytest.raises(ApiException) as caught:
        limited.apps.read_namespaced_deployment("not-there", site.namespace)
    assert caught.value.status == 403
    assert limited.raw("GET", "/apis/not-installed.test/v1/namespaces/default/x/a")[0] == 403


def test_apply_of_what_is_not_there_needs_the_right_to_create(site: Site) -> None:
    limited = site.limited([
        {"apiGroups": [GROUP], "resources": ["pools"], "verbs": ["get", "patch"]},
    ])  # fmt: skip
    with pytest.raises(ApiException) as caught:
        limited.pools.apply("a", {"engine": "vllm"}, "poolwise")
    assert 'cannot create resource "pools"' in refused(caught)["message"]
    site.pools.create("a", {"engine": "vllm"})
    assert limited.pools.apply("a", {"fixed": 1}, "poolwise")["spec"]["fixed"] == 1


def test_a_rule_may_name_its_objects(site: Site) -> None:
    config_map(site, "mine")
    config_map(site, "other")
    limited = site.limited([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"],
         "resourceNames": ["mine"]},
    ])  # fmt: skip
    assert limited.core.read_namespaced_config_map("mine", site.namespace).data == {"a": "b"}
    with pytest.raises(ApiException) as caught:
        limited.core.read_namespaced_config_map("other", site.namespace)
    assert caught.value.status == 403


@pytest.mark.parametrize(("verb", "allowed"), [("patch", True), ("delete", False)])
def test_one_may_ask_what_one_may_do(site: Site, verb: str, allowed: bool) -> None:
    limited = site.limited(SCALES)
    asked = {"namespace": site.namespace, "verb": verb, "group": "apps",
             "resource": "deployments", "subresource": "scale"}  # fmt: skip
    review = k8s.AuthorizationV1Api(limited.client).create_self_subject_access_review(
        {"spec": {"resourceAttributes": asked}}
    )
    assert review.status.allowed is allowed


# -- leases and disruption ---------------------------------------------------------------------


def test_a_lease_passes_to_one_of_two_that_take_it(site: Site) -> None:
    leases = k8s.CoordinationV1Api(site.client)
    body = {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "a"}}
    lease = leases.create_namespaced_lease(site.namespace, body)
    lease.spec.holder_identity = "b"
    leases.replace_namespaced_lease("leader", site.namespace, lease)
    lease.spec.holder_identity = "c"
    with pytest.raises(ApiException) as caught:
        leases.replace_namespaced_lease("leader", site.namespace, lease)
    assert caught.value.status == 409
    assert leases.read_namespaced_lease("leader", site.namespace).spec.holder_identity == "b"


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("HorizontalPodAutoscaler",
         {"maxReplicas": 0, "scaleTargetRef": {"kind": "Deployment", "name": "decode"}},
         "spec.maxReplicas"),
        ("PodDisruptionBudget", {"minAvailable": 1, "maxUnavailable": 1},
         "minAvailable and maxUnavailable cannot be both set"),
    ],
)  # fmt: skip
def test_other_kinds_are_validated_too(site: Site, kind: str, spec: Object, words: str) -> None:
    at = {"HorizontalPodAutoscaler": ("autoscaling/v2", "horizontalpodautoscalers"),
          "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets")}  # fmt: skip
    version, plural = at[kind]
    body = {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": spec}
    path = f"/apis/{version}/namespaces/{site.namespace}/{plural}"
    code, status = site.raw("POST", path, body)
    assert code == 422
    assert words in status["message"]


def test_an_event_is_stored_and_found_by_its_object(site: Site) -> None:
    site.core.create_namespaced_event(site.namespace, {
        "metadata": {"name": "scaled.1"},
        "involvedObject": {"kind": "Deployment", "name": "decode", "namespace": site.namespace},
        "reason": "Scaled", "message": "from 1 to 2", "type": "Normal",
    })  # fmt: skip
    found = site.core.list_namespaced_event(
        site.namespace, field_selector="involvedObject.name=decode,reason=Scaled"
    )
    assert [event.message for event in found.items] == ["from 1 to 2"]

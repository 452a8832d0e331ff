"""What an API server does to objects: the same on the fake and on a real cluster."""

import json
from typing import Any

import pytest
from kubernetes.client import ApiException

from tests.kubernetes.site import APPLY, JSON, MERGE, STRATEGIC, Site, deployment

Object = dict[str, Any]


def refused(caught: pytest.ExceptionInfo[ApiException]) -> Object:
    """The Status in a refusal."""
    status = json.loads(caught.value.body)
    assert status["kind"] == "Status"
    assert status["status"] == "Failure"
    assert status["code"] == caught.value.status
    return status


# -- objects -----------------------------------------------------------------------------------


def test_a_new_object_gets_uid_version_generation_and_defaults(site: Site) -> None:
    made = site.deployment(replicas=1)
    metadata = made["metadata"]
    assert len(metadata["uid"]) == 36
    assert metadata["resourceVersion"].isdigit()
    assert metadata["generation"] == 1
    assert metadata["creationTimestamp"].endswith("Z")
    assert made["spec"]["progressDeadlineSeconds"] == 600
    assert made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 30
    assert made["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1"}


def test_a_second_object_of_one_name_is_409_already_exists(site: Site) -> None:
    site.deployment()
    with pytest.raises(ApiException) as caught:
        site.apps.create_namespaced_deployment(site.namespace, deployment("decode", 1))
    status = refused(caught)
    assert (status["code"], status["reason"]) == (409, "AlreadyExists")
    assert status["message"] == 'deployments.apps "decode" already exists'


def test_a_missing_object_is_404_with_details(site: Site) -> None:
    with pytest.raises(ApiException) as caught:
        site.apps.read_namespaced_deployment("nothing", site.namespace)
    status = refused(caught)
    assert (status["code"], status["reason"]) == (404, "NotFound")
    assert status["message"] == 'deployments.apps "nothing" not found'
    assert status["details"] == {"name": "nothing", "group": "apps", "kind": "deployments"}


def test_creation_in_a_missing_namespace_is_404(site: Site) -> None:
    with pytest.raises(ApiException) as caught:
        site.apps.create_namespaced_deployment("not-there", deployment("decode", 1))
    assert refused(caught)["message"] == 'namespaces "not-there" not found'


def test_an_update_with_a_stale_version_is_409(site: Site) -> None:
    made = site.deployment()
    path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments/decode"
    made["spec"]["minReadySeconds"] = 1
    assert site.raw("PUT", path, made)[0] == 200
    code, status = site.raw("PUT", path, made)
    assert (code, status["reason"]) == (409, "Conflict")
    assert "the object has been modified; please apply your changes" in status["message"]
    assert status["details"] == {"name": "decode", "group": "apps", "kind": "deployments"}


def test_a_patch_with_a_stale_version_is_409(site: Site) -> None:
    made = site.deployment()
    stale = {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 3}}
    with pytest.raises(ApiException) as caught:
        site.apps.patch_namespaced_deployment("decode", site.namespace, stale)
    assert refused(caught)["reason"] == "Conflict"
    assert site.settled("decode")["spec"] == made["spec"]


def test_a_custom_object_is_not_updated_without_its_version(site: Site) -> None:
    made = site.pools.create("a", {"engine": "vllm"})
    del made["metadata"]["resourceVersion"]
    with pytest.raises(ApiException) as caught:
        site.pools.replace("a", made)
    status = refused(caught)
    assert status["code"] == 422
    assert "metadata.resourceVersion" in status["message"]
    assert "must be specified for an update" in status["message"]


def test_generation_counts_changes_of_the_spec_only(site: Site) -> None:
    site.pools.create("a", {"engine": "vllm"})
    labelled = site.pools.patch("a", {"metadata": {"labels": {"x": "y"}}})
    assert labelled["metadata"]["generation"] == 1
    reported = site.pools.patch_status("a", {"status": {"replicas": 1}})
    assert reported["metadata"]["generation"] == 1
    changed = site.pools.patch("a", {"spec": {"engine": "sglang"}})
    assert changed["metadata"]["generation"] == 2


def test_a_write_that_changes_nothing_leaves_the_version(site: Site) -> None:
    site.pools.create("a", {"engine": "vllm"})
    first = site.pools.patch("a", {"spec": {"fixed": 1}})
    again = site.pools.patch("a", {"spec": {"fixed": 1}})
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_status_and_spec_are_written_apart(site: Site) -> None:
    site.pools.create("a", {"engine": "vllm"})
    through_object = site.pools.patch("a", {"status": {"replicas": 7}})
    assert "status" not in through_object
    through_status = site.pools.patch_status(
        "a", {"status": {"replicas": 7}, "spec": {"engine": "sglang"}}
    )
    assert through_status["status"] == {"replicas": 7}
    assert through_status["spec"]["engine"] == "vllm"


def test_a_finalizer_holds_a_deleted_object_until_it_goes(site: Site) -> None:
    site.pools.create("a", {"engine": "vllm"})
    site.pools.patch("a", {"metadata": {"finalizers": ["poolwise.test/hold"]}})
    site.pools.delete("a")
    assert site.pools.get("a")["metadata"]["deletionTimestamp"]
    site.pools.patch("a", {"metadata": {"finalizers": None}})
    with pytest.raises(ApiException) as caught:
        site.pools.get("a")
    assert caught.value.status == 404


def test_deletion_checks_its_preconditions(site: Site) -> None:
    site.deployment()
    options = {"preconditions": {"uid": "11111111-2222-3333-4444-555555555555"}}
    with pytest.raises(ApiException) as caught:
        site.apps.delete_namespaced_deployment("decode", site.namespace, body=options)
    status = refused(caught)
    assert status["code"] == 409
    assert "Precondition failed: UID in precondition" in status["message"]


# -- scale -------------------------------------------------------------------------------------


def test_scale_shows_count_and_selector(site: Site) -> None:
    made = site.deployment(replicas=2)
    scale = site.apps.read_namespaced_deployment_scale("decode", site.namespace)
    assert (scale.api_version, scale.kind) == ("autoscaling/v1", "Scale")
    assert scale.spec.replicas == 2
    assert scale.status.selector == "app=decode"
    assert scale.metadata.uid == made["metadata"]["uid"]


@pytest.mark.parametrize("kind", ["StatefulSet", "ReplicaSet"])
def test_other_workloads_have_the_same_scale(site: Site, kind: str) -> None:
    path = f"/apis/apps/v1/namespaces/{site.namespace}/{kind.lower()}s"
    manifest = deployment("decode", 0) | {"kind": kind}
    assert site.raw("POST", path, manifest)[0] == 201
    code, scale = site.raw("PATCH", f"{path}/decode/scale", {"spec": {"replicas": 2}}, MERGE)
    assert (code, scale["kind"], scale["spec"]) == (200, "Scale", {"replicas": 2})
    assert scale["status"]["selector"] == "app=decode"


def test_scale_of_zero_leaves_the_count_out(site: Site) -> None:
    site.deployment(replicas=0)
    path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments/decode/scale"
    assert site.raw("GET", path)[1]["spec"] == {}


def test_a_scale_with_a_stale_version_is_409(site: Site) -> None:
    site.deployment(replicas=1)
    scale = site.apps.read_namespaced_deployment_scale("decode", site.namespace)
    site.apps.patch_namespaced_deployment_scale("decode", site.namespace, {"spec": {"replicas": 0}})
    scale.spec.replicas = 5
    with pytest.raises(ApiException) as caught:
        site.apps.replace_namespaced_deployment_scale("decode", site.namespace, scale)
    assert refused(caught)["reason"] == "Conflict"
    body = {"metadata": {"resourceVersion": scale.metadata.resource_version},
            "spec": {"replicas": 5}}  # fmt: skip
    with pytest.raises(ApiException) as caught:
        site.apps.patch_namespaced_deployment_scale("decode", site.namespace, body)
    assert refused(caught)["reason"] == "Conflict"
    assert site.settled("decode")["spec"]["replicas"] == 0


def test_scaling_moves_the_generation_and_names_the_manager(site: Site) -> None:
    site.deployment(replicas=1)
    site.apps.patch_namespaced_deployment_scale(
        "decode", site.namespace, {"spec": {"replicas": 0}}, field_manager="poolwise"
    )
    metadata = site.settled("decode")["metadata"]
    assert metadata["generation"] == 2
    entry = next(e for e in metadata["managedFields"] if e["manager"] == "poolwise")
    assert (entry["operation"], entry["subresource"]) == ("Update", "scale")
    assert entry["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


def test_a_negative_count_is_422_on_object_and_scale(site: Site) -> None:
    site.deployment(replicas=0)
    for patch in (
        site.apps.patch_namespaced_deployment,
        site.apps.patch_namespaced_deployment_scale,
    ):
        with pytest.raises(ApiException) as caught:
            patch("decode", site.namespace, {"spec": {"replicas": -1}})
        status = refused(caught)
        assert (status["code"], status["reason"]) == (422, "Invalid")
        cause = status["details"]["causes"][0]
        assert (cause["field"], cause["reason"]) == ("spec.replicas", "FieldValueInvalid")
        assert "must be greater than or equal to 0" in cause["message"]


def test_scale_of_a_custom_kind_follows_its_paths(site: Site) -> None:
    site.pools.create("a", {"engine": "vllm", "workers": {"replicas": 2}})
    site.pools.patch_status("a", {"status": {"replicas": 1, "selector": "pool=a"}})
    scale = site.pools.scale("a")
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 1, "selector": "pool=a"}
    site.pools.patch_scale("a", {"spec": {"replicas": 5}})
    assert site.pools.get("a")["spec"]["workers"] == {"replicas": 5}


def test_scale_of_a_custom_object_without_a_count_is_500(site: Site) -> None:
    site.pools.create("a", {"engine": "vllm"})
    with pytest.raises(ApiException) as caught:
        site.pools.scale("a")
    status = refused(caught)
    assert status["code"] == 500
    assert 'the spec replicas field ".spec.workers.replicas" does not exist' in status["message"]


def test_a_json_patch_on_scale_tests_before_it_replaces(site: Site) -> None:
    site.deployment(replicas=1)
    path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments/decode/scale"

    def from_to(old: int, new: int) -> tuple[int, Any]:
        return site.raw("PATCH", path, [
            {"op": "test", "path": "/spec/replicas", "value": old},
            {"op": "replace", "path": "/spec/replicas", "value": new},
        ], JSON)  # fmt: skip

    code, status = from_to(4, 2)
    assert (code, status["reason"]) == (422, "Invalid")
    assert from_to(1, 2)[0] == 200
    assert site.settled("decode")["spec"]["replicas"] == 2


# -- patches -----------------------------------------------------------------------------------


def test_a_strategic_patch_merges_containers_by_name(site: Site) -> None:
    site.deployment(replicas=0)
    image = "registry.k8s.io/pause:3.10"
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "sidecar", "image": image}]}}}}
    path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments/decode"
    code, patched = site.raw("PATCH", path, patch, STRATEGIC)
    assert code == 200
    containers = patched["spec"]["template"]["spec"]["containers"]
    assert [c["name"] for c in containers] == ["engine", "sidecar"]
    assert containers[1]["image"] == image


def test_a_merge_patch_replaces_a_list(site: Site) -> None:
    site.pools.create("a", {"engine": "vllm", "plain": [{"name": "p"}, {"name": "d"}]})
    patched = site.pools.patch("a", {"spec": {"plain": [{"name": "d", "replicas": 2}]}})
    assert patched["spec"]["plain"] == [{"name": "d", "replicas": 2}]


def test_a_null_in_a_merge_patch_removes_a_field(site: Site) -> None:
    site.pools.create("a", {"engine": "vllm", "fixed": 2})
    assert "fixed" not in site.pools.patch("a", {"spec": {"fixed": None}})["spec"]


def test_a_strategic_patch_of_a_custom_object_is_415(site: Site) -> None:
    site.pools.create("a", {"engine": "vllm"})
    with pytest.raises(ApiException) as caught:
        site.pools.patch("a", {"spec": {"fixed": 1}}, STRATEGIC)
    assert refused(caught)["reason"] == "UnsupportedMediaType"


def test_a_json_patch_on_a_plain_list_guards_its_element(site: Site) -> None:
    site.pools.create("a", {"engine": "vllm", "plain": [{"name": "p"}, {"name": "d"}]})

    def set_second(name: str) -> list[Object]:
        return [
            {"op": "test", "path": "/spec/plain/1/name", "value": name},
            {"op": "add", "path": "/spec/plain/1/replicas", "value": 3},
        ]

    with pytest.raises(ApiException) as caught:
        site.pools.patch("a", set_second("p"), JSON)
    assert refused(caught)["code"] == 422
    patched = site.pools.patch("a", set_second("d"), JSON)
    assert patched["spec"]["plain"] == [{"name": "p"}, {"name": "d", "replicas": 3}]


# -- server-side apply -------------------------------------------------------------------------


def applied(name: str, **spec: Any) -> Object:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": spec}  # fmt: skip


def test_apply_without_a_manager_is_refused(site: Site) -> None:
    path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments/decode"
    code, status = site.raw("PATCH", path, applied("decode", replicas=1), APPLY)
    assert code == 422
    assert "fieldManager: Required value: is required for apply patch" in status["message"]


def test_apply_meets_another_manager_with_409_until_forced(site: Site) -> None:
    site.deployment(replicas=1)
    site.apps.patch_namespaced_deployment_scale(
        "decode", site.namespace, {"spec": {"replicas": 0}}, field_manager="hpa"
    )

    def apply(**how: Any) -> Any:
        return site.apps.patch_namespaced_deployment(
            "decode", site.namespace, applied("decode", replicas=3), _content_type=APPLY,
            field_manager="poolwise", **how,
        )  # fmt: skip

    with pytest.raises(ApiException) as caught:
        apply()
    status = refused(caught)
    assert (status["code"], status["reason"]) == (409, "Conflict")
    assert status["message"].startswith('Apply failed with 1 conflict: conflict with "hpa"')
    cause = status["details"]["causes"][0]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".spec.replicas")
    assert site.settled("decode")["spec"]["replicas"] == 0
    apply(force=True)
    entries = site.settled("decode")["metadata"]["managedFields"]
    owners = {e["manager"] for e in entries if "f:replicas" in e["fieldsV1"].get("f:spec", {})}
    assert owners == {"poolwise"}


def test_two_managers_that_agree_share_a_field(site: Site) -> None:
    site.pools.apply("a", {"engine": "vllm", "fixed": 2}, "one")
    site.pools.apply("a", {"fixed": 2}, "two")
    entries = site.pools.get("a")["metadata"]["managedFields"]
    owners = {e["manager"] for e in entries if "f:fixed" in e["fieldsV1"]["f:spec"]}
    assert owners == {"one", "two"}


def test_a_field_no_longer_applied_goes_with_its_last_owner(site: Site) -> None:
    site.pools.apply("a", {"engine": "vllm", "fixed": 2}, "one")
    left = site.pools.apply("a", {"engine": "vllm"}, "one")
    assert "fixed" not in left["spec"]


def test_a_count_no_longer_applied_falls_back_to_one(site: Site) -> None:
    site.deployment(replicas=0)

    def apply(**spec: Any) -> Any:
        return site.apps.patch_namespaced_deployment(
            "decode", site.namespace, applied("decode", **spec), _content_type=APPLY,
            field_manager="poolwise", force=True,
        )  # fmt: skip

    assert apply(replicas=3).spec.replicas == 3
    assert apply().spec.replicas == 1


def test_apply_merges_a_keyed_list_and_leaves_the_rest(site: Site) -> None:
    roles = [{"name": "prefill", "replicas": 1}, {"name": "decode", "replicas": 1}]
    site.pools.create("a", {"engine": "vllm", "roles": roles}, field_manager="owner")
    merged = site.pools.apply(
        "a", {"roles": [{"name": "decode", "replicas": 4}]}, "poolwise", force=True
    )
    assert merged["spec"]["roles"] == [roles[0], {"name": "decode", "replicas": 4}]
    entry = next(e for e in merged["metadata"]["managedFields"] if e["operation"] == "Apply")
    keyed = entry["fieldsV1"]["f:spec"]["f:roles"]
    assert keyed == {'k:{"name":"decode"}': {".": {}, "f:name": {}, "f:replicas": {}}}


def test_apply_of_an_unknown_field_is_refused(site: Site) -> None:
    site.pools.create("a", {"engine": "vllm"})
    with pytest.raises(ApiException) as caught:
        site.pools.apply("a", {"replicaz": 2}, "poolwise")
    assert ".spec.replicaz: field not declared in schema" in refused(caught)["message"]


# -- dry run and validation --------------------------------------------------------------------


def test_a_dry_run_answers_as_a_write_and_stores_nothing(site: Site) -> None:
    made = site.deployment(replicas=0)
    tried = site.apps.patch_namespaced_deployment_scale(
        "decode", site.namespace, {"spec": {"replicas": 4}}, dry_run="All"
    )
    assert tried.spec.replicas == 4
    site.apps.create_namespaced_deployment(site.namespace, deployment("other", 1), dry_run="All")
    site.apps.delete_namespaced_deployment("decode", site.namespace, dry_run="All")
    assert site.settled("decode")["spec"] == made["spec"]
    with pytest.raises(ApiException) as caught:
        site.apps.read_namespaced_deployment("other", site.namespace)
    assert caught.value.status == 404


def test_a_dry_run_refuses_what_a_write_would(site: Site) -> None:
    site.deployment(replicas=0)
    with pytest.raises(ApiException) as caught:
        site.apps.patch_namespaced_deployment_scale(
            "decode", site.namespace, {"spec": {"replicas": -4}}, dry_run="All"
        )
    assert refused(caught)["code"] == 422


def test_an_unknown_dry_run_is_refused_not_written(site: Site) -> None:
    site.deployment(replicas=0)
    path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments/decode?dryRun=Some"
    code, status = site.raw("PATCH", path, {"spec": {"replicas": 4}}, MERGE)
    assert code == 422
    assert "dryRun: Unsupported value" in status["message"]
    assert site.settled("decode")["spec"]["replicas"] == 0


def test_strict_validation_refuses_an_unknown_field(site: Site) -> None:
    site.deployment(replicas=0)
    with pytest.raises(ApiException) as caught:
        site.apps.patch_namespaced_deployment(
            "decode", site.namespace, {"spec": {"replicaz": 1}}, field_validation="Strict"
        )
    status = refused(caught)
    assert status["code"] == 422
    assert 'strict decoding error: unknown field "spec.replicaz"' in status["message"]
    path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments?fieldValidation=Strict"
    code, status = site.raw("POST", path, deployment("other", 0) | {"spex": {}})
    assert (code, status["reason"]) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spex"' in status["message"]


def test_an_unknown_field_is_dropped_without_strict_validation(site: Site) -> None:
    made = site.pools.create("a", {"engine": "vllm", "colour": "red"})
    assert "colour" not in made["spec"]


def test_a_wrong_type_is_400_in_a_builtin_and_422_in_a_custom_kind(site: Site) -> None:
    path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments"
    manifest = deployment("decode", 1)
    manifest["spec"]["replicas"] = "two"
    code, status = site.raw("POST", path, manifest)
    assert (code, status["reason"]) == (400, "BadRequest")
    assert "cannot unmarshal string into Go" in status["message"]
    with pytest.raises(ApiException) as caught:
        site.pools.create("a", {"engine": "vllm", "fixed": "two"})
    assert refused(caught)["code"] == 422
    assert "must be of type integer" in refused(caught)["message"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "spec.engine: Required value"),
        ({"engine": "ollama"}, 'spec.engine: Unsupported value: "ollama"'),
        ({"engine": "vllm", "fixed": -1}, "should be greater than or equal to 0"),
        ({"engine": "vllm", "fixed": 1, "scaling": {}}, "fixed and scaling are mutually exclusive"),
    ],
)
def test_the_schema_of_a_custom_kind_is_enforced(site: Site, spec: Object, words: str) -> None:
    with pytest.raises(ApiException) as caught:
        site.pools.create("a", spec)
    status = refused(caught)
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert words in status["message"]
    assert status["details"]["causes"]


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [([], "application/json", 400), ({}, "text/plain", 415), ({"kind": "Secret"}, JSON, 415)],
)
def test_a_body_that_is_no_such_object_is_refused(
    site: Site, body: Any, content_type: str, code: int
) -> None:
    path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments"
    assert site.raw("POST", path, body, content_type)[0] == code


def test_the_schema_of_a_custom_kind_fills_defaults(site: Site) -> None:
    assert site.pools.create("a", {"engine": "vllm"})["spec"]["drain_s"] == 60


def test_a_selector_is_immutable_and_must_match_the_template(site: Site) -> None:
    site.deployment(replicas=0)
    patch = {"spec": {"selector": {"matchLabels": {"app": "other"}}}}
    path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments/decode"
    code, status = site.raw("PATCH", path, patch, MERGE)
    assert code == 422
    assert "field is immutable" in status["message"]
    assert "`selector` does not match template `labels`" in status["message"]


def test_a_bad_name_is_422(site: Site) -> None:
    with pytest.raises(ApiException) as caught:
        site.apps.create_namespaced_deployment(site.namespace, deployment("Not_A_Name", 1))
    assert "a lowercase RFC 1123 subdomain must consist of" in refused(caught)["message"]

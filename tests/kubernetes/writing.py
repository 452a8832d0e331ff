"""Creating, updating, patching, applying and deleting objects."""

import secrets
import uuid
from datetime import UTC, datetime
from typing import Any

from tests.kubernetes import errors, ownership, patching, scaling, schemas
from tests.kubernetes.admission import Admission, Review
from tests.kubernetes.builtin_rules import (
    builtin_problems,
    fill_builtin_defaults,
    initial_status,
    metadata_problems,
)
from tests.kubernetes.decoding import (
    Warn,
    check_types,
    check_unknown,
    decoded,
    fill,
    named_rightly,
    scale_decoded,
)
from tests.kubernetes.kinds import Kind, Registry, custom_kinds
from tests.kubernetes.ownership import Writer
from tests.kubernetes.plain import copied
from tests.kubernetes.routing import Request
from tests.kubernetes.storage import Store

Object = dict[str, Any]
Answer = tuple[int, Object]

CRDS = ("apiextensions.k8s.io", "customresourcedefinitions")
_KEPT = ("uid", "creationTimestamp", "generation", "deletionTimestamp",
         "deletionGracePeriodSeconds", "managedFields", "resourceVersion", "namespace", "name",
         "selfLink", "generateName")  # fmt: skip


def now_text() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Writing:
    """The verbs that change objects; each call holds the store's lock from read to write."""

    def __init__(self, store: Store, registry: Registry, admission: Admission) -> None:
        self._store = store
        self._registry = registry
        self._admission = admission

    # -- reading, for the writes --------------------------------------------------------------

    def current(self, request: Request) -> Object:
        """The stored object, in the version asked for. Raises the 404."""
        kind = request.served
        stored = self._store.get(kind.key, request.namespace, request.name)
        if stored is None:
            raise errors.not_found(kind.plural, kind.group, request.name)
        return self._registry.converted(kind, stored, kind.version)

    # -- create -------------------------------------------------------------------------------

    def create(self, request: Request, warn: Warn) -> Answer:
        kind = request.served
        obj = decoded(request, warn)
        metadata = obj["metadata"]
        self._check_namespace(request, metadata)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
        with self._store.lock:
            name = metadata.get("name", "")
            if self._store.get(kind.key, request.namespace, name) is not None:
                raise errors.already_exists(kind.plural, kind.group, name)
            return 201, self._create(request.asking(name=name), obj)

    def _check_namespace(self, request: Request, metadata: Object) -> None:
        if not request.served.namespaced:
            metadata.pop("namespace", None)
            return
        if metadata.get("namespace", request.namespace) != request.namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
        metadata["namespace"] = request.namespace
        if self._store.get(("", "namespaces"), "", request.namespace) is None:
            raise errors.not_found("namespaces", "", request.namespace)

    def _create(self, request: Request, obj: Object, operation: str = "Update") -> Object:
        kind = request.served
        for field in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"):
            obj["metadata"].pop(field, None)
        entries = obj["metadata"].pop("managedFields", [])
        if kind.has_status:
            obj.pop("status", None)
            status = initial_status(kind)
            if status is not None and not kind.custom:
                obj["status"] = status
        obj["metadata"]["uid"] = str(uuid.uuid4())
        obj["metadata"]["creationTimestamp"] = now_text()
        if kind.has_generation:
            obj["metadata"]["generation"] = 1
        writer = Writer(manager=request.manager, operation=operation,
                        api_version=kind.api_version)  # fmt: skip
        if operation == "Apply":
            obj["metadata"]["managedFields"] = entries
        else:
            seen = {k: v for k, v in obj.items() if k != "status" or not kind.has_status}
            obj["metadata"]["managedFields"] = ownership.after_update(
                kind.schema, {}, seen, writer, now_text()
            )
        self._admission.review(Review.of(request, "CREATE", obj, None))
        self._validate(kind, obj, None)
        if request.dry_run:
            return obj
        return self._stored(kind, obj)

    # -- update -------------------------------------------------------------------------------

    def update(self, request: Request, warn: Warn) -> Answer:
        kind = request.served
        if request.subresource == "scale":
            body = scale_decoded(request, warn)
            with self._store.lock:
                return 200, self._put_scale(request, self.current(request), body)
        obj = decoded(request, warn)
        metadata = obj["metadata"]
        if metadata.setdefault("name", request.name) != request.name:
            raise errors.bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL "
                f"({request.name})"
            )
        self._check_namespace(request, metadata)
        with self._store.lock:
            if self._store.get(kind.key, request.namespace, request.name) is None and (
                kind.create_on_update and not request.subresource
            ):
                return 201, self._create(request, obj)
            before = self.current(request)
            if not metadata.get("resourceVersion") and not kind.unconditional_update:
                raise errors.invalid(kind.kind, kind.group, request.name, [errors.wrong(
                    "metadata.resourceVersion", "0: must be specified for an update"
                )])  # fmt: skip
            return 200, self._replace(request, before, obj)

    def _put_scale(self, request: Request, before: Object, scale: Object) -> Object:
        kind = request.served
        check_version(kind, request.name, before, scale.get("metadata", {}))
        after = self._replace(request, before, scaling.with_scale(kind, before, scale))
        return scaling.scale_of(kind, after)

    def _replace(
        self, request: Request, before: Object, obj: Object, *, applied: bool = False
    ) -> Object:
        """Write `obj` over `before` as far as the (sub)resource reaches; nothing if all is same."""
        kind = request.served
        check_version(kind, request.name, before, obj.get("metadata", {}))
        after = combined(kind, request.subresource, before, obj)
        if not kind.custom:
            fill_builtin_defaults(kind, after)
        schemas.fill_defaults(kind.schema if kind.custom else None, after)
        if not applied:
            writer = Writer(
                manager=request.manager,
                operation="Update",
                api_version=kind.api_version,
                subresource=request.subresource,
            )
            after["metadata"]["managedFields"] = ownership.after_update(
                kind.schema, before, after, writer, now_text()
            )
        else:
            after["metadata"]["managedFields"] = obj["metadata"]["managedFields"]
        self._admission.review(Review.of(request, "UPDATE", after, before))
        if kind.has_generation and _generation_moves(kind, before, after):
            after["metadata"]["generation"] = before["metadata"].get("generation", 0) + 1
        self._validate(kind, after, before)
        if after == before or request.dry_run:
            return after
        if _may_go(after["metadata"]):
            return self._removed(kind, after)
        return self._stored(kind, after)

    # -- patch --------------------------------------------------------------------------------

    def patch(self, request: Request, warn: Warn) -> Answer:
        kind = request.served
        accepted = [patching.JSON_PATCH, patching.MERGE_PATCH, patching.APPLY_PATCH]
        if not kind.custom:
            accepted.insert(2, patching.STRATEGIC_PATCH)
        if request.content_type not in accepted:
            raise errors.unsupported_media_type(accepted)
        if request.content_type == patching.APPLY_PATCH:
            return self._apply(request, warn)
        if "force" in request.query:
            raise options_invalid(
                errors.not_permitted("force", "may not be specified for non-apply patch")
            )
        with self._store.lock:
            before = self.current(request)
            scales = request.subresource == "scale"
            schema = scaling.schema() if scales else kind.schema
            seen = scaling.scale_of(kind, before) if scales else before
            patched = self._patched(request, seen, schema)
            check_unknown(request, schema, patched, warn, patch=True)
            patched = schemas.pruned(schema, patched)
            if scales:
                check_types("Scale", "v1", schema, patched)
                return 200, self._put_scale(request, before, patched)
            if not kind.custom:
                check_types(kind.kind, kind.version, schema, patched)
            patched = schemas.without_nulls(schema, patched)
            return 200, self._replace(request, before, patched)

    def _patched(self, request: Request, seen: Object, schema: schemas.Schema) -> Object:
        if request.content_type == patching.JSON_PATCH:
            patched = patching.json_patch(seen, request.body)
        elif not isinstance(request.body, dict):
            raise errors.bad_request(
                "error decoding patch: json: cannot unmarshal array into Go value of type "
                "map[string]interface {}"
            )
        elif request.content_type == patching.STRATEGIC_PATCH:
            patched = patching.strategic_patch(seen, request.body, schema)
        else:
            patched = patching.merge_patch(seen, request.body)
        if not isinstance(patched, dict) or "metadata" not in patched:
            raise errors.json_patch_refused()
        return patched

    # -- server-side apply --------------------------------------------------------------------

    def _apply(self, request: Request, warn: Warn) -> Answer:
        kind = request.served
        if not request.query.get("fieldManager"):
            raise options_invalid(
                errors.required("fieldManager", "Required value: is required for apply patch")
            )
        force = request.query.get("force", "") == "true"
        config = request.body
        if not isinstance(config, dict) or not {"apiVersion", "kind"} <= config.keys():
            raise errors.bad_request("error decoding YAML: Object 'Kind' is missing")
        if config.get("metadata", {}).get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        with self._store.lock:
            if request.subresource == "scale":
                return 200, self._apply_scale(request, config, force=force)
            named_rightly(request, config)
            unknown = next(iter(schemas.unknown_fields(kind.schema, config)), None)
            if unknown:
                raise errors.untyped_error(
                    "failed to create typed patch object "
                    f"({request.namespace}/{request.name}; {kind.api_version}, "
                    f"Kind={kind.kind}): .{unknown}: field not declared in schema"
                )
            if not kind.custom:
                check_types(kind.kind, kind.version, kind.schema, config)
            config = schemas.pruned(kind.schema, config)
            return self._apply_object(request, config, force=force)

    def _apply_object(self, request: Request, config: Object, *, force: bool) -> Answer:
        kind = request.served
        found = self._store.get(kind.key, request.namespace, request.name)
        writer = Writer(
            manager=request.manager,
            operation="Apply",
            api_version=kind.api_version,
            subresource=request.subresource,
        )
        config = {field: value for field, value in config.items()
                  if field != "status" or request.subresource or not kind.has_status}  # fmt: skip
        config["metadata"] = {**config.get("metadata", {}), "name": request.name}
        if found is None:
            if request.subresource or config["metadata"].get("resourceVersion"):
                raise errors.not_found(kind.plural, kind.group, request.name)
            self._check_namespace(request, config["metadata"])
            made = ownership.apply(kind.schema, {}, config, writer, at=now_text(), force=force)
            fill(kind, made)
            return 201, self._create(request, made, "Apply")
        before = self.current(request)
        check_version(kind, request.name, before, config["metadata"])
        merged = ownership.apply(kind.schema, before, config, writer, at=now_text(), force=force)
        merged["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
        return 200, self._replace(request, before, merged, applied=True)

    def _apply_scale(self, request: Request, config: Object, *, force: bool) -> Object:
        kind = request.served
        before = self.current(request)
        check_version(kind, request.name, before, config.get("metadata", {}))
        whole = scaling.with_scale(kind, {"metadata": {"name": request.name}}, config)
        writer = Writer(
            manager=request.manager,
            operation="Apply",
            api_version=kind.api_version,
            subresource="scale",
        )
        merged = ownership.apply(kind.schema, before, whole, writer, at=now_text(), force=force)
        return scaling.scale_of(kind, self._replace(request, before, merged, applied=True))

    # -- delete -------------------------------------------------------------------------------

    def delete(self, request: Request) -> Answer:
        kind = request.served
        options = request.body if isinstance(request.body, dict) else {}
        with self._store.lock:
            before = self.current(request)
            metadata = before["metadata"]
            for field, wanted in (options.get("preconditions") or {}).items():
                word = "UID" if field == "uid" else "ResourceVersion"
                if wanted and metadata[field] != wanted:
                    raise errors.conflict(
                        kind.plural, kind.group, request.name,
                        f"Precondition failed: {word} in precondition: {wanted}, {word} in "
                        f"object meta: {metadata[field]}",
                    )  # fmt: skip
            self._admission.review(Review.of(request, "DELETE", None, before))
            grace = _grace_s(kind, before, request, options)
            if request.dry_run or "All" in (options.get("dryRun") or ()):
                return 200, deleted_status(kind, metadata)
            if not metadata.get("finalizers") and not grace:
                self._removed(kind, before)
                return 200, before if kind.key == ("", "pods") else deleted_status(kind, metadata)
            if not metadata.get("deletionTimestamp"):
                metadata["deletionTimestamp"] = now_text()
                metadata["deletionGracePeriodSeconds"] = grace
                before = self._stored(kind, before)
            return 200, before

    def _removed(self, kind: Kind, obj: Object) -> Object:
        metadata = obj["metadata"]
        if kind.key == CRDS:
            spec = obj["spec"]
            key = (spec["group"], spec["names"]["plural"])
            for instance in self._store.all(key):
                at = instance["metadata"]
                self._store.remove(key, at.get("namespace", ""), at["name"])
            self._registry.remove(*key)
        elif kind.key == ("", "namespaces"):
            for key in self._store.kind_keys():
                for instance in self._store.all(key, metadata["name"]):
                    self._store.remove(key, metadata["name"], instance["metadata"]["name"])
        return self._store.remove(kind.key, metadata.get("namespace", ""), metadata["name"])

    # -- common -------------------------------------------------------------------------------

    def _validate(self, kind: Kind, after: Object, before: Object | None) -> None:
        causes = list(metadata_problems(kind, after))
        causes += schemas.problems(kind.schema, after, "", before)
        if not kind.custom:
            causes += builtin_problems(kind, after, before)
        if kind.key == CRDS:
            expected = f"{after['spec']['names']['plural']}.{after['spec']['group']}"
            if after["metadata"]["name"] != expected:
                causes.append(
                    errors.wrong(
                        "metadata.name",
                        f'"{after["metadata"]["name"]}": must be spec.names.plural+"."+spec.group',
                    )
                )
        if causes:
            raise errors.invalid(kind.kind, kind.group, after["metadata"].get("name", ""), causes)

    def _stored(self, kind: Kind, obj: Object) -> Object:
        obj = {**obj, "apiVersion": kind.api_version, "kind": kind.kind}
        if kind.key == CRDS:
            obj = _established(obj)
            self._registry.remove(obj["spec"]["group"], obj["spec"]["names"]["plural"])
            self._registry.add(custom_kinds(obj))
        kept = self._registry.converted(kind, obj, kind.storage_version)
        kept = self._store.put(kind.key, kept)
        return self._registry.converted(kind, kept, kind.version)


def check_version(kind: Kind, name: str, before: Object, metadata: Object) -> None:
    """The 409 for a resourceVersion or uid that is not the stored one."""
    version = metadata.get("resourceVersion")
    if version and version != before["metadata"]["resourceVersion"]:
        raise errors.conflict(kind.plural, kind.group, name)
    uid = metadata.get("uid")
    if uid and uid != before["metadata"]["uid"]:
        raise errors.conflict(
            kind.plural, kind.group, name,
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: "
            f"{before['metadata']['uid']}",
        )  # fmt: skip


def combined(kind: Kind, subresource: str, before: Object, obj: Object) -> Object:
    """What a write leaves: `status` and the rest are kept apart, system metadata stays."""
    if subresource == "status":
        after = copied(before)
        after.pop("status", None)
        if "status" in obj:
            after["status"] = copied(obj["status"])
        return after
    after = copied(obj)
    after["apiVersion"], after["kind"] = before["apiVersion"], before["kind"]
    if kind.has_status:
        after.pop("status", None)
        if "status" in before:
            after["status"] = copied(before["status"])
    for field in _KEPT:
        after["metadata"].pop(field, None)
        if field in before["metadata"]:
            after["metadata"][field] = copied(before["metadata"][field])
    return after


def _may_go(metadata: Object) -> bool:
    """Whether a deleted object waits for nothing more."""
    return bool(
        metadata.get("deletionTimestamp")
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
    )


def _generation_moves(kind: Kind, before: Object, after: Object) -> bool:
    if not kind.custom:
        same = before.get("spec") == after.get("spec")
        if kind.kind == "Deployment":
            # Annotations of a Deployment count: its controller copies them to ReplicaSets.
            return not same or before["metadata"].get("annotations") != after["metadata"].get(
                "annotations"
            )
        return not same
    outside = {"metadata", "status"} if kind.has_status else {"metadata"}
    return {k: v for k, v in before.items() if k not in outside} != {
        k: v for k, v in after.items() if k not in outside
    }


def _grace_s(kind: Kind, before: Object, request: Request, options: Object) -> int:
    """How long a deletion is graceful: pods on a node only."""
    if kind.key != ("", "pods") or not before.get("spec", {}).get("nodeName"):
        return 0
    default = before["spec"].get("terminationGracePeriodSeconds", 30)
    return int(request.query.get("gracePeriodSeconds", options.get("gracePeriodSeconds", default)))


def deleted_status(kind: Kind, metadata: Object) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {
            "name": metadata["name"],
            **({"group": kind.group} if kind.group else {}),
            "kind": kind.plural,
            "uid": metadata["uid"],
        },
    }


def options_invalid(cause: errors.Cause) -> errors.ApiError:
    return errors.invalid("PatchOptions", "meta.k8s.io", "", [cause])


def _established(definition: Object) -> Object:
    at = now_text()
    conditions = [
        {"type": "NamesAccepted", "status": "True", "lastTransitionTime": at,
         "reason": "NoConflicts", "message": "no conflicts found"},
        {"type": "Established", "status": "True", "lastTransitionTime": at,
         "reason": "InitialNamesAccepted",
         "message": "the initial names have been accepted"},
    ]  # fmt: skip
    status = {"conditions": conditions, "acceptedNames": definition["spec"]["names"],
              "storedVersions": [v["name"] for v in definition["spec"]["versions"]
                                 if v.get("storage")]}  # fmt: skip
    return {**definition, "status": status}

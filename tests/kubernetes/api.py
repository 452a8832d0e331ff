"""From a routed request to an answer, without HTTP."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.kubernetes import discovery, errors, reviews
from tests.kubernetes.access import Access
from tests.kubernetes.admission import Admission
from tests.kubernetes.kinds import Registry, builtin_kinds
from tests.kubernetes.patching import APPLY_PATCH
from tests.kubernetes.reading import Reading
from tests.kubernetes.routing import Request
from tests.kubernetes.storage import Store
from tests.kubernetes.writing import Writing, options_invalid

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back: a code, a body and headers."""

    code: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


class Api:
    """The API: routing found the path, this checks access and calls the verb."""

    def __init__(self) -> None:
        self.store = Store()
        self.registry = Registry()
        self.registry.add(builtin_kinds())
        self.access = Access(self.store)
        self.admission = Admission()
        self.reading = Reading(self.store, self.registry)
        self.writing = Writing(self.store, self.registry, self.admission)

    def located(self, request: Request) -> Request:
        """The request with its kind, once it is allowed. Raises 403, then 404 and 405."""
        self.access.check(request.user, request.attributes)
        kind = self.registry.find(request.group, request.version, request.plural)
        if kind is None:
            raise errors.PageNotFoundError
        if request.subresource and request.subresource not in kind.subresources:
            if not kind.custom:
                raise errors.PageNotFoundError
            raise errors.ApiError(
                404, "NotFound", "the server could not find the requested resource", details={}
            )
        if kind.namespaced and not request.namespace and request.verb not in {"list", "watch"}:
            raise errors.method_not_allowed(kind.plural, kind.group)
        if request.verb not in kind.verbs:
            raise errors.method_not_allowed(kind.plural, kind.group)
        _check_options(request)
        _check_body(request)
        return request.asking(kind=kind)

    def answer(self, request: Request) -> Answer:
        """Answer anything but a watch."""
        if not request.plural:
            return self._plain(request)
        request = self.located(request)
        self._check_creation(request)
        warnings: list[str] = []
        special = self._special(request)
        if special is not None:
            return special
        verbs: dict[str, Callable[[], tuple[int, Object]]] = {
            "get": lambda: (200, self.reading.get(request)),
            "list": lambda: (200, self.reading.page(request)),
            "create": lambda: self.writing.create(request, warnings.append),
            "update": lambda: self.writing.update(request, warnings.append),
            "patch": lambda: self.writing.patch(request, warnings.append),
            "delete": lambda: self.writing.delete(request),
            "deletecollection": lambda: self._delete_all(request),
        }
        code, body = verbs[request.verb]()
        headers = {"Warning": ", ".join(f'299 - "{w}"' for w in warnings)} if warnings else {}
        return Answer(code=code, body=body, headers=headers)

    def _check_creation(self, request: Request) -> None:
        """Apply and update of what is not there also need `create`."""
        kind = request.served
        creates = request.content_type == APPLY_PATCH or (
            request.verb == "update" and kind.create_on_update
        )
        if request.verb not in {"patch", "update"} or request.subresource or not creates:
            return
        if self.store.get(kind.key, request.namespace, request.name) is None:
            self.access.check(request.user, replace(request.attributes, verb="create"))

    def _plain(self, request: Request) -> Answer:
        if request.path in {"/healthz", "/livez", "/readyz"}:
            return Answer(code=200, body="ok")
        if request.user.name == "system:anonymous" and request.path != "/version":
            raise errors.ApiError(
                403, "Forbidden",
                f'forbidden: User "system:anonymous" cannot get path "{request.path}"', details={},
            )  # fmt: skip
        return Answer(code=200, body=discovery.discover(self.registry, request.path))

    def _special(self, request: Request) -> Answer | None:
        if request.plural == "selfsubjectaccessreviews":
            return Answer(code=201, body=reviews.access_review(self.access, request))
        if request.plural == "selfsubjectrulesreviews":
            return Answer(code=201, body=reviews.rules_review(self.access, request))
        if request.plural == "selfsubjectreviews":
            return Answer(code=201, body=reviews.subject_review(request))
        if request.subresource == "token":
            return Answer(code=201, body=reviews.token_request(self.access, self.store, request))
        if request.subresource == "eviction":
            return self._evict(request)
        return None

    def _evict(self, request: Request) -> Answer:
        with self.store.lock:
            reviews.check_eviction(self.store, self.writing.current(request))
            options = (request.body or {}).get("deleteOptions") or {}
            self.writing.delete(request.asking(subresource="", body=options))
        body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "code": 201}  # fmt: skip
        return Answer(code=201, body=body)

    def _delete_all(self, request: Request) -> tuple[int, Object]:
        with self.store.lock:
            listed = self.reading.page(request.asking(query={
                k: v for k, v in request.query.items() if k.endswith("Selector")
            }))  # fmt: skip
            for one in listed["items"]:
                self.writing.delete(request.asking(name=one["metadata"]["name"]))
        return 200, listed


_JSON_OR_YAML = ("application/json", "application/yaml")
_OPTIONS = {
    "create": "CreateOptions",
    "update": "UpdateOptions",
    "patch": "PatchOptions",
    "delete": "DeleteOptions",
}


def _check_body(request: Request) -> None:
    """The 415 and 400 for bodies that are no JSON or YAML object."""
    if request.body is None or request.verb == "patch":
        return
    if request.content_type not in _JSON_OR_YAML:
        raise errors.unsupported_media_type(_JSON_OR_YAML)
    if not isinstance(request.body, dict):
        raise errors.bad_request("couldn't get version/kind; json parse error: no object")


def _check_options(request: Request) -> None:
    """The 422 for options of a write that are no options."""
    if request.verb not in _OPTIONS:
        return
    dry_run = request.query.get("dryRun")
    if dry_run is not None and dry_run != "All":
        cause = errors.unsupported("dryRun", dry_run, ["All"])
        raise errors.invalid(_OPTIONS[request.verb], "meta.k8s.io", "", [cause])
    validation = request.query.get("fieldValidation", "Warn")
    if validation not in {"Ignore", "Warn", "Strict"}:
        cause = errors.unsupported("fieldValidation", validation, ["Ignore", "Warn", "Strict"])
        raise errors.invalid(_OPTIONS[request.verb], "meta.k8s.io", "", [cause])
    if len(request.query.get("fieldManager", "")) > 128:
        raise options_invalid(errors.wrong(
            "fieldManager", "Too long: may not be more than 128 bytes"))  # fmt: skip

"""What a request asks for: its path, query and headers as one value."""

import json
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from tests.kubernetes import errors
from tests.kubernetes.access import ADMIN, Attributes, User
from tests.kubernetes.kinds import Kind

Object = dict[str, Any]

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, routed; `kind` is there once the server found it."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    user_agent: str = ""
    authorization: str = ""
    user: User = ADMIN
    group: str = ""
    version: str = ""
    plural: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    kind: Kind | None = None

    @property
    def verb(self) -> str:
        if self.method in _VERBS:
            return _VERBS[self.method]
        if self.method == "DELETE":
            return "delete" if self.name else "deletecollection"
        if self.query.get("watch", "").lower() in {"1", "true"} and not self.name:
            return "watch"
        return "get" if self.name else "list"

    @property
    def attributes(self) -> Attributes:
        """What access is decided on."""
        namespace = self.namespace
        if self.plural == "namespaces" and not self.group:
            namespace = self.name
        return Attributes(
            verb=self.verb, group=self.group, version=self.version, resource=self.plural,
            subresource=self.subresource, namespace=namespace, name=self.name,
        )  # fmt: skip

    @property
    def served(self) -> Kind:
        """The kind, where there is one."""
        if self.kind is None:
            raise errors.PageNotFoundError
        return self.kind

    @property
    def dry_run(self) -> bool:
        return self.query.get("dryRun") == "All"

    @property
    def manager(self) -> str:
        """The field manager: as told, else the first word of the user agent."""
        return self.query.get("fieldManager") or self.user_agent.partition("/")[0] or "unknown"

    def asking(self, **changes: Any) -> "Request":
        return replace(self, **changes)


def route(method: str, target: str, headers: dict[str, str], body: bytes, user: User) -> Request:
    """Read a request line, its headers (lower-case names) and its body."""
    parts = urlsplit(target)
    content_type = headers.get("content-type", "application/json").partition(";")[0].strip()
    request = Request(
        method=method,
        path=parts.path,
        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        body=_decode(body, content_type),
        content_type=content_type,
        user_agent=headers.get("user-agent", ""),
        authorization=headers.get("authorization", ""),
        user=user,
    )
    steps = [unquote(step) for step in parts.path.strip("/").split("/")]
    if steps[0] == "api" and len(steps) > 2:
        return _located(request, "", steps[1], steps[2:])
    if steps[0] == "apis" and len(steps) > 3:
        return _located(request, steps[1], steps[2], steps[3:])
    return request


def _located(request: Request, group: str, version: str, steps: list[str]) -> Request:
    namespace = ""
    if steps[0] == "namespaces" and len(steps) > 2 and steps[2] not in {"status", "finalize"}:
        namespace, steps = steps[1], steps[2:]
    return request.asking(
        group=group,
        version=version,
        namespace=namespace,
        plural=steps[0],
        name=steps[1] if len(steps) > 1 else "",
        subresource="/".join(steps[2:]),
    )


def _decode(body: bytes, content_type: str) -> Any:
    if not body:
        return None
    try:
        if content_type.endswith("yaml"):
            return yaml.safe_load(body)
        return json.loads(body)
    except (ValueError, yaml.YAMLError):
        return body.decode(errors="replace")

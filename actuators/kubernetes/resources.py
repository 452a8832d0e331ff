"""Objects of any kind as plain JSON: one way to read, list and patch them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException

from actuators.kubernetes.client import FIELD_MANAGER, MAX_TRIES, Asked, ask

Json = dict[str, object]
REQUEST_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long one try of a call may take, seconds (None: as usual), and how many tries it has."""

    timeout_s: float | None = None
    tries: int = MAX_TRIES


PATIENT = Patience()


def path_of(api_version: str, namespace: str, plural: str, name: str = "", part: str = "") -> str:
    """The path of a resource below the server's address."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    tail = "".join(f"/{piece}" for piece in (name, part) if piece)
    return f"{root}/namespaces/{namespace}/{plural}{tail}"


def get(
    api: ApiClient, path: str, doing: str, *, patience: Patience = PATIENT, **query: str
) -> Json:
    """Read an object or a list. Raises ClusterError."""
    asked = Asked(doing=doing, writes=False)
    return _call(api, "GET", path, asked, query, patience=patience)


def patch(
    api: ApiClient,
    path: str,
    body: object,
    doing: str,
    *,
    content: str,
    dry_run: bool = False,
    manager: str = FIELD_MANAGER,
) -> Json:
    """Change an object under our own name. Raises ClusterError."""
    query = {"fieldManager": manager} | ({"dryRun": "All"} if dry_run else {})
    asked = Asked(doing=doing, writes=True)
    return _call(api, "PATCH", path, asked, query, body=body, content=content)


def post(api: ApiClient, path: str, body: object, doing: str) -> Json:
    """Create something that stores nothing, such as an access review. Raises ClusterError."""
    asked = Asked(doing=doing, writes=False)
    return _call(api, "POST", path, asked, {}, body=body, content="application/json")


def create(
    api: ApiClient, path: str, body: object, doing: str, *, patience: Patience = PATIENT
) -> Json:
    """Create an object under our own name. Raises ClusterError, 409 where it exists."""
    query = {"fieldManager": FIELD_MANAGER}
    asked = Asked(doing=doing, writes=True)
    return _call(api, "POST", path, asked, query, body=body, patience=patience)


def replace(
    api: ApiClient, path: str, body: object, doing: str, *, patience: Patience = PATIENT
) -> Json:
    """Put an object over the version that it names. Raises ClusterError, 409 where it changed."""
    query = {"fieldManager": FIELD_MANAGER}
    asked = Asked(doing=doing, writes=True)
    return _call(api, "PUT", path, asked, query, body=body, patience=patience)


def _call(
    api: ApiClient,
    method: str,
    path: str,
    asked: Asked,
    query: Mapping[str, str],
    *,
    body: object = None,
    content: str = "application/json",
    patience: Patience = PATIENT,
) -> Json:
    address = api.configuration.host + path + (f"?{urlencode(query)}" if query else "")
    headers = {"Accept": "application/json", "Content-Type": content}
    api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)

    timeout_s = patience.timeout_s or REQUEST_TIMEOUT_S

    def once() -> bytes:
        answer = api.call_api(
            method, address, header_params=headers, body=body, _request_timeout=timeout_s
        )
        data: bytes = answer.read()  # type: ignore[no-untyped-call]  # the client's own
        if not 200 <= answer.status < 300:
            text = data.decode(errors="replace")
            raise ApiException.from_response(http_resp=answer, body=text, data=None)
        return data

    found: object = json.loads(ask(once, asked, tries=patience.tries))
    return found if isinstance(found, dict) else {}


def at(document: object, *keys: str) -> object:
    """What lies at a path, None where there is nothing."""
    for key in keys:
        if not isinstance(document, dict):
            return None
        document = document.get(key)
    return document


def number(document: object, *keys: str, absent: int = 0) -> int:
    """A whole number at a path."""
    found = at(document, *keys)
    return found if isinstance(found, int) and not isinstance(found, bool) else absent


def text(document: object, *keys: str) -> str:
    """Text at a path, empty where there is none."""
    found = at(document, *keys)
    return found if isinstance(found, str) else ""


def entries(document: object, *keys: str) -> list[Json]:
    """A list of objects at a path."""
    found = at(document, *keys)
    return [x for x in found if isinstance(x, dict)] if isinstance(found, list) else []

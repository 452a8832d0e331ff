"""Calls to the API server: a time limit, safe retries, and refusals as one sentence each."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from planner.domain.errors import OperationError

FIELD_MANAGER = "poolwise"
"""The name under which Poolwise's writes appear in `managedFields`."""

MAX_TRIES = 4
MAX_RETRY_AFTER_S = 30.0
PAUSE_S = 1.0
"""Before a read whose connection broke is tried again."""
_BUSY = (429, 503)

Answer = TypeVar("Answer")


class ClusterError(OperationError):
    """The API server refused or could not be asked; `status` is its HTTP code, None without one."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a call is for, in words for its refusal: `read the scale of deployments/decode`."""

    doing: str
    writes: bool


def ask(
    call: Callable[[], Answer],
    asked: Asked,
    *,
    tries: int = MAX_TRIES,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Make one call.

    429 and 503 are tried again after the server's `Retry-After`: the server says that it did not
    take the call. A broken connection is tried again for reads only: a write may have landed.

    Raises
    ------
    ClusterError
        When the server refuses, stays busy, or cannot be reached.
    """
    for tries_left in reversed(range(tries)):
        try:
            return call()
        except (ApiException, HTTPError, OSError) as error:
            if isinstance(error, ApiException) and error.status:
                if error.status not in _BUSY or not tries_left:
                    raise ClusterError(_refusal(error, asked), status=error.status) from error
                sleep(_retry_after_s(error))
                continue
            if asked.writes:
                raise ClusterError(
                    f"the connection broke while trying to {asked.doing}, so it is not known "
                    "whether that happened; read it back before writing again"
                ) from error
            if not tries_left:
                raise ClusterError(
                    f"could not {asked.doing}: the API server cannot be reached "
                    f"({_cause(error)}); check the kubeconfig and the network"
                ) from error
            sleep(PAUSE_S)
    raise AssertionError("unreachable: the last try returns or raises")


def _cause(error: BaseException) -> str:
    """What the innermost error says, in a line."""
    reason = getattr(error, "reason", None)
    if isinstance(error, ApiException):  # of TLS, which the client gives the status 0
        return " ".join(str(reason).split())
    inner = reason if isinstance(reason, BaseException) else error.__cause__
    if inner is not None and inner is not error:
        return _cause(inner)
    return " ".join(str(error).split()) or type(error).__name__


def _refusal(error: ApiException, asked: Asked) -> str:
    what_to_do = {
        401: "the token is not valid or has expired; renew it",
        403: "this account is not allowed to; grant it the permission",
        404: "there is no such object or kind; check name, namespace and that its CRD is installed",
        409: "someone else changed it meanwhile; plan again",
    }.get(error.status or 0)
    said = _said(error)
    tail = f"; {what_to_do}" if what_to_do else ""
    return f"could not {asked.doing}: the API server answered {error.status} ({said}){tail}"


def _said(error: ApiException) -> str:
    try:
        body: object = json.loads(error.body or "")
    except ValueError:
        body = None
    message = body.get("message") if isinstance(body, dict) else None
    return str(message or error.reason)


def _retry_after_s(error: ApiException) -> float:
    try:
        seconds = float((error.headers or {}).get("Retry-After", 1.0))
    except ValueError:  # an HTTP date
        seconds = 1.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)

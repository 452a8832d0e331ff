"""What the gate says by itself: errors in the form that OpenAI's API and vLLM use."""

import json
import math
import re
import uuid
from dataclasses import dataclass

from serving.gate.admission import Decision, Why

_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    413: "RequestTooLargeError",
    429: "RateLimitError",
    431: "RequestHeadTooLargeError",
    502: "UpstreamError",
    503: "ServiceUnavailableError",
}
DOWN_RETRY_S = 2.0
Headers = list[tuple[bytes, bytes]]
REQUEST_ID = b"x-request-id"
_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that the gate answers itself.

    Parameters
    ----------
    status : int
        HTTP status.
    reason : str
        One word for metrics and records.
    message : str
        For the client: what is wrong, and what to do.
    param : str or None
        The field of the body that is meant.
    retry_after_s : float or None
        When to come again, seconds.
    request_id : str or None
        By which the gate's log tells more; sent as `x-request-id` too.
    """

    status: int
    reason: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    request_id: str | None = None

    @property
    def retry_after(self) -> int | None:
        """Whole seconds of the Retry-After header, at least 1."""
        return None if self.retry_after_s is None else max(math.ceil(self.retry_after_s), 1)

    @property
    def body(self) -> bytes:
        """The JSON body."""
        error = {
            "message": self.message,
            "type": _TYPES.get(self.status, "ServerError"),
            "param": self.param,
            "code": self.status,
        }
        return json.dumps({"error": error}).encode()

    @property
    def headers(self) -> Headers:
        """Response headers, the length of the body among them."""
        found = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body)).encode()),
        ]
        if self.retry_after is not None:
            found.append((b"retry-after", str(self.retry_after).encode()))
        if self.status == 401:
            found.append((b"www-authenticate", b"Bearer"))
        if self.request_id is not None:
            found.append((b"x-request-id", self.request_id.encode()))
        return found


def request_id_of(headers: Headers) -> str:
    """The id that the client gave by `x-request-id`, where it may stand in a log; else a new one.

    Engines take the same header for the id of the request.
    """
    given = next((value for name, value in headers if name == REQUEST_ID), b"")
    return given.decode() if _ID.fullmatch(given) else uuid.uuid4().hex


def bad_gateway(what: str, request_id: str) -> Refusal:
    """The server behind the gate failed: addresses and causes are for the gate's log only."""
    return Refusal(
        status=502,
        reason="bad_gateway",
        message=f"the server behind the gate {what}; the gate's log says more of request "
        f"{request_id}",
        request_id=request_id,
    )


def nobody(request_id: str) -> Refusal:
    """No router is known, or none takes requests."""
    return Refusal(
        status=503,
        reason="no_upstream",
        message="nothing can serve requests now; come again after the time in Retry-After",
        retry_after_s=DOWN_RETRY_S,
        request_id=request_id,
    )


def fault(request_id: str) -> Refusal:
    """The gate itself failed."""
    return Refusal(
        status=500,
        reason="fault",
        message=f"the gate failed; its log says why, under request {request_id}",
        request_id=request_id,
    )


def unauthorized(message: str) -> Refusal:
    """There is no such key, or none was given."""
    return Refusal(status=401, reason="unknown_key", message=message)


def unknown_path(path: str, method: str, *, taken: bool) -> Refusal:
    """The path is not served, or (`taken`) not by this method."""
    if taken:
        return Refusal(
            status=405, reason="unknown_path", message=f"{path} takes POST, not {method}"
        )
    return Refusal(
        status=404,
        reason="unknown_path",
        message=f"the gate has no {path[:100]}: it has /v1/chat/completions, /v1/completions and "
        "/v1/models",
    )


_SHED_BECAUSE = {
    Why.TTFT: "its first token would come too late",
    Why.TPOT: "its tokens would come too slowly",
    Why.OTHERS_TPOT: "the answers under way would become too slow",
    Why.E2E: "its answer would be complete too late",
    Why.KV_CACHE: "the KV cache is full",
}


def shed(decision: Decision) -> Refusal:
    """It is not let in: promises would be missed."""
    return Refusal(
        status=503,
        reason="shed",
        message="overloaded: with this request now, "
        f"{_SHED_BECAUSE.get(decision.why, 'promises would be missed')}; come again after the "
        "time in Retry-After",
        retry_after_s=decision.retry_after_s,
    )

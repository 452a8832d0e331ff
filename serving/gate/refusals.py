"""What the gate says by itself: errors in the form that OpenAI's API and vLLM use."""

import json
import math
from dataclasses import dataclass

_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    413: "RequestTooLargeError",
    429: "RateLimitError",
    502: "UpstreamError",
    503: "ServiceUnavailableError",
}
Headers = list[tuple[bytes, bytes]]


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
    """

    status: int
    reason: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None

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
        return found


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

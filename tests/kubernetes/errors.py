"""The failures an API server answers with: `Status` objects, worded as the real ones."""

from collections.abc import Sequence
from dataclasses import dataclass

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One field that is wrong: `reason` as in the API, the message without the field."""

    reason: str
    message: str
    field: str

    @property
    def sentence(self) -> str:
        return f"{self.field}: {self.message}"


class ApiError(Exception):
    """An answer other than success; `status_body` is what goes over the wire."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Json | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = headers or {}

    @property
    def status_body(self) -> Json:
        body: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


class PageNotFoundError(ApiError):
    """A path no API is served at: the real server answers with plain text, not with a Status."""

    def __init__(self) -> None:
        super().__init__(404, "NotFound", "404 page not found")


def qualified(plural: str, group: str) -> str:
    """`deployments.apps`, and `pods` for the core group."""
    return f"{plural}.{group}" if group else plural


def _details(name: str, group: str, kind: str) -> Json:
    found = {"name": name, "group": group, "kind": kind}
    return {key: value for key, value in found.items() if value}


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(plural: str, group: str, name: str, why: str) -> ApiError:
    what = qualified(plural, group) + (f' "{name}"' if name else "")
    return ApiError(
        403, "Forbidden", f"{what} is forbidden: {why}", details=_details(name, group, plural)
    )


def not_found(plural: str, group: str, name: str) -> ApiError:
    return ApiError(
        404,
        "NotFound",
        f'{qualified(plural, group)} "{name}" not found',
        details=_details(name, group, plural),
    )


def method_not_allowed(plural: str, group: str) -> ApiError:
    return ApiError(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
        details=_details("", group, plural),
    )


def already_exists(plural: str, group: str, name: str) -> ApiError:
    return ApiError(
        409,
        "AlreadyExists",
        f'{qualified(plural, group)} "{name}" already exists',
        details=_details(name, group, plural),
    )


def conflict(plural: str, group: str, name: str, why: str = "") -> ApiError:
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try "
        "again"
    )
    what = qualified(plural, group)
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {what} "{name}": {why}',
        details=_details(name, group, plural),
    )


def apply_conflict(conflicts: Sequence[tuple[str, str]]) -> ApiError:
    """Server-side apply met fields of other managers: (manager as printed, field path) each."""
    managers = sorted({manager for manager, _ in conflicts})
    noun = "conflict" if len(conflicts) == 1 else "conflicts"
    if len(conflicts) == 1:
        message = f"conflict with {conflicts[0][0]}: {conflicts[0][1]}"
    else:
        message = "\n".join(
            "\n".join(
                [f"conflicts with {manager}:"]
                + [f"- {field}" for other, field in conflicts if other == manager]
            )
            for manager in managers
        )
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": field}
        for manager, field in conflicts
    ]
    return ApiError(
        409,
        "Conflict",
        f"Apply failed with {len(conflicts)} {noun}: {message}",
        details={"causes": causes},
    )


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    return ApiError(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted),
    )


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """422 with every cause; the message joins them as the real server does."""
    sentences = list(dict.fromkeys(cause.sentence for cause in causes))
    listed = sentences[0] if len(sentences) == 1 else "[" + ", ".join(sentences) + "]"
    details = _details(name, group, kind)
    details["causes"] = [
        {"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes
    ]
    return ApiError(
        422,
        "Invalid",
        f'{qualified(kind, group)} "{name}" is invalid: {listed}',
        details=details,
    )


def json_patch_refused() -> ApiError:
    """A JSON patch whose `test` failed, or whose path is not there."""
    message = "the server rejected our request due to an error in our request"
    return ApiError(422, "Invalid", message, details={})


def too_many_requests(message: str, retry_after_s: int) -> ApiError:
    return ApiError(
        429,
        "TooManyRequests",
        message,
        details={"retryAfterSeconds": retry_after_s},
        headers={"Retry-After": str(retry_after_s)},
    )


def internal_error(message: str) -> ApiError:
    return ApiError(
        500,
        "InternalError",
        f"Internal error occurred: {message}",
        details={"causes": [{"message": message}]},
    )


def untyped_error(message: str) -> ApiError:
    """500 without a reason: what an unclassified error inside the server becomes."""
    return ApiError(500, "", message)


def future_resource_version(asked: int, current: int) -> ApiError:
    return ApiError(
        504,
        "Timeout",
        f"Too large resource version: {asked}, current: {current}",
        details={
            "causes": [
                {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            ],
            "retryAfterSeconds": 1,
        },
    )


def required(field: str, message: str = "Required value") -> Cause:
    return Cause(reason="FieldValueRequired", message=message, field=field)


def wrong(field: str, message: str) -> Cause:
    return Cause(reason="FieldValueInvalid", message=f"Invalid value: {message}", field=field)


def not_permitted(field: str, message: str) -> Cause:
    return Cause(reason="FieldValueForbidden", message=f"Forbidden: {message}", field=field)


def unsupported(field: str, value: str, supported: Sequence[str]) -> Cause:
    listed = ", ".join(f'"{one}"' for one in supported)
    return Cause(
        reason="FieldValueNotSupported",
        message=f'Unsupported value: "{value}": supported values: {listed}',
        field=field,
    )

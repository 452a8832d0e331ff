"""Every error as `application/problem+json` (RFC 9457)."""

import re
from collections.abc import Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from planner.domain.errors import (
    BusyError,
    GuardRefusedError,
    InputError,
    NotAllowedError,
    NotLeaderError,
    PlanChangedError,
    PlanStateError,
    PoolwiseError,
    SpecChangedError,
    StalePlanError,
    UnknownDecisionError,
    UnknownDeploymentError,
    UnknownJobError,
    UnknownPlanError,
    UnknownProfileError,
    UnknownTokenError,
)
from planner.domain.wording import agreed, counted
from planner.service.api.json_words import expected, shown, why_unreadable

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
"""What is away for a while is asked again after so many seconds."""

_STATUS: tuple[tuple[type[PoolwiseError], int], ...] = (
    (UnknownDecisionError, 404),
    (UnknownDeploymentError, 404),
    (UnknownPlanError, 404),
    (UnknownTokenError, 404),
    (UnknownJobError, 404),
    (UnknownProfileError, 404),
    (NotAllowedError, 403),
    (InputError, 422),
    (PlanChangedError, 412),
    (SpecChangedError, 412),
    (StalePlanError, 409),
    (PlanStateError, 409),
    (GuardRefusedError, 409),
    (NotLeaderError, 409),
    (BusyError, 503),
)
_MILLISECONDS = re.compile(r"^(?P<stem>\w+)_ms$")


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str = Field(description="path of the field, such as body.history[0].window_s")
    pointer: str | None = Field(
        default=None,
        description="JSON pointer to it in the body, such as #/history/0/window_s; null: elsewhere",
    )
    problem: str = Field(description="what was expected there")
    got: str | None = Field(default=None, description="what stood there, shortened; null: nothing")


class Problem(BaseModel):
    """An error as RFC 9457 has it."""

    type: str = Field(description="a URN that names the kind of error; stable")
    title: str
    status: int
    detail: str = Field(description="what is wrong here, and what to do")
    errors: list[FieldProblem] = Field(default_factory=list)


_WHEN = {
    400: "The body cannot be read",
    401: "There is no token, or it is not known",
    403: "It is not allowed",
    404: "There is nothing under that name",
    409: "What stands at present does not allow it",
    412: "It has changed since you looked (If-Match)",
    413: "The body is too large",
    415: "The body is not sent as application/json",
    422: "What was sent is not valid",
    429: "Too many requests, or too many bad tokens: ask again after Retry-After seconds",
    500: "An unexpected error; the log has it",
    503: "Something is away or too busy: ask again after Retry-After seconds",
}


def answers(*statuses: int) -> dict[int | str, dict[str, object]]:
    """Problems with these statuses, for the OpenAPI document."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": _WHEN[status], "content": {MEDIA_TYPE: schema}}
        for status in statuses
    }


ANYWHERE = answers(400, 401, 403, 413, 415, 422, 429, 500, 503)
"""What every route may answer."""


def install(app: FastAPI) -> None:
    """Answer every expected error of an app as a problem; `headers` has the last resort."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(PoolwiseError, _poolwise)


def response(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """A problem as a response."""
    return JSONResponse(
        problem.model_dump(mode="json"),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def http_problem(status: int, detail: str, *, title: str = "") -> Problem:
    """The problem of a plain HTTP status."""
    title = title or HTTPStatus(status).phrase
    return Problem(type=_urn(title), title=title, status=status, detail=detail)


def problem_of(error: Exception) -> Problem:
    """The problem that an error is; its inside only where it was raised on purpose."""
    if isinstance(error, HTTPException):
        return http_problem(error.status_code, error.detail)
    if not isinstance(error, PoolwiseError):
        return http_problem(500, "an unexpected error; the server's log has it")
    words = re.findall(r"[A-Z][a-z]+", type(error).__name__.removesuffix("Error"))
    title = " ".join(words).capitalize()
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 503)
    return Problem(type=_urn(title), title=title, status=status, detail=str(error))


def _urn(title: str) -> str:
    return "urn:poolwise:problem:" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 400 and error.__cause__ is not None:
        why = await run_in_threadpool(why_unreadable, error.__cause__, await request.body())
        if why is not None:
            at = FieldProblem(field="body", pointer="#", problem=why)
            problem = http_problem(400, f"the body cannot be read: {why}")
            return response(problem.model_copy(update={"errors": [at]}))
    return response(problem_of(error), dict(error.headers or {}))


def _validation(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    items = error.errors()
    errors = [
        FieldProblem(
            field=_path(item["loc"]),
            pointer=_pointer(item["loc"]),
            problem=_sentence(item),
            got=None if item["type"] in ("missing", "json_invalid") else shown(item.get("input")),
        )
        for item in items
    ]
    if any(item["type"] == "json_invalid" for item in items):
        detail = f"the body is not JSON: {errors[0].problem}"
        problem = http_problem(422, detail, title="Malformed JSON")
    else:
        detail = (
            f"{counted(len(errors), 'field')} of the request {agreed(len(errors), 'is', 'are')} "
            "not valid; see errors"
        )
        problem = http_problem(422, detail)
    return response(problem.model_copy(update={"errors": errors}))


def _path(location: Sequence[str | int]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def _pointer(location: Sequence[str | int]) -> str | None:
    """RFC 6901, as a fragment."""
    if not location or location[0] != "body":
        return None
    parts = [str(part).replace("~", "~0").replace("/", "~1") for part in location[1:]]
    return "#" + "".join(f"/{part}" for part in parts)


def _sentence(item: dict[str, object]) -> str:
    """What pydantic says; of a field in milliseconds, how it is written here."""
    location, context = item["loc"], item.get("ctx")
    last = location[-1] if isinstance(location, tuple) and location else ""
    if item["type"] == "extra_forbidden":
        match = _MILLISECONDS.match(str(last))
        if match is None:
            return "unknown field"
        return (
            "unknown field: times are in seconds, not milliseconds: write "
            f"`{match['stem']}_s` and divide by 1000"
        )
    if item["type"] == "json_invalid" and isinstance(context, dict):
        return f"{context.get('error')} (character {last})"
    return expected(str(item["type"]), str(item["msg"]), whole_body=location == ("body",))


def _poolwise(_request: Request, error: Exception) -> JSONResponse:
    return refusal(error)


def refusal(error: Exception) -> JSONResponse:
    """The answer to one of our own errors."""
    problem = problem_of(error)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if problem.status == 503 else None
    return response(problem, headers)

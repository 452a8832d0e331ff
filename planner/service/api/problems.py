"""Every error as `application/problem+json` (RFC 9457)."""

import re
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from planner.domain.errors import (
    GuardRefusedError,
    InputError,
    NotLeaderError,
    PlanStateError,
    PoolwiseError,
    StalePlanError,
    UnknownDecisionError,
    UnknownPlanError,
    UnknownTokenError,
)

MEDIA_TYPE = "application/problem+json"

_CONFLICTS = (StalePlanError, PlanStateError, GuardRefusedError, NotLeaderError)


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str = Field(description="path of the field, such as body.history[0].window_s")
    problem: str


class Problem(BaseModel):
    """An error as RFC 9457 has it."""

    type: str = Field(description="a URN that names the kind of error; stable")
    title: str
    status: int
    detail: str = Field(description="what is wrong here, and what to do")
    errors: list[FieldProblem] = Field(default_factory=list)


RESPONSES: dict[int | str, dict[str, object]] = {
    "4XX": {"description": "What is wrong with the request", "content": {MEDIA_TYPE: {}}},
    "5XX": {"description": "What went wrong here", "content": {MEDIA_TYPE: {}}},
}


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


def http_problem(status: int, detail: str) -> Problem:
    """The problem of a plain HTTP status."""
    title = HTTPStatus(status).phrase
    return Problem(type=_urn(title), title=title, status=status, detail=detail)


def _urn(title: str) -> str:
    return "urn:poolwise:problem:" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _http(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    return response(http_problem(error.status_code, error.detail), dict(error.headers or {}))


def _validation(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    errors = [
        FieldProblem(field=_path(item["loc"]), problem=str(item["msg"])) for item in error.errors()
    ]
    problem = http_problem(422, f"{len(errors)} fields of the request are not valid; see errors")
    return response(problem.model_copy(update={"errors": errors}))


def _path(location: tuple[str | int, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def _poolwise(_request: Request, error: Exception) -> JSONResponse:
    return response(poolwise_problem(error))


def poolwise_problem(error: Exception) -> Problem:
    """The problem that one of our own errors is."""
    words = re.findall(r"[A-Z][a-z]+", type(error).__name__.removesuffix("Error"))
    title = " ".join(words).capitalize()
    status = 503
    if isinstance(error, UnknownPlanError | UnknownDecisionError | UnknownTokenError):
        status = 404
    elif isinstance(error, InputError):
        status = 422
    elif isinstance(error, _CONFLICTS):
        status = 409
    return Problem(type=_urn(title), title=title, status=status, detail=str(error))

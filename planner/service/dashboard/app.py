"""The whole site of a service: the REST API, and the dashboard mounted beside it."""

import logging
import time
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from planner.domain.errors import PoolwiseError
from planner.service.api.app import create_app
from planner.service.api.problems import Problem, http_problem, problem_of
from planner.service.api.rights import Rights
from planner.service.api.service import Service
from planner.service.dashboard.briefly import Briefly
from planner.service.dashboard.pages import problem_page
from planner.service.dashboard.rights import OF_PAGES, PREFIX
from planner.service.dashboard.routes import (
    audit,
    deployments,
    jobs,
    orders,
    overview,
    plans,
    profiles,
    sessions,
    static,
    what_ifs,
)

LOG = logging.getLogger("poolwise.dashboard")
ROUTERS = (
    static.ROUTER,
    sessions.ROUTER,
    overview.ROUTER,
    deployments.ROUTER,
    plans.ROUTER,
    orders.ROUTER,
    what_ifs.ROUTER,
    jobs.ROUTER,
    profiles.ROUTER,
    audit.ROUTER,
)


class SitePages:
    """What `AccessControl` has to know of the dashboard."""

    @property
    def rights(self) -> Rights:
        """Who may call which of its routes."""
        return OF_PAGES

    def owns(self, path: str) -> bool:
        """Whether a path is one of them."""
        return path in ("/", PREFIX) or path.startswith(f"{PREFIX}/")

    def refused(
        self, request: Request, problem: Problem, headers: Mapping[str, str] | None
    ) -> Response:
        """The page that says why a request was not let through."""
        return problem_page(request, problem, headers)


def create_site(service: Service) -> FastAPI:
    """The REST API with the dashboard under `/dashboard`, where `/` leads, too."""
    app = create_app(service, SitePages())
    dashboard = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    dashboard.state.service, dashboard.state.runner = service, app.state.runner
    dashboard.state.recognition, dashboard.state.under_way = app.state.recognition, set()
    dashboard.state.kept = Briefly(clock=time.monotonic)
    dashboard.add_exception_handler(HTTPException, _problem)
    dashboard.add_exception_handler(PoolwiseError, _problem)
    dashboard.add_exception_handler(RequestValidationError, _not_valid)
    for router in ROUTERS:
        dashboard.include_router(router)
    dashboard.add_middleware(Unexpected)
    app.mount(PREFIX, dashboard)
    for path in ("/", PREFIX):
        app.add_api_route(path, _to_dashboard, methods=["GET"], include_in_schema=False)
    return app


def _to_dashboard() -> Response:
    return RedirectResponse(f"{PREFIX}/", status_code=303)


def _problem(request: Request, error: Exception) -> Response:
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else None
    return problem_page(request, problem_of(error), headers)


def _not_valid(request: Request, error: Exception) -> Response:
    """A part of an address that is none, such as an id that is no number."""
    if not isinstance(error, RequestValidationError):
        raise error
    told = "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in error.errors())
    return problem_page(request, http_problem(422, told))


class Unexpected:
    """Answers what nothing else caught with a page; the log has the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, sent)
        except Exception as error:
            LOG.exception("%s %s failed", scope.get("method"), scope.get("path"))
            if begun or scope["type"] != "http":
                raise
            answer = problem_page(Request(scope), problem_of(error))
            await answer(scope, receive, send)

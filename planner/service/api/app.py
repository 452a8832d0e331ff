"""The FastAPI application."""

from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from planner.service.api import (
    advice,
    audit,
    decisions,
    deployments,
    directives,
    forecasts,
    health,
    plans,
    problems,
    simulations,
    tokens,
)
from planner.service.api.access_control import AccessControl
from planner.service.api.context import RequestContext
from planner.service.api.headers import SecurityHeaders
from planner.service.api.limits import BodyLimit, RequestCount
from planner.service.api.service import BEARER, Service
from planner.service.authentication import Authenticator


def create_app(service: Service) -> FastAPI:
    """The REST API of one service.

    Who may call what stands in `rights`. `app.state.authenticator` knows whose tokens were used.
    """
    authenticator = Authenticator(service.deployment.store.tokens(), now=service.now)
    app = FastAPI(
        title="Poolwise",
        version=_version(),
        summary="Planner and SLO-driven autoscaler for disaggregated LLM inference",
        description="Seconds, tokens, bytes and USD throughout; instants carry a time zone.",
        # The interactive pages load scripts from elsewhere; the document itself is enough.
        docs_url=None,
        redoc_url=None,
        responses=problems.RESPONSES,
    )
    app.state.service = service
    app.state.authenticator = authenticator
    problems.install(app)
    app.include_router(health.ROUTER)
    for router in (
        plans.ROUTER,
        advice.ROUTER,
        forecasts.ROUTER,
        simulations.ROUTER,
        deployments.LIST,
        deployments.ROUTER,
        decisions.ROUTER,
        directives.ROUTER,
        tokens.ROUTER,
        audit.ROUTER,
    ):
        app.include_router(router, dependencies=[BEARER])
    # The last one that is added is the first that a request meets.
    app.add_middleware(BodyLimit, max_body_bytes=service.max_body_bytes)
    app.add_middleware(AccessControl, service=service, authenticator=authenticator)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestCount, metrics=service.metrics)
    app.add_middleware(RequestContext, tracing=service.tracing)
    return app


def _version() -> str:
    try:
        return version("poolwise")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"

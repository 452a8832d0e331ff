"""The FastAPI application."""

from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from planner.service.api import (
    advice,
    deployments,
    forecasts,
    health,
    plans,
    problems,
    simulations,
)
from planner.service.api.context import RequestContext
from planner.service.api.limits import BodyLimit, RequestCount
from planner.service.api.service import Service


def create_app(service: Service) -> FastAPI:
    """The REST API of one service.

    Reads are open to whoever reaches the address; writes need the bearer token.
    """
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
    problems.install(app)
    for router in (
        plans.ROUTER,
        advice.ROUTER,
        forecasts.ROUTER,
        simulations.ROUTER,
        deployments.ROUTER,
        health.ROUTER,
    ):
        app.include_router(router)
    app.add_middleware(BodyLimit, max_body_bytes=service.max_body_bytes)
    app.add_middleware(RequestCount, metrics=service.metrics)
    app.add_middleware(RequestContext, tracing=service.tracing)
    return app


def _version() -> str:
    try:
        return version("poolwise")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"

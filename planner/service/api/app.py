"""The FastAPI application."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from planner.service.api import (
    advice,
    audit,
    backtests,
    decisions,
    deployments,
    directives,
    forecasts,
    health,
    jobs,
    objectives,
    plans,
    problems,
    profiles,
    repeating,
    reports,
    revisions,
    simulations,
    specs,
    tokens,
    what_ifs,
)
from planner.service.api.access_control import AccessControl, Pages
from planner.service.api.backtests import BacktestBody
from planner.service.api.bodies import ForecastBody, PlanBody
from planner.service.api.context import RequestContext
from planner.service.api.headers import SecurityHeaders
from planner.service.api.limits import BodyLimit, RequestCount
from planner.service.api.recognising import Recognition
from planner.service.api.reports import ReportBody
from planner.service.api.service import BEARER, Service
from planner.service.api.simulations import SimulationBody
from planner.service.api.texts import PLAIN_TEXT
from planner.service.api.what_ifs import WhatIfBody
from planner.service.documents.document import Document
from planner.service.job_runner import JobRunner, Kind, Made, Progress
from planner.service.loop.presence import Presence
from planner.service.security.authentication import Authenticator
from planner.service.store.jobs import StoredJobs

Body = TypeVar("Body", bound=Document)


def create_app(service: Service, pages: Pages | None = None) -> FastAPI:
    """The REST API of one service.

    Who may call what stands in `rights`. `app.state.authenticator` knows whose tokens were used.

    Parameters
    ----------
    pages : Pages or None
        Another part of the site, for people, that will be mounted.
    """
    store = service.store
    authenticator = Authenticator(store.tokens(), now=service.now)
    presence = Presence(store.access, service.now)
    runner = JobRunner(
        _kinds(service),
        StoredJobs(access=store.access, deployment=service.lease, owner=presence.identity),
        presence,
        clock=service.now,
        failure=_failure,
    )
    app = FastAPI(
        title="Poolwise",
        version=_version(),
        summary="Planner and SLO-driven autoscaler for disaggregated LLM inference",
        description="Seconds, tokens, bytes and USD throughout; instants carry a time zone.",
        # The interactive pages load scripts from elsewhere; the document itself is enough.
        docs_url=None,
        redoc_url=None,
        responses=problems.ANYWHERE,
        lifespan=_running(runner),
    )
    recognition = Recognition(authenticator)
    app.state.service, app.state.authenticator = service, authenticator
    app.state.recognition = recognition
    app.state.runner, app.state.streams = runner, set()
    if service.host is not None:
        presence.add_chore(service.host.follow)
        presence.add_chore(service.host.keep_on_time)
    problems.install(app)
    revisions.install(app)
    app.include_router(health.ROUTER)
    for router in (
        plans.ROUTER,
        advice.ROUTER,
        forecasts.ROUTER,
        backtests.ROUTER,
        simulations.ROUTER,
        what_ifs.ROUTER,
        reports.ROUTER,
        specs.ROUTER,
        deployments.ROUTER,
        objectives.ROUTER,
        decisions.ROUTER,
        directives.ROUTER,
        profiles.ROUTER,
        jobs.ROUTER,
        tokens.ROUTER,
        audit.ROUTER,
    ):
        app.include_router(router, dependencies=[BEARER, PLAIN_TEXT])
    # The last one that is added is the first that a request meets.
    repeating.install(app, service, presence)
    app.add_middleware(BodyLimit, max_body_bytes=service.max_body_bytes)
    app.add_middleware(AccessControl, service=service, recognition=recognition, pages=pages)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestCount, metrics=service.metrics)
    app.add_middleware(RequestContext, tracing=service.tracing)
    return app


def _kinds(service: Service) -> dict[str, Kind]:
    """The work that may become a job."""

    def plan(body: PlanBody, by: str, _: Progress) -> Made:
        return plans.make_plan(service, body, by)

    def forecast(body: ForecastBody, _by: str, _: Progress) -> Made:
        return forecasts.make_forecast(service, body)

    def simulation(body: SimulationBody, _by: str, progress: Progress) -> Made:
        return simulations.make_simulation(service, body, progress)

    def report(body: ReportBody, _by: str, progress: Progress) -> Made:
        return reports.make_report(service, body, progress)

    def what_if(body: WhatIfBody, _by: str, progress: Progress) -> Made:
        return what_ifs.make_what_if(service, body, progress)

    def backtest(body: BacktestBody, _by: str, progress: Progress) -> Made:
        return backtests.make_backtest(body, progress)

    return {
        "backtests": _kind(BacktestBody, backtest),
        "plans": _kind(PlanBody, plan),
        "forecasts": _kind(ForecastBody, forecast),
        "simulations": _kind(SimulationBody, simulation),
        reports.KIND: _kind(ReportBody, report),
        what_ifs.KIND: _kind(WhatIfBody, what_if),
    }


def _kind(body: type[Body], perform: Callable[[Body, str, Progress], Made]) -> Kind:
    def checked(given: Document, by: str, progress: Progress) -> Made:
        if not isinstance(given, body):
            raise TypeError(f"{type(given).__name__} is not {body.__name__}")
        return perform(given, by, progress)

    return Kind(body=body, perform=checked)


def _failure(error: Exception) -> Made:
    problem = problems.problem_of(error)
    return Made(status=problem.status, text=problem.model_dump_json())


def _running(runner: JobRunner) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(runner.start)
        try:
            yield
        finally:
            await run_in_threadpool(runner.stop)

    return running


def _version() -> str:
    try:
        return version("poolwise")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"

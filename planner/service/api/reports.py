"""Capacity reports: as they take minutes, nearly always jobs; the answer holds every figure."""

import time
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, HTTPException, Response
from fastapi.openapi.models import Example
from pydantic import Field

from planner.service.answers.capacity.report import LONGEST_S, ReportSettings, capacity_report
from planner.service.answers.capacity.seen import Seen, seen_in_windows
from planner.service.api.examples import MINUTES
from planner.service.api.problems import answers
from planner.service.api.repeating import Once
from planner.service.api.service import Service, ServiceParameter, Writer
from planner.service.api.work import ACCEPTED, RunnerParameter, WorkParameter
from planner.service.deployment import Deployment
from planner.service.documents.capacity_report import CapacityReport
from planner.service.documents.document import Document, Number
from planner.service.documents.history import WindowDocument, windows_of
from planner.service.job_runner import Made, Progress
from planner.service.store.jobs import JobState

ROUTER = APIRouter(prefix="/v1/reports", tags=["reports"])

KIND = "reports"
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox allow-scripts"
)
"""The page holds its scripts and styles itself; in a sandbox they are no part of this site."""
PAGE: dict[int | str, dict[str, object]] = {
    200: {"content": {"text/html": {"schema": {"type": "string"}}}, "description": "The page"}
}


class ReportBody(Document):
    """What to report on. All left out: the stored windows, as the spec says."""

    deployment: str | None = Field(
        default=None, description="use its stored windows; left out: the one served here"
    )
    history: list[WindowDocument] | None = Field(
        default=None, min_length=1, description="observed windows; left out: the stored ones"
    )
    quick: bool = Field(default=False, description="fewer questions, windows and futures")
    growth_per_month_ratio: Annotated[float, Number, Field(ge=-0.9, le=10)] | None = Field(
        default=None, description="0.1: requests grow by 10 % a month; left out: examples"
    )
    time_limit_s: Annotated[float, Number, Field(gt=0, le=LONGEST_S)] | None = Field(
        default=None, description="begin nothing more after so long, seconds; left out: as usual"
    )


EXAMPLES: dict[str, Example] = {
    "stored": Example(
        summary="On what was stored, in a hurry", value={"quick": True, "time_limit_s": 5}
    ),
    "history": Example(
        summary="On these windows, with requests that grow by 8 % a month",
        value={
            "history": MINUTES,
            "growth_per_month_ratio": 0.08,
            "quick": True,
            "time_limit_s": 5,
        },
    ),
}


@ROUTER.post(
    "",
    response_model=CapacityReport,
    responses={**ACCEPTED, **answers(404)},
    dependencies=[Once],
)
async def post_report(
    body: Annotated[ReportBody, Body(openapi_examples=EXAMPLES)],
    service: ServiceParameter,
    work: WorkParameter,
    by: Writer,
) -> Response:
    """How many accelerators, of which kind, at what cost, why, and how sure.

    Takes minutes, and so becomes a job; `GET /v1/reports/{job_id}` shows as a page what came of it.
    """
    name = service.registry.sole(body.deployment).name
    return await work.answer(KIND, body.model_copy(update={"deployment": name}), by=by)


def make_report(service: Service, body: ReportBody, progress: Progress) -> Made:
    """The work behind `POST /v1/reports`."""
    deployment = service.registry.sole(body.deployment).deployment
    settings = ReportSettings(
        now=service.now(),
        clock=time.monotonic,
        quick=body.quick,
        growth_per_month_ratio=body.growth_per_month_ratio,
        time_limit_s=body.time_limit_s,
        progress=progress,
    )
    # As its replicas are seen to be, with all of the inventory: what is out of stock today may be
    # had when it is bought.
    spec = deployment.spec.corrected(deployment.corrections())
    made = capacity_report(
        spec, _seen(deployment, body, now=settings.now), model=deployment.model, settings=settings
    )
    return Made(status=200, text=made.model_dump_json())


def _seen(deployment: Deployment, body: ReportBody, *, now: datetime) -> Seen:
    if body.history is not None:
        return seen_in_windows(windows_of(body.history, where="history"), source="the request")
    windows = deployment.observer.observe(now=now).windows
    return seen_in_windows(windows, source=f"the stored windows of {deployment.spec.name}")


@ROUTER.get("/{job_id}", response_class=Response, responses={**PAGE, **answers(404, 409)})
def get_report(job_id: str, runner: RunnerParameter) -> Response:
    """The page of a report: one HTML file that needs nothing else. 409 until its job is done."""
    from planner.service.reports.capacity_page import capacity_page  # plotly takes a second

    job = runner.jobs.job(job_id)
    if job.kind != KIND:
        raise HTTPException(404, f"job {job_id} is no report but one of {job.kind}")
    if job.state is not JobState.DONE or job.answer is None:
        raise HTTPException(409, f"report {job_id} is {job.state}: look at its job first")
    page = capacity_page(CapacityReport.model_validate_json(job.answer))
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})

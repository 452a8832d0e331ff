"""Orders of people to a deployment: plan now, report, pause, resume, mode."""

from datetime import datetime, timedelta
from typing import TypeVar

from fastapi import APIRouter, HTTPException
from pydantic import ValidationError
from starlette.responses import Response

from planner.service.api import directives as api
from planner.service.api import reports
from planner.service.api.bodies import PlanBody
from planner.service.api.reports import ReportBody
from planner.service.api.service import DeploymentParameter, ServiceParameter, Writer
from planner.service.api.work import RunnerParameter
from planner.service.dashboard.forms import Form, OwnForm
from planner.service.dashboard.pages import see
from planner.service.documents.directives import ModeBody, PauseBody, ResumeBody
from planner.service.documents.document import Document

ROUTER = APIRouter(prefix="/deployments/{name}")

AS_THE_SPEC = "spec"
LONGEST_H = 24 * 366
Body = TypeVar("Body", bound=Document)


@ROUTER.post("/plan")
def plan(
    deployment: DeploymentParameter, runner: RunnerParameter, by: Writer, _form: OwnForm
) -> Response:
    """Make a plan of what was observed, as a job."""
    body = PlanBody(deployment=deployment.spec.name, explain=True)
    job = runner.submit_job("plans", body, by=by)
    return see(f"/jobs/{job.job_id}")


@ROUTER.post("/report")
def report(
    deployment: DeploymentParameter, runner: RunnerParameter, by: Writer, _form: OwnForm
) -> Response:
    """Make a capacity report of what was observed, as a job."""
    body = ReportBody(deployment=deployment.spec.name, quick=True)
    job = runner.submit_job(reports.KIND, body, by=by)
    return see(f"/jobs/{job.job_id}")


@ROUTER.post("/pause")
def pause(
    name: str,
    deployment: DeploymentParameter,
    service: ServiceParameter,
    by: Writer,
    form: OwnForm,
) -> Response:
    """Let no capacity go, or come, or either."""
    body = _body(
        PauseBody,
        what=form.text("what") or "all",
        until_at=_until(form, service.now()),
        reason=form.text("reason"),
    )
    api.pause(deployment, service, by, body)
    return see(f"/deployments/{name}", said="paused")


@ROUTER.post("/resume")
def resume(
    name: str,
    deployment: DeploymentParameter,
    service: ServiceParameter,
    by: Writer,
    form: OwnForm,
) -> Response:
    """Take a pause back."""
    api.resume(deployment, service, by, _body(ResumeBody, what=form.text("what") or "all"))
    return see(f"/deployments/{name}", said="resumed")


@ROUTER.post("/mode")
def mode(
    name: str,
    deployment: DeploymentParameter,
    service: ServiceParameter,
    by: Writer,
    form: OwnForm,
) -> Response:
    """Let the loop's mode be another one than the spec's, or the spec's again."""
    wanted = form.text("mode")
    if wanted == AS_THE_SPEC:
        api.delete_mode(deployment, service, by)
    else:
        until_at = _until(form, service.now())
        body = _body(ModeBody, mode=wanted, until_at=until_at, reason=form.text("reason"))
        api.put_mode(deployment, body, service, by)
    return see(f"/deployments/{name}", said="mode")


def _until(form: Form, now: datetime) -> datetime | None:
    """When an order ends; None: it holds until it is taken back.

    Raises
    ------
    HTTPException
        422 when the hours are none.
    """
    text = form.text("hours", most=8)
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or not 0 < int(text) <= LONGEST_H:
        raise HTTPException(422, f"hours: a whole number from 1 to {LONGEST_H:,}, got {text}")
    return now + timedelta(hours=int(text))


def _body(kind: type[Body], **values: object) -> Body:
    """What the REST route is sent.

    Raises
    ------
    HTTPException
        422 when a field is none.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        told = "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in error.errors())
        raise HTTPException(422, told) from error

"""Orders of people to a deployment: plan now, report, pause, resume, mode."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, HTTPException
from pydantic import ValidationError
from starlette.responses import Response

from planner.service.api import directives as api
from planner.service.api import reports
from planner.service.api.bodies import PlanBody
from planner.service.api.reports import ReportBody
from planner.service.api.service import DeploymentParameter, ServiceParameter, Writer
from planner.service.api.work import RunnerParameter
from planner.service.dashboard.forms import OwnForm
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


@dataclass(frozen=True, slots=True)
class Order:
    """A form that orders something of a deployment's loop."""

    deployment: DeploymentParameter
    service: ServiceParameter
    by: Writer
    form: OwnForm

    @property
    def until_at(self) -> datetime | None:
        """When it ends; None: it holds until it is taken back.

        Raises
        ------
        HTTPException
            422 when the hours are none.
        """
        hours = self.form.whole("hours", bounds=(1, LONGEST_H))
        return None if hours is None else self.service.now() + timedelta(hours=hours)

    def given(self, said: str) -> Response:
        """Back to the deployment's page."""
        return see(f"/deployments/{self.deployment.spec.name}", said=said)


Ordered = Annotated[Order, Depends()]


@ROUTER.post("/pause")
def pause(order: Ordered) -> Response:
    """Let no capacity go, or come, or either."""
    body = _body(
        PauseBody,
        what=order.form.text("what") or "all",
        until_at=order.until_at,
        reason=order.form.text("reason"),
    )
    api.pause(order.deployment, order.service, order.by, body)
    return order.given("paused")


@ROUTER.post("/resume")
def resume(order: Ordered) -> Response:
    """Take a pause back."""
    body = _body(ResumeBody, what=order.form.text("what") or "all")
    api.resume(order.deployment, order.service, order.by, body)
    return order.given("resumed")


@ROUTER.post("/mode")
def mode(order: Ordered) -> Response:
    """Let the loop's mode be another one than the spec's, or the spec's again."""
    wanted = order.form.text("mode")
    if wanted == AS_THE_SPEC:
        api.delete_mode(order.deployment, order.service, order.by)
    else:
        reason = order.form.text("reason")
        body = _body(ModeBody, mode=wanted, until_at=order.until_at, reason=reason)
        api.put_mode(order.deployment, body, order.service, order.by)
    return order.given("mode")


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

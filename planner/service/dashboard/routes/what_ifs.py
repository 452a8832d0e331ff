"""What if: the load, a promise or the inventory were otherwise."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from planner.service.api.service import ServedParameter, Writer
from planner.service.api.what_ifs import KIND, WhatIfBody, check_change
from planner.service.api.work import RunnerParameter
from planner.service.dashboard.forms import OwnForm
from planner.service.dashboard.pages import page, see
from planner.service.dashboard.routes import known
from planner.service.dashboard.views.what_if import change_of, form_groups
from planner.service.hosting.registry import Served

ROUTER = APIRouter(prefix="/deployments/{name}/what-if")


@ROUTER.get("")
def get_form(request: Request, served: ServedParameter) -> Response:
    """The form, with what holds now in its fields."""
    return _form(request, served, fields={}, problem="")


@ROUTER.post("")
def post_form(
    request: Request,
    served: ServedParameter,
    runner: RunnerParameter,
    by: Writer,
    form: OwnForm,
) -> Response:
    """Ask it, as a job whose page shows how far it is; what cannot be asked is told at once."""
    spec = served.deployment.spec
    groups = form_groups(spec, served.deployment.model)

    def asked() -> str:
        change = change_of(form.fields, groups)
        check_change(served, change)
        return change

    change, problem = known.attempt(asked)
    if change is None:
        return _form(request, served, fields=form.fields, problem=problem)
    body = WhatIfBody(deployment=served.name, changes=[change])
    job = runner.submit_job(KIND, body, by=by)
    return see(f"/jobs/{job.job_id}")


def _form(request: Request, served: Served, *, fields: dict[str, str], problem: str) -> Response:
    deployment = served.deployment
    values = {
        "name": served.name,
        "groups": form_groups(deployment.spec, deployment.model),
        "fields": fields,
        "problem": problem,
    }
    return page(request, "what_if.html.j2", values, status=422 if problem else 200)

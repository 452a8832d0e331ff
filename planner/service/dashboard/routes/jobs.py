"""Long work: a page that shows how far it is and what came of it, and reports."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from planner.service.api import jobs as api
from planner.service.api import paging
from planner.service.api.reports import get_report
from planner.service.api.service import PrincipalParameter
from planner.service.api.work import RunnerParameter
from planner.service.dashboard.forms import OwnForm
from planner.service.dashboard.pages import known_principal, page, see
from planner.service.dashboard.rights import PREFIX
from planner.service.dashboard.views.jobs import JobView, job_view
from planner.service.security.access import AccessRole

ROUTER = APIRouter()
OF_A_PAGE = 50


@ROUTER.get("/jobs")
def get_jobs(
    request: Request,
    runner: RunnerParameter,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
) -> Response:
    """What was asked for lately, newest first."""
    found = runner.jobs.jobs(limit=OF_A_PAGE + 1, before=paging.before(cursor), states=())
    shown, more = paging.page(found, OF_A_PAGE)
    values = {
        "jobs": [job_view(job) for job in shown],
        "following": paging.cursor(shown[-1].seq) if more else "",
        "later": cursor is not None,
    }
    return page(request, "jobs.html.j2", values)


@ROUTER.get("/jobs/{job_id}")
def get_job(request: Request, job_id: str, runner: RunnerParameter) -> Response:
    """A piece of work and its answer."""
    view = job_view(runner.jobs.job(job_id))
    return page(request, "job.html.j2", _values(request, view))


@ROUTER.get("/jobs/{job_id}/progress")
def get_progress(request: Request, job_id: str, runner: RunnerParameter) -> Response:
    """How far it is; once it is over the browser is sent to what was made."""
    view = job_view(runner.jobs.job(job_id))
    headers = {}
    if view.over:
        made = view.leads_to.startswith("/plans/")
        headers = {"HX-Redirect": PREFIX + view.leads_to} if made else {"HX-Refresh": "true"}
    return page(request, "_job_state.html.j2", _values(request, view), headers=headers)


@ROUTER.post("/jobs/{job_id}/cancel")
def cancel(
    job_id: str, runner: RunnerParameter, principal: PrincipalParameter, _form: OwnForm
) -> Response:
    """End a piece of work."""
    api.delete_job(job_id, runner, principal)
    return see(f"/jobs/{job_id}", said="cancelled")


@ROUTER.get("/reports/{job_id}")
def get_report_page(job_id: str, runner: RunnerParameter) -> Response:
    """A capacity report that is done."""
    return get_report(job_id, runner)


def _values(request: Request, view: JobView) -> dict[str, object]:
    me = known_principal(request)
    mine = me is not None and (me.name == view.asked_by or me.role.may(AccessRole.OPERATOR))
    return {"job": view, "may_cancel": mine}

"""Plans: the list, a plan's page, and what persons decide about it."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi import Response as FastResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from planner.domain.errors import HistoryError, PlanStateError, UnknownDeploymentError
from planner.domain.guards import ApprovalPolicy
from planner.domain.rollout import ApprovalState
from planner.domain.spec import Spec
from planner.rollout.approval import usd_per_hour_change
from planner.service.api import plans as api
from planner.service.api.bodies import DecisionBody
from planner.service.api.resources import PlanResource
from planner.service.api.service import Service, ServiceParameter, Writer
from planner.service.api.simulations import SimulationBody
from planner.service.api.work import RunnerParameter
from planner.service.dashboard.forms import OwnForm
from planner.service.dashboard.pages import known_principal, page, see
from planner.service.dashboard.views.plans import STATES, plan_line, plan_view
from planner.service.documents.forecast import forecast_document
from planner.service.documents.rollout import diff_of
from planner.service.store import PlanRecord

ROUTER = APIRouter(prefix="/plans")

LOG = logging.getLogger("poolwise.dashboard")
UnderWay = set[asyncio.Future[PlanResource]]
AT_ONCE_S = 3.0
"""Whoever moves a fleet waits so long for its end, or for what stands in the way, seconds."""
OF_A_PAGE = 50


@ROUTER.get("")
def get_plans(
    request: Request,
    service: ServiceParameter,
    deployment: Annotated[str | None, Query(max_length=200)] = None,
    state: Annotated[ApprovalState | None, Query()] = None,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
) -> Response:
    """The stored plans, newest first, a page at a time."""
    registry = service.registry
    names = registry.names() if not deployment else (registry.get(deployment).name,)
    records, following = api.page_of_plans(
        service, names, limit=OF_A_PAGE, states=() if state is None else (state,), cursor=cursor
    )
    values = {
        "plans": [plan_line(record) for record in records],
        "names": registry.names(),
        "deployment": deployment or "",
        "state": "" if state is None else state.value,
        "states": {one.value: words for one, (words, _) in STATES.items()},
        "following": following or "",
        "later": cursor is not None,
    }
    return page(request, "plans.html.j2", values)


@ROUTER.get("/{plan_id}")
def get_plan(request: Request, plan_id: str, service: ServiceParameter) -> Response:
    """What a plan changes, what it does to requests, what guards say, and who decided what."""
    return page(request, "plan.html.j2", _values(request, plan_id, service))


@ROUTER.get("/{plan_id}/progress")
def get_progress(request: Request, plan_id: str, service: ServiceParameter) -> Response:
    """Where a plan stands, to be put in place of what stood there before."""
    return page(request, "_plan_state.html.j2", _values(request, plan_id, service))


@ROUTER.post("/{plan_id}/approve")
def approve(plan_id: str, service: ServiceParameter, by: Writer, form: OwnForm) -> Response:
    """Allow a plan as it was shown."""
    api.approve_plan(
        plan_id=plan_id,
        service=service,
        by=by,
        revision=form.revision(),
        response=FastResponse(),
        body=DecisionBody(reason=form.text("reason")),
    )
    return see(f"/plans/{plan_id}", said="approved")


@ROUTER.post("/{plan_id}/reject")
def reject(plan_id: str, service: ServiceParameter, by: Writer, form: OwnForm) -> Response:
    """Forbid a plan as it was shown."""
    api.reject_plan(
        plan_id=plan_id,
        service=service,
        by=by,
        revision=form.revision(),
        response=FastResponse(),
        body=DecisionBody(reason=form.text("reason")),
    )
    return see(f"/plans/{plan_id}", said="rejected")


@ROUTER.post("/{plan_id}/apply")
async def apply(
    request: Request, plan_id: str, service: ServiceParameter, by: Writer, form: OwnForm
) -> Response:
    """Carry out an approved plan; its page shows how far it is."""
    moving = run_in_threadpool(
        api.apply_plan, plan_id, service, by, form.revision(), FastResponse()
    )
    over = await _over_soon(moving, request.app.state.under_way)
    return see(f"/plans/{plan_id}", said="applied" if over else "applying")


@ROUTER.post("/{plan_id}/rollback")
async def roll_back(
    request: Request, plan_id: str, service: ServiceParameter, by: Writer, form: OwnForm
) -> Response:
    """Put the fleet back; the plan's page shows how far it is."""
    moving = run_in_threadpool(
        api.roll_plan_back, plan_id, service, by, form.revision(), FastResponse()
    )
    over = await _over_soon(moving, request.app.state.under_way)
    return see(f"/plans/{plan_id}", said="rolled_back" if over else "rolling_back")


@ROUTER.post("/{plan_id}/replay")
def replay(
    plan_id: str,
    service: ServiceParameter,
    runner: RunnerParameter,
    by: Writer,
    _form: OwnForm,
) -> Response:
    """Have the twin replay a plan's first window against futures of its forecast, as a job."""
    served = service.served_of_plan(plan_id)
    plan = service.store.plan(plan_id).plan
    forecast = service.store.newest_forecast(served.name, plan.model, by=plan.made_at)
    if forecast is None or forecast.forecast_id != plan.inputs.forecast_id:
        raise PlanStateError(
            f"the forecast that plan {plan_id} was made for is not kept: what the twin saw when "
            "the plan was made stands on its page"
        )
    body = SimulationBody(
        deployment=served.name, plan_id=plan_id, forecast=forecast_document(forecast)
    )
    job = runner.submit_job("simulations", body, by=by)
    return see(f"/jobs/{job.job_id}")


async def _over_soon(moving: Awaitable[PlanResource], under_way: UnderWay) -> bool:
    """Whether a fleet is moved already; raises what stands in the way, where that is quick."""
    task = asyncio.ensure_future(moving)
    done, _ = await asyncio.wait([task], timeout=AT_ONCE_S)
    if done:
        await task
        return True
    under_way.add(task)  # else nothing would hold it
    task.add_done_callback(under_way.discard)
    task.add_done_callback(_tell_end)
    return False


def _tell_end(task: asyncio.Future[PlanResource]) -> None:
    """Log how a rollout ended that no page waited for; a plan that failed says so, too."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        LOG.warning("a fleet was not moved: %s", error)


def _values(request: Request, plan_id: str, service: Service) -> dict[str, object]:
    store, record = service.store, service.store.plan(plan_id)
    policy, served = ApprovalPolicy(), True
    targets: dict[str, float] = {}
    more: float | None = None
    try:
        spec = service.served_of_plan(plan_id).deployment.spec
    except UnknownDeploymentError:
        served = False  # retired: its plans can be looked at still
    else:
        policy, more = spec.approval, _more(record, spec)
        mine = (slo for slo in spec.slos if slo.model == record.plan.model)
        targets = {slo.request_class: slo.attainment_ratio for slo in mine}
    view = plan_view(
        record,
        store.approvals(plan_id),
        store.steps(plan_id),
        policy=policy,
        targets=targets,
        more_usd_per_hour=more,
        me=known_principal(request),
    )
    return {"plan": view, "served": served}


def _more(record: PlanRecord, spec: Spec) -> float | None:
    """By how much its steps make the fleet dearer, USD/h; None: the spec has other pools now."""
    try:
        diff = diff_of(record.diff, spec=spec, read_at=record.created_at)
        return usd_per_hour_change(diff, spec)
    except (HistoryError, KeyError):
        return None

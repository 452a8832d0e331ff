"""Plans: the list, a plan's page, and what persons decide about it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Query, Request
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
from planner.service.dashboard.views.plan import plan_view
from planner.service.dashboard.views.plans import STATES, plan_line
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


class Decide(Protocol):
    """The function behind a REST route that decides about a plan."""

    def __call__(
        self,
        *,
        plan_id: str,
        service: Service,
        by: str,
        revision: int | None,
        response: FastResponse,
        body: DecisionBody | None,
    ) -> PlanResource:
        """Decide; the plan as it stands then."""
        ...


Move = Callable[[str, Service, str, int | None, FastResponse], PlanResource]
"""The function behind a REST route that moves the fleet."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A form by which somebody decides about a plan as its page showed it."""

    plan_id: str
    service: ServiceParameter
    by: Writer
    form: OwnForm

    def decided(self, decide: Decide, said: str) -> Response:
        """Decide; back to the plan's page."""
        decide(
            plan_id=self.plan_id,
            service=self.service,
            by=self.by,
            revision=self.form.revision(),
            response=FastResponse(),
            body=DecisionBody(reason=self.form.text("reason")),
        )
        return see(f"/plans/{self.plan_id}", said=said)

    async def moved(self, move: Move, under_way: UnderWay, *, said: tuple[str, str]) -> Response:
        """Move the fleet; `said` on the plan's page while it moves, and once it is there."""
        asked = self.plan_id, self.service, self.by, self.form.revision(), FastResponse()
        over = await _over_soon(run_in_threadpool(move, *asked), under_way)
        return see(f"/plans/{self.plan_id}", said=said[over])


Chosen = Annotated[Choice, Depends()]


@ROUTER.post("/{plan_id}/approve")
def approve(choice: Chosen) -> Response:
    """Allow a plan as it was shown."""
    return choice.decided(api.approve_plan, "approved")


@ROUTER.post("/{plan_id}/reject")
def reject(choice: Chosen) -> Response:
    """Forbid a plan as it was shown."""
    return choice.decided(api.reject_plan, "rejected")


@ROUTER.post("/{plan_id}/apply")
async def apply(request: Request, choice: Chosen) -> Response:
    """Carry out an approved plan; its page shows how far it is."""
    said = ("applying", "applied")
    return await choice.moved(api.apply_plan, request.app.state.under_way, said=said)


@ROUTER.post("/{plan_id}/rollback")
async def roll_back(request: Request, choice: Chosen) -> Response:
    """Put the fleet back; the plan's page shows how far it is."""
    said = ("rolling_back", "rolled_back")
    return await choice.moved(api.roll_plan_back, request.app.state.under_way, said=said)


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

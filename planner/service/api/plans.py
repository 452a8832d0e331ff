"""Plans: make, look, approve, reject, apply."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Body, HTTPException, Query, Request, Response
from fastapi.openapi.models import Example
from pydantic import AwareDatetime, Field

from planner.autoscale.slow import Decision, decide
from planner.domain.fleet import Fleet
from planner.domain.forecast import Forecast
from planner.domain.rollout import ApprovalState
from planner.domain.wanted import go_on
from planner.service.answers.planning import check_forecast, expected_demand
from planner.service.api import paging, revisions
from planner.service.api.bodies import DecisionBody, PlanBody
from planner.service.api.examples import FLEET, MINUTES
from planner.service.api.paging import CursorParameter
from planner.service.api.problems import answers
from planner.service.api.repeating import Once
from planner.service.api.resources import PlanResource, plan_resource
from planner.service.api.revisions import IfNoneMatch, Revision
from planner.service.api.service import Service, ServiceParameter, Writer
from planner.service.api.work import ACCEPTED, WorkParameter
from planner.service.deployment import Deployment, guard_conditions
from planner.service.documents.document import Document
from planner.service.documents.fleet import fleet_of
from planner.service.documents.forecast import forecast_of
from planner.service.documents.history import history_end, windows_of
from planner.service.documents.rollout import ApprovalDocument, approval_document
from planner.service.fleet import known_fleet, lifecycle
from planner.service.fleet.orders import move
from planner.service.job_runner import Made
from planner.service.spec.what_if import with_objective
from planner.service.store import PlanRecord
from planner.service.store.orders import Action

ROUTER = APIRouter(prefix="/v1/plans", tags=["plans"])

MOST_PLANS = 200
ORDERED: dict[int | str, dict[str, object]] = {
    202: {
        "model": PlanResource,
        "description": "Another process leads and is still at it: look at the plan again later",
    }
}


DECIDED = answers(404, 409, 412)
EXAMPLES: dict[str, Example] = {
    "history": Example(
        summary="For what comes after these windows, with prices of small changes",
        value={"history": MINUTES, "explain": True},
    ),
    "fleet": Example(
        summary="With as few accelerators as will do, from a fleet that is told",
        value={"history": MINUTES, "objective": "accelerators", "fleet": FLEET},
    ),
}
DecisionParameter = Annotated[
    DecisionBody | None,
    Body(
        openapi_examples={
            "reason": Example(summary="Say why", value={"reason": "the launch is at noon"})
        }
    ),
]


class PlanList(Document):
    """Stored plans, newest first."""

    plans: list[PlanResource]
    next: str | None = Field(default=None, description="cursor of the next page; null: the last")


class StepBegun(Document):
    """A step that was begun, and when."""

    begun_at: AwareDatetime
    what: str = Field(description="such as `step 3 of 7 (start decode:h100:tp1)`")


class PlanHistory(Document):
    """Every state that a plan was in, and every step of it that was begun, oldest first."""

    approvals: list[ApprovalDocument] = Field(description="append-only")
    steps: list[StepBegun] = Field(description="append-only; a rerun counts from 1 again")


@ROUTER.post(
    "",
    status_code=201,
    response_model=PlanResource,
    responses={**ACCEPTED, **answers(404, 409)},
    dependencies=[Once],
)
async def post_plan(
    body: Annotated[PlanBody, Body(openapi_examples=EXAMPLES)],
    service: ServiceParameter,
    work: WorkParameter,
    by: Writer,
) -> Response:
    """Plan now; the plan is stored and waits for approval.

    Equal inputs give the stored plan, unless that one is dead (superseded, expired, rejected,
    failed, rolled back).
    """
    name = service.registry.sole(body.deployment).name
    return await work.answer("plans", body.model_copy(update={"deployment": name}), by=by)


def make_plan(service: Service, body: PlanBody, by: str) -> Made:
    """The work behind `POST /v1/plans`."""
    deployment, now = service.registry.sole(body.deployment).deployment, service.now()
    decision = _decide(body, deployment, now=now)
    go_on()  # what was cancelled leaves no plan
    record = lifecycle.propose(deployment, decision, by=by, at=service.now())
    service.metrics.record_plan(deployment.spec.name, record.plan)
    text = plan_resource(record).model_dump_json()
    return Made(status=201, text=text, location=f"/v1/plans/{record.plan.plan_id}")


@ROUTER.get("", responses=answers(404))
def get_plans(
    *,
    service: ServiceParameter,
    request: Request,
    response: Response,
    deployment: Annotated[
        str | None, Query(description="only of this deployment; left out: of all")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_PLANS, description="at most so many")] = 50,
    state: Annotated[list[ApprovalState] | None, Query(description="only in these states")] = None,
    cursor: CursorParameter = None,
) -> PlanList:
    """The newest plans, newest first, in pages."""
    registry = service.registry
    names = registry.names() if deployment is None else (registry.get(deployment).name,)
    records, following = page_of_plans(
        service, names, limit=limit, states=state or (), cursor=cursor
    )
    paging.link(request, response, following)
    return PlanList(plans=[plan_resource(record) for record in records], next=following)


def page_of_plans(
    service: Service,
    names: Sequence[str],
    *,
    limit: int,
    states: Sequence[ApprovalState],
    cursor: str | None,
) -> tuple[Sequence[PlanRecord], str | None]:
    """Plans of these deployments, newest first, and the cursor of the next page; None: the last."""
    found = service.store.plans(names, limit=limit + 1, states=states, after=_place(cursor))
    records, more = paging.page(found, limit)
    if not more:
        return records, None
    last = records[-1]
    return records, paging.cursor(last.created_at.isoformat(), last.plan.plan_id)


def _place(cursor: str | None) -> tuple[datetime, str] | None:
    at = paging.place(cursor, str, str)
    if at is None:
        return None
    try:
        moment = datetime.fromisoformat(str(at[0])).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise HTTPException(422, "cursor: not one that this list gave") from error
    return moment, str(at[1])


@ROUTER.get("/{plan_id}", responses=revisions.UNCHANGED | answers(404))
def get_plan(
    plan_id: str, service: ServiceParameter, response: Response, if_none_match: IfNoneMatch = None
) -> PlanResource:
    """One plan, what it changes, and where it stands; its ETag is another one after a change."""
    record = service.store.plan(plan_id)
    revisions.check_new(if_none_match, record.revision)
    return _tagged(record, response)


@ROUTER.get("/{plan_id}/approvals", responses=answers(404))
def get_approvals(plan_id: str, service: ServiceParameter) -> PlanHistory:
    """Who decided what about a plan, and how far it was carried out, when."""
    store = service.store
    store.plan(plan_id)
    return PlanHistory(
        approvals=[approval_document(a) for a in store.approvals(plan_id)],
        steps=[StepBegun(begun_at=s.begun_at, what=s.what) for s in store.steps(plan_id)],
    )


@ROUTER.post("/{plan_id}/approve", responses=DECIDED, dependencies=[Once])
def approve_plan(
    *,
    plan_id: str,
    service: ServiceParameter,
    by: Writer,
    revision: Revision,
    response: Response,
    body: DecisionParameter = None,
) -> PlanResource:
    """Allow a pending plan; asking again changes nothing."""
    deployment = service.served_of_plan(plan_id).deployment
    reason = body.reason if body else ""
    record = lifecycle.approve(
        deployment, plan_id, by=by, at=service.now(), reason=reason, revision=revision
    )
    return _tagged(record, response)


@ROUTER.post("/{plan_id}/reject", responses=DECIDED, dependencies=[Once])
def reject_plan(
    *,
    plan_id: str,
    service: ServiceParameter,
    by: Writer,
    revision: Revision,
    response: Response,
    body: DecisionParameter = None,
) -> PlanResource:
    """Forbid a pending plan, or an approved one before it is begun; asking again changes nothing.

    409 when it is being applied already: once that is over it can be rolled back.
    """
    deployment = service.served_of_plan(plan_id).deployment
    reason = body.reason if body else ""
    record = lifecycle.reject(
        deployment, plan_id, by=by, at=service.now(), reason=reason, revision=revision
    )
    return _tagged(record, response)


@ROUTER.post("/{plan_id}/rollback", responses=ORDERED | DECIDED, dependencies=[Once])
def roll_plan_back(
    plan_id: str, service: ServiceParameter, by: Writer, revision: Revision, response: Response
) -> PlanResource:
    """Put the fleet back to what it was before this plan; again and again is once.

    409 when the plan changed nothing, a later one was applied, or a guard forbids it.
    """
    record, over = _move(service, plan_id, Action.ROLL_BACK, by=by, revision=revision)
    return _tagged(record, response, over=over)


@ROUTER.post("/{plan_id}/apply", responses=ORDERED | DECIDED, dependencies=[Once])
def apply_plan(
    plan_id: str, service: ServiceParameter, by: Writer, revision: Revision, response: Response
) -> PlanResource:
    """Bring the fleet to an approved plan; once, however often it is asked.

    409 when the fleet is no longer the one that the plan was made for: plan again.
    """
    record, over = _move(service, plan_id, Action.APPLY, by=by, revision=revision)
    return _tagged(record, response, over=over)


def _move(
    service: Service, plan_id: str, action: Action, *, by: str, revision: int | None
) -> tuple[PlanRecord, bool]:
    """Here, or by the leader; the plan, and whether that is over."""
    leadership = service.served_of_plan(plan_id).leadership
    return move(leadership, plan_id, action, by=by, revision=revision)


def _tagged(record: PlanRecord, response: Response, *, over: bool = True) -> PlanResource:
    """A plan with its ETag; 202 while it moves for longer than a request should take."""
    if not over:
        response.status_code = 202
    response.headers["ETag"] = revisions.etag(record.revision)
    return plan_resource(record)


def _decide(body: PlanBody, deployment: Deployment, *, now: datetime) -> Decision:
    """Forecast where none is given, then plan, simulate, diff and guard."""
    fleet = fleet_for(body, deployment, now=now)
    forecast = forecast_for(body, deployment, now=now)
    # Planned for the instant that the demand is known up to, so that lead times count from where
    # the forecast's windows begin; demand that was handed in was seen up to that instant.
    until = forecast.made_at
    observation = deployment.observer.observe(now=until)
    if body.forecast is not None or body.history is not None:
        observation = replace(observation, observed_at=until)
    conditions = guard_conditions(deployment, observation, now=until)
    spec = with_objective(deployment.plannable(now=now), body.objective)
    made = decide(spec, forecast, fleet, now=until, conditions=conditions, explain=body.explain)
    return replace(made, findings=(*made.findings, *deployment.notes(now=now)))


def fleet_for(body: PlanBody, deployment: Deployment, *, now: datetime) -> Fleet:
    """What it is planned from: as the body says, else what runs."""
    if body.fleet is None:
        return known_fleet.read(deployment)
    return fleet_of(body.fleet, spec=deployment.spec, read_at=now, where="fleet")


def forecast_for(body: PlanBody, deployment: Deployment, *, now: datetime) -> Forecast:
    """What is planned for: as the body says, else from what was observed."""
    if body.forecast is not None:
        forecast = forecast_of(body.forecast, where="forecast")
        check_forecast(deployment.spec, forecast, model=deployment.model)
        return forecast
    if body.history is not None:
        windows = windows_of(body.history, where="history")
        made_at = history_end(windows, where="history")
    else:
        windows = deployment.observer.observe(now=now).windows
        made_at = now
        history_end(windows, where=f"observations of {deployment.spec.name}")
    return expected_demand(
        deployment.spec,
        windows,
        model=deployment.model,
        made_at=made_at,
        memory=deployment.memory if body.history is None else None,
    )

"""Plans: make, look, approve, reject, apply."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, Field

from planner.autoscale.slow import Decision, decide
from planner.domain.fleet import Fleet
from planner.domain.forecast import Forecast
from planner.domain.rollout import ApprovalState
from planner.service import known_fleet, lifecycle
from planner.service.api.bodies import DecisionBody, PlanBody
from planner.service.api.resources import PlanResource, plan_resource
from planner.service.api.service import Service, ServiceParameter, Writer
from planner.service.deployment import guard_conditions
from planner.service.documents.document import Document
from planner.service.documents.fleet import fleet_of
from planner.service.documents.forecast import forecast_of
from planner.service.documents.history import history_end, windows_of
from planner.service.documents.rollout import ApprovalDocument, approval_document
from planner.service.orders import ACTIONS, move
from planner.service.planning import check_forecast, expected_demand
from planner.service.store.orders import Action
from planner.service.what_if import with_objective

ROUTER = APIRouter(prefix="/v1/plans", tags=["plans"])

MOST_PLANS = 200
ORDERED: dict[int | str, dict[str, object]] = {
    202: {
        "model": PlanResource,
        "description": "Another process leads and is still at it: look at the plan again later",
    }
}


class PlanList(Document):
    """Stored plans, newest first."""

    plans: list[PlanResource]


class StepBegun(Document):
    """A step that was begun, and when."""

    begun_at: AwareDatetime
    what: str = Field(description="such as `step 3 of 7 (start decode:h100:tp1)`")


class PlanHistory(Document):
    """Every state that a plan was in, and every step of it that was begun, oldest first."""

    approvals: list[ApprovalDocument] = Field(description="append-only")
    steps: list[StepBegun] = Field(description="append-only; a rerun counts from 1 again")


@ROUTER.post("", status_code=201)
def post_plan(
    body: PlanBody, service: ServiceParameter, by: Writer, response: Response
) -> PlanResource:
    """Plan now; the plan is stored and waits for approval.

    Equal inputs give the stored plan, unless that one is dead (superseded, expired, rejected,
    failed, rolled back).
    """
    deployment, now = service.deployment, service.now()
    if body.deployment is not None:
        service.check_deployment(body.deployment)
    decision = _decide(body, service)
    record = lifecycle.propose(deployment, decision, by=by, at=now)
    service.metrics.record_plan(deployment.spec.name, record.plan)
    response.headers["Location"] = f"/v1/plans/{record.plan.plan_id}"
    return plan_resource(record)


@ROUTER.get("")
def get_plans(
    service: ServiceParameter,
    limit: Annotated[int, Query(ge=1, le=MOST_PLANS, description="at most so many")] = 50,
    state: Annotated[list[ApprovalState] | None, Query(description="only in these states")] = None,
) -> PlanList:
    """The newest plans, newest first."""
    records = service.deployment.store.plans(
        service.deployment.spec.name, limit=limit, states=state or ()
    )
    return PlanList(plans=[plan_resource(record) for record in records])


@ROUTER.get("/{plan_id}")
def get_plan(plan_id: str, service: ServiceParameter) -> PlanResource:
    """One plan, what it changes, and where it stands."""
    return plan_resource(service.deployment.store.plan(plan_id))


@ROUTER.get("/{plan_id}/approvals")
def get_approvals(plan_id: str, service: ServiceParameter) -> PlanHistory:
    """Who decided what about a plan, and how far it was carried out, when."""
    store = service.deployment.store
    store.plan(plan_id)
    return PlanHistory(
        approvals=[approval_document(a) for a in store.approvals(plan_id)],
        steps=[StepBegun(begun_at=s.begun_at, what=s.what) for s in store.steps(plan_id)],
    )


@ROUTER.post("/{plan_id}/approve")
def approve_plan(
    plan_id: str, service: ServiceParameter, by: Writer, body: DecisionBody | None = None
) -> PlanResource:
    """Allow a pending plan; asking again changes nothing."""
    reason = body.reason if body else ""
    record = lifecycle.approve(service.deployment, plan_id, by=by, at=service.now(), reason=reason)
    return plan_resource(record)


@ROUTER.post("/{plan_id}/reject")
def reject_plan(
    plan_id: str, service: ServiceParameter, by: Writer, body: DecisionBody | None = None
) -> PlanResource:
    """Forbid a pending plan; asking again changes nothing."""
    reason = body.reason if body else ""
    record = lifecycle.reject(service.deployment, plan_id, by=by, at=service.now(), reason=reason)
    return plan_resource(record)


@ROUTER.post("/{plan_id}/rollback", responses=ORDERED)
def roll_plan_back(
    plan_id: str, service: ServiceParameter, by: Writer, response: Response
) -> PlanResource:
    """Put the fleet back to what it was before this plan; again and again is once.

    409 when the plan changed nothing, a later one was applied, or a guard forbids it.
    """
    return _move(service, plan_id, Action.ROLL_BACK, by, response)


@ROUTER.post("/{plan_id}/apply", responses=ORDERED)
def apply_plan(
    plan_id: str, service: ServiceParameter, by: Writer, response: Response
) -> PlanResource:
    """Bring the fleet to an approved plan; once, however often it is asked.

    409 when the fleet is no longer the one that the plan was made for: plan again.
    """
    return _move(service, plan_id, Action.APPLY, by, response)


def _move(
    service: Service, plan_id: str, action: Action, by: str, response: Response
) -> PlanResource:
    """Here, or by the leader: 202 when that takes longer than a request should."""
    if service.leadership is None:
        carry = ACTIONS[action]
        return plan_resource(carry(service.deployment, plan_id, by=by, at=service.now()))
    record, over = move(service.leadership, plan_id, action, by=by)
    if not over:
        response.status_code = 202
    return plan_resource(record)


def _decide(body: PlanBody, service: Service) -> Decision:
    """Forecast where none is given, then plan, simulate, diff and guard."""
    deployment = service.deployment
    fleet = _fleet(body, service)
    forecast = _forecast(body, service)
    # Planned for the instant that the demand is known up to, so that lead times count from where
    # the forecast's windows begin; demand that was handed in was seen up to that instant.
    now = forecast.made_at
    observation = deployment.observer.observe(now=now)
    if body.forecast is not None or body.history is not None:
        observation = replace(observation, observed_at=now)
    conditions = guard_conditions(deployment, observation, now=now)
    spec = with_objective(deployment.plannable(now=service.now()), body.objective)
    made = decide(spec, forecast, fleet, now=now, conditions=conditions, explain=body.explain)
    return replace(made, findings=(*made.findings, *deployment.notes(now=service.now())))


def _fleet(body: PlanBody, service: Service) -> Fleet:
    deployment = service.deployment
    if body.fleet is None:
        return known_fleet.read(deployment)
    return fleet_of(body.fleet, spec=deployment.spec, read_at=service.now(), where="fleet")


def _forecast(body: PlanBody, service: Service) -> Forecast:
    deployment = service.deployment
    if body.forecast is not None:
        forecast = forecast_of(body.forecast, where="forecast")
        check_forecast(deployment.spec, forecast, model=deployment.model)
        return forecast
    if body.history is not None:
        windows = windows_of(body.history, where="history")
        made_at = history_end(windows, where="history")
    else:
        windows = deployment.observer.observe(now=service.now()).windows
        made_at = service.now()
        history_end(windows, where=f"observations of {deployment.spec.name}")
    return expected_demand(
        deployment.spec,
        windows,
        model=deployment.model,
        made_at=made_at,
        memory=deployment.memory if body.history is None else None,
    )

"""The deployment: its fleet, what was observed, what was decided."""

from typing import Annotated

from fastapi import APIRouter, Body, HTTPException, Query, Request, Response
from fastapi.openapi.models import Example
from pydantic import AwareDatetime, Field

from planner.domain.errors import HistoryError
from planner.domain.spec import TargetKind
from planner.service.api import paging
from planner.service.api.bodies import ObservationsBody
from planner.service.api.examples import FLEET, MINUTES
from planner.service.api.paging import CursorParameter
from planner.service.api.problems import answers
from planner.service.api.repeating import Once
from planner.service.api.service import ServiceParameter, Writer
from planner.service.documents.document import Document
from planner.service.documents.fleet import FleetDocument, fleet_document, fleet_of
from planner.service.documents.history import windows_of
from planner.service.planning import check_classes

ROUTER = APIRouter(prefix="/v1/deployments/{name}", tags=["deployments"])


class Accepted(Document):
    """How much was taken in."""

    windows: int


class DecisionDocument(Document):
    """What a tick of the loop came to."""

    decided_at: AwareDatetime
    plan_id: str | None
    outcome: str
    reason: str


class DecisionList(Document):
    """Decisions of the loop, newest first."""

    decisions: list[DecisionDocument]
    next: str | None = Field(default=None, description="cursor of the next page; null: the last")


FLEET_EXAMPLES = {
    "two replicas": Example(summary="One prefill and one decode replica that serve", value=FLEET)
}
OBSERVED_EXAMPLES = {
    "minutes": Example(summary="Forty minutes of windows", value={"history": MINUTES})
}


@ROUTER.get("/fleet", responses=answers(404))
def get_fleet(name: str, service: ServiceParameter) -> FleetDocument:
    """What runs now, as the target has it."""
    service.check_deployment(name)
    try:
        return fleet_document(service.deployment.actuator.read_fleet())
    except HistoryError as error:
        raise HTTPException(404, str(error)) from error


@ROUTER.put("/fleet", responses=answers(404, 409))
def put_fleet(
    name: str,
    body: Annotated[FleetDocument, Body(openapi_examples=FLEET_EXAMPLES)],
    service: ServiceParameter,
    by: Writer,
) -> FleetDocument:
    """Hand in what runs now; for targets dry_run and metrics, which do not read it themselves."""
    service.check_deployment(name)
    deployment, now = service.deployment, service.now()
    if deployment.spec.target not in (TargetKind.DRY_RUN, TargetKind.METRICS):
        raise HTTPException(409, f"the fleet of target {deployment.spec.target} is read, not told")
    fleet = fleet_of(body, spec=deployment.spec, read_at=now, where="fleet")
    deployment.store.put_fleet(name, fleet, received_at=now, actor=by)
    service.metrics.record_fleet(name, fleet)
    return fleet_document(fleet)


@ROUTER.post("/observations", status_code=201, responses=answers(404, 409), dependencies=[Once])
def post_observations(
    name: str,
    body: Annotated[ObservationsBody, Body(openapi_examples=OBSERVED_EXAMPLES)],
    service: ServiceParameter,
    by: Writer,
) -> Accepted:
    """Hand in observed windows; one for the same class and start replaces the older one."""
    service.check_deployment(name)
    deployment = service.deployment
    windows = windows_of(body.history, where="history")
    check_classes(deployment.spec, deployment.model, {w.request_class for w in windows})
    deployment.store.add_windows(
        name, deployment.model, windows, received_at=service.now(), actor=by
    )
    return Accepted(windows=len(windows))


@ROUTER.get("/decisions", responses=answers(404))
def get_decisions(
    *,
    name: str,
    service: ServiceParameter,
    request: Request,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=paging.MOST, description="at most so many")] = 100,
    cursor: CursorParameter = None,
) -> DecisionList:
    """What the loop decided, newest first, in pages."""
    service.check_deployment(name)
    found = service.deployment.store.decisions(name, limit=limit + 1, before=paging.before(cursor))
    records, more = paging.page(found, limit)
    following = paging.cursor(records[-1].seq) if more else None
    paging.link(request, response, following)
    return DecisionList(
        decisions=[
            DecisionDocument(
                decided_at=record.decided_at,
                plan_id=record.plan_id,
                outcome=record.outcome,
                reason=record.reason,
            )
            for record in records
        ],
        next=following,
    )

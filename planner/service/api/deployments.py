"""The deployment: its fleet, what was observed, what was decided."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, HTTPException
from fastapi.openapi.models import Example
from pydantic import Field

from planner.domain.errors import HistoryError
from planner.domain.spec import TargetKind
from planner.service.answers.planning import check_classes
from planner.service.api.bodies import ObservationsBody
from planner.service.api.examples import FLEET, MINUTES
from planner.service.api.problems import answers
from planner.service.api.repeating import Once
from planner.service.api.service import DeploymentParameter, ServiceParameter, Writer
from planner.service.documents.backlog import BacklogDocument, backlog_of
from planner.service.documents.document import Document
from planner.service.documents.fleet import FleetDocument, fleet_document, fleet_of
from planner.service.documents.history import windows_of
from planner.service.fleet import known_fleet

ROUTER = APIRouter(prefix="/v1/deployments/{name}", tags=["deployments"])


AHEAD_S = 300.0
"""So far the clock of whoever hands in may be ahead of this server's, seconds."""


class Accepted(Document):
    """How much was taken in."""

    windows: int = Field(
        description="how many were stored; those of hours that are summed up already are left out"
    )


FLEET_EXAMPLES = {
    "two replicas": Example(summary="One prefill and one decode replica that serve", value=FLEET)
}
BACKLOG_EXAMPLES = {
    "waiting": Example(
        summary="Forty prompts wait, a hundred answers are under way",
        value={
            "observed_at": "2026-11-02T12:00:00Z",
            "waiting_prompt_tokens": 40_000,
            "decoding_sequences": 100,
            "context_tokens": 900,
            "request_rate_rps": 4.0,
            "input_tokens_per_s": 4_000,
        },
    )
}
OBSERVED_EXAMPLES = {
    "minutes": Example(summary="Forty minutes of windows", value={"history": MINUTES})
}


@ROUTER.get("/fleet", responses=answers(404))
def get_fleet(deployment: DeploymentParameter) -> FleetDocument:
    """What runs now, as the target has it."""
    try:
        return fleet_document(known_fleet.read(deployment))
    except HistoryError as error:
        raise HTTPException(404, str(error)) from error


@ROUTER.put("/fleet", responses=answers(404, 409))
def put_fleet(
    name: str,
    body: Annotated[FleetDocument, Body(openapi_examples=FLEET_EXAMPLES)],
    deployment: DeploymentParameter,
    service: ServiceParameter,
    by: Writer,
) -> FleetDocument:
    """Hand in what runs now; for targets dry_run and metrics, which do not read it themselves."""
    now = service.now()
    if deployment.spec.target not in (TargetKind.DRY_RUN, TargetKind.METRICS):
        raise HTTPException(409, f"the fleet of target {deployment.spec.target} is read, not told")
    fleet = fleet_of(body, spec=deployment.spec, read_at=now, where="fleet")
    deployment.store.put_fleet(name, fleet, received_at=now, actor=by)
    service.metrics.record_fleet(name, fleet)
    return fleet_document(fleet)


@ROUTER.put("/backlog", responses=answers(404))
def put_backlog(
    name: str,
    body: Annotated[BacklogDocument, Body(openapi_examples=BACKLOG_EXAMPLES)],
    deployment: DeploymentParameter,
    service: ServiceParameter,
    _by: Writer,
) -> BacklogDocument:
    """Hand in what waits now, for the fast tick; an older one than the kept one changes nothing."""
    _check_past(body.observed_at, now=service.now(), where="observed_at")
    deployment.store.put_backlog(name, backlog_of(body, model=deployment.model))
    return body


@ROUTER.post("/observations", status_code=201, responses=answers(404, 409), dependencies=[Once])
def post_observations(
    name: str,
    body: Annotated[ObservationsBody, Body(openapi_examples=OBSERVED_EXAMPLES)],
    deployment: DeploymentParameter,
    service: ServiceParameter,
    by: Writer,
) -> Accepted:
    """Hand in observed windows; one for the same class and start replaces the older one.

    None may end more than five minutes after this server's now.
    """
    now = service.now()
    windows = windows_of(body.history, where="history")
    _check_past(max(w.end_at for w in windows), now=now, where="history: the last window's end")
    check_classes(deployment.spec, deployment.model, {w.request_class for w in windows})
    count = deployment.store.add_windows(name, deployment.model, windows, received_at=now, actor=by)
    return Accepted(windows=count)


def _check_past(at: datetime, *, now: datetime, where: str) -> None:
    """Refuse what is yet to come: it would count as the newest until its time has come.

    Raises
    ------
    HistoryError
    """
    ahead_s = (at - now).total_seconds()
    if ahead_s > AHEAD_S:
        raise HistoryError(
            f"{where}, {at.isoformat()}, is {ahead_s:,.0f} s after now ({now.isoformat()}): what "
            "was observed lies in the past; is a clock or a time zone wrong?"
        )

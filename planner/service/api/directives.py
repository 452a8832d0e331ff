"""Orders of people to a deployment: pause, resume, pin, mode. Any replica takes them."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body
from fastapi.openapi.models import Example

from planner.service.api.problems import answers
from planner.service.api.repeating import Once
from planner.service.api.service import DeploymentParameter, Service, ServiceParameter, Writer
from planner.service.deployment import Deployment
from planner.service.documents.directives import (
    ModeBody,
    OrderBody,
    PauseBody,
    PinBody,
    ResumeBody,
    StandingDocument,
    standing_document,
)
from planner.service.loop import directives
from planner.service.loop.directives import Word

ROUTER = APIRouter(prefix="/v1/deployments/{name}", tags=["deployments"], responses=answers(404))

PAUSE_EXAMPLES = {
    "out": Example(
        summary="Let no capacity go, for a while", value={"what": "in", "reason": "a launch"}
    )
}
RESUME_EXAMPLES = {"in": Example(summary="Let capacity go again", value={"what": "in"})}
PIN_EXAMPLES = {"two": Example(summary="Two replicas, whatever is planned", value={"replicas": 2})}
MODE_EXAMPLES = {
    "advise": Example(
        summary="Look and say, and touch nothing", value={"mode": "advise", "reason": "a rehearsal"}
    )
}


@ROUTER.get("/directives")
def get_directives(deployment: DeploymentParameter, service: ServiceParameter) -> StandingDocument:
    """What people ordered at run time, as far as it is in force, and the loop's mode."""
    return _standing(deployment, now=service.now())


@ROUTER.post("/pause", dependencies=[Once], responses=answers(409))
def pause(
    deployment: DeploymentParameter,
    service: ServiceParameter,
    by: Writer,
    body: Annotated[PauseBody | None, Body(openapi_examples=PAUSE_EXAMPLES)] = None,
) -> StandingDocument:
    """Let no capacity go (in), come (out), or either (all). Asking again sets the end anew.

    It holds for ticks, applies, rollbacks and people's plans, whichever process leads.
    """
    asked = body or PauseBody()
    directives.pause(deployment, asked.what, _word(service, by, asked))
    return _standing(deployment, now=service.now())


@ROUTER.post("/resume", dependencies=[Once], responses=answers(409))
def resume(
    deployment: DeploymentParameter,
    service: ServiceParameter,
    by: Writer,
    body: Annotated[ResumeBody | None, Body(openapi_examples=RESUME_EXAMPLES)] = None,
) -> StandingDocument:
    """Take a pause back; one that is not there is no error. 409 when the spec itself pauses."""
    what = (body or ResumeBody()).what
    directives.resume(deployment, what, _word(service, by))
    return _standing(deployment, now=service.now())


@ROUTER.put("/pins/{pool}")
def put_pin(
    deployment: DeploymentParameter,
    pool: str,
    body: Annotated[PinBody, Body(openapi_examples=PIN_EXAMPLES)],
    service: ServiceParameter,
    by: Writer,
) -> StandingDocument:
    """Hold a pool, named by its label, at a count of replicas."""
    directives.pin(deployment, pool, body.replicas, _word(service, by, body))
    return _standing(deployment, now=service.now())


@ROUTER.delete("/pins/{pool}", responses=answers(409))
def delete_pin(
    deployment: DeploymentParameter, pool: str, service: ServiceParameter, by: Writer
) -> StandingDocument:
    """Take a pin back; one that is not there is no error. 409 when the spec itself pins it."""
    directives.unpin(deployment, pool, _word(service, by))
    return _standing(deployment, now=service.now())


@ROUTER.put("/mode")
def put_mode(
    deployment: DeploymentParameter,
    body: Annotated[ModeBody, Body(openapi_examples=MODE_EXAMPLES)],
    service: ServiceParameter,
    by: Writer,
) -> StandingDocument:
    """Let the loop's mode be another one than the spec's, from the next tick on."""
    directives.set_mode(deployment, body.mode, _word(service, by, body))
    return _standing(deployment, now=service.now())


@ROUTER.delete("/mode")
def delete_mode(
    deployment: DeploymentParameter, service: ServiceParameter, by: Writer
) -> StandingDocument:
    """Let the loop's mode be the spec's again."""
    directives.set_mode(deployment, None, _word(service, by))
    return _standing(deployment, now=service.now())


def _word(service: Service, by: str, body: OrderBody | None = None) -> Word:
    asked = body or OrderBody()
    return Word(by=by, at=service.now(), until_at=asked.until_at, reason=asked.reason)


def _standing(deployment: Deployment, *, now: datetime) -> StandingDocument:
    spec = deployment.spec
    return standing_document(
        spec.name,
        directives.standing(deployment, now=now),
        mode=spec.loop.mode,
        paused=spec.guards.pause,
    )

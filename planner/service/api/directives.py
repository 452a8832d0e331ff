"""Orders of people to a deployment: pause, resume, pin, mode. Any replica takes them."""

from typing import Annotated

from fastapi import APIRouter, Body
from fastapi.openapi.models import Example

from planner.service.api.problems import answers
from planner.service.api.repeating import Once
from planner.service.api.service import Service, ServiceParameter, Writer
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
def get_directives(name: str, service: ServiceParameter) -> StandingDocument:
    """What people ordered at run time, as far as it is in force, and the loop's mode."""
    service.check_deployment(name)
    return _standing(service)


@ROUTER.post("/pause", dependencies=[Once], responses=answers(409))
def pause(
    name: str,
    service: ServiceParameter,
    by: Writer,
    body: Annotated[PauseBody | None, Body(openapi_examples=PAUSE_EXAMPLES)] = None,
) -> StandingDocument:
    """Let no capacity go (in), come (out), or either (all). Asking again sets the end anew.

    It holds for ticks, applies, rollbacks and people's plans, whichever process leads.
    """
    service.check_deployment(name)
    asked = body or PauseBody()
    directives.pause(service.deployment, asked.what, _word(service, by, asked))
    return _standing(service)


@ROUTER.post("/resume", dependencies=[Once], responses=answers(409))
def resume(
    name: str,
    service: ServiceParameter,
    by: Writer,
    body: Annotated[ResumeBody | None, Body(openapi_examples=RESUME_EXAMPLES)] = None,
) -> StandingDocument:
    """Take a pause back; one that is not there is no error. 409 when the spec itself pauses."""
    service.check_deployment(name)
    what = (body or ResumeBody()).what
    directives.resume(service.deployment, what, _word(service, by))
    return _standing(service)


@ROUTER.put("/pins/{pool}")
def put_pin(
    name: str,
    pool: str,
    body: Annotated[PinBody, Body(openapi_examples=PIN_EXAMPLES)],
    service: ServiceParameter,
    by: Writer,
) -> StandingDocument:
    """Hold a pool, named by its label, at a count of replicas."""
    service.check_deployment(name)
    directives.pin(service.deployment, pool, body.replicas, _word(service, by, body))
    return _standing(service)


@ROUTER.delete("/pins/{pool}", responses=answers(409))
def delete_pin(name: str, pool: str, service: ServiceParameter, by: Writer) -> StandingDocument:
    """Take a pin back; one that is not there is no error. 409 when the spec itself pins it."""
    service.check_deployment(name)
    directives.unpin(service.deployment, pool, _word(service, by))
    return _standing(service)


@ROUTER.put("/mode")
def put_mode(
    name: str,
    body: Annotated[ModeBody, Body(openapi_examples=MODE_EXAMPLES)],
    service: ServiceParameter,
    by: Writer,
) -> StandingDocument:
    """Let the loop's mode be another one than the spec's, from the next tick on."""
    service.check_deployment(name)
    directives.set_mode(service.deployment, body.mode, _word(service, by, body))
    return _standing(service)


@ROUTER.delete("/mode")
def delete_mode(name: str, service: ServiceParameter, by: Writer) -> StandingDocument:
    """Let the loop's mode be the spec's again."""
    service.check_deployment(name)
    directives.set_mode(service.deployment, None, _word(service, by))
    return _standing(service)


def _word(service: Service, by: str, body: OrderBody | None = None) -> Word:
    asked = body or OrderBody()
    return Word(by=by, at=service.now(), until_at=asked.until_at, reason=asked.reason)


def _standing(service: Service) -> StandingDocument:
    deployment, now = service.deployment, service.now()
    spec = deployment.spec
    return standing_document(
        spec.name,
        directives.standing(deployment, now=now),
        mode=spec.loop.mode,
        paused=spec.guards.pause,
    )

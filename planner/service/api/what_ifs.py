"""What a fleet and its cost would be, if the spec or the load were otherwise. Nothing is kept."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Body, HTTPException, Response
from fastapi.openapi.models import Example
from pydantic import Field

from planner.domain.errors import HistoryError
from planner.domain.fleet import Fleet
from planner.domain.forecast import Forecast
from planner.domain.spec import Spec
from planner.service.answers.planning import UNPLANNABLE, plan_beside, propose
from planner.service.api.bodies import PlanBody
from planner.service.api.examples import MINUTES
from planner.service.api.plans import fleet_for, forecast_for
from planner.service.api.problems import answers
from planner.service.api.repeating import Once
from planner.service.api.service import Service, ServiceParameter, Writer
from planner.service.api.work import ACCEPTED, WorkParameter
from planner.service.deployment import Deployment
from planner.service.documents.answers import (
    PlanAnswer,
    RefusedAnswer,
    plan_answer,
    refused_answer,
)
from planner.service.documents.document import Document
from planner.service.documents.history import WindowDocument
from planner.service.hosting.registry import Served
from planner.service.job_runner import Made, Progress
from planner.service.spec.what_if import WhatIf, what_if_of

ROUTER = APIRouter(prefix="/v1/what-ifs", tags=["advice"])

KIND = "what-ifs"
MOST_CHANGES = 20
Change = Annotated[str, Field(min_length=3, max_length=2_000)]


class WhatIfBody(Document):
    """What would be otherwise."""

    deployment: str | None = Field(
        default=None, description="whose spec; left out: the only one that is served here"
    )
    changes: list[Change] = Field(
        min_length=1,
        max_length=MOST_CHANGES,
        description="each as `poolwise plan --what-if` takes it: `slos.0.ttft_s=x0.8,rate=x1.5`; "
        "`rate`, `isl` and `osl` multiply the requests and their lengths, all else is the spec's",
    )
    history: list[WindowDocument] | None = Field(
        default=None, description="observed windows; left out: the stored ones"
    )


EXAMPLES: dict[str, Example] = {
    "growth": Example(
        summary="Twice the requests; and a tighter promise for longer prompts",
        value={"changes": ["rate=x2", "slos.0.ttft_s=x0.8,isl=x1.5"], "history": MINUTES},
    )
}


@ROUTER.post(
    "",
    response_model=PlanAnswer | RefusedAnswer,
    responses={**ACCEPTED, **answers(404, 409)},
    dependencies=[Once],
)
async def post_what_if(
    body: Annotated[WhatIfBody, Body(openapi_examples=EXAMPLES)],
    service: ServiceParameter,
    work: WorkParameter,
    by: Writer,
) -> Response:
    """The plan as things are, and beside it one for each change. No plan is stored.

    Where things as they are cannot be planned, `refused` says why instead of a plan.
    """
    name = service.registry.sole(body.deployment).name
    return await work.answer(KIND, body.model_copy(update={"deployment": name}), by=by)


def make_what_if(service: Service, body: WhatIfBody, progress: Progress) -> Made:
    """The work behind `POST /v1/what-ifs`: as `poolwise plan --what-if`, for what runs here."""
    served, now = service.registry.sole(body.deployment), service.now()
    changes = [
        check_change(served, text) for text in body.changes
    ]  # bad ones are told before any work
    deployment, asked = served.deployment, PlanBody(history=body.history)
    expected = forecast_for(asked, deployment, now=now)
    spec, fleet = deployment.plannable(now=now), _fleet(asked, deployment)
    total = len(changes) + 1
    progress(0, total)
    refused, proposal = "", None
    try:
        proposal = propose(spec, expected, fleet, model=deployment.model, now=expected.made_at)
    except UNPLANNABLE as error:
        refused = str(error)

    def again(other: Spec) -> Forecast:
        return forecast_for(asked, replace(deployment, spec=other), now=now)

    beside = []
    for done, change in enumerate(changes, 1):
        progress(done, total)
        usable = replace(deployment, spec=change.spec).plannable(now=now)
        changed = replace(change, spec=usable)
        beside.append(plan_beside(changed, expected, fleet, spec=spec, forecast_again=again))
    if proposal is None:
        return Made(status=200, text=refused_answer(refused, what_if=beside).model_dump_json())
    answer = plan_answer(proposal.plan, proposal.diff, proposal.findings, what_if=beside)
    return Made(status=200, text=answer.model_dump_json())


def check_change(served: Served, text: str) -> WhatIf:
    """What is asked, as far as it can be told without any planning.

    Raises
    ------
    HTTPException
        409 when the spec cannot be changed here.
    InputError
        When a key is not there or a value is none; SpecError when the changed spec is refused.
    """
    specs = served.specs
    if specs is None:
        raise HTTPException(409, f"the spec of {served.name} cannot be changed here")

    def read(content: Mapping[str, object]) -> Spec:
        return specs.reader.read(content, allow_estimates=specs.now.allow_estimates)

    return what_if_of(specs.now.content, text, read=read)


def _fleet(asked: PlanBody, deployment: Deployment) -> Fleet | None:
    """What runs; None where nobody has said: it is then planned from nothing."""
    try:
        return fleet_for(asked, deployment, now=deployment.clock())
    except HistoryError:
        return None

"""Stateless questions: recommendations. Nothing is stored."""

from typing import Annotated

from fastapi import APIRouter, Body
from fastapi.openapi.models import Example

from planner.domain.spec import Spec
from planner.service.answers.histories import notes_of
from planner.service.answers.planning import recommend, sole_model
from planner.service.api.bodies import RecommendationBody
from planner.service.api.examples import FLEET, MINUTES, SPEC
from planner.service.api.problems import answers
from planner.service.api.repeating import Once
from planner.service.api.service import Service, ServiceParameter, Writer
from planner.service.documents.fleet import fleet_of
from planner.service.documents.history import history_end, windows_of
from planner.service.documents.recommendation import (
    RecommendationDocument,
    recommendation_document,
)
from planner.service.spec.file import spec_of

ROUTER = APIRouter(prefix="/v1", tags=["advice"])


EXAMPLES = {
    "history": Example(
        summary="For the minute after these windows", value={"history": MINUTES, "fleet": FLEET}
    ),
    "own spec": Example(
        summary="With a spec of its own, everything inline",
        value={"history": MINUTES, "fleet": FLEET, "spec": SPEC},
    ),
}


@ROUTER.post("/recommendations", responses=answers(404), dependencies=[Once])
def post_recommendation(
    body: Annotated[RecommendationBody, Body(openapi_examples=EXAMPLES)],
    service: ServiceParameter,
    _by: Writer,
) -> RecommendationDocument:
    """Replicas per pool for the next window, from what was observed and what runs."""
    spec = _spec(body, service)
    model = sole_model(spec, body.model)
    windows = windows_of(body.history, where="history", until=body.now)
    now = body.now or history_end(windows, where="history")
    fleet = fleet_of(body.fleet, spec=spec, read_at=now, where="fleet")
    decision, expected = recommend(spec, windows, fleet, model=model, now=now)
    return recommendation_document(decision, expected, notes=notes_of(windows))


def _spec(body: RecommendationBody, service: Service) -> Spec:
    if body.spec is None:
        return service.registry.sole(body.deployment).deployment.spec
    return spec_of(body.spec, where="spec", allow_estimates=body.allow_estimates)

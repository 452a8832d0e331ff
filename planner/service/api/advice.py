"""Stateless questions: recommendations. Nothing is stored."""

from fastapi import APIRouter

from planner.domain.spec import Spec
from planner.service.api.bodies import RecommendationBody
from planner.service.api.service import Service, ServiceParameter, Writer
from planner.service.documents.fleet import fleet_of
from planner.service.documents.history import history_end, windows_of
from planner.service.documents.recommendation import (
    RecommendationDocument,
    recommendation_document,
)
from planner.service.histories import notes_of
from planner.service.planning import recommend, sole_model
from planner.service.spec_file import spec_of

ROUTER = APIRouter(prefix="/v1", tags=["advice"])


@ROUTER.post("/recommendations")
def post_recommendation(
    body: RecommendationBody, service: ServiceParameter, _by: Writer
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
        return service.deployment.spec
    return spec_of(body.spec, where="spec", allow_estimates=body.allow_estimates)

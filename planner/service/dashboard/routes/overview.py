"""The first page: all deployments of this server."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from planner.service.api.service import Service, ServiceParameter
from planner.service.dashboard.pages import page
from planner.service.dashboard.routes import known
from planner.service.dashboard.views.overview import Card, age, card
from planner.service.hosting.registry import Served

ROUTER = APIRouter()


@ROUTER.get("/")
def get_overview(request: Request, service: ServiceParameter) -> Response:
    """Every deployment in a few figures, and what waits for somebody."""
    now = service.now()
    cards = [_card(served, service) for served in service.registry.all()]
    values = {"cards": cards, "now": now, "age": lambda then: age(then, now)}
    return page(request, "overview.html.j2", values)


def _card(served: Served, service: Service) -> Card:
    deployment, now = served.deployment, service.now()
    plans = known.plans_of(served)
    return card(
        name=served.name,
        model=deployment.model,
        target=deployment.spec.target.value,
        orders=known.orders_of(served, service),
        fleet=known.fleet_of(served, plans, now=now),
        plans=plans,
        signals=known.signals_of(served),
        slos=known.slos_of(served),
        decisions=deployment.store.decisions(served.name, limit=1),
    )

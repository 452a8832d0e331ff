"""One deployment: what it does now, what comes, what was decided, and orders to it."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from planner.domain.rollout import ApprovalState
from planner.service.api import paging
from planner.service.api.forecasts import get_forecast
from planner.service.api.objectives import SloDocument, get_slo
from planner.service.api.service import ServedParameter, Service, ServiceParameter
from planner.service.dashboard.briefly import Briefly
from planner.service.dashboard.pages import page
from planner.service.dashboard.routes import known
from planner.service.dashboard.views import live
from planner.service.dashboard.views.ahead import Ahead, ahead_view, past_of
from planner.service.dashboard.views.decisions import timeline
from planner.service.dashboard.views.fleet import newest_alive, window_at
from planner.service.dashboard.views.overview import MODES, age
from planner.service.dashboard.views.plans import plan_line
from planner.service.hosting.registry import Served
from planner.service.reports.quantities import words

ROUTER = APIRouter(prefix="/deployments/{name}")

LATELY = 30
"""Decisions that a deployment's page looks back on."""
OF_A_PAGE = 100


@ROUTER.get("")
def get_deployment(
    request: Request, served: ServedParameter, service: ServiceParameter
) -> Response:
    """The screen of whoever is on call."""
    now = service.now()
    ahead, no_forecast = known.attempt(lambda: _ahead(served))
    values = {
        **_now(request, served, service, now=now),
        "ahead": ahead,
        "no_forecast": no_forecast.rstrip("."),
        "modes": MODES,
    }
    return page(request, "deployment.html.j2", values)


@ROUTER.get("/now")
def get_now(request: Request, served: ServedParameter, service: ServiceParameter) -> Response:
    """The part of the page that is of this moment, to be put in place of the older one."""
    values = _now(request, served, service, now=service.now())
    return page(request, "_now.html.j2", values)


@ROUTER.get("/decisions")
def get_timeline(
    request: Request,
    served: ServedParameter,
    service: ServiceParameter,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
) -> Response:
    """What the loop decided, a page at a time."""
    records = service.store.decisions(
        served.name, limit=OF_A_PAGE + 1, before=paging.before(cursor)
    )
    shown, more = paging.page(records, OF_A_PAGE)
    values = {
        "name": served.name,
        "decisions": timeline(shown, known.plans_of(served)),
        "following": paging.cursor(shown[-1].decision_id) if more else "",
        "later": cursor is not None,
    }
    return page(request, "decisions.html.j2", values)


def _now(request: Request, served: Served, service: Service, *, now: datetime) -> dict[str, object]:
    deployment = served.deployment
    plans, signals, slos = known.plans_of(served), known.signals_of(served), known.slos_of(served)
    alive = newest_alive(plans)
    window = None if alive is None else window_at(alive.plan, now)
    in_force = alive is not None and alive.approval.state is ApprovalState.APPLIED
    predicted = window.predicted.ttft_p95_s if window is not None and in_force else None
    kept = _kept(request, served, service)
    return {
        "name": served.name,
        "model": deployment.model,
        "target": words(deployment.spec.target),
        "tells_fleet": deployment.spec.target.value in ("dry_run", "metrics"),
        "orders": known.orders_of(served, service),
        "fleet": known.fleet_of(served, plans, now=now),
        "waiting": [
            plan_line(record)
            for record in plans
            if record.approval.state in (ApprovalState.PENDING, ApprovalState.APPROVED)
            or record.approval.state.moves
        ],
        "live": live.live_view(
            signals,
            known.recent_of(served, since=now - live.SHOWN),
            slos,
            now=now,
            predicted_ttft_s=predicted,
        ),
        "budgets": live.budgets(kept, signals),
        "decisions": timeline(deployment.store.decisions(served.name, limit=LATELY), plans)[:8],
        "plans": [plan_line(record) for record in plans[:5]],
        "now": now,
        "age": lambda then: age(then, now),
    }


def _kept(request: Request, served: Served, service: Service) -> SloDocument:
    """Promises over the last hour: as many as 100,000 requests are read for it."""
    shared: Briefly[SloDocument] = request.app.state.kept
    return shared.get(
        served.name,
        lambda: get_slo(served.deployment, service, window_s=live.SHOWN.total_seconds()),
    )


def _ahead(served: Served) -> Ahead:
    deployment = served.deployment
    beside = get_forecast(deployment, made_by=None, outcomes=200)
    start_at, end_at = past_of(beside)
    past = deployment.store.windows_overlapping(
        served.name, deployment.model, start_at=start_at, end_at=end_at
    )
    return ahead_view(beside, past)

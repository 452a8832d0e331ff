"""What pages read of a deployment: by the functions that the REST routes answer with."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from starlette.exceptions import HTTPException

from planner.domain.errors import PoolwiseError
from planner.domain.slo import Slo
from planner.service.api.directives import get_directives
from planner.service.api.service import Service
from planner.service.dashboard.views.fleet import FleetView, fleet_view, newest_alive
from planner.service.dashboard.views.overview import Orders, orders_view
from planner.service.fleet import known_fleet
from planner.service.hosting.registry import Served
from planner.service.live.recent import Glance
from planner.service.store import PlanRecord
from serving.telemetry.signals import DeploymentSignals

PLANS_SEEN = 20
Known = TypeVar("Known")


def attempt(read: Callable[[], Known]) -> tuple[Known | None, str]:
    """What was read; or None and why not. A page shows the rest all the same."""
    try:
        return read(), ""
    except (PoolwiseError, HTTPException) as error:
        return None, error.detail if isinstance(error, HTTPException) else str(error)


def orders_of(served: Served, service: Service) -> Orders:
    """What people ordered. Raises StoreError."""
    return orders_view(get_directives(served.deployment, service))


def plans_of(served: Served) -> tuple[PlanRecord, ...]:
    """The newest plans, newest first. Raises StoreError."""
    return served.deployment.store.plans(served.name, limit=PLANS_SEEN)


def fleet_of(served: Served, plans: tuple[PlanRecord, ...], *, now: datetime) -> FleetView:
    """The fleet as its target has it, beside the newest plan."""
    fleet, reason = attempt(lambda: known_fleet.read(served.deployment))
    return fleet_view(fleet, newest_alive(plans), now=now, reason=reason)


def signals_of(served: Served) -> DeploymentSignals | None:
    """The newest signals of this process; None: there are none of now."""
    return None if served.live is None else served.live.newest()


def recent_of(served: Served, *, since: datetime) -> tuple[Glance, ...]:
    """Signals of this process from an instant on."""
    return () if served.live is None else served.live.recent.since(since)


def slos_of(served: Served) -> tuple[Slo, ...]:
    """What was promised of the model that is planned."""
    deployment = served.deployment
    return tuple(slo for slo in deployment.spec.slos if slo.model == deployment.model)

"""What the routes share: the deployments, their store and metrics, and who asks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from planner.service.deployment import Deployment, utc_now
from planner.service.election.elector import NoElection
from planner.service.election.leadership import Election
from planner.service.hosting.host import Host
from planner.service.hosting.registry import Registry, Served
from planner.service.security.access import ANONYMOUS, Principal
from planner.service.settings import (
    DEFAULT_ANSWER_S,
    DEFAULT_BODY_BYTES,
    DEFAULT_REQUESTS_PER_S,
)
from planner.service.store import Store
from planner.service.telemetry.metrics import Metrics
from planner.service.telemetry.tracing import Tracing

BEARER = Security(
    HTTPBearer(auto_error=False, description="A token of a role that may, see docs/security.md")
)
"""For the OpenAPI document only: who is let through is decided before, by `AccessControl`."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(slots=True, kw_only=True)
class Service:
    """Everything that the API serves.

    Parameters
    ----------
    registry : Registry
        The deployments.
    store : Store
        That of all of them.
    lease : str
        Its name, under which the jobs of the server are kept.
    host : Host or None
        How deployments are added and retired; None: they stay.
    election : Election
        Whether this process may move fleets.
    clock : callable
    insecure_local : bool
        Let everybody do everything without a token; only for a server that listens on loopback.
    anonymous_reads : bool
        Let everybody read without a token.
    requests_per_s : float
        Of one name, in the long run; twice as many may come at once. 0: as many as come.
    max_body_bytes : int
        Larger request bodies are refused.
    answer_within_s : float
        Plans, forecasts and simulations that take longer become jobs, seconds.
    tracing : Tracing or None
        Where spans of requests go; None: nowhere.
    """

    registry: Registry
    store: Store
    lease: str
    metrics: Metrics = field(default_factory=Metrics)
    host: Host | None = None
    election: Election = field(default_factory=NoElection)
    clock: Callable[[], datetime] = utc_now
    insecure_local: bool = False
    anonymous_reads: bool = False
    requests_per_s: float = DEFAULT_REQUESTS_PER_S
    max_body_bytes: int = DEFAULT_BODY_BYTES
    answer_within_s: float = DEFAULT_ANSWER_S
    tracing: Tracing | None = None

    def now(self) -> datetime:
        """The service's clock."""
        return self.clock()

    def served_of_plan(self, plan_id: str) -> Served:
        """The deployment that a plan is of.

        Raises
        ------
        UnknownPlanError, UnknownDeploymentError
            When there is no such plan, or its deployment is not served here.
        """
        return self.registry.get(self.store.plan(plan_id).deployment)


def service_of(request: Request) -> Service:
    """The service behind an app."""
    service = request.app.state.service
    if not isinstance(service, Service):
        raise TypeError("app.state.service is not a Service: use create_app")
    return service


ServiceParameter = Annotated[Service, Depends(service_of)]


async def served_of(name: str, service: ServiceParameter) -> Served:
    """The deployment that a path names. Raises UnknownDeploymentError."""
    return service.registry.get(name)


ServedParameter = Annotated[Served, Depends(served_of)]


async def deployment_of(served: ServedParameter) -> Deployment:
    """The deployment that a path names, as its spec in force has it."""
    return served.deployment


DeploymentParameter = Annotated[Deployment, Depends(deployment_of)]


def principal_of(request: Request) -> Principal:
    """Who sends a request, as `AccessControl` found out; ANONYMOUS where nobody has to say."""
    principal: object = getattr(request.state, "principal", ANONYMOUS)
    if not isinstance(principal, Principal):
        raise TypeError("request.state.principal is not a Principal: use create_app")
    return principal


PrincipalParameter = Annotated[Principal, Depends(principal_of)]


def writer(principal: PrincipalParameter) -> str:
    """Who writes, for the records: the name is one person's, whichever token is sent."""
    return principal.name


Writer = Annotated[str, Depends(writer)]

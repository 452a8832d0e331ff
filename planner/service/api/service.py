"""What the routes share: one deployment, its store and metrics, and who asks."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import HTTPBearer

from planner.service.deployment import Deployment
from planner.service.election.leadership import Leadership
from planner.service.security.access import ANONYMOUS, Principal
from planner.service.settings import (
    DEFAULT_ANSWER_S,
    DEFAULT_BODY_BYTES,
    DEFAULT_REQUESTS_PER_S,
)
from planner.service.spec.versions import Specs
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
    deployment : Deployment
        The one in force: another one takes its place when its spec is replaced.
    specs : Specs or None
        How its spec is replaced; None: it stays.
    leadership : Leadership or None
        Who may move the fleet; None: this process, which is alone.
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

    deployment: Deployment
    metrics: Metrics = field(default_factory=Metrics)
    leadership: Leadership | None = None
    specs: Specs | None = None
    insecure_local: bool = False
    anonymous_reads: bool = False
    requests_per_s: float = DEFAULT_REQUESTS_PER_S
    max_body_bytes: int = DEFAULT_BODY_BYTES
    answer_within_s: float = DEFAULT_ANSWER_S
    tracing: Tracing | None = None

    def now(self) -> datetime:
        """The service's clock."""
        return self.deployment.clock()

    def use(self, deployment: Deployment) -> None:
        """Serve a deployment in the place of the one before."""
        self.deployment = deployment
        self.metrics.follow(deployment)

    def check_deployment(self, name: str) -> None:
        """Answer 404 for a deployment that is not served here."""
        known = self.deployment.spec.name
        if name != known:
            raise HTTPException(404, f"no deployment {name}; this server plans {known}")


def service_of(request: Request) -> Service:
    """The service behind an app."""
    service = request.app.state.service
    if not isinstance(service, Service):
        raise TypeError("app.state.service is not a Service: use create_app")
    return service


ServiceParameter = Annotated[Service, Depends(service_of)]


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

"""What the routes share: one deployment, its store and metrics, and who may write."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from planner.service.deployment import Deployment
from planner.service.election.leadership import Leadership
from planner.service.metrics import Metrics
from planner.service.settings import DEFAULT_ANSWER_S, DEFAULT_BODY_BYTES
from planner.service.spec_versions import Specs
from planner.service.tokens import hash_of

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
        Accept writes without a token; only for a server that listens on loopback.
    max_body_bytes : int
        Larger request bodies are refused.
    answer_within_s : float
        Plans, forecasts and simulations that take longer become jobs, seconds.
    """

    deployment: Deployment
    metrics: Metrics = field(default_factory=Metrics)
    leadership: Leadership | None = None
    specs: Specs | None = None
    insecure_local: bool = False
    max_body_bytes: int = DEFAULT_BODY_BYTES
    answer_within_s: float = DEFAULT_ANSWER_S

    def now(self) -> datetime:
        """The service's clock."""
        return self.deployment.clock()

    def use(self, deployment: Deployment) -> None:
        """Serve a deployment in the place of the one before."""
        self.deployment = deployment
        self.metrics.stale_after_s = deployment.spec.guards.stale_observation_s

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


def writer(request: Request, service: ServiceParameter) -> str:
    """Who writes; refuses requests without the bearer token.

    With `insecure_local`, requests must name this machine as their host: a web page elsewhere
    that has its name resolve to loopback must not write.
    """
    if service.insecure_local:
        if request.url.hostname not in LOOPBACK:
            raise HTTPException(403, "--insecure-local accepts writes to localhost only")
        return "local"
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    name = None
    if scheme.lower() == "bearer" and token:
        name = service.deployment.store.token_name(hash_of(token.strip()))
    if name is None:
        raise HTTPException(
            401,
            "send `Authorization: Bearer TOKEN` with the token that `poolwise serve` printed when "
            "it first started; `poolwise serve --new-token` makes another one",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return name


Writer = Annotated[str, Depends(writer)]

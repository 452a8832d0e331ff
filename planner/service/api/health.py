"""Health, readiness, who leads, and metrics."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import AwareDatetime, Field

from planner.service.api.service import BEARER, ServiceParameter
from planner.service.documents.document import Document

ROUTER = APIRouter(tags=["health"])


class Health(Document):
    """Whether the service is alive or ready."""

    status: str


@ROUTER.get("/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health(status="alive")


@ROUTER.get("/readyz")
def readyz(service: ServiceParameter) -> Health:
    """The database answers, too, and takes what is written; 503 when it does not."""
    service.store.ping()
    service.store.access.check_written()
    return Health(status="ready")


class Leader(Document):
    """Which of the processes on this database moves the fleet."""

    identity: str = Field(description="this process")
    leads: bool = Field(description="whether this process does")
    leader: str | None = Field(description="who does, as this process saw last")
    term: int | None = Field(description="grows with every change of leader")
    renewed_at: AwareDatetime | None = Field(description="by the leader's clock")


@ROUTER.get("/v1/leader", dependencies=[BEARER])
def get_leader(service: ServiceParameter) -> Leader:
    """Who leads; followers serve reads, plan and take approvals."""
    election = service.election
    lease, leads = election.seen(), election.term() is not None
    holder = lease.holder if lease else ""
    return Leader(
        identity=election.identity,
        leads=leads,
        leader=election.identity if leads else holder or None,
        term=lease.term if lease else None,
        renewed_at=lease.renewed_at if lease else None,
    )


@ROUTER.get("/metrics", response_class=Response)
def metrics(service: ServiceParameter) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

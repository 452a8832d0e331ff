"""Health, readiness and metrics."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from planner.service.api.service import ServiceParameter
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
    """The database answers too; 503 when it does not."""
    service.deployment.store.ping()
    return Health(status="ready")


@ROUTER.get("/metrics", response_class=Response)
def metrics(service: ServiceParameter) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

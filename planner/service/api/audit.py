"""The audit log, newest first."""

from typing import Annotated

from fastapi import APIRouter, Query

from planner.service.api.service import ServiceParameter
from planner.service.documents.audit import AuditPage, audit_page

ROUTER = APIRouter(prefix="/v1/audit", tags=["access"])
MOST_LINES = 1_000


@ROUTER.get("")
def get_audit(
    service: ServiceParameter,
    limit: Annotated[int, Query(ge=1, le=MOST_LINES, description="at most so many")] = 100,
    before: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="only lines before this one")
    ] = None,
) -> AuditPage:
    """Who did what, newest first. `poolwise audit verify` says whether it was tampered with."""
    return audit_page(service.store, limit=limit, before=before)

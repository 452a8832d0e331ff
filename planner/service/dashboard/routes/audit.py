"""The audit log."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from planner.service.api.audit import get_audit
from planner.service.api.service import ServiceParameter
from planner.service.dashboard.pages import page

ROUTER = APIRouter(prefix="/audit")


@ROUTER.get("")
def get_log(
    request: Request,
    service: ServiceParameter,
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> Response:
    """Who did what, newest first."""
    found = get_audit(service, limit=100, before=before)
    values = {"lines": found.lines, "before": found.before, "later": before is not None}
    return page(request, "audit.html.j2", values)

"""What the loop decided, what it was decided from, and the same once more."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from planner.service.api import paging
from planner.service.api.paging import CursorParameter
from planner.service.api.problems import answers
from planner.service.api.service import ServedParameter, ServiceParameter
from planner.service.documents.decision import (
    DecisionList,
    RecordedDecisionDocument,
    decision_document,
    recorded_document,
)
from planner.service.loop.replaying import replay

ROUTER = APIRouter(prefix="/v1/deployments/{name}/decisions", tags=["deployments"])


@ROUTER.get("", responses=answers(404))
def get_decisions(
    *,
    served: ServedParameter,
    service: ServiceParameter,
    request: Request,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=paging.MOST, description="at most so many")] = 100,
    cursor: CursorParameter = None,
) -> DecisionList:
    """What the loop decided, newest first, in pages."""
    found = service.store.decisions(served.name, limit=limit + 1, before=paging.before(cursor))
    records, more = paging.page(found, limit)
    following = paging.cursor(records[-1].decision_id) if more else None
    paging.link(request, response, following)
    return DecisionList(decisions=[decision_document(record) for record in records], next=following)


@ROUTER.get("/{decision_id}", responses=answers(404))
def get_decision(
    served: ServedParameter,
    decision_id: Annotated[int, Path(ge=1, lt=2**31)],
    service: ServiceParameter,
    parts: Annotated[bool, Query(description="with all that it was made from")] = False,
    again: Annotated[bool, Query(description="decide once more, and compare")] = False,
) -> RecordedDecisionDocument:
    """One decision. What it was made from is kept for the newest 2,000 of a deployment.

    With `again` it is decided once more, which takes as long as a tick's plan; 422 where what it
    was made from is not there any more.
    """
    record, kept = service.store.decision(served.name, decision_id)
    replayed = replay(kept) if again else None
    return recorded_document(record, kept, whole=parts, replay=replayed)

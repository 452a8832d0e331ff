"""Stored plans as the API shows them."""

from functools import lru_cache

from pydantic import AwareDatetime

from planner.domain.plan import Plan
from planner.service.documents.plan import PlanDocument, plan_document
from planner.service.documents.rollout import (
    ApprovalDocument,
    DiffDocument,
    FindingDocument,
    approval_document,
)
from planner.service.store import PlanRecord
from planner.service.store.plans import PARSED_PLANS


class PlanResource(PlanDocument):
    """A stored plan, what it changes, and where it stands."""

    deployment: str
    created_at: AwareDatetime
    approval: ApprovalDocument
    diff: DiffDocument
    findings: list[FindingDocument]


class _Parsed:
    """A plan that is the same as no other: the store gives out one object for one text."""

    __slots__ = ("plan",)

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Parsed) and other.plan is self.plan

    def __hash__(self) -> int:
        return id(self.plan)


@lru_cache(maxsize=PARSED_PLANS)
def _document(parsed: _Parsed) -> PlanDocument:
    """Kept, as parsed plans are: lists of plans are read again and again."""
    return plan_document(parsed.plan)


def plan_resource(record: PlanRecord) -> PlanResource:
    """A stored plan."""
    return PlanResource(
        **dict(_document(_Parsed(record.plan))),
        deployment=record.deployment,
        created_at=record.created_at,
        approval=approval_document(record.approval),
        diff=record.diff,
        findings=list(record.findings),
    )

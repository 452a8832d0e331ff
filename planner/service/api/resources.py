"""Stored plans as the API shows them."""

from pydantic import AwareDatetime

from planner.service.documents.plan import PlanDocument, plan_document
from planner.service.documents.rollout import (
    ApprovalDocument,
    DiffDocument,
    FindingDocument,
    approval_document,
)
from planner.service.store import PlanRecord


class PlanResource(PlanDocument):
    """A stored plan, what it changes, and where it stands."""

    deployment: str
    created_at: AwareDatetime
    approval: ApprovalDocument
    diff: DiffDocument
    findings: list[FindingDocument]


def plan_resource(record: PlanRecord) -> PlanResource:
    """A stored plan."""
    return PlanResource(
        **dict(plan_document(record.plan)),
        deployment=record.deployment,
        created_at=record.created_at,
        approval=approval_document(record.approval),
        diff=record.diff,
        findings=list(record.findings),
    )

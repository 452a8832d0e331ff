"""A plan together with what it changes: what `poolwise plan --json` prints."""

from collections.abc import Sequence

from pydantic import Field

from planner.domain.plan import Plan
from planner.domain.rollout import Diff, GuardFinding
from planner.service.documents.plan import PlanDocument, plan_document
from planner.service.documents.rollout import (
    DiffDocument,
    FindingDocument,
    diff_document,
    finding_documents,
)


class PlanAnswer(PlanDocument):
    """A plan, and what it changes where a fleet was given."""

    diff: DiffDocument | None = Field(description="null: no fleet was given")
    findings: list[FindingDocument] = Field(description="what the guards say of the diff")


def plan_answer(plan: Plan, diff: Diff | None, findings: Sequence[GuardFinding]) -> PlanAnswer:
    """A plan that was not stored."""
    return PlanAnswer(
        **dict(plan_document(plan)),
        diff=None if diff is None else diff_document(diff),
        findings=finding_documents(findings),
    )

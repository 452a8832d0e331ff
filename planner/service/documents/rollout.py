"""Diffs, guard findings and approvals as JSON."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import AwareDatetime, Field

from planner.domain.fleet import ReplicaShape
from planner.domain.hardware import PurchaseOption
from planner.domain.rollout import (
    Approval,
    ApprovalState,
    Diff,
    GuardFinding,
    Step,
    StepKind,
    Verdict,
)
from planner.domain.spec import Spec
from planner.service.documents.document import Document
from planner.service.documents.fleet import FleetDocument, fleet_document, fleet_of
from planner.service.documents.replica_shape import ShapeOfReplicaDocument


class StepDocument(Document):
    """One rollout step on one replica."""

    index: int
    kind: StepKind
    shape: ShapeOfReplicaDocument
    to_shape: ShapeOfReplicaDocument | None
    purchase_option: PurchaseOption
    expected_s: float = Field(description="expected duration, seconds")
    expected_usd: float = Field(description="accelerator time without traffic, USD")
    reason: str
    cell: str = Field(default="", description="whose replica it is; empty: the target has none")


class DiffDocument(Document):
    """Ordered steps from a fleet to a plan's first window; none: nothing changes."""

    plan_id: str
    from_fleet: FleetDocument
    steps: list[StepDocument]
    expected_s: float = Field(
        description="all steps, those that do not depend on each other together, seconds"
    )


class FindingDocument(Document):
    """A guard's verdict and its reason."""

    guard: str
    verdict: Verdict
    reason: str


class ApprovalDocument(Document):
    """Who decided what about a plan, and when."""

    plan_id: str
    state: ApprovalState
    fleet_version: str
    changed_at: AwareDatetime
    changed_by: str
    reason: str
    requested_by: str = Field(default="", description="who asked for the plan")
    approvers: tuple[str, ...] = Field(default=(), description="who has said yes so far")
    needed: int = Field(default=1, description="how many different ones have to")


def diff_document(diff: Diff) -> DiffDocument:
    """The document of a diff."""
    return DiffDocument(
        plan_id=diff.plan_id,
        from_fleet=fleet_document(diff.from_fleet),
        steps=[
            StepDocument(
                index=step.index,
                kind=step.kind,
                shape=ShapeOfReplicaDocument.of(step.shape),
                to_shape=(
                    None if step.to_shape is None else ShapeOfReplicaDocument.of(step.to_shape)
                ),
                purchase_option=step.purchase_option,
                expected_s=step.expected_s,
                expected_usd=step.expected_usd,
                reason=step.reason,
                cell=step.cell,
            )
            for step in diff.steps
        ],
        expected_s=diff.expected_s,
    )


def diff_of(document: DiffDocument, *, spec: Spec, read_at: datetime) -> Diff:
    """The diff that a document describes, with the shapes as the spec writes them.

    Raises
    ------
    HistoryError
        When it names what the spec no longer has.
    """

    def shape(fields: ShapeOfReplicaDocument) -> ReplicaShape:
        return spec.normalized(fields.shape(fields.model))

    fleet = fleet_of(document.from_fleet, spec=spec, read_at=read_at, where="the plan's fleet")
    return Diff(
        plan_id=document.plan_id,
        from_fleet=fleet,
        steps=tuple(
            Step(
                index=step.index,
                kind=step.kind,
                shape=shape(step.shape),
                to_shape=None if step.to_shape is None else shape(step.to_shape),
                purchase_option=step.purchase_option,
                expected_s=step.expected_s,
                expected_usd=step.expected_usd,
                reason=step.reason,
                cell=step.cell,
            )
            for step in document.steps
        ),
    )


def finding_documents(findings: Sequence[GuardFinding]) -> list[FindingDocument]:
    """The documents of guard findings."""
    return [FindingDocument.model_validate(finding) for finding in findings]


def approval_document(approval: Approval) -> ApprovalDocument:
    """The document of an approval."""
    return ApprovalDocument.model_validate(approval)


def approval_of(document: ApprovalDocument) -> Approval:
    """The approval that a document describes."""
    return Approval(**document.model_dump())

"""Plans: what was decided, kept as documents; where each stands is in `approvals`."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from planner.domain.plan import Plan
from planner.domain.rollout import Approval, ApprovalState
from planner.service.documents.plan import PlanDocument, plan_document, plan_of
from planner.service.documents.rollout import DiffDocument, FindingDocument
from planner.service.store import approvals, audit
from planner.service.store.instants import instant, stamp
from planner.service.store.records import PlanRecord
from planner.service.store.tables import APPROVALS, PLANS

PARSED_PLANS = 256
"""Kept in memory: a text never changes, and nearly all reads are of the newest ones."""
_STATES_OF = APPROVALS.alias()
NEWEST_STATE = (  # of each by the index: all plans at once would take as long as there are many
    select(func.max(_STATES_OF.c.seq))
    .where(_STATES_OF.c.plan_id == PLANS.c.plan_id)
    .scalar_subquery()
)
_RECORDS = (
    select(PLANS, *(column for column in APPROVALS.c if column.name != "plan_id"))
    .join(APPROVALS, APPROVALS.c.plan_id == PLANS.c.plan_id)
    .where(APPROVALS.c.seq == NEWEST_STATE)
)
"""Every plan with its newest state."""


def add(connection: Connection, record: PlanRecord, *, actor: str) -> None:
    """Keep a plan with its first state; one that is known stays as it is.

    But a known draft takes the new diff and what guards say of it, where the new one is no draft,
    or a draft for another reason.
    """
    plan_id, approval = record.plan.plan_id, record.approval
    steps = {"diff": record.diff.model_dump_json(), "findings": _findings_text(record.findings)}
    if deployment_of(connection, plan_id) is None:
        action = "plan.create"
        connection.execute(
            insert(PLANS).values(
                plan_id=plan_id,
                deployment=record.deployment,
                created_at=stamp(record.created_at),
                plan=plan_document(record.plan).model_dump_json(),
                **steps,
            )
        )
    elif _is_another_draft(connection, approval):
        action = "plan.renew"
        connection.execute(update(PLANS).where(PLANS.c.plan_id == plan_id).values(**steps))
    else:
        return
    approvals.append(connection, approval)
    audit.add(connection, approval.changed_at, actor, action, plan_id)


def find(connection: Connection, plan_ids: Sequence[str]) -> tuple[PlanRecord, ...]:
    """Plans and where they stand, in the order of their ids; unknown ones are left out.

    One statement for all of them: between two, every other thread of a busy server has its turn.
    """
    query = _RECORDS.where(PLANS.c.plan_id.in_(plan_ids))
    found = {row["plan_id"]: row for row in connection.execute(query).mappings().all()}
    return tuple(_record(found[plan_id]) for plan_id in plan_ids if plan_id in found)


def deployment_of(connection: Connection, plan_id: str) -> str | None:
    """Whose plan it is, or None where there is none."""
    query = select(PLANS.c.deployment).where(PLANS.c.plan_id == plan_id)
    return connection.execute(query).scalar_one_or_none()


def ids(
    connection: Connection,
    deployments: Sequence[str],
    *,
    limit: int,
    states: Sequence[ApprovalState],
    after: tuple[datetime, str] | None,
) -> Sequence[str]:
    """Ids of the deployments' newest plans, newest first; of these states, behind `after`."""
    if len(deployments) == 1:
        found = _places(connection, deployments[0], limit=limit, states=states, after=after)
        return [plan_id for _, plan_id in found]
    every = [  # one by one, by the index
        place
        for name in deployments
        for place in _places(connection, name, limit=limit, states=states, after=after)
    ]
    every.sort(key=lambda place: place[1])
    every.sort(key=lambda place: place[0], reverse=True)
    return [plan_id for _, plan_id in every[:limit]]


def _places(
    connection: Connection,
    deployment: str,
    *,
    limit: int,
    states: Sequence[ApprovalState],
    after: tuple[datetime, str] | None,
) -> Sequence[tuple[str, str]]:
    """Creation and id of a deployment's newest plans."""
    query = (
        select(PLANS.c.created_at, PLANS.c.plan_id)
        .join(APPROVALS, APPROVALS.c.plan_id == PLANS.c.plan_id)
        .where(PLANS.c.deployment == deployment, APPROVALS.c.seq == NEWEST_STATE)
        .order_by(PLANS.c.created_at.desc(), PLANS.c.plan_id)
        .limit(limit)
    )
    if states:
        query = query.where(APPROVALS.c.state.in_([state.value for state in states]))
    if after is not None:
        at, plan_id = stamp(after[0]), after[1]
        same_instant = (PLANS.c.created_at == at) & (PLANS.c.plan_id > plan_id)
        query = query.where((PLANS.c.created_at < at) | same_instant)
    return [(row.created_at, row.plan_id) for row in connection.execute(query).all()]


def _is_another_draft(connection: Connection, approval: Approval) -> bool:
    known = approvals.newest(connection, approval.plan_id)
    changed = (approval.state, approval.reason) != (known.state, known.reason)
    return known.state is ApprovalState.DRAFT and changed


def _record(row: RowMapping) -> PlanRecord:
    return PlanRecord(
        deployment=row["deployment"],
        created_at=instant(row["created_at"]),
        plan=_plan(row["plan"]),
        diff=_diff(row["diff"]),
        findings=_findings(row["findings"]),
        approval=approvals.approval_of(row),
        revision=row["seq"],
    )


@lru_cache(maxsize=PARSED_PLANS)
def _plan(text: str) -> Plan:
    return plan_of(PlanDocument.model_validate_json(text), where="stored plan")


@lru_cache(maxsize=PARSED_PLANS)
def _diff(text: str) -> DiffDocument:
    return DiffDocument.model_validate_json(text)


@lru_cache(maxsize=PARSED_PLANS)
def _findings(text: str) -> tuple[FindingDocument, ...]:
    return tuple(FindingDocument.model_validate_json(line) for line in text.splitlines())


def _findings_text(findings: Sequence[FindingDocument]) -> str:
    """One JSON document per line."""
    return "\n".join(finding.model_dump_json() for finding in findings)

"""Decisions of the loop, and what each was made from: compressed, equal parts kept once."""

import json
import zlib
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256

from sqlalchemy import Connection, RowMapping, delete, insert, select

from planner.domain.errors import UnknownDecisionError
from planner.service.store import audit
from planner.service.store.instants import instant, stamp
from planner.service.store.records import DecisionRecord
from planner.service.store.tables import DECISION_INPUTS, DECISIONS, RECORDED_VALUES

REPLAYABLE = 2_000
"""Of a deployment, the newest so many decisions can be replayed; some 10 kB each."""
SWEEP_EVERY = 50
"""Decisions, of all deployments."""


def add(
    connection: Connection,
    record: DecisionRecord,
    parts: Mapping[str, str],
    *,
    at: datetime | None = None,
) -> int:
    """Keep a decision with its parts; its id. Parts of the oldest ones go.

    The audit log tells of it where it is not what the last one was.

    Parameters
    ----------
    at : datetime or None
        When it is kept; None: when it was decided.
    """
    last = newest(connection, record.deployment, limit=1)
    if not last or (last[0].outcome, last[0].plan_id) != (record.outcome, record.plan_id):
        subject, action = record.plan_id or record.deployment, f"decision.{record.outcome}"
        audit.add(
            connection, at or record.decided_at, "loop", action, subject, detail=record.reason
        )
    values = {
        "deployment": record.deployment,
        "decided_at": stamp(record.decided_at),
        "plan_id": record.plan_id,
        "outcome": record.outcome,
        "reason": record.reason,
        "wanted": None if record.wanted is None else json.dumps(dict(record.wanted)),
    }
    made = connection.execute(insert(DECISIONS).values(values).returning(DECISIONS.c.seq))
    seq: int = made.scalar_one()
    for part, text in parts.items():
        digest = _keep(connection, text)
        row = {"decision": seq, "part": part, "digest": digest}
        connection.execute(insert(DECISION_INPUTS).values(row))
    if seq % SWEEP_EVERY == 0:
        _forget_old(connection, record.deployment)
    return seq


def newest(
    connection: Connection, deployment: str, *, limit: int, before: int | None = None
) -> tuple[DecisionRecord, ...]:
    """The newest decisions of a deployment, newest first; before one, where it is named."""
    query = select(DECISIONS).where(DECISIONS.c.deployment == deployment)
    if before is not None:
        query = query.where(DECISIONS.c.seq < before)
    query = query.order_by(DECISIONS.c.seq.desc()).limit(limit)
    return tuple(_record(row) for row in connection.execute(query).mappings().all())


def one(connection: Connection, deployment: str, seq: int) -> tuple[DecisionRecord, dict[str, str]]:
    """A decision, and its parts by name; none where they were never kept, or are gone.

    Raises
    ------
    UnknownDecisionError
    """
    query = select(DECISIONS).where(DECISIONS.c.deployment == deployment, DECISIONS.c.seq == seq)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise UnknownDecisionError(
            f"no decision {seq} of {deployment} is stored; `poolwise decisions` lists those known"
        )
    parts = (
        select(DECISION_INPUTS.c.part, RECORDED_VALUES.c.content)
        .join(RECORDED_VALUES, RECORDED_VALUES.c.digest == DECISION_INPUTS.c.digest)
        .where(DECISION_INPUTS.c.decision == seq)
    )
    return _record(row), {
        part: zlib.decompress(content).decode() for part, content in connection.execute(parts)
    }


def _keep(connection: Connection, text: str) -> str:
    """Keep a text, once; its hash."""
    content = text.encode()
    digest = sha256(content).hexdigest()
    known = select(RECORDED_VALUES.c.digest).where(RECORDED_VALUES.c.digest == digest)
    if connection.execute(known).scalar_one_or_none() is None:
        row = {"digest": digest, "content": zlib.compress(content, 6)}
        connection.execute(insert(RECORDED_VALUES).values(row))
    return digest


def _forget_old(connection: Connection, deployment: str) -> None:
    """Let go the parts of decisions that are too old, and what no decision needs any more.

    Decisions that retention deletes take their inputs along; the values are swept here.
    """
    mine = select(DECISIONS.c.seq).where(DECISIONS.c.deployment == deployment)
    too_old = (
        select(DECISION_INPUTS.c.decision)
        .where(DECISION_INPUTS.c.decision.in_(mine))
        .distinct()
        .order_by(DECISION_INPUTS.c.decision.desc())
        .offset(REPLAYABLE)
        .limit(1)
    )
    newest = connection.execute(too_old).scalar_one_or_none()
    if newest is not None:
        gone = (DECISION_INPUTS.c.decision <= newest) & DECISION_INPUTS.c.decision.in_(mine)
        connection.execute(delete(DECISION_INPUTS).where(gone))
    needed = select(DECISION_INPUTS.c.digest).where(
        DECISION_INPUTS.c.digest == RECORDED_VALUES.c.digest
    )
    connection.execute(delete(RECORDED_VALUES).where(~needed.exists()))


def _record(row: RowMapping) -> DecisionRecord:
    return DecisionRecord(
        decision_id=row["seq"],
        deployment=row["deployment"],
        decided_at=instant(row["decided_at"]),
        plan_id=row["plan_id"],
        outcome=row["outcome"],
        reason=row["reason"],
        wanted=None if row["wanted"] is None else json.loads(row["wanted"]),
    )

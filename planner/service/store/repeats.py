"""Answers kept under idempotency keys, so that a repeated request is carried out once.

A key belongs to whoever sent it. The first request takes it; while that is under way a repeat is
told so, afterwards it gets the answer that was kept. Keys hold over restarts and for all
processes on the database; that of a process which died in between is free again.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, insert, select, update

from planner.service.store.database import Access
from planner.service.store.instants import stamp
from planner.service.store.processes import living
from planner.service.store.tables import REPEATS

KEPT_S = 24 * 3600.0
"""An answer is kept for so long, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A request under a key, while it is carried out.

    Parameters
    ----------
    actor : str
        Who sent it.
    fingerprint : str
        Of method, path and body.
    owner : str
        The process that carries it out.
    """

    actor: str
    key: str
    fingerprint: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """What came of the first request under a key.

    Parameters
    ----------
    fingerprint : str
        Of that request.
    status : int or None
        None: it is still under way.
    """

    fingerprint: str
    status: int | None
    headers: dict[str, str]
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRepeats:
    """The kept answers of a database."""

    access: Access

    def claim(self, claim: Claim, *, at: datetime) -> KeptAnswer | None:
        """Take a key; what came of the first request where it is taken. Raises StoreError."""
        here = (REPEATS.c.actor == claim.actor) & (REPEATS.c.key == claim.key)
        gone = REPEATS.c.owner.not_in(living(at=at)) & (REPEATS.c.owner != claim.owner)
        orphaned = REPEATS.c.status.is_(None) & gone
        with self.access.writing() as connection:
            connection.execute(delete(REPEATS).where(REPEATS.c.until_at < stamp(at)))
            connection.execute(delete(REPEATS).where(here & orphaned))
            row = connection.execute(select(REPEATS).where(here)).mappings().one_or_none()
            if row is None:
                connection.execute(
                    insert(REPEATS).values(
                        actor=claim.actor,
                        key=claim.key,
                        fingerprint=claim.fingerprint,
                        owner=claim.owner,
                        until_at=stamp(at + timedelta(seconds=KEPT_S)),
                    )
                )
                return None
        return KeptAnswer(
            fingerprint=row["fingerprint"],
            status=row["status"],
            headers=json.loads(row["headers"] or "{}"),
            body=row["body"] or "",
        )

    def keep(self, claim: Claim, answer: KeptAnswer) -> None:
        """Keep the answer of a claim. Raises StoreError."""
        headers = json.dumps(answer.headers)
        values = {"status": answer.status, "headers": headers, "body": answer.body}
        with self.access.writing() as connection:
            connection.execute(update(REPEATS).where(_still(claim)).values(values))

    def release(self, claim: Claim) -> None:
        """Free a key: nothing was done under it. Raises StoreError."""
        with self.access.writing() as connection:
            connection.execute(delete(REPEATS).where(_still(claim)))


def _still(claim: Claim) -> ColumnElement[bool]:
    return (
        (REPEATS.c.actor == claim.actor)
        & (REPEATS.c.key == claim.key)
        & (REPEATS.c.owner == claim.owner)
        & REPEATS.c.status.is_(None)
    )

"""What people ordered at run time and is in force; the audit log has the rest."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, insert, select

from planner.service.store import audit
from planner.service.store.instants import instant, stamp
from planner.service.store.tables import DIRECTIVES

Transaction = Callable[[], AbstractContextManager[Connection]]


class DirectiveKind(StrEnum):
    """What is ordered.

    pause: nothing goes in the direction `subject`. pin: the pool `subject` has `value` replicas.
    mode: the loop's mode is `value`, whatever the spec says.
    """

    PAUSE = "pause"
    PIN = "pin"
    MODE = "mode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """An order of a person that holds until it is taken back, or its time is over.

    Parameters
    ----------
    subject : str
        A direction (`in`, `out`), a pool's label, or empty.
    value : str
        A count of replicas, a mode, or empty.
    until_at : datetime or None
        From then on it holds no longer; None: until it is taken back.
    """

    kind: DirectiveKind
    subject: str = ""
    value: str = ""
    reason: str = ""
    set_by: str
    set_at: datetime
    until_at: datetime | None = None

    @property
    def sentence(self) -> str:
        """What it says, who said it, why and for how long."""
        replicas = "replica" if self.value == "1" else "replicas"
        said = {
            DirectiveKind.PAUSE: f"scaling {self.subject} is paused",
            DirectiveKind.PIN: f"{self.subject} is pinned to {self.value} {replicas}",
            DirectiveKind.MODE: f"the loop's mode is {self.value}",
        }[self.kind]
        until = f" until {self.until_at:%Y-%m-%d %H:%M:%S} UTC" if self.until_at else ""
        return f"{said} by {self.set_by}{until}" + (f": {self.reason}" if self.reason else "")


class StoredDirectives:
    """The directives of one deployment, in force as far as their time is not over."""

    def __init__(self, deployment: str, reading: Transaction, writing: Transaction) -> None:
        self._deployment = deployment
        self._reading = reading
        self._writing = writing

    def put(self, directives: Iterable[Directive]) -> None:
        """Let these hold, instead of earlier ones about the same. Raises StoreError."""
        with self._writing() as connection:
            for one in directives:
                connection.execute(delete(DIRECTIVES).where(self._about(one.kind, one.subject)))
                connection.execute(
                    insert(DIRECTIVES).values(
                        deployment=self._deployment,
                        kind=one.kind.value,
                        subject=one.subject,
                        value=one.value,
                        reason=one.reason,
                        set_by=one.set_by,
                        set_at=stamp(one.set_at),
                        until_at=None if one.until_at is None else stamp(one.until_at),
                    )
                )
                self._tell(connection, one, one.set_at, one.set_by, "set")

    def take_back(
        self, kind: DirectiveKind, subjects: Iterable[str], *, by: str, at: datetime
    ) -> tuple[Directive, ...]:
        """End those about these subjects; the ones that held. Raises StoreError."""
        ended = []
        with self._writing() as connection:
            for subject in subjects:
                query = select(DIRECTIVES).where(self._about(kind, subject))
                row = connection.execute(query).mappings().one_or_none()
                if row is None:
                    continue
                connection.execute(delete(DIRECTIVES).where(self._about(kind, subject)))
                ended.append(_directive(row))
                self._tell(connection, ended[-1], at, by, "take_back")
        return tuple(ended)

    def kept(self) -> tuple[Directive, ...]:
        """All, those too whose time is over and that nobody took out yet. Raises StoreError."""
        return self._all()

    def in_force(self, *, at: datetime) -> tuple[Directive, ...]:
        """What holds at an instant, in the order in which it was set. Raises StoreError."""
        return tuple(d for d in self._all() if d.until_at is None or d.until_at > at)

    def end_those_over(self, *, at: datetime, by: str) -> tuple[Directive, ...]:
        """Take out, and tell the audit log of, those whose time is over. Raises StoreError."""
        if all(d.until_at is None or d.until_at > at for d in self._all()):
            return ()
        ended = []
        with self._writing() as connection:
            for one in directives_of(connection, self._deployment):
                if one.until_at is None or one.until_at > at:
                    continue
                connection.execute(delete(DIRECTIVES).where(self._about(one.kind, one.subject)))
                self._tell(connection, one, at, by, "over")
                ended.append(one)
        return tuple(ended)

    def _all(self) -> tuple[Directive, ...]:
        with self._reading() as connection:
            return directives_of(connection, self._deployment)

    def _about(self, kind: DirectiveKind, subject: str) -> ColumnElement[bool]:
        return (
            (DIRECTIVES.c.deployment == self._deployment)
            & (DIRECTIVES.c.kind == kind.value)
            & (DIRECTIVES.c.subject == subject)
        )

    def _tell(
        self, connection: Connection, one: Directive, at: datetime, by: str, event: str
    ) -> None:
        action = f"{one.kind}.{event}"
        audit.add(connection, at, by, action, self._deployment, detail=one.sentence)


def directives_of(connection: Connection, deployment: str) -> tuple[Directive, ...]:
    """All that are kept, those whose time is over and that nobody has taken out yet too."""
    columns = (DIRECTIVES.c.set_at, DIRECTIVES.c.kind, DIRECTIVES.c.subject)
    query = select(DIRECTIVES).where(DIRECTIVES.c.deployment == deployment).order_by(*columns)
    return tuple(_directive(row) for row in connection.execute(query).mappings().all())


def _directive(row: RowMapping) -> Directive:
    return Directive(
        kind=DirectiveKind(row["kind"]),
        subject=row["subject"],
        value=row["value"],
        reason=row["reason"],
        set_by=row["set_by"],
        set_at=instant(row["set_at"]),
        until_at=None if row["until_at"] is None else instant(row["until_at"]),
    )

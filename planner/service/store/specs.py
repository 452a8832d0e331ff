"""Specs that were put in place of the one that the server was started with; every version stays."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, func, insert, select

from planner.domain.errors import SpecChangedError
from planner.service.store import audit
from planner.service.store.database import Access
from planner.service.store.instants import instant, stamp
from planner.service.store.tables import SPECS


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecVersion:
    """One version of a deployment's spec.

    Parameters
    ----------
    version : int
        From 1, by one more with every change.
    given : str
        Id of the spec in the file that the server was started with, at that time.
    content : mapping
        The spec with everything inline, as it may be put again.
    allow_estimates : bool
        Whether missing profiles are estimated.
    """

    version: int
    spec_id: str
    given: str
    content: Mapping[str, object]
    allow_estimates: bool
    put_at: datetime
    put_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSpecs:
    """The versions of one deployment's spec."""

    access: Access
    deployment: str

    def newest(self) -> SpecVersion | None:
        """The one in force; None before the first was kept. Raises StoreError."""
        with self.access.reading() as connection:
            return self._newest(connection)

    def newest_id(self) -> tuple[int, str] | None:
        """Version and id of the one in force, without its content. Raises StoreError."""
        query = (
            select(SPECS.c.version, SPECS.c.spec_id)
            .where(SPECS.c.deployment == self.deployment)
            .order_by(SPECS.c.version.desc())
            .limit(1)
        )
        with self.access.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else (row.version, row.spec_id)

    def add(
        self,
        made: SpecVersion,
        *,
        expected: int | None = None,
        allowed: Callable[[Connection], None] = lambda _connection: None,
    ) -> SpecVersion:
        """Keep a version as the one in force; the one in force where it is equal to it.

        Parameters
        ----------
        made : SpecVersion
            Its version is not looked at: the next one is taken.
        expected : int or None
            The version that it replaces; None: whichever is in force.
        allowed : callable
            Looks in the same transaction whether it may be kept, and may keep what belongs to it;
            raises where not.

        Raises
        ------
        SpecChangedError
            When another one is in force.
        """
        with self.access.writing() as connection:
            now = self._newest(connection)
            allowed(connection)
            number = 0 if now is None else now.version
            if expected is not None and expected != number:
                raise SpecChangedError(_changed(self.deployment, now))
            if now is not None and (now.spec_id, now.given) == (made.spec_id, made.given):
                return now
            connection.execute(
                insert(SPECS).values(
                    deployment=self.deployment,
                    version=number + 1,
                    spec_id=made.spec_id,
                    given=made.given,
                    spec=json.dumps(made.content),
                    allow_estimates=made.allow_estimates,
                    put_at=stamp(made.put_at),
                    put_by=made.put_by,
                )
            )
            detail = f"version {number + 1}: {made.spec_id}"
            audit.add(
                connection, made.put_at, made.put_by, "spec.put", self.deployment, detail=detail
            )
            kept = self._newest(connection)
        return made if kept is None else kept

    def _newest(self, connection: Connection) -> SpecVersion | None:
        return newest_version(connection, self.deployment)


def ids_in_force(connection: Connection, deployments: Iterable[str]) -> dict[str, str]:
    """The spec id that is in force of each of these deployments; none was kept: no entry."""
    newest = (
        select(SPECS.c.deployment, func.max(SPECS.c.version).label("version"))
        .where(SPECS.c.deployment.in_(sorted(deployments)))
        .group_by(SPECS.c.deployment)
        .subquery()
    )
    query = select(SPECS.c.deployment, SPECS.c.spec_id).join(
        newest,
        (SPECS.c.deployment == newest.c.deployment) & (SPECS.c.version == newest.c.version),
    )
    return {row.deployment: row.spec_id for row in connection.execute(query)}


def newest_version(connection: Connection, deployment: str) -> SpecVersion | None:
    """The version in force; None before the first was kept."""
    query = (
        select(SPECS)
        .where(SPECS.c.deployment == deployment)
        .order_by(SPECS.c.version.desc())
        .limit(1)
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _version(row)


def _version(row: RowMapping) -> SpecVersion:
    return SpecVersion(
        version=row["version"],
        spec_id=row["spec_id"],
        given=row["given"],
        content=json.loads(row["spec"]),
        allow_estimates=bool(row["allow_estimates"]),
        put_at=instant(row["put_at"]),
        put_by=row["put_by"],
    )


def _changed(deployment: str, now: SpecVersion | None) -> str:
    if now is None:
        return f"deployment {deployment} has no version of its spec yet: look at it again"
    return (
        f"the spec of {deployment} has changed since you looked: version {now.version} "
        f"({now.spec_id}) was put at {now.put_at.isoformat()} by {now.put_by}; look at it again"
    )

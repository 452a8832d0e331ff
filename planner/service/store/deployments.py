"""Which deployments a server serves beside those of its files, and which it serves no longer."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from planner.domain.errors import UnknownDeploymentError
from planner.service.store import audit
from planner.service.store.database import Access
from planner.service.store.instants import instant, stamp
from planner.service.store.tables import DEPLOYMENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """That a deployment was added at run time, or retired.

    Parameters
    ----------
    given : str
        Id of the spec in the file over which it was retired; empty: there was no file.
    """

    deployment: str
    given: str
    changed_at: datetime
    changed_by: str
    retired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDeployments:
    """The deployments of one server, that is of all processes that share a lease.

    Parameters
    ----------
    lease : str
        By which the processes of a server find the one that acts; it names the server.
    """

    access: Access
    lease: str

    def all(self) -> dict[str, Membership]:
        """What is known, by name. Raises StoreError."""
        query = select(DEPLOYMENTS).where(DEPLOYMENTS.c.lease == self.lease)
        with self.access.reading() as connection:
            found = [_membership(row) for row in connection.execute(query).mappings()]
        return {one.deployment: one for one in found}

    def adopt(self, leases: Iterable[str]) -> None:
        """Take over what was added to servers of these names. Raises StoreError."""
        others = [name for name in leases if name != self.lease]
        theirs = DEPLOYMENTS.c.lease.in_(others)
        with self.access.reading() as connection:  # most often there are none
            if connection.execute(select(DEPLOYMENTS.c.deployment).where(theirs)).first() is None:
                return
        with self.access.writing() as connection:
            connection.execute(update(DEPLOYMENTS).where(theirs).values(lease=self.lease))

    def put(self, made: Membership) -> None:
        """Keep that one was added, or retired. Raises StoreError."""
        with self.access.writing() as connection:
            self.put_in(connection, made)

    def put_in(self, connection: Connection, made: Membership) -> None:
        """The same within a transaction."""
        here = DEPLOYMENTS.c.deployment == made.deployment
        values = {
            "lease": self.lease,
            "given": made.given,
            "changed_at": stamp(made.changed_at),
            "changed_by": made.changed_by,
            "retired": made.retired,
        }
        action = "deployment.retire" if made.retired else "deployment.add"
        if connection.execute(update(DEPLOYMENTS).where(here).values(values)).rowcount == 0:
            connection.execute(insert(DEPLOYMENTS).values(deployment=made.deployment, **values))
        audit.add(connection, made.changed_at, made.changed_by, action, made.deployment)

    def served(self, connection: Connection) -> frozenset[str]:
        """Names of those that were added and are not retired."""
        here = (DEPLOYMENTS.c.lease == self.lease) & ~DEPLOYMENTS.c.retired
        return frozenset(connection.execute(select(DEPLOYMENTS.c.deployment).where(here)).scalars())

    def forget(self, deployment: str) -> None:
        """Keep nothing of one that a file names from now on. Raises StoreError."""
        here = DEPLOYMENTS.c.deployment == deployment
        with self.access.reading() as connection:
            if connection.execute(select(DEPLOYMENTS).where(here)).first() is None:
                return
        with self.access.writing() as connection:
            connection.execute(delete(DEPLOYMENTS).where(here))


def check_served(connection: Connection, deployment: str) -> None:
    """Refuse what is put for a deployment that is served no longer.

    Raises
    ------
    UnknownDeploymentError
    """
    query = select(DEPLOYMENTS.c.retired).where(DEPLOYMENTS.c.deployment == deployment)
    if connection.execute(query).scalar_one_or_none():
        raise UnknownDeploymentError(f"deployment {deployment} was retired meanwhile: look again")


def _membership(row: RowMapping) -> Membership:
    return Membership(
        deployment=row["deployment"],
        given=row["given"],
        changed_at=instant(row["changed_at"]),
        changed_by=row["changed_by"],
        retired=bool(row["retired"]),
    )

"""Workers of a deployment with what they do now, and what a cell lacks."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from planner.domain.errors import GuardRefusedError
from planner.domain.fleet import ReplicaShape, Role
from serving.workers.launcher import Worker

PARTNERS = {Role.PREFILL: Role.DECODE, Role.DECODE: Role.PREFILL}


class WorkerState(StrEnum):
    """Where a worker is between its start and its end.

    A standby worker has generated a token and takes no traffic; roles live in the router, so it
    can be promoted into any.
    """

    STARTING = "starting"
    STANDBY = "standby"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A worker of a deployment.

    Parameters
    ----------
    shape : ReplicaShape
        As it is now: its role may have been flipped since it was started.
    returns : bool
        It drains only to come back in another role.
    """

    worker: Worker
    shape: ReplicaShape
    state: WorkerState
    returns: bool = False

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.worker.name

    @property
    def cell(self) -> str:
        """The cell that it belongs to."""
        return self.worker.cell

    @property
    def role(self) -> Role:
        """What it does, or will do."""
        return self.shape.role


@dataclass(frozen=True, slots=True, kw_only=True)
class CellReport:
    """Who serves in a cell.

    Parameters
    ----------
    prefill, decode, aggregated, standby : int
        Workers that take traffic, by role, and those that could.
    """

    cell: str
    prefill: int
    decode: int
    aggregated: int
    standby: int

    @property
    def lacks(self) -> tuple[Role, ...]:
        """Roles without which its other workers are of no use: they have no partner here."""
        missing = ((Role.PREFILL, self.prefill), (Role.DECODE, self.decode))
        if not self.prefill and not self.decode:
            return ()
        return tuple(role for role, count in missing if not count)

    @property
    def serves(self) -> bool:
        """Whether it can answer requests."""
        return bool(self.aggregated or (self.prefill and self.decode))


def report_cells(cells: Iterable[str], members: Iterable[Member]) -> tuple[CellReport, ...]:
    """Count the workers of each cell."""
    there = tuple(members)
    return tuple(_report(cell, there) for cell in cells)


def _report(cell: str, members: tuple[Member, ...]) -> CellReport:
    def count(role: Role) -> int:
        ready = (m for m in members if m.state is WorkerState.READY)
        return sum(1 for m in ready if (m.cell, m.role) == (cell, role))

    standby = sum(1 for m in members if (m.cell, m.state) == (cell, WorkerState.STANDBY))
    return CellReport(
        cell=cell,
        prefill=count(Role.PREFILL),
        decode=count(Role.DECODE),
        aggregated=count(Role.AGGREGATED),
        standby=standby,
    )


def check_leaving(member: Member, members: Iterable[Member], *, to: Role | None) -> None:
    """Refuse to take the last worker of a role from a cell whose other workers need it.

    KV caches do not cross cells: prefill workers without a decode worker beside them, or the other
    way round, answer nothing.

    Parameters
    ----------
    to : Role or None
        The role that it is to get; None: it leaves.

    Raises
    ------
    GuardRefusedError
    """
    if member.state is not WorkerState.READY or member.role not in PARTNERS or to is member.role:
        return
    before = _report(member.cell, tuple(members))
    left = {Role.PREFILL: before.prefill, Role.DECODE: before.decode}
    left[member.role] -= 1
    if to in left:
        left[to] += 1
    partner = PARTNERS[member.role]
    if before.serves and not before.aggregated and not left[member.role] and left[partner]:
        raise GuardRefusedError(
            f"{member.name} is the last {member.role} worker of cell {member.cell}: without it "
            f"the cell's {left[partner]} {partner} workers answer nothing; add a {member.role} "
            "worker to the cell first"
        )

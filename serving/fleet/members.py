"""Workers of a deployment with what they do now, and what a cell lacks."""

import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from planner.domain.errors import GuardRefusedError
from planner.domain.fleet import CellPool, Fleet, Pool, ReplicaShape, Role, merged, version_of
from planner.domain.hardware import PurchaseOption
from serving.fleet.endpoints import WorkerEndpoint
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
    spare : bool
        It is on standby, or starts to be; one that a plan's step claimed may be that again.
    held_since_s : float or None
        A plan's step started or claimed it then, on the monotonic clock, and a later step shall
        route it. None: whoever started it waits for it and routes it.
    """

    worker: Worker
    shape: ReplicaShape
    state: WorkerState
    returns: bool = False
    spare: bool = False
    held_since_s: float | None = None

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

    def held(self) -> "Member":
        """The worker as one that a plan's step has started or claimed now."""
        return replace(self, held_since_s=time.monotonic())

    def settled(self, state: WorkerState) -> "Member":
        """The worker as one that serves, or is on standby, and that nobody waits for."""
        spare = state is WorkerState.STANDBY
        return replace(self, state=state, returns=False, spare=spare, held_since_s=None)

    @property
    def awaits_route(self) -> bool:
        """Whether it starts, or has started, for a plan whose step shall route it."""
        return self.state is WorkerState.STARTING and self.held_since_s is not None

    @property
    def is_claimed(self) -> bool:
        """Whether it was on standby until a plan's step claimed it."""
        return self.spare and self.awaits_route

    @property
    def is_coming(self) -> bool:
        """Whether it starts to serve in its role: one that is to be on standby does not."""
        return self.state is WorkerState.STARTING and (self.awaits_route or not self.spare)


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


def fleet_of(
    members: Iterable[Member],
    healthy: Collection[tuple[str, Role]],
    *,
    purchase_option: PurchaseOption,
    in_cells: bool,
) -> Fleet:
    """Workers as pools.

    A ready worker that its router does not list as healthy counts as draining: it takes no
    traffic. Workers that are on standby, or start to be, are in no pool: they serve nobody.

    Parameters
    ----------
    healthy : collection of (str, Role)
        Addresses with roles, as the routers list them.
    in_cells : bool
        Whether cells are told apart.
    """
    parts: dict[tuple[str, ReplicaShape], Pool] = {}
    for member in members:
        state = member.state
        if state is WorkerState.STANDBY or (state is WorkerState.STARTING and not member.is_coming):
            continue
        if state is WorkerState.READY and (member.worker.url, member.role) not in healthy:
            state = WorkerState.DRAINING
        key = member.cell, member.shape
        pool = parts.get(key) or Pool(shape=member.shape, purchase_option=purchase_option)
        parts[key] = _with_one(pool, state)
    by_cell = tuple(CellPool(cell=key[0], pool=parts[key]) for key in sorted(parts))
    pools = merged(by_cell)
    return Fleet(
        pools=pools,
        read_at=datetime.now(UTC),
        version=version_of(pools),
        by_cell=by_cell if in_cells else (),
    )


def _with_one(pool: Pool, state: WorkerState) -> Pool:
    if state is WorkerState.STARTING:
        return replace(pool, starting=pool.starting + 1)
    if state is WorkerState.READY:
        return replace(pool, ready=pool.ready + 1)
    return replace(pool, draining=pool.draining + 1)


def neediest(cells: Iterable[str], members: Iterable[Member], role: Role) -> str:
    """The cell with the fewest workers of a role; of equal ones one whose others need it."""
    there = Counter((m.cell, m.role) for m in members if m.state is not WorkerState.DRAINING)
    partner = PARTNERS.get(role)

    def need(cell: str) -> tuple[int, bool]:
        alone = partner is not None and not there[cell, role] and there[cell, partner] > 0
        return there[cell, role], not alone

    return min(cells, key=need)


def emptiest(cells: Iterable[str], members: Iterable[Member]) -> str:
    """The cell that serves with the fewest workers, for a spare; the first where none does."""
    known = tuple(members)
    there = Counter(m.cell for m in known)
    roles = {(m.cell, m.role) for m in known}

    def rank(cell: str) -> tuple[bool, int]:
        pair = all((cell, role) in roles for role in PARTNERS)
        return not (pair or (cell, Role.AGGREGATED) in roles), there[cell]

    return min(cells, key=rank)


def worker_endpoints(members: Iterable[Member]) -> tuple[WorkerEndpoint, ...]:
    """Where workers answer that take traffic, or have taken it."""
    return tuple(
        WorkerEndpoint(
            name=m.name,
            role=m.role,
            cell=m.cell,
            url=m.worker.url,
            kv_events=m.worker.kv_events,
            draining=m.state is WorkerState.DRAINING,
        )
        for m in members
        if m.state in (WorkerState.READY, WorkerState.DRAINING)
    )

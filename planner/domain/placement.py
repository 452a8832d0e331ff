"""Which cell the replicas of a plan stand in, and what that costs."""

from dataclasses import dataclass

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption


@dataclass(frozen=True, slots=True, kw_only=True)
class CellReplicas:
    """Replicas of one pool in one cell.

    Parameters
    ----------
    cell : str
        Name of the cell; empty: no cell has room for them.
    """

    cell: str
    shape: ReplicaShape
    purchase_option: PurchaseOption
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellAttainment:
    """What the requests of one cell experience.

    Parameters
    ----------
    traffic_ratio : float
        Share of all requests that goes to it, by what it can serve, 0..1.
    attainment_ratio : float
        Share of these that meet every objective, 0..1.
    """

    cell: str
    traffic_ratio: float
    attainment_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CellsAttainment:
    """What requests experience where each cell has a router of its own, by the closed form.

    Parameters
    ----------
    cells : tuple of CellAttainment
        Those that can serve; empty: none can.
    one_router_ratio : float
        Attainment of the same replicas behind one router, by the same closed form: what pooling
        is worth lies between the two.
    """

    cells: tuple[CellAttainment, ...]
    one_router_ratio: float

    @property
    def attainment_ratio(self) -> float:
        """Of all requests together."""
        return sum(c.traffic_ratio * c.attainment_ratio for c in self.cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Replicas by cell, with one router in each: a request is computed and answered inside one.

    Parameters
    ----------
    cells : tuple of str
        All cells, in the spec's order.
    replicas : tuple of CellReplicas
        At least one replica each, in order of cells, then pools.
    crossing_ratio : float
        Share of the planned traffic whose prefill and decode capacity lie in different cells,
        0..1: nobody serves it while each router keeps to its cell.
    capacity_loss_ratio : float
        By how much the cells serve less than the same replicas behind one router, 0..1. Less than
        what crosses where one of the roles has capacity to spare.
    moves : int
        Replicas that have to end in one cell and to start in another, for this to come about.
    mending : str
        One sentence: what would let the cells serve as much as one router; empty: nothing crosses.
    proven : bool
        No other placement is better; False: the search ended before that was known.
    attainment : CellsAttainment or None
        Of replicas in several cells; None: one cell has them all, so that the plan's own
        prediction holds, or it was not predicted.
    """

    cells: tuple[str, ...]
    replicas: tuple[CellReplicas, ...]
    crossing_ratio: float = 0.0
    capacity_loss_ratio: float = 0.0
    moves: int = 0
    mending: str = ""
    proven: bool = True
    attainment: CellsAttainment | None = None

    def count(self, cell: str, role: Role) -> int:
        """Replicas of a role in a cell."""
        return sum(r.replicas for r in self.replicas if (r.cell, r.shape.role) == (cell, role))

    def within(self, cell: str) -> tuple[CellReplicas, ...]:
        """Replicas in a cell."""
        return tuple(r for r in self.replicas if r.cell == cell)

    @property
    def used_cells(self) -> tuple[str, ...]:
        """Cells with replicas."""
        return tuple(cell for cell in self.cells if self.within(cell))

    @property
    def unplaced(self) -> int:
        """Replicas for which no cell has room."""
        return sum(r.replicas for r in self.replicas if not r.cell)

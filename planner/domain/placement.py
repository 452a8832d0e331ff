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
    """

    cells: tuple[str, ...]
    replicas: tuple[CellReplicas, ...]
    crossing_ratio: float = 0.0
    capacity_loss_ratio: float = 0.0
    moves: int = 0
    mending: str = ""
    proven: bool = True

    def count(self, cell: str, role: Role) -> int:
        """Replicas of a role in a cell."""
        return sum(r.replicas for r in self.replicas if (r.cell, r.shape.role) == (cell, role))

    @property
    def unplaced(self) -> int:
        """Replicas for which no cell has room."""
        return sum(r.replicas for r in self.replicas if not r.cell)

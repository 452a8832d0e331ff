"""A plan's replicas in the cells of the spec: where they stand, and what crosses.

Behind one router a cell, prefill and decode of a request lie in one cell. So replicas are placed
that the most traffic finds both there (`planner.rollout.placing`), and what is left over is said,
with what would mend it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.domain.fleet import Fleet, Role
from planner.domain.placement import CellReplicas, Placement
from planner.domain.plan import Plan, PlanWindow
from planner.domain.spec import Spec, TargetKind
from planner.domain.topology import Cell
from planner.domain.wording import agreed, counted
from planner.rollout.capacity import Capacity, Rates, capacity, rates
from planner.rollout.effects import PoolKey, Pools, pool_at, pools_in_cells
from planner.rollout.placing import PlacingProblem, Room, solve_placing

MOST_MENDING = 8
"""So many more replicas of one role are tried, to say what would mend a placement."""
_NOTHING = 1e-9
"""Less is rounding."""
_PAIR = (Role.PREFILL, Role.DECODE)
_PLACING = (TargetKind.LOCAL, TargetKind.DRY_RUN)
"""Targets that are told the cell of each step; elsewhere an object holds one count for all."""

Counts = Mapping[PoolKey, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Cells and what they hold.

    Parameters
    ----------
    names : tuple of str
        Of the cells, in order.
    rooms : tuple of Room
        A cell in none of them holds anything.
    """

    names: tuple[str, ...]
    rooms: tuple[Room, ...] = ()


def site_of(cells: tuple[Cell, ...], accelerators: int) -> Site:
    """Cells with the room that their GPUs give them.

    Parameters
    ----------
    accelerators : int
        There are so many in all; what no cell names is for the cells that name none.
    """
    names = tuple(cell.name for cell in cells)
    named = sum(len(cell.gpus) for cell in cells)
    if not named:
        return Site(names=names)
    rooms = [Room(cells=(c.name,), accelerators=len(c.gpus)) for c in cells if c.gpus]
    rest = tuple(cell.name for cell in cells if not cell.gpus)
    if rest:
        rooms.append(Room(cells=rest, accelerators=max(0, accelerators - named)))
    return Site(names=names, rooms=tuple(rooms))


def site_in(spec: Spec, fleet: Fleet | None, *, model: str) -> Site:
    """The spec's cells, less what other models occupy of them."""
    site = site_of(spec.cells, sum(a.inventory for a in spec.accelerators))
    others = () if fleet is None else fleet.by_cell
    taken = dict.fromkeys(site.names, 0)
    for part in others:
        if part.pool.shape.model != model and part.cell in taken:
            taken[part.cell] += part.pool.accelerators
    rooms = (
        replace(room, accelerators=max(0, room.accelerators - sum(taken[c] for c in room.cells)))
        for room in site.rooms
    )
    return replace(site, rooms=tuple(rooms))


def is_steered(spec: Spec, fleet: Fleet) -> bool:
    """Whether steps say their cell: there are some, the target takes it, and all is known."""
    return bool(spec.cells) and spec.target in _PLACING and fleet.is_placed


def standing(fleet: Fleet | None, *, model: str) -> dict[PoolKey, int]:
    """Replicas of a model by pool and cell, as far as that is known."""
    pools = {} if fleet is None else pools_in_cells(fleet)
    return {k: p.replicas for k, p in pools.items() if k.shape.model == model and p.replicas}


def place(
    wanted: Counts, each_rps: Rates, site: Site, now: Counts, *, stay: bool = False
) -> Placement:
    """Replicas by cell: most traffic with both halves in one cell, then the fewest moves.

    Parameters
    ----------
    wanted : mapping of PoolKey to int
        Replicas by whole pool, of one model.
    each_rps : mapping of PoolKey to float
        What one replica of each of them can do, requests/s.
    now : mapping of PoolKey to int
        Replicas by pool and cell as they stand.
    stay : bool
        Nothing moves to another cell that could stay.

    Returns
    -------
    Placement
        Without `mending`.
    """
    wanted = {key: count for key, count in sorted(wanted.items()) if count > 0}
    placed = solve_placing(
        PlacingProblem(
            cells=site.names,
            wanted=wanted,
            each_rps=each_rps,
            rooms=site.rooms,
            now=now,
            stay=stay,
        )
    )
    order = ("", *site.names)
    by_cell = sorted(placed.replicas.items(), key=lambda item: (order.index(item[0].cell), item[0]))
    inside = {key: count for key, count in placed.replicas.items() if key.cell}
    whole, parts = _capacity(wanted, each_rps), _capacity(inside, each_rps)
    return Placement(
        cells=site.names,
        replicas=tuple(
            CellReplicas(
                cell=key.cell,
                shape=key.shape,
                purchase_option=key.purchase_option,
                replicas=count,
            )
            for key, count in by_cell
        ),
        crossing_ratio=_crossing(inside, each_rps, whole),
        capacity_loss_ratio=_short(parts.service, whole.service),
        moves=_moves(inside, now),
        proven=placed.proven,
    )


def counts_of(placement: Placement) -> dict[PoolKey, int]:
    """Replicas by pool and cell, without those that no cell has room for."""
    return {
        PoolKey(part.shape, part.purchase_option, part.cell): part.replicas
        for part in placement.replicas
        if part.cell
    }


def with_placements(plan: Plan, spec: Spec, fleet: Fleet | None) -> Plan:
    """The plan with the cells of its replicas; as it is where the spec names no cells.

    Each window begins from where the one before it left the replicas, the first from the fleet.
    """
    if not spec.cells:
        return plan
    site = site_in(spec, fleet, model=plan.model)
    now = standing(fleet, model=plan.model)
    known: dict[tuple[object, ...], Placement] = {}
    placements = []
    for window in plan.windows:
        wanted = {PoolKey(p.shape, p.purchase_option): p.replicas for p in window.pools}
        each_rps = _rates_in(window, spec)
        asked = (*sorted(wanted.items()), *sorted(now.items()), *sorted(each_rps.items()))
        if asked not in known:
            placement = place(wanted, each_rps, site, now)
            mending = _mending(placement, wanted, each_rps, site)
            known[asked] = replace(placement, mending=mending)
        placements.append(known[asked])
        now = counts_of(known[asked])
    return replace(plan, placements=tuple(placements))


def traffic_by_cell(placement: Placement, window: PlanWindow, spec: Spec) -> dict[str, float]:
    """Shares of all requests by what each cell can serve, of those that can serve any."""
    each_rps, counts = _rates_in(window, spec), counts_of(placement)
    service = {
        cell: _capacity({k: n for k, n in counts.items() if k.cell == cell}, each_rps).service
        for cell in placement.used_cells
    }
    whole = sum(service.values())
    return {cell: rps / whole for cell, rps in service.items() if rps > 0}


def _rates_in(window: PlanWindow, spec: Spec) -> dict[PoolKey, float]:
    """What one replica of each planned pool can do of the window's own traffic, requests/s.

    Pools of one role differ as on the reference request, and so does what aggregated ones do
    beside pairs; what a role can do in all follows from how much of it the plan uses.
    """
    planned = {PoolKey(p.shape, p.purchase_option): p for p in window.pools}
    each = rates(planned, spec)
    whole = _capacity({key: pool.replicas for key, pool in planned.items()}, each)
    for role in Role:
        able = whole.of_role(role)
        own = {k: p for k, p in planned.items() if k.shape.role is role}
        used = sum(each[k] * p.replicas * p.utilization_ratio for k, p in own.items())
        carried = whole.aggregated if role is Role.AGGREGATED else whole.paired
        if able > 0 and whole.service > 0:
            load = (window.request_rate_rps or whole.service) * carried / whole.service
            each |= {k: each[k] * load / (used if used > 0 else able) for k in own}
    return each


def _mending(placement: Placement, wanted: Counts, each_rps: Rates, site: Site) -> str:
    """How many replicas more, of which role, let the cells serve what one router would."""
    if placement.unplaced:
        find = agreed(placement.unplaced, "finds", "find")
        who = counted(placement.unplaced, "replica")
        return f"{who} {find} no room in any cell: give cells more GPUs"
    if placement.crossing_ratio <= _NOTHING:
        return ""
    if placement.capacity_loss_ratio <= _NOTHING:
        return "it costs no capacity: in every cell there is enough of what is short"
    whole = _capacity(wanted, each_rps).service
    for more in range(1, MOST_MENDING + 1):
        for role in _PAIR:
            key = max((k for k in wanted if k.shape.role is role), key=lambda k: (wanted[k], k))
            grown = {**wanted, key: wanted[key] + more}
            parts = place(grown, each_rps, site, {})
            if _capacity(counts_of(parts), each_rps).service >= whole * (1 - _NOTHING):
                return (
                    f"with {more} more {role} ({key.shape.label}) the cells would serve as much "
                    "as one router over all"
                )
    return f"up to {MOST_MENDING} replicas more of one role would not mend it in these cells"


def _capacity(replicas: Counts, each_rps: Rates) -> Capacity:
    """What replicas can do where they stand; `each_rps` is by whole pool."""
    pools: Pools = {key: replace(pool_at({}, key), ready=n) for key, n in replicas.items()}
    each = {key: each_rps[key.anywhere] for key in pools}
    models = {key.shape.model for key in pools} or {""}
    return capacity(pools, each, model=models.pop())


def _crossing(placed: Counts, each_rps: Rates, whole: Capacity) -> float:
    """The share of all traffic that pairs across cells would have to serve."""
    if whole.paired <= 0:
        return 0.0
    inside = 0.0
    for cell in {key.cell for key in placed}:
        own = {key: count for key, count in placed.items() if key.cell == cell}
        here = _capacity(own, each_rps)
        inside += min(here.prefill / whole.prefill, here.decode / whole.decode)
    crossing = (1.0 - inside) * whole.paired / whole.service
    return crossing if crossing > _NOTHING else 0.0


def _short(part: float, whole: float) -> float:
    missing = 1.0 - part / whole if whole > 0 else 0.0
    return missing if missing > _NOTHING else 0.0


def _moves(then: Counts, now: Counts) -> int:
    """Replicas that end in one cell and start in another: who leaves, but for who leaves anyway."""

    def summed(counts: Counts, *, in_cells: bool) -> Counter[object]:
        sums = Counter[object]()
        for key, replicas in counts.items():
            engine = (*key.shape.engine, key.purchase_option)
            sums[(engine, key.cell) if in_cells else engine] += replicas
        return sums

    leaving, fewer = (
        sum((summed(now, in_cells=cells) - summed(then, in_cells=cells)).values())
        for cells in (True, False)
    )
    return leaving - fewer

"""A plan in the cells of the spec, with what requests experience behind one router a cell.

Behind one router all replicas of a role are one queue; behind several each cell has its own, and
what waits in one does not use what stands idle in another. The plan's own prediction is of one
router, so each cell is predicted by itself here, and the cells' attainment is put together by the
traffic that goes to each.
"""

from collections import Counter
from dataclasses import replace

from planner.capacity.deployment import ClassPromise, predict
from planner.capacity.split import PoolLoad
from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.forecast import Forecast
from planner.domain.hardware import PurchaseOption
from planner.domain.placement import CellAttainment, CellReplicas, CellsAttainment, Placement
from planner.domain.plan import Plan, PlanWindow
from planner.domain.spec import Spec
from planner.optimize.loads import Load, load_of, promises, strictest
from planner.rollout import with_placements
from planner.rollout.cells import traffic_by_cell


def in_cells(plan: Plan, spec: Spec, forecast: Forecast, fleet: Fleet | None) -> Plan:
    """The plan with its placements, and the attainment of those that lie in several cells.

    By the closed form, for the cells and, to compare with, for one router over all of them.
    Traffic is taken to go to each cell by what it can serve, and every class alike. Windows whose
    kinds of requests are sent to different pools are not predicted.

    Parameters
    ----------
    forecast : Forecast
        That the plan was made for.
    """
    placed = with_placements(plan, spec, fleet)
    if not placed.placements:
        return placed
    ahead = {window.start_at: window for window in forecast.windows}
    placements = []
    for window, placement in zip(placed.windows, placed.placements, strict=True):
        load = load_of(ahead[window.start_at], spec.forecast.demand_level)
        found = None
        if load is not None and not window.traffic and len(placement.used_cells) > 1:
            found = _attainment(spec.cautious, window, placement, load)
        placements.append(replace(placement, attainment=found))
    return replace(placed, placements=tuple(placements))


def _attainment(
    spec: Spec, window: PlanWindow, placement: Placement, load: Load
) -> CellsAttainment:
    shares = traffic_by_cell(placement, window, spec)
    rate_rps = window.request_rate_rps - window.shortfall_rps

    def attained(replicas: tuple[CellReplicas, ...], share: float) -> float:
        return _attained(spec, replicas, load, window_s=window.window_s, rate_rps=rate_rps * share)

    cells = tuple(
        CellAttainment(
            cell=cell,
            traffic_ratio=share,
            attainment_ratio=attained(placement.within(cell), share),
        )
        for cell, share in shares.items()
    )
    return CellsAttainment(
        cells=cells,
        one_router_ratio=attained(placement.replicas, 1.0),
    )


def _attained(
    spec: Spec,
    replicas: tuple[CellReplicas, ...],
    load: Load,
    *,
    window_s: float,
    rate_rps: float,
) -> float:
    model = replicas[0].shape.model
    own = promises(spec, model, load.class_names.tolist())
    counts = Counter[tuple[ReplicaShape, PurchaseOption]]()
    for part in replicas:  # parts of a pool in several cells are one queue behind one router
        counts[part.shape, part.purchase_option] += part.replicas
    pools = [
        PoolLoad(profile=profile, role=shape.role, replicas=count)
        for (shape, _), count in counts.items()
        if (profile := spec.profile_of(shape)) is not None
    ]
    found = predict(
        pools,
        load.shape,
        strictest(own),
        request_rate_rps=rate_rps,
        arrival_cv2=load.arrival_cv2,
        window_s=window_s,
        classes=[ClassPromise(slo=slo, of=load.of_class(slo.request_class)) for slo in own],
    )
    return found.prediction.attainment_ratio or 0.0

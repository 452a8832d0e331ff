"""Classes whose promise no pool keeps, not even idle: shed by themselves where shedding is allowed.

A pool that several classes share is worth what keeps every one of them; one that cannot be kept at
any rate would take the others with it. So it becomes a stream of its own, which nothing serves.
"""

from collections.abc import Sequence

from planner.capacity.end_to_end import SPLITS, WHOLE
from planner.domain.errors import OutsideProfileError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.forecast import Forecast
from planner.domain.slo import Slo
from planner.domain.spec import Objective, Spec
from planner.optimize.capacity_tables import TABLE_COUNTS, pool_rps
from planner.optimize.loads import Load, different, load_of, promises

Paths = tuple[tuple[Role, ...], ...]
_PATHS: Paths = ((Role.AGGREGATED,), (Role.PREFILL, Role.DECODE))


def unkept_classes(
    spec: Spec, shapes: Sequence[ReplicaShape], forecast: Forecast
) -> frozenset[str]:
    """Classes that no way through the pools keeps in some window; none where none may be shed.

    None either where not a single class is kept: then there are no others to save.
    """
    names = {d.request_class for w in forecast.windows for d in w.demands}
    sheds = (
        spec.planning.objective is Objective.GOODPUT
        or spec.planning.shortfall_usd_per_request is not None
    )
    if not sheds or len(names) < 2:
        return frozenset()
    unkept = hopeless_classes(spec, shapes, forecast)
    return frozenset() if unkept == names else unkept


def hopeless_classes(
    spec: Spec, shapes: Sequence[ReplicaShape], forecast: Forecast
) -> frozenset[str]:
    """Classes that no way through the pools keeps in some window, not even idle."""
    names = {d.request_class for w in forecast.windows for d in w.demands}
    found = (load_of(window, spec.forecast.demand_level) for window in forecast.windows)
    loads = different([load for load in found if load is not None])
    return frozenset(
        slo.request_class
        for slo in promises(spec, forecast.model, names)
        if any(
            bool(load.of_class(slo.request_class).any()) and not _is_kept(spec, shapes, load, slo)
            for load in loads
        )
    )


def _is_kept(spec: Spec, shapes: Sequence[ReplicaShape], load: Load, slo: Slo) -> bool:
    """Whether some path keeps a class's promise for any rate at all."""
    for split in SPLITS if slo.e2e_s is not None else (WHOLE,):
        able: set[Role] = set()
        for shape in shapes:
            profile = spec.profile_of(shape)
            if profile is None or shape.role in able:
                continue
            try:
                rate_rps = pool_rps(
                    profile, shape.role, load, (slo,), replicas=TABLE_COUNTS, split=split
                )
            except OutsideProfileError:
                return True  # told as such, with what to measure
            if rate_rps > 0:
                able.add(shape.role)
        if any(able.issuperset(path) for path in _PATHS):
            return True
    return False

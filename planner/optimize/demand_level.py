"""Which quantile of the forecast to plan for, where the spec leaves it open.

With a price of unserved requests it is the newsvendor's: capacity for one more request is worth
having while the chance that the request comes exceeds what serving it costs over what leaving it
costs. Without one, requests beyond the capacity may be no more than the part of the promise's
misses that planning leaves for them.

References
----------
Arrow, Harris and Marschak, Econometrica 19 (1951): the critical ratio.
"""

import math
from dataclasses import replace

import numpy as np

from planner.domain.fleet import Role
from planner.domain.forecast import Forecast, ForecastWindow, Quantiles
from planner.domain.spec import Spec
from planner.optimize.coefficients import build_problem
from planner.optimize.inputs import Floats
from planner.optimize.loads import strictest_slo
from planner.optimize.problem import Problem

LEAST_LEVEL, MOST_LEVEL = 0.5, 0.99
"""Below the median nobody plans; beyond the last quantiles that are known nothing is known."""

SHARE_FOR_ERROR = 0.5
"""Of the misses that the promise allows: for requests that the forecast did not see coming. The
rest is for those that come late in spite of enough capacity."""

_STEP = 0.005


def with_demand_level(spec: Spec, forecast: Forecast) -> Spec:
    """The spec with its quantile decided, if it leaves it open.

    Raises
    ------
    SpecError, OutsideProfileError
        As `build_problem`.
    """
    if not spec.forecast.choose_level:
        return spec
    decided = replace(spec, forecast=replace(spec.forecast, choose_level=False))
    level = chosen_level(decided, forecast)
    return replace(decided, forecast=replace(decided.forecast, demand_level=level))


def chosen_level(spec: Spec, forecast: Forecast) -> float:
    """The quantile to plan for, between `LEAST_LEVEL` and `MOST_LEVEL`."""
    price = spec.planning.shortfall_usd_per_request
    if price is not None:
        usd = _usd_per_request(build_problem(spec, forecast, None))
        level = 1 - usd / price if price > 0 else LEAST_LEVEL
        return round(min(max(level, LEAST_LEVEL), MOST_LEVEL), 3)
    names = {d.request_class for w in forecast.windows for d in w.demands}
    missing = 1 - strictest_slo(spec, forecast.model, names).attainment_ratio
    for level in _levels():
        most = max((unseen_ratio(w, level) for w in forecast.windows), default=0.0)
        if most <= SHARE_FOR_ERROR * missing:
            return level
    return MOST_LEVEL


def unseen_ratio(window: ForecastWindow, level: float) -> float:
    """Expected requests beyond the rate at `level`, as a share of all expected ones.

    E[(D - Q(level))+] / E[D], with the quantile functions of all classes added up as if they rose
    and fell together.
    """
    inner = (np.arange(200) + 0.5) / 200
    rates = np.zeros(len(inner))
    planned = 0.0
    for demand in window.demands:
        rates += _values(demand.request_rate_rps, inner)
        planned += demand.request_rate_rps.at(level)
    mean = float(rates.mean())
    return float(np.maximum(rates - planned, 0.0).mean()) / mean if mean > 0 else 0.0


def _values(quantiles: Quantiles, levels: Floats) -> Floats:
    return np.interp(levels, quantiles.levels, quantiles.values)


def _levels() -> list[float]:
    count = math.floor((MOST_LEVEL - LEAST_LEVEL) / _STEP) + 1
    return [round(LEAST_LEVEL + _STEP * n, 3) for n in range(count)]


def _usd_per_request(problem: Problem) -> float:
    """What serving one more request costs by the cheapest way, at full pools, USD."""
    dearest = 0.0
    for t in problem.window_indices:
        each = {role: _cheapest(problem, role, t) for role in Role}
        pair = each[Role.PREFILL] + each[Role.DECODE]
        way = min(pair, each[Role.AGGREGATED])
        dearest = max(dearest, way) if math.isfinite(way) else dearest
    return dearest


def _cheapest(problem: Problem, role: Role, t: int) -> float:
    """USD a request in the role's cheapest pool; infinite where there is none."""
    found = math.inf
    for o in problem.in_role(role):
        pool = problem.capacity[o, t]
        count = max(pool.last_count, 1)
        rate_rps = pool.at(count)
        if rate_rps > 0:
            found = min(found, problem.options[o].usd_per_hour * count / (3600 * rate_rps))
    return found

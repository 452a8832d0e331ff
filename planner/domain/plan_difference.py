"""How two plans differ in what was to be best, the bill and what is left unserved apart."""

from dataclasses import dataclass

from planner.domain.plan import Plan, PlanStatus

_SHORTFALL = "slo_shortfall"
_FLEET = ("accelerator_hours", "reserved")
"""Terms of the objective that are the bill of the fleet."""

_USD_PER_HOUR = "USD/h"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDifference:
    """What another plan comes to beyond a plan: above 0 more, below 0 less.

    Parameters
    ----------
    fleet_usd_per_hour : float
        The bill of the fleet.
    unserved_usd_per_hour : float
        The price of what is left unserved; 0 where that has none.
    other_usd_per_hour : float
        All other terms of the objective in USD: starts, switching, spot risk.
    more : float or None
        Of what was to be best, in `unit`. None: the two were made for different ends.
    unit : str
        USD/h of all terms, W, accelerators, or requests/s in time.
    """

    fleet_usd_per_hour: float
    unserved_usd_per_hour: float
    other_usd_per_hour: float
    more: float | None
    unit: str

    @property
    def in_all_usd_per_hour(self) -> float:
        """All terms of the objective in USD."""
        return self.fleet_usd_per_hour + self.unserved_usd_per_hour + self.other_usd_per_hour


def difference(plan: Plan, other: Plan) -> PlanDifference | None:
    """What `other` comes to beyond `plan`; None where no fleet keeps the promises of one of both.

    Everything is a mean over each plan's own horizon.
    """
    if PlanStatus.INFEASIBLE in (plan.status, other.status):
        return None
    before, after = _usd_per_hour(plan), _usd_per_hour(other)
    names = {*before, *after}
    more = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in names}
    rest = sum(usd for name, usd in more.items() if name not in (*_FLEET, _SHORTFALL))
    fleet = other.usd_per_hour - plan.usd_per_hour
    unserved = more.get(_SHORTFALL, 0.0)
    (was, unit), (becomes, other_unit) = _sought(plan), _sought(other)
    if unit == _USD_PER_HOUR == other_unit:
        sought: float | None = fleet + unserved + rest
    else:
        sought = becomes - was if unit == other_unit else None
    return PlanDifference(
        fleet_usd_per_hour=fleet,
        unserved_usd_per_hour=unserved,
        other_usd_per_hour=rest,
        more=sought,
        unit=other_unit,
    )


def _usd_per_hour(plan: Plan) -> dict[str, float]:
    hours = sum(window.window_s for window in plan.windows) / 3600
    return {term.name: term.usd / hours for term in plan.objective if hours > 0}


def _sought(plan: Plan) -> tuple[float, str]:
    """What was to be best, beside its unit; of `cost` the unit alone tells."""
    for term in plan.objective:
        if term.sought:
            return (0.0 if term.value is None else term.value), term.unit
    return 0.0, _USD_PER_HOUR

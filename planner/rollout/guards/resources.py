"""Limits by what there is: accelerators and money. Only growth is cut, in turns between pools."""

from collections.abc import Callable

from planner.domain.wording import counted
from planner.rollout.durations import usd_per_hour
from planner.rollout.effects import PoolKey
from planner.rollout.guards.case import Replicas, Wish
from planner.rollout.guards.moves import Limited, accelerators_of, growth_cut


def max_accelerators(wanted: Replicas, wish: Wish) -> Limited:
    """All roles together occupy no more accelerators than allowed; growth is cut in turns."""
    limit = wish.spec.guards.max_accelerators
    if limit is None:
        return dict(wanted), ""
    others = sum(p.accelerators for p in wish.fleet.pools if p.shape.model != wish.model)
    asked = accelerators_of(wanted) + others
    result = growth_cut(wanted, wish, lambda r: accelerators_of(r) + others <= limit)
    if result == dict(wanted):
        return result, ""
    return result, f"{counted(asked, 'accelerator')} wanted over all roles, at most {limit}"


def budget(wanted: Replicas, wish: Wish) -> Limited:
    """Growth that the money does not reach for is cut, in turns between the pools."""
    limit = wish.spec.budget.usd_per_hour
    if limit is None:
        return dict(wanted), ""
    others = sum(
        p.replicas * usd_per_hour(PoolKey(p.shape, p.purchase_option), wish.spec)
        for p in wish.fleet.pools
        if p.shape.model != wish.model and p.replicas
    )

    def price(replicas: Replicas) -> float:
        return others + sum(n * usd_per_hour(k, wish.spec) for k, n in replicas.items() if n)

    result = growth_cut(wanted, wish, lambda r: price(r) <= limit * (1 + 1e-9))
    if result == dict(wanted):
        return result, ""
    return result, f"{price(wanted):.2f} USD/h wanted, the budget is {limit:.2f} USD/h"


def inventory(wanted: Replicas, wish: Wish) -> Limited:
    """Growth that there are no accelerators for is cut, in turns between the pools."""
    result, reasons = dict(wanted), []
    for accelerator in wish.spec.accelerators:
        name, limit = accelerator.name, accelerator.inventory
        others = sum(
            p.accelerators
            for p in wish.fleet.pools
            if p.shape.model != wish.model and p.shape.accelerator == name
        )
        asked = accelerators_of(result, name) + others
        cut = growth_cut(result, wish, _fits(name, limit - others), accelerator=name)
        if cut != result:
            reasons.append(f"{asked} {name} wanted, only {limit} may be had")
        result = cut
    return result, "; ".join(reasons)


def _fits(name: str, limit: int) -> Callable[[Replicas], bool]:
    return lambda replicas: accelerators_of(replicas, name) <= limit

"""How to pay for the accelerators: reserved, on demand or spot."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from planner.domain.forecast import Forecast
from planner.domain.hardware import Accelerator, PurchaseOption
from planner.domain.plan import Plan, PlanWindow
from planner.domain.spec import Spec
from planner.service.answers.capacity.scenarios import Case
from planner.service.documents.capacity_report import ReservedDocument, SplitDocument

HOURS_PER_DAY = 24


def reserved_documents(plan: Plan, spec: Spec) -> list[ReservedDocument]:
    """For every type that is reserved: how many have to be, how many of them are used."""
    found = []
    for accelerator in spec.accelerators:
        offer = accelerator.offer(PurchaseOption.RESERVED)
        count = _reserved(plan, accelerator)
        if offer is None or not count:
            continue
        used = _planned(plan, accelerator.name, PurchaseOption.RESERVED)
        idle_usd_per_hour = (count - used) * offer.usd_per_gpu_hour
        found.append(
            ReservedDocument(
                accelerator=accelerator.name,
                reserved=count,
                used_mean=used,
                idle_mean=count - used,
                usd_per_hour=offer.usd_per_gpu_hour,
                idle_usd_per_hour=idle_usd_per_hour,
                idle_usd_per_day=HOURS_PER_DAY * idle_usd_per_hour,
            )
        )
    return found


def unpaid_usd_per_hour(plan: Plan, spec: Spec, window: PlanWindow) -> float:
    """What idle reserved accelerators cost in a window, as far as the plan does not count it.

    It counts those of a `reserved_count`; the others only while they are used, although whoever
    reserves them pays all day for as many as any window uses.
    """
    return math.fsum(
        (_reserved(plan, a) - _used(window, a.name, PurchaseOption.RESERVED))
        * offer.usd_per_gpu_hour
        for a in spec.accelerators
        for offer in a.offers
        if offer.purchase_option is PurchaseOption.RESERVED and not offer.is_prepaid
    )


def _reserved(plan: Plan, accelerator: Accelerator) -> int:
    """As many as the spec has paid for, or as any window uses."""
    offer = accelerator.offer(PurchaseOption.RESERVED)
    if offer is not None and offer.reserved_count is not None:
        return offer.reserved_count
    used = (_used(w, accelerator.name, PurchaseOption.RESERVED) for w in plan.windows)
    return max(used, default=0)


def _used(window: PlanWindow, name: str, option: PurchaseOption) -> int:
    """Accelerators of a type that a window uses under an option."""
    return sum(
        p.replicas * p.shape.accelerators
        for p in window.pools
        if p.shape.accelerator == name and p.purchase_option is option
    )


def split_documents(plan: Plan, spec: Spec) -> list[SplitDocument]:
    """For every type that the plan uses: how steadily, and what to reserve.

    Reserved ones are paid all day, those on demand while they are used: the k-th accelerator is
    worth reserving when it is used for at least the share of the time that the reserved price is
    of the price on demand.
    """
    return [
        _split(plan, accelerator)
        for accelerator in spec.accelerators
        if any(window.accelerators(accelerator.name) for window in plan.windows)
    ]


def _split(plan: Plan, accelerator: Accelerator) -> SplitDocument:
    seconds = [window.window_s for window in plan.windows]
    counts = [window.accelerators(accelerator.name) for window in plan.windows]
    whole, most = math.fsum(seconds), max(counts)
    prices = {option: _price(accelerator, option) for option in PurchaseOption}
    reserved, on_demand = prices[PurchaseOption.RESERVED], prices[PurchaseOption.ON_DEMAND]
    used = [
        math.fsum(s for n, s in zip(counts, seconds, strict=True) if n > k) / whole
        for k in range(most)
    ]
    break_even = worth = None
    if reserved is not None and on_demand is not None and on_demand > 0:
        break_even = reserved / on_demand
        worth = sum(share >= break_even for share in used)
    return SplitDocument(
        accelerator=accelerator.name,
        always_on=min(counts),
        most=most,
        mean=math.fsum(used),
        planned_reserved=_planned(plan, accelerator.name, PurchaseOption.RESERVED),
        planned_on_demand=_planned(plan, accelerator.name, PurchaseOption.ON_DEMAND),
        planned_spot=_planned(plan, accelerator.name, PurchaseOption.SPOT),
        reserved_usd_per_hour=reserved,
        on_demand_usd_per_hour=on_demand,
        spot_usd_per_hour=prices[PurchaseOption.SPOT],
        break_even_ratio=break_even,
        worth_reserving=worth,
        all_on_demand_usd_per_day=_usd_per_day(0, used, reserved, on_demand),
        all_reserved_usd_per_day=_usd_per_day(most, used, reserved, on_demand),
        split_usd_per_day=None if worth is None else _usd_per_day(worth, used, reserved, on_demand),
    )


def _usd_per_day(
    count: int, used: Sequence[float], reserved: float | None, on_demand: float | None
) -> float | None:
    """The first `count` reserved, the others on demand; None where a price is missing."""
    if (count and reserved is None) or (count < len(used) and on_demand is None):
        return None
    rest = math.fsum(used[count:])
    return HOURS_PER_DAY * (count * (reserved or 0.0) + rest * (on_demand or 0.0))


def _price(accelerator: Accelerator, option: PurchaseOption) -> float | None:
    offer = accelerator.offer(option)
    return None if offer is None else offer.usd_per_gpu_hour


def _planned(plan: Plan, name: str, option: PurchaseOption) -> float:
    """Mean accelerators of a type that are planned under an option."""
    whole = math.fsum(window.window_s for window in plan.windows)
    return math.fsum(_used(w, name, option) * w.window_s for w in plan.windows) / whole


def purchase_cases(spec: Spec, peak: Forecast) -> Iterator[Case]:
    """The busiest window bought one way only, where the spec has several prices."""
    kept = {offer.purchase_option for a in spec.accelerators for offer in a.offers}
    if len(kept) < 2:
        return
    for option in PurchaseOption:
        if option not in kept:
            continue
        only = tuple(a for a in (_only(a, option) for a in spec.accelerators) if a is not None)
        names = {a.name for a in only}
        pools = tuple(b for b in spec.pools if b.shape.accelerator in names)
        if pools:
            yield Case(
                kind="purchase",
                change=f"{option.value.replace('_', ' ')} prices only",
                spec=replace(spec, accelerators=only, pools=pools),
                forecast=peak,
            )


def _only(accelerator: Accelerator, option: PurchaseOption) -> Accelerator | None:
    offers = tuple(o for o in accelerator.offers if o.purchase_option is option)
    return replace(accelerator, offers=offers) if offers else None

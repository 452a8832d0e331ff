"""Bounds of a spec that cannot hold together: each is told with both of its places.

Guards would otherwise hold every plan back for ever, or let the later one win unsaid.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.guards import Pin
from planner.domain.hardware import Accelerator
from planner.domain.spec import PoolBounds, Spec
from planner.domain.wording import counted
from planner.service.spec.document import SpecDocument
from planner.service.spec.yaml_source import Location

_GUARDS = "guards"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """Two statements of which one has to go.

    Parameters
    ----------
    at, other : Location
        Where each stands.
    says, but : str
        What each says, as in `keeps at least 3 replicas`.
    """

    at: Location
    says: str
    other: Location
    but: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Pools of a model's role, each with its place in the file."""

    role: Role
    pools: tuple[tuple[Location, PoolBounds], ...]
    least: int
    most: int | None

    @property
    def at_least(self) -> int:
        """Replicas that its pools keep."""
        return sum(bounds.min_replicas for _at, bounds in self.pools)

    @property
    def at_most(self) -> int | None:
        """Replicas that its pools may have; None: no limit."""
        limits = [bounds.max_replicas for _at, bounds in self.pools]
        return None if None in limits else sum(n for n in limits if n is not None)

    def weighs(self, weight: Callable[[ReplicaShape], float]) -> float:
        """The least that it can weigh: what pools keep, and for the role's rest the lightest."""
        kept = sum(b.min_replicas * weight(b.shape) for _at, b in self.pools)
        lightest = min(weight(b.shape) for _at, b in self.pools)
        return kept + max(0, self.least - self.at_least) * lightest

    @property
    def place(self) -> Location:
        """What keeps replicas of it: the role's minimum where that is the stronger one."""
        if self.least > self.at_least:
            return (_GUARDS, self.role.value, "min_replicas")
        at, _bounds = max(self.pools, key=lambda one: one[1].min_replicas)
        return (*at, "min_replicas")


def contradictions(document: SpecDocument, spec: Spec) -> Iterator[Contradiction]:
    """All pairs of bounds that exclude each other.

    Parameters
    ----------
    spec : Spec
        With its pools, those first that the document lists.
    """
    groups = _groups(document, spec)
    for field, pins in (
        ("pins", spec.guards.pins),
        ("fallback_pools", spec.guards.fallback_pools),
    ):
        yield from _pins_twice(field, pins)
        yield from _pins_outside(field, pins, spec)
        yield from _pins_of_roles(field, pins, groups)
    for group in groups:
        yield from _role(group)
    yield from _hardware(groups, spec)
    yield from _totals(groups, spec)
    yield from _ratios(groups, spec)
    yield from _zero(groups, spec)
    yield from _one_shape(groups, spec)
    yield from _approval(spec)


def _groups(document: SpecDocument, spec: Spec) -> list[_Group]:
    found: dict[tuple[str, Role], list[tuple[Location, PoolBounds]]] = {}
    for index, bounds in enumerate(spec.pools):
        at: Location = ("pools", index) if index < len(document.pools) else ("shapes",)
        found.setdefault((bounds.shape.model, bounds.shape.role), []).append((at, bounds))
    groups = []
    for (_model, role), pools in found.items():
        limits = spec.guards.of_role(role)
        groups.append(
            _Group(
                role=role,
                pools=tuple(pools),
                least=limits.min_replicas,
                most=limits.max_replicas,
            )
        )
    return groups


def _pins_twice(field: str, pins: tuple[Pin, ...]) -> Iterator[Contradiction]:
    first: dict[str, int] = {}
    for index, pin in enumerate(pins):
        before = first.setdefault(pin.pool, index)
        if before != index:
            yield Contradiction(
                at=(_GUARDS, field, index),
                says=f"gives {pin.pool} {counted(pin.replicas, 'replica')}",
                other=(_GUARDS, field, before),
                but=f"gives it {pins[before].replicas}",
            )


def _pins_outside(field: str, pins: tuple[Pin, ...], spec: Spec) -> Iterator[Contradiction]:
    """Of a pool's own bounds, and of what its accelerator has."""
    limit = spec.guards.max_accelerators
    for index, pin in enumerate(pins):
        at: Location = (_GUARDS, field, index, "replicas")
        says = f"gives {pin.pool} {counted(pin.replicas, 'replica')}"
        for place, bounds in enumerate(spec.pools):
            if bounds.shape.label != pin.pool:
                continue
            if pin.replicas < bounds.min_replicas:
                but = f"keeps at least {bounds.min_replicas}"
                yield Contradiction(
                    at=at, says=says, other=("pools", place, "min_replicas"), but=but
                )
            if bounds.max_replicas is not None and pin.replicas > bounds.max_replicas:
                but = f"allows at most {bounds.max_replicas}"
                yield Contradiction(
                    at=at, says=says, other=("pools", place, "max_replicas"), but=but
                )
            takes = pin.replicas * bounds.shape.accelerators
            number, accelerator = _accelerator(spec, bounds.shape.accelerator)
            if takes > accelerator.available:
                yield Contradiction(
                    at=at,
                    says=f"{says}, which take {takes} {accelerator.name}",
                    other=("accelerators", number, "inventory"),
                    but=f"has {accelerator.available}",
                )
            elif limit is not None and takes > limit:
                yield Contradiction(
                    at=at,
                    says=f"{says}, which take {takes} accelerators",
                    other=(_GUARDS, "max_accelerators"),
                    but=f"allows {limit}",
                )


def _pins_of_roles(
    field: str, pins: tuple[Pin, ...], groups: list[_Group]
) -> Iterator[Contradiction]:
    for group in groups:
        by_label = {pin.pool: (index, pin.replicas) for index, pin in enumerate(pins)}
        own = [by_label[b.shape.label] for _at, b in group.pools if b.shape.label in by_label]
        if not own:
            continue
        total, at = sum(n for _index, n in own), (_GUARDS, field, own[-1][0], "replicas")
        says = f"makes {counted(total, 'replica')} of {group.role} in all"
        if group.most is not None and total > group.most:
            place: Location = (_GUARDS, group.role.value, "max_replicas")
            yield Contradiction(at=at, says=says, other=place, but=f"allows {group.most}")
        if len(own) == len(group.pools) and total < group.least:
            place = (_GUARDS, group.role.value, "min_replicas")
            yield Contradiction(at=at, says=says, other=place, but=f"keeps at least {group.least}")


def _role(group: _Group) -> Iterator[Contradiction]:
    """A role's limits against those of its pools together."""
    most, role = group.at_most, group.role.value
    first = group.pools[0][0]
    if most is not None and group.least > most:
        yield Contradiction(
            at=(_GUARDS, role, "min_replicas"),
            says=f"keeps at least {counted(group.least, 'replica')} of {role}",
            other=(*first, "max_replicas"),
            but=f"and the role's other pools allow {most} in all"
            if len(group.pools) > 1
            else f"allows at most {most}",
        )
    if group.most is not None and group.at_least > group.most:
        yield Contradiction(
            at=(_GUARDS, role, "max_replicas"),
            says=f"allows at most {counted(group.most, 'replica')} of {role}",
            other=group.place,
            but=f"and the role's other pools keep {group.at_least} in all"
            if len(group.pools) > 1
            else f"keeps at least {group.at_least}",
        )


def _hardware(groups: list[_Group], spec: Spec) -> Iterator[Contradiction]:
    """What pools keep against what there is of their accelerator."""
    pools = [one for group in groups for one in group.pools]
    for number, accelerator in enumerate(spec.accelerators):
        own = [one for one in pools if one[1].shape.accelerator == accelerator.name]
        takes = sum(b.min_replicas * b.shape.accelerators for _at, b in own)
        if takes > accelerator.available:
            at, bounds = max(own, key=lambda one: one[1].min_replicas * one[1].shape.accelerators)
            others = " and what other pools keep" if _several(own) else ""
            yield Contradiction(
                at=(*at, "min_replicas"),
                says=f"keeps at least {counted(bounds.min_replicas, 'replica')}, which{others} "
                f"{'take' if others or bounds.min_replicas > 1 else 'takes'} {takes} "
                f"{accelerator.name}",
                other=("accelerators", number, "inventory"),
                but=f"has {accelerator.available}",
            )


def _several(own: list[tuple[Location, PoolBounds]]) -> bool:
    return sum(bounds.min_replicas > 0 for _at, bounds in own) > 1


def _totals(groups: list[_Group], spec: Spec) -> Iterator[Contradiction]:
    """What roles and pools keep against limits over all of them: accelerators, money, power."""
    if not groups:
        return
    usd = {a.name: min(o.usd_per_gpu_hour for o in a.offers) for a in spec.accelerators}
    watts = {a.name: a.power_w for a in spec.accelerators}
    everything = sum(a.available for a in spec.accelerators)
    inventory: Location = ("accelerators", 0, "inventory")
    totals: list[tuple[Location, float | None, Callable[[ReplicaShape], float], str]] = [
        (inventory, everything, lambda s: s.accelerators, "accelerators"),
        (
            (_GUARDS, "max_accelerators"),
            spec.guards.max_accelerators,
            lambda s: s.accelerators,
            "accelerators",
        ),
        (
            ("budget", "usd_per_hour"),
            spec.budget.usd_per_hour,
            lambda s: s.accelerators * usd[s.accelerator],
            "USD/h",
        ),
        (
            ("budget", "power_w"),
            spec.budget.power_w,
            lambda s: s.accelerators * (watts[s.accelerator] or 0.0),
            "W",
        ),
    ]
    for place, limit, weight, unit in totals:
        least = sum(group.weighs(weight) for group in groups)
        heaviest = max(groups, key=lambda group: group.weighs(weight))
        if limit is None or least <= limit * (1 + 1e-9):
            continue
        if place == inventory and not any(g.least > g.at_least for g in groups):
            continue  # told accelerator by accelerator
        has = "and all other accelerators have" if place == inventory else "allows"
        yield Contradiction(
            at=heaviest.place,
            says=f"and all other minima take at least {least:g} {unit}",
            other=place,
            but=f"{has} {limit:g}",
        )


def _ratios(groups: list[_Group], spec: Spec) -> Iterator[Contradiction]:
    """Prefill replicas per decode replica against what both roles may have."""
    planning = spec.planning
    for prefill in (g for g in groups if g.role is Role.PREFILL):
        model = prefill.pools[0][1].shape.model
        for decode in groups:
            if decode.role is not Role.DECODE or decode.pools[0][1].shape.model != model:
                continue
            least, most = planning.min_prefill_per_decode, planning.max_prefill_per_decode
            top, bottom = _most(prefill), max(decode.least, decode.at_least)
            if least is not None and top is not None and bottom and top / bottom < least:
                yield Contradiction(
                    at=("planning", "min_prefill_per_decode"),
                    says=f"asks for {least:g} prefill replicas per decode replica",
                    other=decode.place,
                    but=f"keeps at least {bottom} of decode, and prefill may have {top}",
                )
            top, bottom = _most(decode), max(prefill.least, prefill.at_least)
            if most is not None and top is not None and bottom and bottom > most * top:
                yield Contradiction(
                    at=("planning", "max_prefill_per_decode"),
                    says=f"allows {most:g} prefill replicas per decode replica",
                    other=prefill.place,
                    but=f"keeps at least {bottom} of prefill, and decode may have {top}",
                )


def _most(group: _Group) -> int | None:
    limits = [n for n in (group.most, group.at_most) if n is not None]
    return min(limits, default=None)


def _zero(groups: list[_Group], spec: Spec) -> Iterator[Contradiction]:
    keeping = [group for group in groups if max(group.least, group.at_least) > 0]
    if spec.guards.scale_to_zero and keeping:
        least = max(keeping[0].least, keeping[0].at_least)
        yield Contradiction(
            at=(_GUARDS, "scale_to_zero"),
            says="lets all roles go to zero",
            other=keeping[0].place,
            but=f"keeps at least {least} of {keeping[0].role}",
        )


def _one_shape(groups: list[_Group], spec: Spec) -> Iterator[Contradiction]:
    for group in groups if spec.planning.one_shape_per_role else ():
        kept = [(at, bounds) for at, bounds in group.pools if bounds.min_replicas]
        for (at, bounds), (before, earlier) in ((b, a) for a, b in pairwise(kept)):
            yield Contradiction(
                at=(*at, "min_replicas"),
                says=f"keeps at least {counted(bounds.min_replicas, 'replica')} of {group.role}, "
                "and planning.one_shape_per_role allows one shape",
                other=(*before, "min_replicas"),
                but=f"keeps {earlier.min_replicas} of another",
            )


def _approval(spec: Spec) -> Iterator[Contradiction]:
    """No person, and two, for the same change."""
    policy = spec.approval
    limits = {
        "replicas": (policy.auto_below_replicas, policy.two_persons_from_replicas),
        "usd_per_hour": (policy.auto_below_usd_per_hour, policy.two_persons_from_usd_per_hour),
    }
    for unit, (below, start) in limits.items():
        if below is not None and start is not None and start < below:
            yield Contradiction(
                at=("approval", f"two_persons_from_{unit}"),
                says=f"asks two persons from {start:g} on",
                other=("approval", f"auto_below_{unit}"),
                but=f"asks none below {below:g}",
            )


def _accelerator(spec: Spec, name: str) -> tuple[int, Accelerator]:
    return next((i, a) for i, a in enumerate(spec.accelerators) if a.name == name)

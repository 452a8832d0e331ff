"""Orders of people at run time: pause, pin, mode. Kept in the store: every process obeys."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from planner.domain.errors import InputError, PlanStateError
from planner.domain.fleet import ReplicaShape
from planner.domain.guards import Pause, Pin
from planner.domain.spec import LoopMode, Spec
from planner.domain.wording import counted
from planner.service.store.directives import Directive, DirectiveKind

if TYPE_CHECKING:
    from planner.service.deployment import Deployment

LOOP = "loop"
"""Who tells the audit log that the time of a directive is over."""
_DIRECTIONS = {
    Pause.IN: (Pause.IN.value,),
    Pause.OUT: (Pause.OUT.value,),
    Pause.ALL: (Pause.IN.value, Pause.OUT.value),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All directives that hold at an instant, beside what the spec says."""

    directives: tuple[Directive, ...] = ()

    @property
    def paused(self) -> Pause:
        """Which directions are paused."""
        subjects = {d.subject for d in self._of(DirectiveKind.PAUSE)}
        if len(subjects) == len(_DIRECTIONS[Pause.ALL]):
            return Pause.ALL
        return Pause(subjects.pop()) if subjects else Pause.NONE

    @property
    def pins(self) -> tuple[Pin, ...]:
        """Pools that are held at a count."""
        pins = self._of(DirectiveKind.PIN)
        return tuple(Pin(pool=d.subject, replicas=int(d.value)) for d in pins)

    @property
    def mode(self) -> LoopMode | None:
        """The loop's mode; None: as the spec says."""
        return next((LoopMode(d.value) for d in self._of(DirectiveKind.MODE)), None)

    def over(self, spec: Spec) -> Spec:
        """The spec with the mode that was ordered."""
        if self.mode is None or self.mode is spec.loop.mode:
            return spec
        return replace(spec, loop=replace(spec.loop, mode=self.mode))

    def _of(self, kind: DirectiveKind) -> Iterable[Directive]:
        return (d for d in self.directives if d.kind is kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Who gives an order, when, why and for how long.

    Raises
    ------
    InputError
        When its time would be over before it begins.
    """

    by: str
    at: datetime
    until_at: datetime | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.until_at is not None and self.until_at <= self.at:
            raise InputError(
                f"until {self.until_at.isoformat()} is over already: it is {self.at.isoformat()}"
            )

    def directive(self, kind: DirectiveKind, subject: str = "", value: str = "") -> Directive:
        """The order as it is kept."""
        return Directive(
            kind=kind,
            subject=subject,
            value=value,
            reason=self.reason,
            set_by=self.by,
            set_at=self.at,
            until_at=self.until_at,
        )


def standing(deployment: "Deployment", *, now: datetime) -> Standing:
    """What holds now, for plans of whatever time."""
    at = max(now, deployment.clock())
    stored = deployment.store.directives(deployment.spec.name)
    return Standing(directives=stored.in_force(at=at))


def pause(deployment: "Deployment", what: Pause, word: Word) -> None:
    """Let nothing scale in, out, or either, until it is resumed."""
    stored = deployment.store.directives(deployment.spec.name)
    stored.put(word.directive(DirectiveKind.PAUSE, way) for way in _DIRECTIONS[what])


def resume(deployment: "Deployment", what: Pause, word: Word) -> None:
    """Take a pause back. What the spec itself pauses stays paused.

    Raises
    ------
    PlanStateError
        When the spec pauses it: only a changed spec resumes that.
    """
    stored = deployment.store.directives(deployment.spec.name)
    ended = stored.take_back(DirectiveKind.PAUSE, _DIRECTIONS[what], by=word.by, at=word.at)
    by_spec = deployment.spec.guards.pause
    if not ended and by_spec is not Pause.NONE:
        raise PlanStateError(
            f"the spec itself pauses scaling ({by_spec}): change guards.pause there and put it "
            "(`PUT /v1/deployments/{name}`), or restart with it"
        )


def pin(deployment: "Deployment", pool: str, replicas: int, word: Word) -> None:
    """Hold a pool at a count of replicas, whatever plans want.

    Raises
    ------
    InputError
        When the spec has no such pool, the count lies outside its bounds, or its accelerators
        cannot hold as many.
    """
    known = {bounds.shape.label: bounds for bounds in deployment.spec.pools}
    if pool not in known:
        raise InputError(f"no pool {pool} in the spec; it has {', '.join(sorted(known))}")
    bounds = known[pool]
    most = bounds.max_replicas
    if replicas < bounds.min_replicas or (most is not None and replicas > most):
        raise InputError(
            f"{pool} cannot be pinned to {counted(replicas, 'replica')}: the spec bounds it to "
            f"{bounds.min_replicas} .. {'any' if most is None else most}"
        )
    _check_room(deployment.spec, bounds.shape, replicas)
    stored = deployment.store.directives(deployment.spec.name)
    stored.put([word.directive(DirectiveKind.PIN, pool, str(replicas))])


def _check_room(spec: Spec, shape: ReplicaShape, replicas: int) -> None:
    """Refuse a count that no fleet could have, whatever else runs."""
    takes, accelerator = replicas * shape.accelerators, spec.accelerator(shape.accelerator)
    whole_spec = spec.guards.max_accelerators
    if takes > accelerator.available:
        has = f"the spec's inventory has {accelerator.available}"
        room = accelerator.available
    elif whole_spec is not None and takes > whole_spec:
        has = f"guards.max_accelerators allows {whole_spec} in all"
        room = whole_spec
    else:
        return
    raise InputError(
        f"{shape.label} cannot be pinned to {counted(replicas, 'replica')}: they take {takes} "
        f"{shape.accelerator}, and {has}: pin it to {room // shape.accelerators} or fewer, or "
        "change the spec first"
    )


def unpin(deployment: "Deployment", pool: str, word: Word) -> None:
    """Take a pin back.

    Raises
    ------
    PlanStateError
        When nobody pinned it at run time, but the spec does.
    """
    stored = deployment.store.directives(deployment.spec.name)
    ended = stored.take_back(DirectiveKind.PIN, [pool], by=word.by, at=word.at)
    if not ended and any(p.pool == pool for p in deployment.spec.guards.pins):
        raise PlanStateError(
            f"the spec itself pins {pool}: change guards.pins there and put it "
            "(`PUT /v1/deployments/{name}`), restart with it, or pin it to another count"
        )


def set_mode(deployment: "Deployment", mode: LoopMode | None, word: Word) -> None:
    """Let the loop's mode be this one; None: as the spec says."""
    stored = deployment.store.directives(deployment.spec.name)
    if mode is None:
        stored.take_back(DirectiveKind.MODE, [""], by=word.by, at=word.at)
    else:
        stored.put([word.directive(DirectiveKind.MODE, value=mode.value)])


def end_those_over(deployment: "Deployment", *, now: datetime) -> None:
    """Take out directives whose time is over, and tell the audit log."""
    at = max(now, deployment.clock())
    deployment.store.directives(deployment.spec.name).end_those_over(at=at, by=LOOP)

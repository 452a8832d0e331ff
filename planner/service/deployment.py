"""One deployment as the service sees it: its spec, its eyes, its hands, its memory."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from actuators.actuator import Actuator
from actuators.kubernetes.stock_out import with_usable_inventory
from forecaster.memory import Memory
from planner.domain.calibration import Correction
from planner.domain.fleet import Role
from planner.domain.guards import Pin
from planner.domain.plan import Plan
from planner.domain.rollout import ApprovalState, GuardFinding, StepKind, Verdict
from planner.domain.spec import Spec, TargetKind
from planner.domain.wording import counted
from planner.domain.workload import ObservedWindow
from planner.rollout import BrokenPool, Change, GuardConditions, HandEdit, Recommended
from planner.service.loop.calibrating import corrections_of
from planner.service.loop.directives import standing
from planner.service.loop.stages import Stages
from planner.service.store import DecisionRecord, PlanRecord, Store
from planner.service.store.directives import Directive
from planner.service.telemetry.tracing import SpanOf, no_span
from serving.telemetry.signals import DeploymentSignals

LONGEST_HISTORY = 5_000
"""Windows of each class that a forecast looks back on; at 5 minutes each more than two weeks.
More than the steps that `forecaster.panel` looks back on: cut shorter, it would learn all anew."""
_MOVED = (
    ApprovalState.APPLYING,
    ApprovalState.APPLIED,
    ApprovalState.FAILED,
    ApprovalState.ROLLING_BACK,
    ApprovalState.ROLLED_BACK,
)
MOST_RECENT, MOST_EVER = 50, 12_800
"""Rollouts looked back on for the rate limits: so many, and more while they all lie in the longest
period of one, up to the second."""
LONGEST_BACKOFF_S = 86_400.0
"""What does not start is tried once a day at least, seconds."""
LONGEST_RUN = 1_000
"""Decisions looked back on to find what was wanted lately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen of the load.

    Parameters
    ----------
    windows : tuple of ObservedWindow
        Oldest first; empty when nothing was ever seen, which is not zero load.
    observed_at : datetime or None
        Until when the load is known.
    """

    windows: tuple[ObservedWindow, ...]
    observed_at: datetime | None


class Observer(Protocol):
    """Where observed load comes from: the store, or a live telemetry."""

    def observe(self, *, now: datetime) -> Observation:
        """What was seen of the load until `now`."""
        ...


def utc_now() -> datetime:
    """The clock of the service."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Everything that a tick needs.

    Parameters
    ----------
    model : str
        The model that is planned (version 1 plans one).
    clock : callable
        Gives the instant at which something ended.
    leads : callable
        Whether this process is the one that may move the fleet.
    running : list of str
        Ids of plans that this process is moving the fleet for.
    orders : tuple of Directive, or None
        Of people, in force when a tick or a change of the fleet began; None: none has begun.
    memory : Memory
        What forecasts have learned so far, so that a tick only takes the new windows.
    stages : Stages
        Runs the stages of ticks.
    readings : callable
        What was read of the running deployment since it was asked last; each is given once.
    span : callable
        Opens a span around a stage of a tick.
    """

    spec: Spec
    model: str
    observer: Observer
    actuator: Actuator
    store: Store
    clock: Callable[[], datetime] = utc_now
    leads: Callable[[], bool] = lambda: True
    memory: Memory = field(default_factory=Memory)
    stages: Stages = field(default_factory=Stages)
    readings: Callable[[], tuple[DeploymentSignals, ...]] = tuple
    span: SpanOf = no_span
    running: list[str] = field(default_factory=list)
    orders: tuple[Directive, ...] | None = None

    def later(self, now: datetime) -> datetime:
        """When a tick that began at `now` writes something: what it did before took time."""
        return max(now, self.clock())

    def plannable(self, *, now: datetime) -> Spec:
        """The spec as plans are made for it.

        As people ordered, without the accelerators that the target could not have lately, and with
        profiles as their replicas are seen to be.
        """
        found = self.store.stock_outs(self.spec.name, at=now)
        spec = standing(self, now=now).over(self.spec)
        usable = with_usable_inventory(spec, found, now=now)
        return usable.corrected(self.corrections())

    def moving(self) -> PlanRecord | None:
        """The plan that is applied, or rolled back, at present."""
        states = [state for state in ApprovalState if state.moves]
        return next(iter(self.store.plans(self.spec.name, limit=1, states=states)), None)

    def corrections(self) -> tuple[Correction, ...]:
        """How the profiles are corrected by what their replicas are seen to do."""
        known = corrections_of(self.store.calibrations(self.spec.name).all())
        return tuple(replace(c, factor=self.spec.calibration.bounded(c.factor)) for c in known)

    def as_ordered(self, *, now: datetime) -> "Deployment":
        """The same deployment with the loop's mode that a person ordered at run time."""
        known = self.knowing_orders()
        return replace(known, spec=standing(self, now=now).over(self.spec))

    def knowing_orders(self) -> "Deployment":
        """The same deployment with the orders that are kept now: later ones are new to it."""
        return replace(self, orders=self.store.directives(self.spec.name).kept())

    def notes(self, *, now: datetime) -> tuple[GuardFinding, ...]:
        """What should be known of a plan that is made now: shortages, and hands of others."""
        edits = tuple(
            GuardFinding(
                guard="changed_by_others",
                verdict=Verdict.NOTE,
                reason=f"{edit.pool} was changed from {edit.was} to "
                f"{counted(edit.found, 'replica')} by somebody else, seen at {edit.at:%H:%M} UTC",
            )
            for edit in _edits(self)
        )
        return (*self.shortages(now=now), *edits)

    def shortages(self, *, now: datetime) -> tuple[GuardFinding, ...]:
        """What `plannable` leaves out, to be told with a plan."""
        return tuple(
            GuardFinding(
                guard="stock_out",
                verdict=Verdict.NOTE,
                reason=f"no more than {found.usable} {found.accelerator} could be had: plans count "
                f"on no more until {found.until_at:%H:%M} UTC",
            )
            for found in self.store.stock_outs(self.spec.name, at=now)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreObserver:
    """Windows that were handed in through the API."""

    store: Store
    deployment: str
    model: str

    def observe(self, *, now: datetime) -> Observation:
        """The stored windows that ended by `now`."""
        stored = self.store.windows(self.deployment, self.model, limit=LONGEST_HISTORY)
        windows = tuple(s.window for s in stored if s.window.end_at <= now)
        ended = max((window.end_at for window in windows), default=None)
        return Observation(windows=windows, observed_at=ended)


def guard_conditions(
    deployment: Deployment, observation: Observation, *, now: datetime
) -> GuardConditions:
    """What the guards need to know beside the diff."""
    store, spec = deployment.store, deployment.spec
    ordered = standing(deployment, now=now)
    decisions = store.decisions(spec.name, limit=LONGEST_RUN)
    lately = recommended_lately(decisions, now=now, within_s=spec.guards.scale_down_stabilization_s)
    moved: tuple[PlanRecord, ...] = ()
    if spec.target is not TargetKind.DRY_RUN:
        moved = _moved_lately(deployment, now=now)
    return GuardConditions(
        now=now,
        observed_at=observation.observed_at,
        recommended=lately,
        recommended_since=lately[-1].at if lately else None,
        edits=_edits(deployment),
        broken=_broken(deployment),
        idle_since=_idle_since(observation),
        paused=ordered.paused,
        pins=ordered.pins,
        recent=tuple(change for record in moved for change in _changes(record)),
        last_plan=_last_plan(moved),
        leader=deployment.leads(),
        can_flip=spec.target not in (TargetKind.KUBERNETES, TargetKind.METRICS),
    )


def _moved_lately(deployment: Deployment, *, now: datetime) -> tuple[PlanRecord, ...]:
    """Plans that moved the fleet, newest first: those that a rate limit counts, and some more."""
    guards, limit = deployment.spec.guards, MOST_RECENT
    longest_s = max(guards.scale_up.period_s, guards.scale_down.period_s)
    since = now - timedelta(seconds=longest_s)
    while True:
        moved = deployment.store.plans(deployment.spec.name, limit=limit, states=_MOVED)
        if len(moved) < limit or moved[-1].created_at < since or limit >= MOST_EVER:
            return moved
        limit *= 4


def _idle_since(observation: Observation) -> datetime | None:
    """The end of the last window in which something arrived, of those before the first one."""
    busy = [w.end_at for w in observation.windows if w.requests > 0]
    begun = [w.start_at for w in observation.windows]
    return max(busy, default=min(begun, default=None))


def _changes(record: PlanRecord) -> list[Change]:
    """What a rollout did to every role; all of its steps count, done or not.

    But taking back what never came removes nothing.
    """
    steps = record.diff.steps
    return [
        Change(
            at=record.approval.changed_at,
            role=role,
            added=sum(
                (s.kind is StepKind.START and s.shape.role is role)
                or (s.to_shape is not None and s.to_shape.role is role)
                for s in steps
            ),
            removed=max(
                0,
                sum(
                    s.kind in (StepKind.DRAIN, StepKind.FLIP) and s.shape.role is role
                    for s in steps
                )
                - sum(p.stuck for p in record.diff.from_fleet.pools if p.role is role),
            ),
        )
        for role in Role
    ]


def _last_plan(moved: tuple[PlanRecord, ...]) -> Plan | None:
    """The plan that was applied last; none when a later rollout broke off."""
    newest = max(moved, key=lambda record: record.revision, default=None)
    if newest is None or newest.approval.state is not ApprovalState.APPLIED:
        return None
    return newest.plan


def recommended_lately(
    newest_first: tuple[DecisionRecord, ...], *, now: datetime, within_s: float
) -> tuple[Recommended, ...]:
    """What decisions wanted within a time, newest first, and what still counted when it began.

    Of equal ones that follow each other the first is kept: it says since when.
    """
    found: list[Recommended] = []
    for decision in newest_first:
        if decision.wanted is None or decision.decided_at > now:
            continue
        pools = tuple(Pin(pool=label, replicas=n) for label, n in sorted(decision.wanted.items()))
        if found and found[-1].pools == pools:
            found.pop()
        found.append(Recommended(at=decision.decided_at, pools=pools))
        if (now - decision.decided_at).total_seconds() >= within_s:
            break
    return tuple(found)


def _edits(deployment: Deployment) -> tuple[HandEdit, ...]:
    return tuple(
        HandEdit(pool=one.pool, at=one.edited_at, was=one.edited_from, found=one.replicas)
        for one in deployment.store.known_pools(deployment.spec.name).values()
        if one.edited_at is not None and one.edited_from is not None
    )


def _broken(deployment: Deployment) -> tuple[BrokenPool, ...]:
    """What did not start, each with the time until which it is not tried again."""
    first_s = deployment.spec.guards.broken_backoff_s
    found = []
    for one in deployment.store.known_pools(deployment.spec.name).values():
        if one.broken is None or first_s <= 0:
            continue
        times = one.broken.times
        wait_s = min(first_s * 2.0 ** min(times - 1, 30), max(first_s, LONGEST_BACKOFF_S))
        until = one.broken.at + timedelta(seconds=wait_s)
        why = one.broken.why
        found.append(BrokenPool(pool=one.pool, times=times, until=until, why=why))
    return tuple(found)

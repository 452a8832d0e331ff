"""A diff on its way through the target, there or back: one at a time, every step of it kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from actuators.actuator import carry_out
from actuators.kubernetes.stock_out import StockOutError
from actuators.kubernetes.templates import BrokenTemplateError
from planner import rollout
from planner.domain.errors import (
    DeadlineMissedError,
    PlanStateError,
    PoolwiseError,
    StalePlanError,
)
from planner.domain.fleet import Fleet
from planner.domain.guards import Pause
from planner.domain.rollout import Approval, ApprovalState, Diff, Step, StepKind, Verdict
from planner.domain.spec import LoopMode, TargetKind
from planner.domain.wording import counted
from planner.service.deployment import Deployment
from planner.service.documents import diff_of
from planner.service.fleet import known_fleet
from planner.service.store import BegunStep, PlanRecord
from planner.service.store.directives import Directive, DirectiveKind
from planner.service.store.in_force import check_step

DRY_RUN = "dry run"
"""How the reason of a plan begins that was applied to a target of which nothing is changed."""
POLICY = "policy"
"""Who approves where the spec lets no person decide."""
_DIRECTIONS: Mapping[StepKind, frozenset[str]] = {
    StepKind.START: frozenset({Pause.OUT}),
    StepKind.FLIP: frozenset({Pause.IN, Pause.OUT}),
    StepKind.ROUTE: frozenset(),
    StepKind.DRAIN: frozenset({Pause.IN}),
    StepKind.STOP: frozenset({Pause.IN}),
}
"""Where the fleet's capacity goes by a step; in: away."""
SETTLER = "serve"
"""Who settles what a process that is gone has left."""


class Move(Protocol):
    """An approval step of `planner.rollout`, such as approve or begin."""

    def __call__(
        self, approval: Approval, /, *, by: str, at: datetime, reason: str = ""
    ) -> Approval:
        """The state that follows; PlanStateError when it cannot follow."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What differs between applying a plan and rolling it back.

    Parameters
    ----------
    doing : str
        What becomes of a plan on this way.
    told : str
        Put before the reason where it fails.
    again : str
        What a person does to complete it.
    """

    begin: Move
    finish: Move
    doing: str
    told: str
    again: str


THERE = Way(
    begin=rollout.begin,
    finish=rollout.finish,
    doing="applied",
    told="",
    again="apply again to complete it",
)
BACK = Way(
    begin=rollout.begin_back,
    finish=rollout.roll_back,
    doing="rolled back",
    told="the rollback stopped: ",
    again="roll back again to complete it",
)


def carry(
    deployment: Deployment,
    plan_id: str,
    diff: Diff,
    way: Way,
    *,
    by: str,
    at: datetime,
    because: str = "",
    revision: int | None = None,
) -> None:
    """Begin, take step after step, and finish or fail; whatever happens is kept with the plan.

    Parameters
    ----------
    because : str
        Put before the reason of every state.
    revision : int or None
        The plan must still be in this state when it begins; None: in any that allows it.

    Raises
    ------
    PlanStateError, PlanChangedError
        When another plan is on its way, or this one may not begin; nothing was touched.
    StalePlanError, ApplyError
        As `carry_out`.
    """
    settle_interrupted(deployment, at=at)
    deployment.running.append(plan_id)
    try:
        _Run(deployment, plan_id, diff, way, by, because, revision).carry(at)
    finally:
        deployment.running.remove(plan_id)


def under_way(deployment: Deployment) -> str:
    """What moves the fleet at present, and how far it is; empty: nothing."""
    record = deployment.moving()
    if record is None:
        return ""
    plan_id, state = record.plan.plan_id, record.approval.state.replace("_", " ")
    begun = [step.what for step in deployment.store.steps(plan_id) if step.under_way]
    return f"plan {plan_id} is {state}: {begun[-1] if begun else record.approval.reason}"


def touched(deployment: Deployment, plan_id: str) -> bool:
    """Whether a step of the plan was ever begun; of plans of earlier versions nobody knows."""
    return bool(deployment.store.steps(plan_id))


def settle_interrupted(deployment: Deployment, *, at: datetime) -> None:
    """Find the plan that a process which is gone left on its way, and say how far it came.

    Where the fleet is where the plan led, it is finished; else it failed at the step that was
    begun last. Nothing is moved. Only the leader does so: others do not know who still lives.
    """
    if not deployment.leads():
        return
    record = deployment.moving()
    if record is not None and record.plan.plan_id not in deployment.running:
        _settle(deployment, record, at=at)


def _settle(deployment: Deployment, record: PlanRecord, *, at: datetime) -> None:
    approval = record.approval
    way = THERE if approval.state is ApprovalState.APPLYING else BACK
    move, reason = _what_became_of(deployment, record, way, at=at)

    def change(now: Approval) -> Approval:
        if now != approval:
            return now  # it was not interrupted: whoever moves it has gone on
        return move(now, by=SETTLER, at=at, reason=reason)

    deployment.store.change_approval(record.plan.plan_id, change, action=f"plan.{_name(move)}")


def _what_became_of(
    deployment: Deployment, record: PlanRecord, way: Way, *, at: datetime
) -> tuple[Move, str]:
    try:
        fleet = known_fleet.read(deployment)
        missing = _missing(deployment, record, fleet, way)
        known_fleet.left_behind(deployment, missing, at=at)
    except PoolwiseError as error:
        now = f"what the fleet is now is not known ({error})"
    else:
        if not missing.steps:
            return way.finish, "the service stopped meanwhile; the fleet is where it was to be"
        now = f"the fleet is now {_told(fleet)}"
    steps = [step for step in deployment.store.steps(record.plan.plan_id) if step.under_way]
    begun = f"failed at {steps[-1].what}" if steps else "failed before its first step"
    stopped = f"the service stopped while it was being {way.doing}"
    return rollout.fail, f"{way.told}{begun}: {stopped}; {now}; {way.again}"


def _missing(deployment: Deployment, record: PlanRecord, fleet: Fleet, way: Way) -> Diff:
    spec = deployment.spec
    agreed = diff_of(record.diff, spec=spec, read_at=fleet.read_at)
    ends = rollout.led_to if way is THERE else rollout.led_from
    wanted = ends(agreed, model=record.plan.model)
    return rollout.diff_to(fleet, wanted, spec, can_flip=spec.target is not TargetKind.KUBERNETES)


def _told(fleet: Fleet) -> str:
    """The fleet as people read it: `decode:h100:tp1 2 ready, 1 starting`."""
    pools = []
    for pool in fleet.pools:
        states = {"starting": pool.starting, "draining": pool.draining}
        more = "".join(f", {count} {state}" for state, count in states.items() if count)
        pools.append(f"{pool.shape.label} {pool.ready} ready{more}")
    return "; ".join(pools) or "empty"


def _told_clamps(record: PlanRecord) -> str:
    """What differs from the plan: pins, which were applied, and what was held back."""
    clamps = [f for f in record.findings if f.verdict is Verdict.CLAMP]
    pins = [f.reason for f in clamps if f.guard == "pinned"]
    held = [f"{f.guard}: {f.reason}" for f in clamps if f.guard != "pinned"]
    told = [f"pins that counted: {'; '.join(pins)}"] if pins else []
    told += [f"held back from the plan: {'; '.join(held)}"] if held else []
    return "".join(f"; {part}" for part in told)


def _name(move: Move) -> str:
    return str(getattr(move, "__name__", "change"))


@dataclass(slots=True)
class _Run:
    """One way of one plan.

    It ends where the plan is no longer in the state that it was left in: another process has taken
    over, and no step may be applied by two.
    """

    deployment: Deployment
    plan_id: str
    diff: Diff
    way: Way
    by: str
    because: str
    revision: int | None

    def carry(self, at: datetime) -> None:
        record = self.deployment.store.plan(self.plan_id)
        before = record.approval
        count = len(self.diff.steps)
        last = self._append(
            None, self.way.begin, at=at, reason=f"{self.because}{counted(count, 'step')}"
        )

        begun = done = 0

        def tell(step: Step, event: str) -> None:
            nonlocal begun, done
            if event == "begun":
                self._begin_step(last, step)
                begun += 1
            else:
                done += 1

        try:
            carry_out(self.deployment.actuator, self.diff, tell=tell)
        except BaseException as error:
            self._fail(before, last, error, range(done, begun))
            raise
        now = self.deployment.clock()
        known_fleet.left_by(self.deployment, self.diff, range(done, begun), late=False, at=now)
        reason = f"{counted(count, 'step')} done{_told_clamps(record)}"
        if self.way is BACK:
            reason = f"{self.because}rolled back by {counted(count, 'step')}"
        elif self.deployment.spec.target is TargetKind.DRY_RUN:
            reason = f"{DRY_RUN}: {counted(count, 'step')} shown, nothing was changed"
        self._append(last, self.way.finish, at=now, reason=reason)

    def _begin_step(self, last: Approval, step: Step) -> None:
        number, now = step.index + 1, self.deployment.clock()
        what = f"step {number} of {len(self.diff.steps)} ({step.kind} {step.shape.label})"
        begun = BegunStep(number=number, begun_at=now, what=what)
        name, orders = self.deployment.spec.name, self.deployment.orders or ()
        self.deployment.store.begin_step(
            last,
            begun,
            allowed=lambda connection: check_step(
                connection, name, orders, lambda order: self._is_against(order, step)
            ),
        )

    def _is_against(self, order: Directive, step: Step) -> bool:
        """Whether an order, given after this was decided, forbids the step.

        A pause forbids its direction. Mode off stops what the loop moves, not what a person does.
        A replica that was drained here is stopped all the same: it serves nothing any more.
        """
        if step.kind is StepKind.STOP and self._is_drained(step):
            return False
        if order.kind is DirectiveKind.PAUSE:
            return order.subject in _DIRECTIONS[step.kind]
        off = order.kind is DirectiveKind.MODE and order.value == LoopMode.OFF
        return off and self.by == POLICY

    def _is_drained(self, stop: Step) -> bool:
        """Whether more of its replicas were drained before than stopped."""
        before = [
            step.kind
            for step in self.diff.steps
            if step.index < stop.index and (step.shape, step.cell) == (stop.shape, stop.cell)
        ]
        return before.count(StepKind.DRAIN) > before.count(StepKind.STOP)

    def _fail(self, before: Approval, last: Approval, error: BaseException, steps: range) -> None:
        store, now = self.deployment.store, self.deployment.clock()
        if isinstance(error.__cause__, StockOutError):
            found = error.__cause__.stock_out
            store.add_stock_out(self.deployment.spec.name, found, at=now, actor=self.by)
        if store.plan(self.plan_id).approval != last:
            return  # who has taken over says what became of it
        late = isinstance(error.__cause__, DeadlineMissedError | StockOutError)
        cause = error.__cause__
        broken = cause if isinstance(cause, BrokenTemplateError) else None
        known_fleet.left_by(self.deployment, self.diff, steps, late=late, at=now, broken=broken)
        stale = isinstance(error, StalePlanError) and before.state is ApprovalState.APPROVED
        move: Move = rollout.supersede if stale else rollout.fail
        reason = f"{self.because}{self.way.told}{str(error) or type(error).__name__}"
        self._append(last, move, at=now, reason=reason)

    def _append(self, last: Approval | None, move: Move, *, at: datetime, reason: str) -> Approval:
        """The state that follows the one that this run left; None: it begins."""

        def change(approval: Approval) -> Approval:
            if last is not None and approval != last:
                raise PlanStateError(
                    f"plan {self.plan_id} was taken over by {approval.changed_by} and is "
                    f"{approval.state} ({approval.reason})"
                )
            return move(approval, by=self.by, at=at, reason=reason)

        return self.deployment.store.change_approval(
            self.plan_id,
            change,
            action=f"plan.{_name(move)}",
            revision=self.revision if last is None else None,
            orders=self.deployment.orders if last is None and self.by == POLICY else None,
        )

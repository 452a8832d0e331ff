"""The control loop: one tick reads top to bottom in the order of the data."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from planner import rollout
from planner.autoscale import keeping_what_waits
from planner.autoscale.slow import Decision
from planner.domain.errors import (
    EndingError,
    OvertakenError,
    PoolwiseError,
    StageOverrunError,
    StoreError,
)
from planner.domain.fleet import Fleet
from planner.domain.forecast import Forecast
from planner.domain.guards import Fallback
from planner.domain.plan import PlanStatus
from planner.domain.rollout import ApprovalState
from planner.domain.spec import LoopMode, Spec, Stage
from planner.domain.wording import counted
from planner.domain.workload import ObservedWindow
from planner.rollout import GuardConditions
from planner.service.answers.planning import expected_demand
from planner.service.deployment import (
    LONGEST_RUN,
    Deployment,
    Observation,
    guard_conditions,
)
from planner.service.documents import diff_document
from planner.service.documents.rollout import StepDocument
from planner.service.fleet.held import forbidden, held_back
from planner.service.fleet.known_fleet import look
from planner.service.fleet.lifecycle import (
    apply,
    approve,
    expire_old,
    propose,
    waiting,
)
from planner.service.fleet.rollouts import POLICY, settle_interrupted, under_way
from planner.service.loop.calibrating import calibrate
from planner.service.loop.directives import end_those_over
from planner.service.loop.falling_back import fall_back
from planner.service.loop.forecast_outcomes import take_outcomes
from planner.service.loop.replaying import Question, recorded
from planner.service.loop.stages import Course
from planner.service.store import DecisionRecord, ForecastOutcome, PlanRecord

LOG = logging.getLogger("poolwise.loop")


class Outcome(StrEnum):
    """What a tick came to."""

    OFF = "off"
    NO_DATA = "no_data"
    FELL_BACK = "fell_back"
    UNCHANGED = "unchanged"
    INFEASIBLE = "infeasible"
    ADVISED = "advised"
    PENDING = "pending"
    HELD = "held"
    APPLIED = "applied"
    APPLYING = "applying"
    FAILED = "failed"


GOOD = frozenset(
    outcome.value
    for outcome in Outcome
    if outcome not in (Outcome.NO_DATA, Outcome.FELL_BACK, Outcome.INFEASIBLE, Outcome.FAILED)
)
"""Outcomes of ticks that came to a decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a tick expects, what it saw, and what came of what earlier ticks expected."""

    forecast: Forecast
    windows: tuple[ObservedWindow, ...]
    observed_at: datetime
    observation: Observation
    outcomes: tuple[ForecastOutcome, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TickReport:
    """What a tick came to, and why.

    Parameters
    ----------
    decision : Decision or None
        None when no plan could be made.
    seen : Seen or None
        None when nothing was observed, or it could not be forecast.
    failed_stage : Stage or None
        Where the tick failed or a stage overran its deadline.
    took_s : mapping of Stage to float
        How long each stage was waited for, seconds.
    parts : mapping of str to str
        What the decision was made from, to be kept with it.
    stored_as : str
        Id of the stored plan that stands for the decision, where it is another than its own:
        asked for earlier, or proposed once more. Empty: its own.
    """

    outcome: Outcome
    reason: str
    decision: Decision | None = None
    seen: Seen | None = None
    failed_stage: Stage | None = None
    took_s: Mapping[Stage, float] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict, repr=False)
    stored_as: str = ""

    @property
    def plan_id(self) -> str | None:
        """Of the plan that the decision is about; None when no plan could be made."""
        if self.stored_as:
            return self.stored_as
        return None if self.decision is None else self.decision.plan.plan_id


def tick(deployment: Deployment, *, now: datetime) -> TickReport:
    """Compare -> observe -> forecast -> plan -> simulate -> diff -> guard -> approve -> apply.

    Whatever goes wrong becomes a report that names the stage: the fleet stays as it is, and the
    last good decision counts. Orders of people come first (`planner.service.loop.directives`).
    """
    way = _Way(Course(deployment.stages, deployment.spec.loop.deadlines, deployment.span))
    with deployment.span("tick") as told:
        report = _whole_tick(deployment, way, now=now)
        told |= {"poolwise.deployment": deployment.spec.name, "poolwise.outcome": report.outcome}
        if report.plan_id is not None:
            told["poolwise.plan_id"] = report.plan_id
        if report.outcome is Outcome.FAILED:
            told["error"] = report.reason
    return report


def _whole_tick(deployment: Deployment, way: "_Way", *, now: datetime) -> TickReport:
    try:
        end_those_over(deployment, now=now)
        deployment = deployment.as_ordered(now=now)
        if deployment.spec.loop.mode is LoopMode.OFF:
            return TickReport(outcome=Outcome.OFF, reason="the loop's mode is off")
        settle_interrupted(deployment, at=now)
        expire_old(deployment, at=now)
        _compare(deployment, now=now)
        way.seen = _look(deployment, way.course, now=now)
        report = _tick(deployment, way, now=now)
    except (OvertakenError, EndingError) as late:
        report = TickReport(outcome=Outcome.HELD, reason=str(late), decision=way.decision)
    except PoolwiseError as error:
        report = _failed(deployment, way, str(error))
    except Exception as error:  # a fault of ours: the loop lives on, the log has the traceback
        LOG.exception("a tick of %s failed unexpectedly", deployment.spec.name)
        report = _failed(deployment, way, f"unexpected {type(error).__name__}: {error}")
    report = replace(report, seen=way.seen, took_s=dict(way.course.took_s), parts=way.parts)
    return _remember(deployment, report, now=now)


@dataclass(slots=True)
class _Way:
    """What a tick has come to so far, also where it ends in an error."""

    course: Course
    seen: Seen | None = None
    decision: Decision | None = None
    parts: Mapping[str, str] = field(default_factory=dict)

    def decide(self, question: Question) -> Decision:
        """The decision; what it was made from is kept, whatever comes out."""
        try:
            decision = self.course.run(Stage.PLAN, question.decide)
        except (StageOverrunError, EndingError):
            raise  # no answer that could be compared
        except PoolwiseError as error:
            self.parts = recorded(question, error)
            raise
        self.parts = recorded(question, decision)
        return decision


def _failed(deployment: Deployment, way: _Way, error: str) -> TickReport:
    """What went wrong and where, and what counts instead."""
    stage = way.course.stage
    if stage in (None, Stage.APPLY):  # a plan that failed on its way says itself what to do
        return TickReport(
            outcome=Outcome.FAILED, reason=error, decision=way.decision, failed_stage=stage
        )
    reason = f"{error} (stage {stage}); {_last_good(deployment)}"
    return TickReport(outcome=Outcome.FAILED, reason=reason, failed_stage=stage)


def _last_good(deployment: Deployment) -> str:
    """The decision that counts while none can be made."""
    try:
        records = deployment.store.decisions(deployment.spec.name, limit=LONGEST_RUN)
        good = next((r for r in records if r.plan_id and r.outcome in GOOD), None)
    except StoreError:
        return "the fleet stays as it is"
    if good is None:
        return "nothing was decided before: the fleet stays as it is"
    return (
        f"what was decided at {good.decided_at:%Y-%m-%d %H:%M:%S} UTC counts: plan {good.plan_id}, "
        f"{good.outcome}"
    )


def _compare(deployment: Deployment, *, now: datetime) -> None:
    """Hold what was predicted against what was seen since the last tick; both are kept."""
    with deployment.span("compare"):
        calibrate(
            deployment.store, deployment.spec, deployment.model, deployment.readings(), now=now
        )


def _look(deployment: Deployment, course: Course, *, now: datetime) -> Seen | None:
    """Observe -> forecast, both kept; None when no load was observed yet."""
    spec, store = deployment.spec, deployment.store
    observation = course.run(Stage.OBSERVE, lambda: deployment.observer.observe(now=now))
    if observation.observed_at is None:
        return None
    outcomes = take_outcomes(
        store,
        spec.name,
        deployment.model,
        observation.windows,
        observed_at=observation.observed_at,
    )
    forecast = course.run(
        Stage.FORECAST,
        lambda: expected_demand(
            spec,
            observation.windows,
            model=deployment.model,
            made_at=now,
            memory=deployment.memory,
        ),
    )
    store.add_forecast(spec.name, forecast)
    return Seen(
        forecast=forecast,
        windows=observation.windows,
        observed_at=observation.observed_at,
        observation=observation,
        outcomes=outcomes,
    )


def _tick(deployment: Deployment, way: _Way, *, now: datetime) -> TickReport:
    seen = way.seen
    unseen = _fall_back(deployment, way, now=now)
    if unseen is not None:
        return unseen
    if seen is None:
        return TickReport(outcome=Outcome.NO_DATA, reason="no load was observed yet; nothing moves")
    spec = deployment.plannable(now=now)
    fleet = way.course.run(Stage.OBSERVE, lambda: look(deployment, at=now))

    # plan -> simulate -> diff -> guard: one pure function, the same in replay and benchmarks.
    conditions = _with_waiting(
        deployment, spec, fleet, guard_conditions(deployment, seen.observation, now=now)
    )
    decision = way.decide(
        Question(spec=spec, forecast=seen.forecast, fleet=fleet, conditions=conditions, now=now)
    )
    decision = replace(decision, findings=(*decision.findings, *deployment.notes(now=now)))
    way.decision = decision

    if decision.plan.status is PlanStatus.INFEASIBLE:
        reasons = decision.plan.relaxations or ("no fleet keeps the objectives",)
        short = [finding.reason for finding in deployment.shortages(now=now)]
        reason = "; ".join([*reasons, *short])
        return TickReport(outcome=Outcome.INFEASIBLE, reason=reason, decision=decision)
    report = _carry_on(deployment, way.course, decision, conditions, now=now)
    lowered = [f"not confirmed: {decision.lowered}"] if decision.lowered else []
    told = [report.reason, *lowered, *_told_edits(spec, conditions)]
    return replace(report, reason="; ".join(told))


def _with_waiting(
    deployment: Deployment, spec: Spec, fleet: Fleet, conditions: GuardConditions
) -> GuardConditions:
    """With what has to stay because of the work that waits, where it is known."""
    backlog = deployment.store.backlog(spec.name, deployment.model)
    return conditions if backlog is None else keeping_what_waits(conditions, spec, fleet, backlog)


def _told_edits(spec: Spec, conditions: GuardConditions) -> list[str]:
    """What somebody else has changed so lately that it is not changed back."""
    hold_s = spec.guards.hand_edit_hold_s
    return [
        f"{edit.pool} was changed from {edit.was} to {counted(edit.found, 'replica')} by "
        "somebody else"
        for edit in conditions.edits
        if (conditions.now - edit.at).total_seconds() < hold_s
    ]


def _fall_back(deployment: Deployment, way: _Way, *, now: datetime) -> TickReport | None:
    """Where the load was not seen for long, go where the spec says; None: plan as always."""
    observation = Observation(windows=(), observed_at=None)
    if way.seen is not None:
        observation = way.seen.observation
    if deployment.spec.guards.fallback is Fallback.CURRENT:
        return None
    fleet = way.course.run(Stage.OBSERVE, lambda: look(deployment, at=now))
    decision = fall_back(deployment, fleet, observation, now=now)
    if decision is None:
        return None
    conditions = guard_conditions(deployment, observation, now=now)
    conditions = replace(conditions, falling_back=True)
    report = _carry_on(deployment, way.course, decision, conditions, now=now)
    if report.outcome not in (Outcome.APPLIED, Outcome.UNCHANGED):
        return report
    reason = f"the load cannot be seen, so the fallback counts: {report.reason}"
    return replace(report, outcome=Outcome.FELL_BACK, reason=reason)


def _carry_on(
    deployment: Deployment,
    course: Course,
    decision: Decision,
    conditions: GuardConditions,
    *,
    now: datetime,
) -> TickReport:
    """Approve -> apply, where there is something to do."""
    if not decision.diff.steps:
        held = held_back(decision)
        if held:
            return TickReport(outcome=Outcome.HELD, reason=held, decision=decision)
        reason = "the fleet is what the plan wants"
        return TickReport(outcome=Outcome.UNCHANGED, reason=reason, decision=decision)

    others = under_way(deployment)
    if others:
        return TickReport(outcome=Outcome.HELD, reason=others, decision=decision)

    approved = _approve(deployment, decision, conditions, now=now)
    if isinstance(approved, TickReport):
        return approved

    at = deployment.later(now)
    try:
        course.run(Stage.APPLY, lambda: apply(deployment, approved, by=POLICY, at=at))
    except StageOverrunError as late:
        reason = f"plan {approved}: {late}; the rollout goes on, later ticks hold"
        return TickReport(
            outcome=Outcome.APPLYING,
            reason=reason,
            decision=decision,
            failed_stage=Stage.APPLY,
            stored_as=approved,
        )
    reason = f"plan {approved}: {counted(len(decision.diff.steps), 'step')}"
    return TickReport(outcome=Outcome.APPLIED, reason=reason, decision=decision, stored_as=approved)


def _approve(
    deployment: Deployment, decision: Decision, conditions: GuardConditions, *, now: datetime
) -> str | TickReport:
    """Id of the plan that is approved and to be applied, or why none is."""
    spec, at = deployment.spec, deployment.later(now)
    if spec.loop.mode is LoopMode.ADVISE:
        advised = propose(deployment, decision, by=POLICY, at=at, ask=False).plan.plan_id
        reason = f"plan {advised} is advice, nothing moves"
        return TickReport(
            outcome=Outcome.ADVISED, reason=reason, decision=decision, stored_as=advised
        )
    automatic = spec.loop.mode is LoopMode.AUTO or rollout.policy_approves(decision.diff, spec)
    if not automatic or rollout.persons_needed(decision.diff, spec) > 1:
        return _ask(deployment, decision, at=at)
    by_itself, by_person = (
        rollout.guard(decision.diff, spec, conditions, plan=decision.plan, automatic=automatic)
        for automatic in (True, False)
    )
    held = forbidden(by_itself)
    if held and not rollout.refused(by_person):
        return _ask(deployment, decision, at=at)
    if held:
        return TickReport(outcome=Outcome.HELD, reason=held, decision=decision)
    plan_id = propose(deployment, decision, by=POLICY, at=at).plan.plan_id
    approve(deployment, plan_id, by=POLICY, at=at, reason=f"loop mode {spec.loop.mode}")
    return plan_id


def _ask(deployment: Deployment, decision: Decision, *, at: datetime) -> str | TickReport:
    """Ask a person; id of the plan when one has said yes to the same change already."""
    asked = _already_asked(deployment, decision)
    if asked is None:
        asked = propose(deployment, decision, by=POLICY, at=at)
    if asked.approval.state is ApprovalState.APPROVED:
        return asked.plan.plan_id
    plan_id = asked.plan.plan_id
    reason = f"plan {plan_id} waits for approval"
    return TickReport(outcome=Outcome.PENDING, reason=reason, decision=decision, stored_as=plan_id)


def _already_asked(deployment: Deployment, decision: Decision) -> PlanRecord | None:
    """A waiting plan with the same steps from the same fleet: asking again would only annoy."""
    wanted = _what(diff_document(decision.diff).steps)
    for record in waiting(deployment):
        same_fleet = record.approval.fleet_version == decision.diff.from_fleet.version
        pending = record.approval.state in (ApprovalState.PENDING, ApprovalState.APPROVED)
        if pending and same_fleet and _what(record.diff.steps) == wanted:
            return record
    return None


def _what(steps: list[StepDocument]) -> list[tuple[object, ...]]:
    return [(step.kind, step.shape, step.to_shape, step.purchase_option) for step in steps]


def _remember(deployment: Deployment, report: TickReport, *, now: datetime) -> TickReport:
    """Keep what a tick did; the report says where that was not possible."""
    decision = report.decision
    record = DecisionRecord(
        deployment=deployment.spec.name,
        decided_at=now,
        plan_id=report.plan_id,
        outcome=report.outcome.value,
        reason=report.reason,
        wanted=None if decision is None else decision.plan.windows[0].by_label,
    )
    try:
        deployment.store.add_decision(record, report.parts, at=deployment.later(now))
    except PoolwiseError as error:
        return replace(report, reason=f"{report.reason}; this could not be kept: {error}")
    return report

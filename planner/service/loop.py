"""The control loop: one tick reads top to bottom in the order of the data."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from planner import rollout
from planner.autoscale.slow import Decision, decide
from planner.domain.errors import PoolwiseError
from planner.domain.forecast import Forecast
from planner.domain.guards import Fallback
from planner.domain.plan import PlanStatus
from planner.domain.rollout import ApprovalState
from planner.domain.spec import LoopMode
from planner.domain.workload import ObservedWindow
from planner.rollout import GuardConditions
from planner.service.calibrating import calibrate
from planner.service.deployment import Deployment, Observation, guard_conditions, takes_away
from planner.service.documents import diff_document
from planner.service.documents.rollout import StepDocument
from planner.service.falling_back import fall_back
from planner.service.forecast_outcomes import take_outcomes
from planner.service.lifecycle import (
    POLICY,
    apply,
    approve,
    expire_old,
    forbidden,
    held_back,
    propose,
    waiting,
)
from planner.service.planning import expected_demand
from planner.service.rollouts import settle_interrupted, under_way
from planner.service.store import DecisionRecord, ForecastOutcome, PlanRecord


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
    FAILED = "failed"


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
    """

    outcome: Outcome
    reason: str
    decision: Decision | None = None
    seen: Seen | None = None


def tick(deployment: Deployment, *, now: datetime) -> TickReport:
    """Compare -> observe -> forecast -> plan -> simulate -> diff -> guard -> approve -> apply.

    Whatever goes wrong on purpose (PoolwiseError) becomes a report: the fleet stays as it is.
    """
    if deployment.spec.loop.mode is LoopMode.OFF:
        return TickReport(outcome=Outcome.OFF, reason="the loop's mode is off")
    with deployment.span("tick") as told:
        report = _whole_tick(deployment, now=now)
        told |= {"poolwise.deployment": deployment.spec.name, "poolwise.outcome": report.outcome}
        if report.decision is not None:
            told["poolwise.plan_id"] = report.decision.plan.plan_id
        if report.outcome is Outcome.FAILED:
            told["error"] = report.reason
    return report


def _whole_tick(deployment: Deployment, *, now: datetime) -> TickReport:
    seen: Seen | None = None
    try:
        settle_interrupted(deployment, at=now)
        expire_old(deployment, at=now)
        _compare(deployment, now=now)
        seen = _look(deployment, now=now)
        report = _tick(deployment, seen, now=now)
    except PoolwiseError as error:
        report = TickReport(outcome=Outcome.FAILED, reason=str(error))
    report = replace(report, seen=seen)
    _remember(deployment, report, now=now)
    return report


def _compare(deployment: Deployment, *, now: datetime) -> None:
    """Hold what was predicted against what was seen since the last tick; both are kept."""
    with deployment.span("compare"):
        calibrate(
            deployment.store, deployment.spec, deployment.model, deployment.readings(), now=now
        )


def _look(deployment: Deployment, *, now: datetime) -> Seen | None:
    """Observe -> forecast, both kept; None when no load was observed yet."""
    spec, store = deployment.spec, deployment.store
    with deployment.span("observe"):
        observation = deployment.observer.observe(now=now)
    if observation.observed_at is None:
        return None
    outcomes = take_outcomes(
        store,
        spec.name,
        deployment.model,
        observation.windows,
        observed_at=observation.observed_at,
    )
    with deployment.span("forecast"):
        forecast = expected_demand(
            spec,
            observation.windows,
            model=deployment.model,
            made_at=now,
            memory=deployment.memory,
        )
    store.add_forecast(spec.name, forecast)
    return Seen(
        forecast=forecast,
        windows=observation.windows,
        observed_at=observation.observed_at,
        observation=observation,
        outcomes=outcomes,
    )


def _tick(deployment: Deployment, seen: Seen | None, *, now: datetime) -> TickReport:
    unseen = _fall_back(deployment, seen, now=now)
    if unseen is not None:
        return unseen
    if seen is None:
        return TickReport(outcome=Outcome.NO_DATA, reason="no load was observed yet; nothing moves")
    spec = deployment.plannable(now=now)
    fleet = deployment.actuator.read_fleet()

    # plan -> simulate -> diff -> guard: one pure function, the same in replay and benchmarks.
    conditions = guard_conditions(deployment, seen.observation, now=now)
    with deployment.span("plan"):
        decision = decide(spec, seen.forecast, fleet, now=now, conditions=conditions)
    shortages = deployment.shortages(now=now)
    decision = replace(decision, findings=(*decision.findings, *shortages))

    if decision.plan.status is PlanStatus.INFEASIBLE:
        reasons = decision.plan.relaxations or ("no fleet keeps the objectives",)
        reason = "; ".join([*reasons, *(finding.reason for finding in shortages)])
        return TickReport(outcome=Outcome.INFEASIBLE, reason=reason, decision=decision)
    return _carry_on(deployment, decision, conditions, now=now)


def _fall_back(deployment: Deployment, seen: Seen | None, *, now: datetime) -> TickReport | None:
    """Where the load was not seen for long, go where the spec says; None: plan as always."""
    observation = Observation(windows=(), observed_at=None) if seen is None else seen.observation
    if deployment.spec.guards.fallback is Fallback.CURRENT:
        return None
    fleet = deployment.actuator.read_fleet()
    decision = fall_back(deployment, fleet, observation, now=now)
    if decision is None:
        return None
    conditions = guard_conditions(deployment, observation, now=now)
    conditions = replace(conditions, falling_back=True)
    report = _carry_on(deployment, decision, conditions, now=now)
    if report.outcome not in (Outcome.APPLIED, Outcome.UNCHANGED):
        return report
    reason = f"the load cannot be seen, so the fallback counts: {report.reason}"
    return replace(report, outcome=Outcome.FELL_BACK, reason=reason)


def _carry_on(
    deployment: Deployment, decision: Decision, conditions: GuardConditions, *, now: datetime
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

    with deployment.span("apply"):
        apply(deployment, approved, by=POLICY, at=now)
    reason = f"plan {approved}: {len(decision.diff.steps)} steps"
    return TickReport(outcome=Outcome.APPLIED, reason=reason, decision=decision)


def _approve(
    deployment: Deployment, decision: Decision, conditions: GuardConditions, *, now: datetime
) -> str | TickReport:
    """Id of the plan that is approved and to be applied, or why none is."""
    spec, plan_id = deployment.spec, decision.plan.plan_id
    if spec.loop.mode is LoopMode.ADVISE:
        propose(deployment, decision, by=POLICY, at=now, ask=False)
        reason = f"plan {plan_id} is advice, nothing moves"
        return TickReport(outcome=Outcome.ADVISED, reason=reason, decision=decision)
    automatic = spec.loop.mode is LoopMode.AUTO or rollout.policy_approves(decision.diff, spec)
    if not automatic or rollout.persons_needed(decision.diff, spec) > 1:
        return _ask(deployment, decision, now=now)
    by_itself, by_person = (
        rollout.guard(decision.diff, spec, conditions, plan=decision.plan, automatic=automatic)
        for automatic in (True, False)
    )
    held = forbidden(by_itself)
    if held and not rollout.refused(by_person):
        return _ask(deployment, decision, now=now)
    if held:
        return TickReport(outcome=Outcome.HELD, reason=held, decision=decision)
    propose(deployment, decision, by=POLICY, at=now)
    approve(deployment, plan_id, by=POLICY, at=now, reason=f"loop mode {spec.loop.mode}")
    return plan_id


def _ask(deployment: Deployment, decision: Decision, *, now: datetime) -> str | TickReport:
    """Ask a person; id of the plan when one has said yes to the same change already."""
    asked = _already_asked(deployment, decision)
    if asked is None:
        asked = propose(deployment, decision, by=POLICY, at=now)
    if asked.approval.state is ApprovalState.APPROVED:
        return asked.plan.plan_id
    reason = f"plan {asked.plan.plan_id} waits for approval"
    return TickReport(outcome=Outcome.PENDING, reason=reason, decision=decision)


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


def _remember(deployment: Deployment, report: TickReport, *, now: datetime) -> None:
    decision = report.decision
    deployment.store.add_decision(
        DecisionRecord(
            deployment=deployment.spec.name,
            decided_at=now,
            plan_id=None if decision is None else decision.plan.plan_id,
            outcome=report.outcome.value,
            reason=report.reason,
            removes=decision is not None and takes_away(decision.recommended),
        )
    )

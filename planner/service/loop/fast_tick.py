"""The fast tick: between two slow ones, what waits is looked at; no forecast and no solver.

It does one thing at a time that can be taken back: the role of one replica is flipped, or as many
are started as are missing where more arrives than was expected. Guards, approval policy, store and
audit are those of the slow tick; what a person would have to approve is left to that one.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from planner import rollout
from planner.autoscale.fast import Reaction, react
from planner.autoscale.slow import Decision, guarded
from planner.domain.errors import OvertakenError, PoolwiseError, StageOverrunError
from planner.domain.fleet import Fleet
from planner.domain.rollout import Verdict
from planner.domain.spec import LoopMode, Stage
from planner.rollout import GuardConditions
from planner.service.deployment import Deployment, Observation, guard_conditions
from planner.service.fleet.held import forbidden
from planner.service.fleet.known_fleet import look
from planner.service.fleet.lifecycle import FAST_PREFIX, apply, approve, propose
from planner.service.fleet.rollouts import POLICY, under_way
from planner.service.loop.adjusted_plan import PoolOf, pools_of, with_replicas
from planner.service.loop.slow_tick import Outcome
from planner.service.loop.stages import Course
from planner.service.store import DecisionRecord

QUIET = frozenset({Outcome.OFF, Outcome.NO_DATA, Outcome.UNCHANGED})
"""Outcomes of fast ticks that nobody needs to be told of: there are too many of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FastReport:
    """What a fast tick came to, and why.

    Parameters
    ----------
    plan_id : str or None
        Of the plan that it applied.
    """

    outcome: Outcome
    reason: str
    reaction: Reaction | None = None
    plan_id: str | None = None


def fast_tick(deployment: Deployment, *, now: datetime) -> FastReport:
    """Look at what waits, and help where that is small, can be taken back and is allowed."""
    try:
        deployment = deployment.as_ordered(now=now)
        report = _tick(deployment, now=now)
        if report.plan_id is not None:
            _remember(deployment, report, now=now)
    except PoolwiseError as error:
        return FastReport(outcome=Outcome.FAILED, reason=str(error))
    return report


def _tick(deployment: Deployment, *, now: datetime) -> FastReport:
    spec, store = deployment.spec, deployment.store
    if spec.loop.mode in (LoopMode.OFF, LoopMode.ADVISE):
        return FastReport(outcome=Outcome.OFF, reason=f"the loop's mode is {spec.loop.mode}")
    backlog = store.backlog(spec.name, deployment.model)
    if backlog is None:
        return FastReport(outcome=Outcome.NO_DATA, reason="no backlog was handed in yet")
    course = Course(deployment.stages, spec.loop.deadlines)
    fleet = course.run(Stage.OBSERVE, lambda: look(deployment, at=now))
    observation = Observation(windows=(), observed_at=backlog.observed_at)
    conditions = _conditions(deployment, observation, now=now)
    reaction = react(
        deployment.plannable(now=now),
        fleet,
        backlog,
        now=now,
        forecast=store.newest_forecast(spec.name, deployment.model, by=now),
        can_flip=conditions.can_flip,
    )
    if reaction.flip is None and not reaction.starts:
        return FastReport(outcome=Outcome.UNCHANGED, reason=reaction.reason, reaction=reaction)
    return _carry_on(deployment, course, fleet, conditions, reaction, now=now)


def _conditions(
    deployment: Deployment, observation: Observation, *, now: datetime
) -> GuardConditions:
    """The backlog is what is seen; how the load differs from a plan's is not looked at."""
    return replace(guard_conditions(deployment, observation, now=now), last_plan=None)


def _carry_on(
    deployment: Deployment,
    course: Course,
    fleet: Fleet,
    conditions: GuardConditions,
    reaction: Reaction,
    *,
    now: datetime,
) -> FastReport:
    """Diff -> guard -> approve by policy -> apply."""
    decision = _decision(deployment, fleet, conditions, reaction, now=now)
    if decision is None:
        held = "no plan was made yet that says what the fleet is for"
    else:
        held = under_way(deployment) or _held(deployment, decision, conditions)
    if decision is None or held:
        told = f"{reaction.reason}; held: {held}"
        return FastReport(outcome=Outcome.HELD, reason=told, reaction=reaction)
    outcome, told, at = Outcome.APPLIED, reaction.reason, deployment.later(now)
    try:
        plan_id = propose(deployment, decision, by=POLICY, at=at).plan.plan_id
        approve(deployment, plan_id, by=POLICY, at=at, reason=f"fast tick: {reaction.reason}")
        course.run(Stage.APPLY, lambda: apply(deployment, plan_id, by=POLICY, at=at))
    except OvertakenError as overtaken:
        told = f"{reaction.reason}; held: {overtaken}"
        return FastReport(outcome=Outcome.HELD, reason=told, reaction=reaction)
    except StageOverrunError as late:
        outcome, told = Outcome.APPLYING, f"{reaction.reason}; {late}, it goes on"
    return FastReport(outcome=outcome, reason=told, reaction=reaction, plan_id=plan_id)


def _held(deployment: Deployment, decision: Decision, conditions: GuardConditions) -> str:
    """Why the change must not happen by itself now; empty: it may."""
    spec, diff = deployment.spec, decision.diff
    if not diff.steps:
        clamps = [f.reason for f in decision.findings if f.verdict is Verdict.CLAMP]
        return "; ".join(clamps) or "nothing of it may happen now"
    automatic = spec.loop.mode is LoopMode.AUTO or rollout.policy_approves(diff, spec)
    if not automatic or rollout.persons_needed(diff, spec) > 1:
        return "a person would have to approve it: left to the slow tick"
    judged = rollout.guard(diff, spec, conditions, plan=decision.plan, automatic=True)
    return forbidden(judged)


def _decision(
    deployment: Deployment,
    fleet: Fleet,
    conditions: GuardConditions,
    reaction: Reaction,
    *,
    now: datetime,
) -> Decision | None:
    """The newest plan with the reaction done to the fleet that runs; None: there is no plan."""
    spec = deployment.spec
    earlier = deployment.store.plans(spec.name, limit=1)
    if not earlier:
        return None
    pools = _after(pools_of(fleet, deployment.model), reaction)
    made = with_replicas(earlier[0].plan, fleet, pools, prefix=FAST_PREFIX, now=now)
    steps, findings = guarded(fleet, made, spec, conditions)
    recommended = rollout.diff(fleet, made, spec, can_flip=conditions.can_flip)
    return Decision(
        plan=made, diff=steps, findings=findings, recommendations=(), recommended=recommended
    )


def _after(pools: dict[PoolOf, int], reaction: Reaction) -> dict[PoolOf, int]:
    changed = dict(pools)
    flip = reaction.flip
    if flip is not None:
        changed[flip.shape, flip.purchase_option] -= 1
        to = (flip.to_shape, flip.purchase_option)
        changed[to] = changed.get(to, 0) + 1
    for start in reaction.starts:
        changed[start.shape, start.purchase_option] += start.replicas
    return changed


def _remember(deployment: Deployment, report: FastReport, *, now: datetime) -> None:
    plan = None if report.plan_id is None else deployment.store.plan(report.plan_id).plan
    deployment.store.add_decision(
        DecisionRecord(
            deployment=deployment.spec.name,
            decided_at=now,
            plan_id=report.plan_id,
            outcome=report.outcome.value,
            reason=f"fast tick: {report.reason}",
            wanted=None if plan is None else plan.windows[0].by_label,
        ),
        at=deployment.later(now),
    )

"""Between slow ticks, waiting work moves one replica at a time, by the same guards and policies."""

import time
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from planner.autoscale import Backlog
from planner.domain.fleet import Role
from planner.domain.guards import Pause
from planner.domain.rollout import ApprovalState
from planner.service.election.elector import NoElection
from planner.service.election.leadership import Leadership
from planner.service.loop import directives
from planner.service.loop.directives import Word
from planner.service.loop.fast_tick import fast_tick
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.telemetry.metrics import Metrics
from tests.planner.service.examples import NOON, history, window
from tests.planner.service.imagined import make_deployment, observe, ticking

LOCAL = {"kind": "local"}
STEADY = {"requests": 300, "isl": 800, "osl": 60}
"""5 requests/s."""


@pytest.fixture
def make(tmp_path):
    made = []

    def deployment(*, prefill=1, decode=3, **changes):
        spec = {"loop": {"mode": "auto", "fast_interval_s": 5}, "target": LOCAL} | changes
        made.append(make_deployment(tmp_path, prefill=prefill, decode=decode, **spec))
        observe(made[-1], history(**STEADY))
        return made[-1]

    yield deployment
    for one in made:
        one.store.close()


def wait(deployment, *, prompt_tokens, sequences=2, at=NOON, **arriving):
    backlog = Backlog(
        model="tiny",
        observed_at=at,
        waiting_prompt_tokens=prompt_tokens,
        decoding_sequences=sequences,
        context_tokens=800.0,
        **arriving,
    )
    deployment.store.put_backlog("shop", backlog)


def replicas(deployment):
    fleet = deployment.actuator.fleet
    return fleet.replicas(Role.PREFILL), fleet.replicas(Role.DECODE)


def planned(make, **changes):
    """A deployment of which a slow tick has said what its fleet is for."""
    deployment = make(**changes)
    assert tick(deployment, now=NOON).outcome in (Outcome.UNCHANGED, Outcome.HELD)
    record = tick_plan(deployment)
    assert record is not None
    return deployment


def tick_plan(deployment):
    """A stored plan, as the first approved one of a deployment is."""
    from planner.service.deployment import guard_conditions
    from planner.service.fleet import lifecycle
    from planner.service.loop.replaying import Question
    from planner.service.loop.slow_tick import _look
    from planner.service.loop.stages import Course

    course = Course(deployment.stages, deployment.spec.loop.deadlines)
    seen = _look(deployment, course, now=NOON)
    decision = Question(
        spec=deployment.spec,
        forecast=seen.forecast,
        fleet=deployment.actuator.fleet,
        conditions=guard_conditions(deployment, seen.observation, now=NOON),
        now=NOON,
    ).decide()
    return lifecycle.propose(deployment, decision, by="test", at=NOON, ask=False)


HUGE = 200_000


def test_waiting_prompts_flip_a_replica_at_once_and_it_is_kept(make):
    deployment = planned(make)
    wait(deployment, prompt_tokens=HUGE)
    report = fast_tick(deployment, now=NOON)
    assert report.outcome is Outcome.APPLIED, report.reason
    assert replicas(deployment) == (2, 2)
    record = deployment.store.plan(report.plan_id)
    assert record.approval.state is ApprovalState.APPLIED
    assert report.plan_id.startswith("fast-")
    assert deployment.store.decisions("shop", limit=1)[0].reason.startswith("fast tick: flip one")
    assert "plan.begin" in [entry.action for entry in deployment.store.audit(limit=20)]


def test_what_it_did_can_be_rolled_back(make):
    from planner.service.fleet import lifecycle

    deployment = planned(make)
    wait(deployment, prompt_tokens=HUGE)
    plan_id = fast_tick(deployment, now=NOON).plan_id
    lifecycle.roll_back(deployment, plan_id, by="ann", at=NOON)
    assert replicas(deployment) == (1, 3)


def test_without_much_waiting_nothing_moves_and_nothing_is_kept(make):
    deployment = planned(make)
    kept = len(deployment.store.decisions("shop", limit=99))
    assert fast_tick(deployment, now=NOON).outcome is Outcome.NO_DATA
    wait(deployment, prompt_tokens=100)
    assert fast_tick(deployment, now=NOON).outcome is Outcome.UNCHANGED
    assert replicas(deployment) == (1, 3)
    assert len(deployment.store.decisions("shop", limit=99)) == kept


def test_an_old_backlog_moves_nothing(make):
    deployment = planned(make)
    wait(deployment, prompt_tokens=HUGE, at=NOON - timedelta(minutes=10))
    report = fast_tick(deployment, now=NOON)
    assert (report.outcome, "600 s old" in report.reason) == (Outcome.UNCHANGED, True)


def test_a_pause_and_a_pin_hold_the_fast_tick_too(make):
    deployment = planned(make)
    wait(deployment, prompt_tokens=HUGE)
    ann = Word(by="ann", at=NOON)
    directives.pause(deployment, Pause.ALL, ann)
    report = fast_tick(deployment, now=NOON)
    assert (report.outcome, "paused" in report.reason) == (Outcome.HELD, True)
    directives.resume(deployment, Pause.ALL, ann)
    directives.pin(deployment, "decode:cpu:tp1", 3, ann)
    directives.pin(deployment, "prefill:cpu:tp1", 1, ann)
    assert fast_tick(deployment, now=NOON).outcome is Outcome.HELD
    assert replicas(deployment) == (1, 3)
    # Held ones are not kept: they would break the run that scale-down and fallback wait for.
    told = [record.reason for record in deployment.store.decisions("shop", limit=9)]
    assert not any(reason.startswith("fast tick") for reason in told)


@pytest.mark.parametrize(
    ("mode", "outcome"),
    [("off", Outcome.OFF), ("advise", Outcome.OFF), ("approve", Outcome.HELD)],
)
def test_it_does_by_itself_only_what_the_mode_allows(make, mode, outcome):
    deployment = make(loop={"mode": mode})
    tick_plan(deployment)
    wait(deployment, prompt_tokens=HUGE)
    assert fast_tick(deployment, now=NOON).outcome is outcome
    assert replicas(deployment) == (1, 3)


def test_in_mode_approve_the_policy_lets_a_small_change_through(make):
    deployment = make(loop={"mode": "approve"}, approval={"auto_below_replicas": 3})
    tick_plan(deployment)
    wait(deployment, prompt_tokens=HUGE)
    assert fast_tick(deployment, now=NOON).outcome is Outcome.APPLIED


def test_before_any_plan_it_does_not_know_what_the_fleet_is_for(make):
    deployment = make()
    wait(deployment, prompt_tokens=HUGE)
    report = fast_tick(deployment, now=NOON)
    assert (report.outcome, "no plan was made yet" in report.reason) == (Outcome.HELD, True)


def test_as_many_start_as_are_missing_where_more_arrives_than_was_expected(make):
    deployment = planned(make, decode=1)
    wait(deployment, prompt_tokens=HUGE)
    assert fast_tick(deployment, now=NOON).outcome is Outcome.UNCHANGED  # arrivals not known
    expected = {"request_rate_rps": 5.0, "input_tokens_per_s": 4_000.0}
    wait(deployment, prompt_tokens=HUGE, **expected)
    assert fast_tick(deployment, now=NOON).outcome is Outcome.UNCHANGED
    wait(deployment, prompt_tokens=HUGE, request_rate_rps=30.0)
    report = fast_tick(deployment, now=NOON)
    assert report.outcome is Outcome.APPLIED, report.reason
    assert "30 requests/s arrive" in report.reason
    assert replicas(deployment) == (7, 1)  # all that there are: the queue is huge


def test_it_leaves_the_fleet_alone_while_a_plan_moves_it(make):
    deployment = planned(make)
    wait(deployment, prompt_tokens=HUGE)
    plan_id = fast_tick(deployment, now=NOON).plan_id
    deployment.store.change_approval(
        plan_id,
        lambda a: replace(a, state=ApprovalState.ROLLING_BACK, reason="on its way"),
        action="plan.begin_back",
    )
    deployment.running.append(plan_id)
    report = fast_tick(deployment, now=NOON)
    assert report.outcome is Outcome.HELD
    assert f"plan {plan_id} is rolling back" in report.reason


@dataclass
class Burst:
    """A queue of prompts in front of a deployment: what arrives beyond what its prefill does.

    A replica takes 10,000 tokens/s; the profile of the tests says about that.
    """

    deployment: object
    waiting: float = 0.0
    served_tokens_per_s: float = 9_700.0

    def pass_time(self, seconds, *, tokens_per_s):
        able = self.served_tokens_per_s * replicas(self.deployment)[0]
        self.waiting = max(0.0, self.waiting + (tokens_per_s - able) * seconds)


def recovered_after_s(deployment, *, fast):
    """Seconds until nothing waits, of a burst that begins at NOON and lasts 50 s.

    Slow ticks see a window when it has ended, every minute; fast ones the queue, every 5 s.
    """
    burst, slow_s = Burst(deployment), 60
    for second in range(5, 605, 5):
        now = NOON + timedelta(seconds=second)
        arriving = 24_000.0 if second <= 50 else 4_000.0
        burst.pass_time(5, tokens_per_s=arriving)
        if burst.waiting == 0.0:
            return second
        if second % slow_s == 0:
            minute = second // slow_s - 1
            requests = 1_500 if minute == 0 else 300
            observe(deployment, [window(minute, requests=requests, isl=800, osl=60)])
            tick(deployment, now=now)
        if fast:
            wait(deployment, prompt_tokens=int(burst.waiting), at=now)
            fast_tick(deployment, now=now)
    return 605


def test_a_burst_is_over_sooner_than_with_slow_ticks_alone(make, tmp_path):
    seconds: dict[bool, int] = {}
    for fast in (False, True):
        folder = tmp_path / str(fast)
        folder.mkdir()
        deployment = make_deployment(
            folder, prefill=1, decode=3, loop={"mode": "auto"}, target=LOCAL
        )
        observe(deployment, history(**STEADY))
        tick_plan(deployment)
        seconds[fast] = recovered_after_s(deployment, fast=fast)
        deployment.store.close()
    assert seconds[True] < seconds[False]


def test_the_scheduler_runs_fast_ticks_beside_slow_ones(make):
    deployment = planned(make, loop={"mode": "auto", "fast_interval_s": 0.2})
    wait(deployment, prompt_tokens=HUGE)
    metrics = Metrics()
    leadership = Leadership(NoElection(), deployment, lambda _store, _reign: deployment.actuator)
    scheduler = ticking(leadership, metrics)
    until = time.monotonic() + 60
    while replicas(deployment) == (1, 3) and time.monotonic() < until:
        time.sleep(0.05)
    scheduler.shutdown(wait=True)
    assert replicas(deployment)[0] > 1
    said = 'poolwise_fast_ticks_total{deployment="shop",outcome="applied"}'
    assert said in metrics.text().decode()

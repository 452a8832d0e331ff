"""A stage that fails or overruns ends in the last good decision, and says so; nothing piles up."""

import io
import logging
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from planner.domain.errors import EndingError, NotWantedError, StageOverrunError, StoreError
from planner.domain.fleet import Role
from planner.domain.rollout import ApprovalState
from planner.domain.spec import Stage
from planner.domain.wanted import go_on
from planner.service.deployment import Observation
from planner.service.election.elector import NoElection
from planner.service.election.leadership import Leadership
from planner.service.loop.scheduler import tick_once
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.loop.stages import Stages
from planner.service.telemetry.logs import KeyValue, log_to
from planner.service.telemetry.metrics import Metrics
from planner.service.telemetry.observability import LogFormat
from tests.planner.service.examples import NOON
from tests.planner.service.imagined import busy_deployments, ticking


@pytest.fixture
def make(tmp_path):
    with busy_deployments(tmp_path, loop={"mode": "auto"}) as made:
        yield made


@pytest.fixture
def logged():
    """What the service's log says."""
    stream = io.StringIO()
    handler = log_to(stream, LogFormat.KEY_VALUE)
    yield stream
    logging.getLogger().removeHandler(handler)


@dataclass
class HeldUp:
    """An observer that sees nothing before it is let go, or fails."""

    inner: object
    goes_on: threading.Event = field(default_factory=threading.Event)
    calls: int = 0
    error: Exception | None = None

    def observe(self, *, now) -> Observation:
        self.calls += 1
        if self.error is not None:
            raise self.error
        assert self.goes_on.wait(timeout=60)
        return self.inner.observe(now=now)


def held_up(deployment, **more):
    observer = HeldUp(inner=deployment.observer, **more)
    return replace(deployment, observer=observer), observer


SHORT = {"mode": "auto", "deadlines": {"observe_s": 0.1}}


def test_a_stage_gives_what_its_work_gives_and_raises_what_it_raises():
    stages = Stages()
    assert stages.run(Stage.PLAN, lambda: 7, deadline_s=30) == 7
    with pytest.raises(KeyError, match="x"):
        stages.run(Stage.PLAN, lambda: {}["x"], deadline_s=30)


def test_a_stage_that_overruns_is_not_begun_again_before_it_has_ended():
    stages, goes_on, begun = Stages(), threading.Event(), []

    def work():
        begun.append(1)
        return goes_on.wait(timeout=60)

    with pytest.raises(StageOverrunError, match=r"longer than its deadline of 0\.1 s"):
        stages.run(Stage.PLAN, work, deadline_s=0.1)
    with pytest.raises(StageOverrunError, match="of an earlier tick is still at it"):
        stages.run(Stage.PLAN, work, deadline_s=0.1)
    assert stages.run(Stage.OBSERVE, lambda: 1, deadline_s=30) == 1  # others go on
    assert begun == [1]
    goes_on.set()
    stages.finish(Stage.PLAN)
    assert stages.run(Stage.PLAN, work, deadline_s=30) is True


def test_when_the_server_ends_what_only_looks_or_computes_is_given_up_and_a_change_is_not():
    stages, changes, broken_off = Stages(), threading.Event(), []

    def look():
        stages.slots.ending.set()
        return threading.Event().wait(timeout=60)

    def compute():
        try:
            while True:
                go_on()
        except NotWantedError:
            broken_off.append(1)
            raise

    with pytest.raises(EndingError, match="given up in stage observe"):
        stages.run(Stage.OBSERVE, look, deadline_s=60)
    with pytest.raises(EndingError, match="given up in stage plan"):
        stages.run(Stage.PLAN, compute, deadline_s=60)
    assert broken_off == [1]
    threading.Timer(0.7, changes.set).start()
    assert stages.run(Stage.APPLY, lambda: changes.wait(timeout=60), deadline_s=60) is True


def test_a_tick_that_is_given_up_at_the_end_moves_nothing_and_says_so(make):
    deployment = make(loop={"mode": "auto"})
    slow, observer = held_up(deployment)
    slow.stages.slots.ending.set()
    report = tick(slow, now=NOON)
    assert report.outcome is Outcome.HELD
    assert "the server ends" in report.reason
    assert slow.store.decisions("shop", limit=1)[0].outcome == "held"
    observer.goes_on.set()


def test_a_load_that_cannot_be_read_in_time_leaves_the_last_good_decision(make):
    deployment = make(loop=SHORT | {"deadlines": {"observe_s": 5}})
    good = tick(deployment, now=NOON)
    assert good.outcome is Outcome.APPLIED
    quick = replace(deployment.spec.loop.deadlines, observe_s=0.1)
    spec = replace(deployment.spec, loop=replace(deployment.spec.loop, deadlines=quick))
    slow, observer = held_up(replace(deployment, spec=spec))
    fleet = deployment.actuator.fleet
    report = tick(slow, now=NOON + timedelta(seconds=60))
    assert report.outcome is Outcome.FAILED
    assert report.failed_stage is Stage.OBSERVE
    assert "longer than its deadline" in report.reason
    assert f"counts: plan {good.decision.plan.plan_id}, applied" in report.reason
    assert tick(slow, now=NOON + timedelta(seconds=120)).failed_stage is Stage.OBSERVE
    assert observer.calls == 1  # the second tick did not double it
    assert deployment.actuator.fleet == fleet
    observer.goes_on.set()
    slow.stages.finish(Stage.OBSERVE)
    assert tick(slow, now=NOON + timedelta(seconds=180)).failed_stage is None


def test_before_any_good_decision_it_says_that_the_fleet_stays(make):
    slow, _ = held_up(make(), error=StoreError("the disk is full"))
    report = tick(slow, now=NOON)
    assert report.outcome is Outcome.FAILED
    assert report.reason.startswith("the disk is full (stage observe); nothing was decided before")


def test_a_fault_of_ours_is_a_report_too_and_the_log_has_the_traceback(make, caplog):
    slow, _ = held_up(make(), error=ZeroDivisionError("division by zero"))
    with caplog.at_level(logging.ERROR, logger="poolwise.loop"):
        report = tick(slow, now=NOON)
    assert report.outcome is Outcome.FAILED
    assert "unexpected ZeroDivisionError: division by zero (stage observe)" in report.reason
    assert caplog.records[0].exc_info is not None
    assert slow.store.decisions("shop", limit=1)[0].outcome == "failed"


def test_the_metrics_and_the_log_say_which_stage_failed(make, caplog):
    slow, _ = held_up(make(), error=StoreError("the disk is full"))
    metrics = Metrics()
    with caplog.at_level(logging.INFO, logger="poolwise.loop"):
        tick_once(slow, metrics)
    text = metrics.text().decode()
    assert 'poolwise_stage_failures_total{deployment="shop",stage="observe"} 1.0' in text
    assert 'poolwise_stage_seconds_count{deployment="shop",stage="observe"} 1.0' in text
    (told,) = [record for record in caplog.records if record.message == "tick"]
    line = KeyValue().format(told)
    assert "outcome=failed stage=observe" in line


def test_stages_of_a_good_tick_are_timed(make):
    metrics = Metrics()
    tick_once(make(), metrics)
    text = metrics.text().decode()
    for stage in Stage:
        assert f'poolwise_stage_seconds_count{{deployment="shop",stage="{stage}"}}' in text
    assert "poolwise_stage_failures_total{" not in text


def test_a_rollout_longer_than_its_deadline_goes_on_while_ticks_hold(make):
    deployment = make(loop={"mode": "auto", "deadlines": {"apply_s": 0.3}})
    deployment.actuator.goes_on = threading.Event()
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.APPLYING
    assert "goes on" in report.reason
    plan_id = report.decision.plan.plan_id
    assert deployment.store.plan(plan_id).approval.state is ApprovalState.APPLYING
    held = tick(deployment, now=NOON + timedelta(seconds=1))
    assert held.outcome is Outcome.HELD
    assert f"plan {plan_id} is applying: step 1 of" in held.reason
    deployment.actuator.goes_on.set()
    deployment.stages.finish(Stage.APPLY)
    record = deployment.store.plan(plan_id)
    assert record.approval.state is ApprovalState.APPLIED
    assert deployment.actuator.fleet.replicas(Role.PREFILL) == record.plan.windows[0].replicas(
        Role.PREFILL
    )


def test_a_decision_that_cannot_be_kept_is_told(make):
    deployment = make(loop={"mode": "advise"})

    class Full:
        def __getattr__(self, name):
            return getattr(deployment.store, name)

        def add_decision(self, *_, **_more):
            raise StoreError("database or disk is full")

    report = tick(replace(deployment, store=Full()), now=NOON)
    assert report.outcome is Outcome.ADVISED
    assert "this could not be kept: database or disk is full" in report.reason


def test_a_tick_slower_than_its_interval_is_not_doubled_and_what_it_missed_is_counted(make, logged):
    slow, observer = held_up(make(loop={"mode": "advise", "slow_interval_s": 1}))
    metrics = Metrics()
    leadership = Leadership(NoElection(), slow, lambda _store, _reign: slow.actuator)
    missed = 'poolwise_ticks_missed_total{deployment="shop",tick="slow",why="overlap"}'
    scheduler = ticking(leadership, metrics)
    until = time.monotonic() + 60
    while missed not in metrics.text().decode() and time.monotonic() < until:
        time.sleep(0.05)
    assert missed in metrics.text().decode()
    assert "deployment=shop a slow tick was not run: overlap" in logged.getvalue()
    assert "skipped" not in logged.getvalue()  # APScheduler's own warning of the same
    assert observer.calls == 1
    observer.goes_on.set()
    while not slow.store.decisions("shop", limit=1) and time.monotonic() < until:
        time.sleep(0.05)
    scheduler.shutdown(wait=True)
    assert slow.store.decisions("shop", limit=9)[-1].outcome == "advised"

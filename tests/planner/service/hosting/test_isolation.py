"""A deployment that hangs, or fails, holds up no other one of the same process."""

import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from planner.domain.errors import StageOverrunError
from planner.domain.fleet import Fleet
from planner.domain.spec import Stage
from planner.service.election.elector import NoElection
from planner.service.election.leadership import Leadership
from planner.service.loop.scheduler import keep_on_time, make_scheduler, schedule_ticks, unschedule
from planner.service.loop.stages import Slots, Stages
from planner.service.telemetry.metrics import Metrics
from tests.planner.service.hosting.beside import beside, keep_busy
from tests.planner.service.imagined import ImaginedTarget, make_deployment
from tests.planner.service.plans import example_fleet

LOOP = {
    "mode": "advise",
    "slow_interval_s": 1,
    "solver_time_limit_s": 5.0,
    "deadlines": {"observe_s": 3000},
}
PATIENCE_S = 240.0


@dataclass
class HangingTarget(ImaginedTarget):
    """A target that does not answer before it is let go."""

    asked: int = 0
    let_go: threading.Event = field(default_factory=threading.Event)

    def read_fleet(self) -> Fleet:
        self.asked += 1
        self.let_go.wait(PATIENCE_S)
        return ImaginedTarget.read_fleet(self)


class BrokenObserver:
    """Eyes with a fault of our own making."""

    def observe(self, *, now):
        raise ZeroDivisionError("nobody thought of this")


def until(check):
    ends = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < ends
        time.sleep(0.05)


def leading(deployment):
    return Leadership(NoElection(), deployment, lambda *_: deployment.actuator)


@pytest.fixture
def three(tmp_path):
    shop = make_deployment(tmp_path, loop=LOOP)
    hanging = HangingTarget(fleet=example_fleet(1, 1))
    mill = replace(beside(shop, tmp_path / "mill", "mill", loop=LOOP), actuator=hanging)
    forge = beside(shop, tmp_path / "forge", "forge", loop=LOOP)
    for one in (shop, mill, forge):
        keep_busy(one)
    yield shop, mill, replace(forge, observer=BrokenObserver())
    hanging.let_go.set()
    shop.store.close()


def decided(deployment):
    return len(deployment.store.decisions(deployment.spec.name, limit=999))


def test_the_others_tick_while_a_target_hangs_and_another_fails(three):
    shop, mill, forge = three
    metrics = Metrics()
    scheduler = make_scheduler(metrics)
    for one in three:
        schedule_ticks(scheduler, leading(one), metrics)
    scheduler.start()
    try:
        until(lambda: mill.actuator.asked)
        seen = decided(shop), decided(forge)
        until(lambda: decided(shop) >= seen[0] + 3 and decided(forge) >= seen[1] + 3)
        assert mill.actuator.asked == 1  # it still hangs, and is not asked twice
        assert decided(mill) == 0
        assert shop.store.decisions("shop", limit=1)[0].outcome == "advised"
        failed = forge.store.decisions("forge", limit=1)[0]
        assert (failed.outcome, "ZeroDivisionError" in failed.reason) == ("failed", True)
        mill.actuator.let_go.set()
        until(lambda: decided(mill))
        unschedule(scheduler, "shop")
        assert {str(job.id) for job in scheduler.get_jobs()} == {"slow:mill", "slow:forge"}
    finally:
        mill.actuator.let_go.set()
        scheduler.shutdown(wait=True)
    text = metrics.text().decode()
    assert 'poolwise_ticks_missed_total{deployment="mill"' in text
    assert 'poolwise_ticks_total{deployment="shop",outcome="advised"}' in text


def test_who_computes_waits_for_a_slot_and_who_looks_does_not():
    slots, planned = Slots(plan=threading.Semaphore(1)), []
    stages = Stages(slots=slots)
    slots.plan.acquire()  # somebody else computes
    waiting = threading.Thread(
        target=lambda: stages.run(Stage.PLAN, lambda: planned.append(1), deadline_s=PATIENCE_S)
    )
    waiting.start()
    assert stages.run(Stage.OBSERVE, lambda: "seen", deadline_s=PATIENCE_S) == "seen"
    assert planned == []
    slots.plan.release()
    waiting.join(PATIENCE_S)
    assert planned == [1]


def test_forecasts_take_turns_and_a_plan_goes_on_beside_them():
    slots, at_once, most = Slots(), [], []

    def forecast() -> None:
        at_once.append(1)
        most.append(len(at_once))
        time.sleep(0.01)
        at_once.pop()

    with slots.forecast:
        planned = Stages(slots=slots).run(Stage.PLAN, lambda: "planned", deadline_s=PATIENCE_S)
    assert planned == "planned"
    threads = [
        threading.Thread(
            target=lambda: Stages(slots=slots).run(Stage.FORECAST, forecast, deadline_s=PATIENCE_S)
        )
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert most == [1] * 5


def test_a_stage_that_hangs_holds_its_slot_no_longer_than_its_deadline():
    slots, go = Slots(plan=threading.Semaphore(1)), threading.Event()
    hanging, other = Stages(slots=slots), Stages(slots=slots)
    try:
        with pytest.raises(StageOverrunError):
            hanging.run(Stage.PLAN, lambda: go.wait(PATIENCE_S), deadline_s=0.2)
        assert other.run(Stage.PLAN, lambda: "planned", deadline_s=PATIENCE_S) == "planned"
        assert not go.is_set()
    finally:
        go.set()


def test_ticks_go_on_where_the_machines_clock_was_set_back():
    scheduler = make_scheduler(Metrics())
    for name in ("shop", "mill"):
        scheduler.add_job(print, "interval", seconds=60, id=f"slow:{name}", jitter=3)
    scheduler.start(paused=True)
    now, usual = datetime.now(UTC), scheduler.get_job("slow:mill").next_run_time
    scheduler.modify_job("slow:shop", next_run_time=now + timedelta(hours=1))
    keep_on_time(scheduler)
    due = {str(job.id): job.next_run_time for job in scheduler.get_jobs()}
    scheduler.shutdown()
    assert now < due["slow:shop"] < now + timedelta(seconds=90)
    assert due["slow:mill"] == usual

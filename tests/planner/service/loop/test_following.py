"""Another spec reaches all that lives by the one before: ticks, eyes, metrics, notifications."""

from dataclasses import replace

import pytest

from planner.service.election.elector import NoElection
from planner.service.election.leadership import Leadership
from planner.service.live.sight import Sight
from planner.service.live.watching import LiveSignals
from planner.service.loop.scheduler import FAST, SLOW, schedule_ticks
from planner.service.spec.file import read_spec
from planner.service.telemetry.events import EventWatch
from planner.service.telemetry.metrics import Metrics
from serving.telemetry.whole import Promised
from tests.planner.service.examples import write_spec
from tests.planner.service.imagined import make_deployment, ticking
from tests.planner.service.loop.test_waiting_work import kept, seen


@pytest.fixture
def deployment(tmp_path):
    loop = {"mode": "advise", "slow_interval_s": 900, "fast_interval_s": 5}
    made = make_deployment(tmp_path, loop=loop)
    yield made
    made.store.close()


def under(deployment, folder, **changes):
    """The same deployment under another spec."""
    folder.mkdir()
    return replace(deployment, spec=read_spec(write_spec(folder, **changes)))


def leadership_of(deployment):
    return Leadership(NoElection(), deployment, lambda _store, _reign: deployment.actuator)


def intervals(scheduler):
    jobs = {name: scheduler.get_job(f"{name}:shop") for name in (SLOW, FAST)}
    return {name: job and job.trigger.interval.total_seconds() for name, job in jobs.items()}


def test_ticks_come_as_often_as_the_new_spec_says(deployment, tmp_path):
    leadership, metrics = leadership_of(deployment), Metrics()
    scheduler = ticking(leadership, metrics)
    try:
        assert intervals(scheduler) == {SLOW: 900, FAST: 5}
        due = scheduler.get_job("slow:shop").next_run_time
        for number, (slow, fast) in enumerate(((900, 0), (900, 7), (300, 7), (300, 7))):
            loop = {"mode": "off", "slow_interval_s": slow, "fast_interval_s": fast}
            made = under(deployment, tmp_path / str(number), loop=loop)
            leadership.replace(made, leadership.actuator_of)
            schedule_ticks(scheduler, leadership, metrics)
            assert intervals(scheduler) == {SLOW: slow, FAST: fast or None}
            if slow == 900:  # what stays as it was is not put off
                assert scheduler.get_job("slow:shop").next_run_time == due
    finally:
        scheduler.shutdown(wait=True)


def test_a_spec_that_another_process_was_given_is_asked_for_before_every_tick(deployment, tmp_path):
    asked = []
    loop = {"mode": "advise", "slow_interval_s": 900, "fast_interval_s": 0.1}
    leadership = leadership_of(under(deployment, tmp_path / "fast", loop=loop))
    scheduler = ticking(leadership, Metrics(), before_tick=lambda: asked.append(1))
    try:
        scheduler.get_job("slow:shop").func()
        assert asked
        assert deployment.store.decisions("shop", limit=1)[0].outcome == "no_data"
    finally:
        scheduler.shutdown(wait=True)


def test_what_is_seen_is_made_into_windows_of_the_new_length(deployment, tmp_path):
    told, leadership = [], leadership_of(deployment)
    live = LiveSignals(
        source=None,
        interval_s=1.0,
        promised=Promised(spec=deployment.spec, model="tiny"),
        store=deployment.store,
        on_signals=[told.append],
    )
    sight = Sight(leadership, live)
    live.put(seen(0, waiting=1.0))
    assert kept(deployment).waiting_prompt_tokens == 400  # a fifth of them are cached
    made = under(deployment, tmp_path / "slow", loop={"mode": "advise", "fast_interval_s": 0})
    made = replace(made, spec=replace(made.spec, forecast=replace(made.spec.forecast, window_s=20)))
    leadership.replace(made, leadership.actuator_of)
    live.on_signals = [*live.on_signals, told.append]  # it came later, and stays too
    sight.follow(made)
    for second in range(10, 70, 10):
        live.put(seen(second, waiting=9.0))
    assert len(told) == 1 + 2 * 6
    assert live.promised.spec is made.spec
    assert kept(deployment).waiting_prompt_tokens == 400  # no fast tick, no backlog
    stored = deployment.store.windows("shop", "tiny", limit=10)
    assert {one.window.window_s for one in stored} == {20}


def test_metrics_and_notifications_are_of_the_new_spec(deployment, tmp_path):
    metrics = Metrics()
    live = LiveSignals(
        source=None,
        interval_s=1.0,
        promised=Promised(spec=deployment.spec, model="tiny"),
        store=deployment.store,
    )
    metrics.show(deployment, live)
    watch = EventWatch(deployment, None, lambda: True)
    slower = {"mode": "advise", "slow_interval_s": 300}
    guards = {"stale_observation_s": 77}
    made = under(deployment, tmp_path / "other", loop=slower, guards=guards)
    metrics.follow(made)
    watch.follow(made)
    text = metrics.text().decode()
    assert 'poolwise_loop_interval_seconds{deployment="shop"} 300.0' in text
    assert 'poolwise_stale_after_seconds{deployment="shop"} 77.0' in text
    assert watch.deployment is made

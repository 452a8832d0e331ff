"""Runs ticks on time, one after another, in a thread of its own; only while this process leads."""

import logging
import time
from collections.abc import Callable
from datetime import UTC

from apscheduler.schedulers.background import BackgroundScheduler

from actuators.kubernetes.stock_out import StockOut
from planner.domain.errors import PoolwiseError
from planner.domain.spec import LoopMode, Spec, TargetKind
from planner.service.deployment import Deployment
from planner.service.election.leadership import Leadership
from planner.service.loop import tick
from planner.service.metrics import Metrics

LOG = logging.getLogger("poolwise.loop")


def start_scheduler(
    leadership: Leadership,
    metrics: Metrics,
    *,
    before_tick: Callable[[], None] = lambda: None,
) -> BackgroundScheduler:
    """Tick every `loop.slow_interval_s`; ticks that were missed or overlap run once.

    Parameters
    ----------
    before_tick : callable
        Called first of all: takes over a spec that another process was given.
    """
    scheduler = BackgroundScheduler(timezone=UTC)
    spec = leadership.deployment.spec

    def run() -> None:
        try:
            before_tick()
        except PoolwiseError as error:
            LOG.warning("deployment=%s goes on under the spec that it has: %s", spec.name, error)
        tick_as_leader(leadership, metrics)

    scheduler.add_job(
        run,
        "interval",
        seconds=spec.loop.slow_interval_s,
        id=_tick_id(spec),
        max_instances=1,
        coalesce=True,
        misfire_grace_time=None,
    )
    if spec.target in (TargetKind.KUBERNETES, TargetKind.LOCAL):
        scheduler.add_job(look_at_target, args=(leadership.deployment,), misfire_grace_time=None)
    scheduler.start()
    follow_loop(scheduler, spec)
    return scheduler


def follow_loop(scheduler: BackgroundScheduler, spec: Spec) -> None:
    """Tick as a spec's loop says: so often, or not at all."""
    job, interval_s = scheduler.get_job(_tick_id(spec)), spec.loop.slow_interval_s
    if job.trigger.interval.total_seconds() != interval_s:
        job.reschedule("interval", seconds=interval_s)
    if spec.loop.mode is LoopMode.OFF:
        job.pause()
    elif job.next_run_time is None:
        job.resume()


def _tick_id(spec: Spec) -> str:
    return f"slow:{spec.name}"


def look_at_target(deployment: Deployment) -> None:
    """Say at once what the first plan would stumble over: a fleet that cannot be read."""
    try:
        deployment.actuator.read_fleet()
    except PoolwiseError as error:
        LOG.warning("deployment=%s its fleet cannot be read: %s", deployment.spec.name, error)


def tick_as_leader(leadership: Leadership, metrics: Metrics) -> None:
    """One tick where this process leads; what the leader before left half-done is settled first.

    Where accelerators turned out not to be had, the fleet is planned again at once without them.
    """
    leading = take_over(leadership)
    if leading is None:
        return
    known = _stock_outs(leading)
    tick_once(leading, metrics)
    new = [found for found in _stock_outs(leading) if found not in known]
    if new:
        told = ", ".join(f"no more than {one.usable} {one.accelerator}" for one in new)
        LOG.info("deployment=%s has %s: it is planned again", leading.spec.name, told)
        tick_once(leading, metrics)


def _stock_outs(deployment: Deployment) -> tuple[StockOut, ...]:
    try:
        return deployment.store.stock_outs(deployment.spec.name, at=deployment.clock())
    except PoolwiseError:  # the tick says what is wrong with the store
        return ()


def take_over_soon(scheduler: BackgroundScheduler, leadership: Leadership) -> None:
    """Settle what the last leader left without waiting for the next tick."""
    scheduler.add_job(take_over, args=(leadership,), misfire_grace_time=None)


def take_over(leadership: Leadership) -> Deployment | None:
    """Begin this process's term, if one has begun; None where it does not lead, or could not."""
    try:
        return leadership.leading()
    except PoolwiseError as error:
        LOG.warning("what the last leader left cannot be settled yet: %s", error)
    except Exception:
        LOG.exception("what the last leader left cannot be settled; the fleet stays")
    return None


def tick_once(deployment: Deployment, metrics: Metrics) -> None:
    """One tick by the clock, measured and logged; nothing that it raises ends the loop."""
    now, began = deployment.clock(), time.monotonic()
    try:
        report = tick(deployment, now=now)
    except Exception:
        LOG.exception("tick of %s failed unexpectedly; the fleet stays", deployment.spec.name)
        return
    took_s = time.monotonic() - began
    metrics.record_tick(deployment.spec.name, report, at=now, took_s=took_s)
    plan_id = report.decision.plan.plan_id if report.decision else "-"
    LOG.info(
        "deployment=%s outcome=%s plan_id=%s took_s=%.3f reason=%s",
        deployment.spec.name,
        report.outcome,
        plan_id,
        took_s,
        report.reason,
    )

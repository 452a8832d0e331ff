"""Runs ticks on time, one after another, in a thread of its own; only while this process leads."""

import logging
import time
from datetime import UTC

from apscheduler.schedulers.background import BackgroundScheduler

from actuators.kubernetes.stock_out import StockOut
from planner.domain.errors import PoolwiseError
from planner.domain.spec import LoopMode, TargetKind
from planner.service.deployment import Deployment
from planner.service.election.leadership import Leadership
from planner.service.logs import fields
from planner.service.loop import tick
from planner.service.metrics import Metrics

LOG = logging.getLogger("poolwise.loop")


def start_scheduler(leadership: Leadership, metrics: Metrics) -> BackgroundScheduler:
    """Tick every `loop.slow_interval_s`; ticks that were missed or overlap run once."""
    scheduler = BackgroundScheduler(timezone=UTC)
    loop = leadership.deployment.spec.loop
    if loop.mode is not LoopMode.OFF:
        scheduler.add_job(
            tick_as_leader,
            "interval",
            args=(leadership, metrics),
            seconds=loop.slow_interval_s,
            id=f"slow:{leadership.deployment.spec.name}",
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
    if leadership.deployment.spec.target in (TargetKind.KUBERNETES, TargetKind.LOCAL):
        scheduler.add_job(look_at_target, args=(leadership.deployment,), misfire_grace_time=None)
    scheduler.start()
    return scheduler


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
    about = fields(
        deployment=deployment.spec.name,
        outcome=report.outcome.value,
        plan_id=plan_id,
        took_s=round(took_s, 3),
        reason=report.reason,
    )
    LOG.info("tick", extra=about)

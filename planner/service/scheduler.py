"""Runs ticks on time, one after another, in a thread of its own."""

import logging
import time
from datetime import UTC

from apscheduler.schedulers.background import BackgroundScheduler

from planner.domain.spec import LoopMode
from planner.service.deployment import Deployment
from planner.service.loop import tick
from planner.service.metrics import Metrics

LOG = logging.getLogger("poolwise.loop")


def start_scheduler(deployment: Deployment, metrics: Metrics) -> BackgroundScheduler:
    """Tick every `loop.slow_interval_s`; ticks that were missed or overlap run once."""
    scheduler = BackgroundScheduler(timezone=UTC)
    loop = deployment.spec.loop
    if loop.mode is not LoopMode.OFF:
        scheduler.add_job(
            tick_once,
            "interval",
            args=(deployment, metrics),
            seconds=loop.slow_interval_s,
            id=f"slow:{deployment.spec.name}",
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
    scheduler.start()
    return scheduler


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

"""Runs ticks on time, one after another, in a thread of its own; only while this process leads."""

import logging
import time
from collections.abc import Callable
from datetime import UTC
from functools import partial

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobSubmissionEvent
from apscheduler.schedulers.background import BackgroundScheduler

from actuators.kubernetes.stock_out import StockOut
from planner.domain.errors import PoolwiseError
from planner.domain.spec import TargetKind
from planner.service.deployment import Deployment
from planner.service.election.leadership import Leadership
from planner.service.loop.directives import standing
from planner.service.loop.fast_tick import QUIET, fast_tick
from planner.service.loop.slow_tick import tick
from planner.service.telemetry.logs import fields
from planner.service.telemetry.metrics import Metrics

LOG = logging.getLogger("poolwise.loop")
JITTER_RATIO = 0.05
"""Ticks come up to so much of their interval earlier or later."""
SLOW, FAST = "slow", "fast"
MISSED = EVENT_JOB_MAX_INSTANCES | EVENT_JOB_MISSED

Tick = Callable[[Leadership, Metrics], None]


def start_scheduler(
    leadership: Leadership, metrics: Metrics, *, before_tick: Callable[[], None] = lambda: None
) -> BackgroundScheduler:
    """Tick every `loop.slow_interval_s`, and look at waiting work every `loop.fast_interval_s`.

    Ticks that were missed or overlap run once, and are counted. A little jitter keeps the
    processes and deployments of one database from ticking all at once.

    Parameters
    ----------
    before_tick : callable
        Called first of all: takes over a spec that another process was given.
    """
    scheduler = BackgroundScheduler(timezone=UTC)
    name = leadership.deployment.spec.name
    scheduler.add_listener(partial(_count_missed, metrics, name), MISSED)
    follow_loop(scheduler, leadership, metrics, before_tick=before_tick)
    if leadership.deployment.spec.target in (TargetKind.KUBERNETES, TargetKind.LOCAL):
        scheduler.add_job(look_at_target, args=(leadership.deployment,), misfire_grace_time=None)
    scheduler.start()
    return scheduler


def follow_loop(
    scheduler: BackgroundScheduler,
    leadership: Leadership,
    metrics: Metrics,
    *,
    before_tick: Callable[[], None],
) -> None:
    """Have ticks come as often as the loop of the spec in force says.

    In mode off, too: the mode may be changed at run time.
    """
    loop, name = leadership.deployment.spec.loop, leadership.deployment.spec.name

    def ticking(act: Tick) -> Callable[[], None]:
        return partial(_tick, act, leadership, metrics, before_tick)

    slow_s = loop.slow_interval_s
    _every(slow_s, scheduler, f"{SLOW}:{name}", ticking(tick_as_leader), JITTER_RATIO * slow_s)
    _every(loop.fast_interval_s, scheduler, f"{FAST}:{name}", ticking(fast_tick_as_leader), None)


def _every(
    seconds: float,
    scheduler: BackgroundScheduler,
    job_id: str,
    act: Callable[[], None],
    jitter_s: float | None,
) -> None:
    """Have something done every so many seconds; 0: not at all. What is so already stays."""
    job = scheduler.get_job(job_id)
    if job is not None and job.trigger.interval.total_seconds() == seconds:
        return
    if seconds <= 0:
        if job is not None:
            job.remove()
        return
    scheduler.add_job(
        act,
        "interval",
        seconds=seconds,
        jitter=jitter_s,
        id=job_id,
        replace_existing=True,
        max_instances=1,
        coalesce=True,
        misfire_grace_time=None,
    )


def _tick(
    act: Tick, leadership: Leadership, metrics: Metrics, before_tick: Callable[[], None]
) -> None:
    try:
        before_tick()
    except PoolwiseError as error:
        name = leadership.deployment.spec.name
        LOG.warning("deployment=%s goes on under the spec that it has: %s", name, error)
    act(leadership, metrics)


def _count_missed(metrics: Metrics, deployment: str, event: JobSubmissionEvent) -> None:
    """A tick was due while the one before was still at it, or far too late."""
    kind = str(event.job_id).partition(":")[0]
    why = "overlap" if event.code == EVENT_JOB_MAX_INSTANCES else "late"
    metrics.loop.missed.labels(deployment, kind, why).inc()
    LOG.warning("deployment=%s a %s tick was not run: %s", deployment, kind, why)


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


def fast_tick_as_leader(leadership: Leadership, metrics: Metrics) -> None:
    """One fast tick where this process leads; nothing that it raises ends the loop."""
    leading = take_over(leadership)
    if leading is None:
        return
    name = leading.spec.name
    try:
        report = fast_tick(leading, now=leading.clock())
    except Exception:
        LOG.exception("fast tick of %s failed unexpectedly; the fleet stays", name)
        metrics.loop.fast_ticks.labels(name, "failed").inc()
        return
    metrics.loop.fast_ticks.labels(name, report.outcome.value).inc()
    level = logging.DEBUG if report.outcome in QUIET else logging.INFO
    LOG.log(level, "deployment=%s fast outcome=%s reason=%s", name, report.outcome, report.reason)


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
    except PoolwiseError as error:  # the database: what came of it cannot be kept either
        LOG.warning(
            "deployment=%s a tick was lost, the fleet stays: %s", deployment.spec.name, error
        )
        return
    except Exception:
        LOG.exception("tick of %s failed unexpectedly; the fleet stays", deployment.spec.name)
        return
    took_s = time.monotonic() - began
    metrics.record_tick(deployment.spec.name, report, at=now, took_s=took_s)
    _show_orders(deployment, metrics)
    plan_id = report.decision.plan.plan_id if report.decision else "-"
    about = fields(
        deployment=deployment.spec.name,
        outcome=report.outcome.value,
        stage=report.failed_stage or "-",
        plan_id=plan_id,
        took_s=round(took_s, 3),
        reason=report.reason,
    )
    LOG.info("tick", extra=about)


def _show_orders(deployment: Deployment, metrics: Metrics) -> None:
    try:
        ordered = standing(deployment, now=deployment.clock())
    except PoolwiseError as error:
        LOG.warning("deployment=%s orders cannot be read: %s", deployment.spec.name, error)
        return
    metrics.loop.record_standing(deployment.spec.name, ordered, deployment.spec.loop.mode)

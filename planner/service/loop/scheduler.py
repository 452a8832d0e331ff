"""Runs ticks on time, one after another, in a thread of its own; only while this process leads."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobSubmissionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from actuators.kubernetes.stock_out import StockOut
from planner.domain.errors import EndingError, PoolwiseError
from planner.domain.spec import Stage, TargetKind
from planner.service.deployment import Deployment
from planner.service.election.leadership import Leadership
from planner.service.loop.directives import standing
from planner.service.loop.fast_tick import QUIET, fast_tick
from planner.service.loop.slow_tick import tick
from planner.service.loop.stages import Stages
from planner.service.telemetry.logs import fields
from planner.service.telemetry.metrics import Metrics

LOG = logging.getLogger("poolwise.loop")
JITTER_RATIO = 0.05
"""Ticks come up to so much of their interval earlier or later."""
CLOCK_SLACK = timedelta(seconds=1)
"""So much later than an interval is no clock that was set back."""
SLOW, FAST = "slow", "fast"
MISSED = EVENT_JOB_MAX_INSTANCES | EVENT_JOB_MISSED

MOST_THREADS = 256
"""Ticks that wait for a target or for their turn to compute hold a thread each. What they compute
is bounded by `loop.stages`, so that many deployments tick on few cores and none holds up others."""

Tick = Callable[[Leadership, Metrics], None]


def make_scheduler(metrics: Metrics) -> BackgroundScheduler:
    """Runs the ticks of all deployments of a process; begins with `start`.

    Ticks that were missed or overlap run once, and are counted.
    """
    threads = ThreadPoolExecutor(MOST_THREADS)
    scheduler = BackgroundScheduler(timezone=UTC, executors={"default": threads})
    scheduler.add_listener(partial(_count_missed, metrics), MISSED)
    return scheduler


def look_soon(scheduler: BackgroundScheduler, leadership: Leadership) -> None:
    """Have the fleet be read at once, where it is read at all."""
    if leadership.deployment.spec.target in (TargetKind.KUBERNETES, TargetKind.LOCAL):
        scheduler.add_job(look_at_target, args=(leadership.deployment,), misfire_grace_time=None)


def schedule_ticks(
    scheduler: BackgroundScheduler,
    leadership: Leadership,
    metrics: Metrics,
    *,
    before_tick: Callable[[], None] = lambda: None,
    first_ratio: float = 1.0,
) -> None:
    """Tick every `loop.slow_interval_s`, and look at waiting work every `loop.fast_interval_s`.

    As often as the loop of the spec in force says; called again, what is so already stays. In mode
    off, too: the mode may be changed at run time. A little jitter keeps the processes and
    deployments of one database from ticking all at once.

    Parameters
    ----------
    before_tick : callable
        Called first of all: takes over a spec that another process was given.
    first_ratio : float
        Share of the interval until the first slow tick; deployments that begin together have
        different ones.
    """
    loop, name = leadership.deployment.spec.loop, leadership.deployment.spec.name

    def ticking(act: Tick) -> Callable[[], None]:
        return partial(_tick, act, leadership, metrics, before_tick)

    slow = Often(
        seconds=loop.slow_interval_s,
        jitter_s=JITTER_RATIO * loop.slow_interval_s,
        first_s=first_ratio * loop.slow_interval_s,
    )
    fast = Often(seconds=loop.fast_interval_s, first_s=loop.fast_interval_s)
    _every(slow, scheduler, f"{SLOW}:{name}", ticking(tick_as_leader))
    _every(fast, scheduler, f"{FAST}:{name}", ticking(fast_tick_as_leader))


def unschedule(scheduler: BackgroundScheduler, deployment: str) -> None:
    """Have nothing done for a deployment any more; what is under way ends by itself."""
    for job in scheduler.get_jobs():
        if str(job.id).partition(":")[2] == deployment:
            job.remove()


@dataclass(frozen=True, slots=True, kw_only=True)
class Often:
    """How often something is done; 0 s: not at all."""

    seconds: float
    first_s: float
    jitter_s: float | None = None


def _every(
    often: Often, scheduler: BackgroundScheduler, job_id: str, act: Callable[[], None]
) -> None:
    """Have something done every so many seconds. What is so already stays."""
    job = scheduler.get_job(job_id)
    if job is not None and job.trigger.interval.total_seconds() == often.seconds:
        return
    if often.seconds <= 0:
        if job is not None:
            job.remove()
        return
    scheduler.add_job(
        act,
        "interval",
        seconds=often.seconds,
        start_date=datetime.now(UTC) + timedelta(seconds=often.first_s),
        jitter=often.jitter_s,
        id=job_id,
        replace_existing=True,
        max_instances=1,
        coalesce=True,
        misfire_grace_time=None,
    )


def keep_on_time(scheduler: BackgroundScheduler) -> None:
    """Have nothing come later than one interval from now; called every few seconds.

    The scheduler goes by the machine's clock. Where that is set back, what was due in a minute
    would wait for as long as it was set back, and nothing would tick meanwhile.
    """
    now = datetime.now(UTC)
    for job in scheduler.get_jobs():
        interval = getattr(job.trigger, "interval", None)
        due_at: datetime | None = getattr(job, "next_run_time", None)
        if interval is None or due_at is None:
            continue
        latest = now + interval + timedelta(seconds=job.trigger.jitter or 0) + CLOCK_SLACK
        if due_at > latest:
            LOG.warning("the clock was set back: %s is due again in %s", job.id, interval)
            job.modify(next_run_time=now + interval)


def _tick(
    act: Tick, leadership: Leadership, metrics: Metrics, before_tick: Callable[[], None]
) -> None:
    try:
        before_tick()
    except PoolwiseError as error:
        name = leadership.deployment.spec.name
        LOG.warning("deployment=%s goes on under the spec that it has: %s", name, error)
    act(leadership, metrics)


def _count_missed(metrics: Metrics, event: JobSubmissionEvent) -> None:
    """Something was due while the one before was still at it, or far too late; ticks count."""
    kind, _, deployment = str(event.job_id).partition(":")
    why = "overlap" if event.code == EVENT_JOB_MAX_INSTANCES else "late"
    if kind not in (SLOW, FAST):
        LOG.warning("deployment=%s %s was not run: %s", deployment or "-", kind, why)
        return
    metrics.loop.missed.labels(deployment, kind, why).inc()
    LOG.warning("deployment=%s a %s tick was not run: %s", deployment, kind, why)


def look_at_target(deployment: Deployment) -> None:
    """Say at once what the first plan would stumble over: a fleet that cannot be read."""
    stages = Stages(slots=deployment.stages.slots)  # beside a tick of the same deployment
    deadline_s = deployment.spec.loop.deadlines.observe_s
    try:
        stages.run(Stage.OBSERVE, deployment.actuator.read_fleet, deadline_s=deadline_s)
    except EndingError:
        return
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
    about = fields(
        deployment=deployment.spec.name,
        outcome=report.outcome.value,
        stage=report.failed_stage or "-",
        plan_id=report.plan_id or "-",
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

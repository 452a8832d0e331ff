"""Once an hour the leader tidies the store, in small pieces; nobody waits for it."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.base import BaseScheduler

from planner.domain.errors import NotLeaderError, PoolwiseError
from planner.service.deployment import LONGEST_HISTORY, Deployment
from planner.service.election.leadership import Leadership
from planner.service.store import Keeping

LOG = logging.getLogger("poolwise.store")
INTERVAL_S = 3_600.0
FIRST_S = 300.0
"""After the start: the first ticks have other things to do."""
JITTER_S = 120.0
"""Deployments are not tidied all at once."""
PAUSE_S = 0.02
"""Between two transactions, so that others get in."""
LONGEST_S = 1_200.0
"""A backlog, as after an update, is worked off in several runs."""


def schedule_tidying(scheduler: BaseScheduler, leadership: Leadership, keeping: Keeping) -> None:
    """Have a scheduler tidy the store of a deployment while this process leads."""
    scheduler.add_job(
        tidy_as_leader,
        "interval",
        args=(leadership, keeping),
        kwargs={"goes_on": lambda: scheduler.running},
        seconds=INTERVAL_S,
        jitter=JITTER_S,
        start_date=datetime.now(UTC) + timedelta(seconds=FIRST_S),
        id=f"tidy:{leadership.deployment.spec.name}",
        max_instances=1,
        coalesce=True,
        misfire_grace_time=None,
    )


def always() -> bool:
    """Nothing ends it before it is done."""
    return True


def tidy_as_leader(
    leadership: Leadership, keeping: Keeping, *, goes_on: Callable[[], bool] = always
) -> None:
    """Tidy where this process leads; what goes wrong is logged, and tried again the next time."""
    name = leadership.deployment.spec.name
    try:
        leading = leadership.leading()
        if leading is not None:
            tidy(leading, keeping, now=leading.clock(), goes_on=goes_on)
    except NotLeaderError as error:
        LOG.info("deployment=%s tidying goes on with the next leader: %s", name, error)
    except PoolwiseError as error:
        LOG.warning("deployment=%s the store could not be tidied: %s", name, error)
    except Exception:
        LOG.exception("deployment=%s tidying the store failed unexpectedly", name)


def tidy(
    deployment: Deployment,
    keeping: Keeping,
    *,
    now: datetime,
    pause_s: float = PAUSE_S,
    goes_on: Callable[[], bool] = always,
) -> dict[str, int]:
    """Sum up and delete what is old by now; how much of what went.

    Parameters
    ----------
    pause_s : float
        Between two transactions, seconds.
    goes_on : callable
        Asked after each of them: False when the process is about to end.

    Raises
    ------
    StoreError, NotLeaderError
        What was done until then stays done.
    """
    began, store = time.monotonic(), deployment.store
    upkeep = store.upkeep(deployment.spec.name, keeping, newest=LONGEST_HISTORY, now=now)
    gone: Counter[str] = Counter()
    for done in upkeep.run():
        gone[done.what] += done.before
        if not goes_on() or time.monotonic() - began > LONGEST_S:
            break
        time.sleep(pause_s)
    told = dict(gone)
    if told:
        upkeep.remember(told, actor="serve")
        LOG.info("deployment=%s tidied=%s took_s=%.1f", deployment.spec.name, told,
                 time.monotonic() - began)  # fmt: skip
    return told

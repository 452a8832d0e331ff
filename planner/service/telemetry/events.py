"""Finds what people want to know, beside the loop: plans' states, burning budgets, a failing loop.

A thread looks into the store every few seconds and at every reading of the deployment. So whoever
moved a plan (the loop, a person, another process), it is told once, and the loop waits for nobody.
Only the leader tells.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from planner.domain.errors import PoolwiseError
from planner.domain.rollout import Approval, ApprovalState
from planner.domain.spec import LoopMode
from planner.service.deployment import Deployment
from planner.service.telemetry.notifying import Kind, Notification, Notifier
from planner.service.telemetry.own_metrics import LONGEST_GAP_S, arrivals_of
from serving.telemetry.signals import DeploymentSignals

LOG = logging.getLogger("poolwise.notify")
EVERY_S = 5.0
FAILED_TICKS = 3
"""In a row, until people are told."""
LATE_INTERVALS = 3
LONG_S, SHORT_S = 3600.0, 300.0
MOST_MISSED_RATIO = 0.8
"""As in the alert rules: a loose promise cannot burn 14.4 times too fast."""

_KINDS = {
    ApprovalState.PENDING: Kind.APPROVAL_WANTED,
    ApprovalState.APPLIED: Kind.PLAN_APPLIED,
    ApprovalState.FAILED: Kind.PLAN_FAILED,
    ApprovalState.ROLLED_BACK: Kind.PLAN_ROLLED_BACK,
}
_SAID = {
    Kind.APPROVAL_WANTED: "plan {} waits for approval",
    Kind.PLAN_APPLIED: "plan {} was applied",
    Kind.PLAN_FAILED: "plan {} failed",
    Kind.PLAN_ROLLED_BACK: "plan {} was rolled back",
}


@dataclass(slots=True)
class BurnWatch:
    """Arrivals and misses of one class over the last hour.

    Parameters
    ----------
    allowed_ratio : float
        Share that may miss.
    """

    allowed_ratio: float
    burn_ratio: float
    _seen: deque[tuple[datetime, float, float]] = field(default_factory=deque, init=False)

    def add(self, at: datetime, arrived: float, missed: float) -> float | None:
        """The share that missed in the last hour, where that and the last minutes are too much."""
        self._seen.append((at, arrived, missed))
        while self._seen and (at - self._seen[0][0]).total_seconds() > LONG_S:
            self._seen.popleft()
        limit = min(self.burn_ratio * self.allowed_ratio, MOST_MISSED_RATIO)
        if (at - self._seen[0][0]).total_seconds() < SHORT_S:
            return None  # it has just begun to look
        long, short = self._ratio(at, LONG_S), self._ratio(at, SHORT_S)
        if long is None or short is None:
            return None
        return long if min(long, short) > limit else None

    def _ratio(self, at: datetime, seconds: float) -> float | None:
        since = at - timedelta(seconds=seconds)
        arrived = sum(a for t, a, _ in self._seen if t > since)
        missed = sum(m for t, _, m in self._seen if t > since)
        return missed / arrived if arrived > 0 else None


@dataclass(slots=True)
class EventWatch:
    """Looks, and tells.

    Parameters
    ----------
    leads : callable
        Whether this process is the one that tells.
    """

    deployment: Deployment
    notifier: Notifier
    leads: Callable[[], bool]
    burn_ratio: float = 14.4
    _place: int | None = field(default=None, init=False)
    _since: datetime | None = field(default=None, init=False)
    _looked_at: datetime | None = field(default=None, init=False)
    _burns: dict[str, BurnWatch] = field(default_factory=dict, init=False)
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=EVERY_S)

    def follow(self, deployment: Deployment) -> None:
        """Watch a deployment in the place of the one before: its spec was replaced.

        What was promised may be another thing now, so that budgets are watched anew.
        """
        self.deployment, self._burns = deployment, {}

    def look(self, *, now: datetime) -> None:
        """Tell what came since the last look; the first one only remembers where things stand.

        Raises
        ------
        StoreError
            When the store does not answer.
        """
        log = self.deployment.store.approval_log(self.deployment.spec.name)
        if self._place is None or not self.leads():
            self._place, self._since = log.newest(), now
            return
        states = log.after(self._place)
        if states:
            self._place = states[-1][0]
        newest = {approval.plan_id: approval for _, approval in states}
        for approval in newest.values():
            self._tell_state(approval)
        self._look_at_loop(now)

    def take(self, signals: DeploymentSignals) -> None:
        """Look at a reading of the deployment; as `LiveSignals.on_signals` calls it."""
        before, self._looked_at = self._looked_at, signals.looked_at
        seconds = 0.0 if before is None else (signals.looked_at - before).total_seconds()
        if not 0 < seconds <= LONGEST_GAP_S:
            return
        for slo in signals.slos:
            rate, met = arrivals_of(signals, slo), slo.attainment_ratio.value
            if rate is None or met is None:
                continue
            watch = self._burns.setdefault(
                slo.request_class, BurnWatch(1 - slo.target_ratio, self.burn_ratio)
            )
            arrived = rate * seconds
            missed = watch.add(signals.looked_at, arrived, arrived * (1 - met))
            if missed is not None and self.leads():
                self._tell(
                    Kind.SLO_BURN,
                    signals.looked_at,
                    slo.request_class,
                    f"class {slo.request_class} missed {missed:.1%} of its requests in the last "
                    f"hour, {1 - slo.target_ratio:.1%} are allowed",
                    {"bottleneck": signals.bottleneck_why or "not known"},
                )

    def _tell_state(self, approval: Approval) -> None:
        kind = _KINDS.get(approval.state)
        if kind is None:
            return
        self._tell(
            kind,
            approval.changed_at,
            f"{approval.plan_id}:{approval.changed_at.isoformat()}",
            _SAID[kind].format(approval.plan_id),
            {"by": approval.changed_by, "reason": approval.reason or "-"},
        )

    def _look_at_loop(self, now: datetime) -> None:
        spec = self.deployment.spec
        if spec.loop.mode is LoopMode.OFF:
            return
        newest = self.deployment.store.decisions(spec.name, limit=FAILED_TICKS)
        if len(newest) == FAILED_TICKS and all(one.outcome == "failed" for one in newest):
            summary = f"the last {FAILED_TICKS} ticks failed: {newest[0].reason}"
            self._tell(Kind.LOOP_FAILING, now, "failed", summary, {})
        started = self._since or now
        last = max([started, *(one.decided_at for one in newest)])
        late_s = (now - last).total_seconds()
        if late_s > LATE_INTERVALS * spec.loop.slow_interval_s + 60:
            summary = f"no tick came to its end for {late_s:.0f} s"
            self._tell(Kind.LOOP_FAILING, now, "late", summary, {})

    def _tell(
        self, kind: Kind, at: datetime, key: str, summary: str, facts: dict[str, str]
    ) -> None:
        self.notifier.tell(
            Notification(
                kind=kind,
                deployment=self.deployment.spec.name,
                at=at,
                key=key,
                summary=summary,
                facts=facts,
            )
        )

    def _run(self) -> None:
        complained = False
        while not self._stopped.is_set():
            try:
                self.look(now=self.deployment.clock())
                complained = False
            except PoolwiseError as error:
                if not complained:
                    LOG.warning("what happened cannot be read, so that nobody is told: %s", error)
                complained = True
            except Exception:  # a fault here must not end the telling
                LOG.exception("looking for what happened failed unexpectedly")
            self._stopped.wait(EVERY_S)

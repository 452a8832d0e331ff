"""One deployment as the service sees it: its spec, its eyes, its hands, its memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from actuators.actuator import Actuator
from forecaster.memory import Memory
from planner.domain.rollout import Diff, StepKind
from planner.domain.spec import Spec
from planner.domain.workload import ObservedWindow
from planner.rollout import GuardConditions
from planner.service.store import DecisionRecord, Store

LONGEST_HISTORY = 5_000
"""Windows of each class that a forecast looks back on; at 5 minutes each more than two weeks.
More than the steps that `forecaster.panel` looks back on: cut shorter, it would learn all anew."""
LONGEST_RUN = 1_000
"""Decisions looked back on to find since when capacity is unneeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen of the load.

    Parameters
    ----------
    windows : tuple of ObservedWindow
        Oldest first; empty when nothing was ever seen, which is not zero load.
    observed_at : datetime or None
        Until when the load is known.
    """

    windows: tuple[ObservedWindow, ...]
    observed_at: datetime | None


class Observer(Protocol):
    """Where observed load comes from: the store, or a live telemetry."""

    def observe(self, *, now: datetime) -> Observation:
        """What was seen of the load until `now`."""
        ...


def utc_now() -> datetime:
    """The clock of the service."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Everything that a tick needs.

    Parameters
    ----------
    model : str
        The model that is planned (version 1 plans one).
    clock : callable
        Gives the instant at which something ended.
    memory : Memory
        What forecasts have learned so far, so that a tick only takes the new windows.
    """

    spec: Spec
    model: str
    observer: Observer
    actuator: Actuator
    store: Store
    clock: Callable[[], datetime] = utc_now
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreObserver:
    """Windows that were handed in through the API."""

    store: Store
    deployment: str
    model: str

    def observe(self, *, now: datetime) -> Observation:
        """The stored windows that ended by `now`."""
        stored = self.store.windows(self.deployment, self.model, limit=LONGEST_HISTORY)
        windows = tuple(s.window for s in stored if s.window.end_at <= now)
        ended = max((window.end_at for window in windows), default=None)
        return Observation(windows=windows, observed_at=ended)


def guard_conditions(
    deployment: Deployment, *, observed_at: datetime | None, now: datetime
) -> GuardConditions:
    """What the guards need to know beside the diff."""
    decisions = deployment.store.decisions(deployment.spec.name, limit=LONGEST_RUN)
    return GuardConditions(
        now=now, observed_at=observed_at, unneeded_since=_unneeded_since(decisions)
    )


def takes_away(diff: Diff) -> bool:
    """Whether the diff ends with fewer replicas somewhere, flips not counted."""
    return any(step.kind is StepKind.DRAIN for step in diff.steps)


def _unneeded_since(newest_first: tuple[DecisionRecord, ...]) -> datetime | None:
    """Start of the unbroken run of decisions, up to the newest, that would take capacity away."""
    since = None
    for decision in newest_first:
        if not decision.removes:
            break
        since = decision.decided_at
    return since

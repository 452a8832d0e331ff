"""The stages of a tick, each under its deadline; one that overruns is never doubled."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from planner.domain.errors import EndingError, StageOverrunError
from planner.domain.spec import Stage, StageDeadlines
from planner.domain.wanted import Wanted, working_for
from planner.service.telemetry.tracing import SpanOf, no_span

Result = TypeVar("Result")
LOOK_S = 0.5
"""Between two looks whether the process is to end."""


def _plans_at_once() -> threading.Semaphore:
    """As many as this process may use cores, two at the least."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return threading.Semaphore(max(cores or 1, 2))


@dataclass(frozen=True, slots=True)
class Slots:
    """How many stages that keep a core busy run at once in a process; the others only wait.

    Parameters
    ----------
    forecast : Semaphore
        One: forecasts are many small array operations under the interpreter's lock, and two at
        once only take it from each other. Sixteen that learn from half a day each took 0.60 s by
        the clock one after the other, 0.78 s two at a time and 1.12 s four at a time, at 1.5 and
        2.2 times the processor time (two cores).
    plan : Semaphore
        Solver and twin leave the lock to others while they run.
    ending : Event
        Set when the process is to end: only what changes a fleet is waited for any longer.
    """

    forecast: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(1))
    plan: threading.Semaphore = field(default_factory=_plans_at_once)
    ending: threading.Event = field(default_factory=threading.Event)

    def of(self, stage: Stage) -> AbstractContextManager[object]:
        """What is held while the stage runs."""
        if stage is Stage.FORECAST:
            return self.forecast
        return self.plan if stage is Stage.PLAN else nullcontext()


@dataclass(slots=True)
class _Work(Generic[Result]):
    """Work in a thread of its own, and what came of it."""

    work: Callable[[], Result]
    wanted: Wanted = field(default_factory=Wanted)
    results: list[Result] = field(default_factory=list)
    error: BaseException | None = None

    def run(self) -> None:
        try:
            with working_for(self.wanted):
                self.results.append(self.work())
        except BaseException as error:  # handed to whoever waits
            self.error = error


@dataclass(slots=True)
class Stages:
    """Runs stages for one deployment, one tick at a time.

    A stage that overruns its deadline goes on in its thread: the tick goes on without it, and the
    stage is not begun anew before it has ended.

    Parameters
    ----------
    slots : Slots
        Shared by the deployments of a process: who computes takes one first. The wait for it is
        not part of the deadline, and at the deadline it is free again, so that a deployment whose
        stage hangs holds the others up for no longer than that.
    """

    slots: Slots = field(default_factory=Slots)
    _left: dict[Stage, tuple[threading.Thread, float]] = field(default_factory=dict)

    def run(self, stage: Stage, work: Callable[[], Result], *, deadline_s: float) -> Result:
        """What the work gives; raises what it raises.

        Raises
        ------
        StageOverrunError
            When it takes longer than its deadline, or that of an earlier tick is still at it.
        EndingError
            When the process is to end, and the stage changes nothing.
        """
        left = self._left.get(stage)
        if left is not None and left[0].is_alive():
            raise StageOverrunError(
                f"{stage} of an earlier tick is still at it, for "
                f"{time.monotonic() - left[1]:.0f} s (deadline {deadline_s:g} s)"
            )
        job = _Work(work)
        with self.slots.of(stage):
            began_s = time.monotonic()
            thread = threading.Thread(target=job.run, name=f"stage-{stage}", daemon=True)
            thread.start()
            self._wait(thread, stage, job.wanted, until_s=began_s + deadline_s)
        if thread.is_alive():
            self._left[stage] = (thread, began_s)
            raise StageOverrunError(f"{stage} took longer than its deadline of {deadline_s:g} s")
        self._left.pop(stage, None)
        if job.error is not None:
            raise job.error
        return job.results[0]

    def _wait(
        self, thread: threading.Thread, stage: Stage, wanted: Wanted, *, until_s: float
    ) -> None:
        """For its end or the deadline; a stage that only looks or computes may be given up."""
        while thread.is_alive() and time.monotonic() < until_s:
            if stage is not Stage.APPLY and self.slots.ending.is_set():
                wanted.give_up()
                thread.join(LOOK_S)
                raise EndingError(f"the server ends, and its tick is given up in stage {stage}")
            thread.join(max(min(until_s - time.monotonic(), LOOK_S), 0.0))

    def finish(self, stage: Stage) -> None:
        """Wait for the end of a stage that was left behind."""
        left = self._left.get(stage)
        if left is not None:
            left[0].join()


@dataclass(slots=True)
class Course:
    """How a tick goes.

    Parameters
    ----------
    span : callable
        Opens a span around a stage.
    stage : Stage or None
        The one that it is in, or failed in.
    took_s : dict of Stage to float
        How long each stage was waited for, seconds.
    """

    stages: Stages
    deadlines: StageDeadlines
    span: SpanOf = no_span
    stage: Stage | None = None
    took_s: dict[Stage, float] = field(default_factory=dict)

    def run(self, stage: Stage, work: Callable[[], Result]) -> Result:
        """As `Stages.run`."""
        self.stage, began_s = stage, time.monotonic()
        try:
            with self.span(stage.value):
                result = self.stages.run(stage, work, deadline_s=self.deadlines.of(stage))
        finally:
            self.took_s[stage] = self.took_s.get(stage, 0.0) + time.monotonic() - began_s
        self.stage = None
        return result

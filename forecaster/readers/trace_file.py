"""What reading a trace gives: the requests, and what was found wrong on the way."""

from dataclasses import dataclass
from pathlib import Path

from forecaster.trace_format import TraceFormat
from planner.domain.wording import counted
from planner.domain.workload import Workload

__all__ = ["ReadReport", "TraceFile", "TraceFormat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReport:
    """What a reader met in one file.

    Parameters
    ----------
    rows_read : int
        All rows of the file, refused ones included; blank lines are no rows.
    rows_refused : int
        Rows that are not usable, and not in the workload.
    reasons : tuple of str
        The first refusals, `line N: why`; the last entry counts the ones not listed.
    arrival_tick_s : float or None
        Step of the clock that stamped the arrivals when it is coarse (about 3 s in Mooncake's
        traces), seconds. Nothing shorter than ten ticks can be told from such a trace.
    requests_failed : int
        Rows of requests that got no answer (BurstGPT); not in the workload, not refused.
    remarks : tuple of str
        What else looks wrong but was kept: repeated rows, a clock jump.
    """

    path: Path
    trace_format: TraceFormat
    rows_read: int
    rows_refused: int
    reasons: tuple[str, ...]
    arrival_tick_s: float | None
    requests_failed: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def left_out(self) -> tuple[str, ...]:
        """Why rows are not in the workload: the refusals, and how many requests had failed."""
        if not self.requests_failed:
            return self.reasons
        return (
            *self.reasons,
            f"{counted(self.requests_failed, 'request')} that failed (no answer)",
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say before the requests are used: rows left out, and what looks wrong."""
        return (*(f"skipped: {reason}" for reason in self.left_out), *self.remarks)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TraceFile:
    """The requests of one trace file, with the report of reading it."""

    workload: Workload
    report: ReadReport

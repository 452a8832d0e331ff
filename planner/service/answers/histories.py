"""The history behind a forecast: from a trace or from windows in JSON, and its faults."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, pairwise
from pathlib import Path
from statistics import median_low

from forecaster.panel import MOST_STEPS
from planner.domain.errors import InputError
from planner.domain.forecast import KnownEvent
from planner.domain.wording import counted
from planner.domain.workload import ObservedWindow
from planner.service.answers.planning import trace_history
from planner.service.documents.history import history_end, read_history, windows_of

FEWEST_WINDOWS = 12
"""With fewer windows the quantiles still are mostly an assumed spread."""

HOLE_WINDOWS, HOLE_SHARE = 10, 0.05
"""A silence of so many windows and such a share of the history is worth a remark."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AskedHistory:
    """Observed windows, and what should be known about them.

    Parameters
    ----------
    windows : tuple of ObservedWindow
        In order of time, at least one.
    ended_at : datetime
        End of the last window.
    arrival_cv2 : float
        Squared variation of the gaps between arrivals; 1, as of Poisson arrivals, where single
        requests are not known.
    notes : tuple of str
        Rows left out or written twice, gaps, silences, answers not counted; for people.
    """

    windows: tuple[ObservedWindow, ...]
    ended_at: datetime
    arrival_cv2: float
    notes: tuple[str, ...]


def asked_history(
    *,
    trace: Path | None,
    history: Path | None,
    window_s: float,
    start_at: datetime | None = None,
    at: datetime | None = None,
) -> AskedHistory:
    """The history of a trace or of a JSON file, one of them.

    Parameters
    ----------
    window_s : float
        Windows that a trace is cut into, seconds; a file has its own.

    Raises
    ------
    InputError
        When both or none are given, and as the two below.
    """
    if trace is not None and history is not None:
        raise InputError("give --trace or --history, one of them")
    if trace is not None:
        return history_of_trace(trace, window_s=window_s, start_at=start_at, at=at)
    if history is None:
        raise InputError("give --trace FILE (requests) or --history FILE (observed windows, JSON)")
    if start_at is not None:
        raise InputError("--start-at is for --trace: windows have instants of their own")
    return history_of_file(history, at=at)


def history_of_trace(
    path: Path, *, window_s: float, start_at: datetime | None = None, at: datetime | None = None
) -> AskedHistory:
    """A trace file cut into windows, up to `at`.

    Raises
    ------
    TraceError
        When the file is not usable, or no whole window lies before `at`.
    """
    history = trace_history(path, window_s=window_s, start_at=start_at, at=at)
    said = (*history.report.notes, *notes_of(history.windows))
    return AskedHistory(
        windows=history.windows,
        ended_at=history.ended_at,
        arrival_cv2=history.arrival_cv2,
        notes=tuple(f"{path}: {note}" for note in said),
    )


def history_of_file(path: Path, *, at: datetime | None = None) -> AskedHistory:
    """The windows of a JSON file that ended by `at`.

    Raises
    ------
    HistoryError
        When the file is not usable, or no window ended by `at`.
    """
    past = windows_of(read_history(path, until=at).history, where=str(path), until=at)
    return AskedHistory(
        windows=past,
        ended_at=history_end(past, where=str(path)),
        arrival_cv2=1.0,
        notes=tuple(f"{path}: {note}" for note in notes_of(past)),
    )


def event_notes(events: Sequence[KnownEvent], windows: Sequence[ObservedWindow]) -> tuple[str, ...]:
    """Events that change nothing, since no window is of their class."""
    seen = {window.request_class for window in windows}
    return tuple(
        f"event {event.name}: the history has no class {event.request_class}, only "
        f"{', '.join(sorted(seen))}: it changes nothing"
        for event in events
        if event.request_class is not None and event.request_class not in seen
    )


def notes_of(windows: Sequence[ObservedWindow]) -> tuple[str, ...]:
    """What should be known before a forecast from these windows is believed."""
    ordered = sorted(windows, key=lambda w: (w.request_class, w.start_at))
    notes = []
    for name, group in groupby(ordered, key=lambda w: w.request_class):
        of_class = list(group)
        notes += [f"class {name}: {note}" for note in _class_notes(of_class)]
    return tuple(notes)


def _class_notes(windows: list[ObservedWindow]) -> Iterator[str]:
    requests = sum(w.requests for w in windows)
    if requests == 0:
        yield (
            f"no request in {counted(len(windows), 'window')}: what is forecast is what such a "
            "silence does "
            "not rule out"
        )
    elif requests == 1:
        yield "one request in all: a forecast rests on it alone"
    yield from _uncounted(windows)
    if len(windows) < FEWEST_WINDOWS:
        yield (
            f"{counted(len(windows), 'window')} only: the quantiles are mostly an assumed "
            "spread; give "
            f"{FEWEST_WINDOWS} or more, or shorter windows"
        )
    lengths = {w.window_s for w in windows}
    if len(lengths) > 1:
        yield (
            f"windows of {min(lengths):g} to {max(lengths):g} s: they are put on steps of their "
            "median length"
        )
    yield from _gaps(windows)
    if requests > 0:
        yield from _silence(windows)


def _uncounted(windows: list[ObservedWindow]) -> Iterator[str]:
    """Windows with fewer answer tokens than requests: one token an answer is the least."""
    busy = [w for w in windows if w.requests > 0]
    silent = [w for w in busy if not w.has_answers_counted]
    if not silent:
        return
    requests, tokens = (
        sum(getattr(w, name) for w in silent) for name in ("requests", "output_tokens")
    )
    few = f"only {tokens:,} output tokens" if tokens else "a single output token"
    with_few = f"{'with' if tokens else 'without'} {few}"
    said = f"{counted(requests, 'request')} {with_few}: were answers counted?"
    if len(silent) == len(busy):
        yield (
            f"{said} No answer is shorter than 1 token, so that little decode work is forecast; "
            "give output_tokens"
        )
        return
    yield (
        f"{len(silent):,} of {len(busy):,} windows, from {_shown(silent[0].start_at)} to "
        f"{_shown(silent[-1].end_at)}, hold {said} Their output tokens and their lengths "
        "count as unknown, not as zero: answers are forecast from the other "
        f"{len(busy) - len(silent):,}"
    )


def _gaps(windows: list[ObservedWindow]) -> Iterator[str]:
    step_s = median_low([w.window_s for w in windows])
    gaps = [
        ((after.start_at - before.end_at).total_seconds(), before, after)
        for before, after in pairwise(windows)
    ]
    missing_s = sum(gap_s for gap_s, _, _ in gaps if gap_s > step_s / 2)
    if missing_s > 0:
        longest_s, before, after = max(gaps, key=lambda gap: gap[0])
        yield (
            f"{missing_s:,.0f} s are not covered by any window and count as unknown, not as zero; "
            f"the longest gap, {longest_s:,.0f} s, lies from {_shown(before.end_at)} to "
            f"{_shown(after.start_at)} (if the clock was set there, correct the instants)"
        )
    oldest_s = MOST_STEPS * step_s
    if (windows[-1].end_at - windows[0].start_at).total_seconds() > oldest_s * (1 + 1e-9):
        yield f"only the last {MOST_STEPS:,} steps ({oldest_s:,.0f} s) are looked at"


def _silence(windows: list[ObservedWindow]) -> Iterator[str]:
    runs = [list(run) for idle, run in groupby(windows, key=lambda w: w.requests == 0) if idle]
    longest = max(runs, key=len, default=[])
    if len(longest) < max(HOLE_WINDOWS, HOLE_SHARE * len(windows)):
        return
    seconds = (longest[-1].end_at - longest[0].start_at).total_seconds()
    yield (
        f"no request arrives for {seconds:,.0f} s from {_shown(longest[0].start_at)} on, which "
        "counts as zero traffic; if nothing was recorded there, or the clock jumped, leave those "
        "windows out"
    )


def _shown(moment: datetime) -> str:
    return moment.isoformat()

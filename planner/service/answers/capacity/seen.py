"""What a capacity report is about: observed windows, from a trace, a file, a store or a text."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import numpy as np

from forecaster.synthesize import synthesize_classes
from forecaster.windows import arrival_cv2_of
from planner.domain.errors import InputError
from planner.domain.spec import Spec
from planner.domain.workload import ObservedWindow, Workload
from planner.service.answers.histories import history_of_file, notes_of
from planner.service.answers.planning import read_requests, whole_windows
from planner.service.documents.history import history_end
from planner.service.documents.trace_description import TraceDescriptionDocument
from planner.service.loop.rolling_up import hour_of, roll_up

HOUR_S, DAY_S = 3600.0, 86_400.0
LONG_S = 2 * DAY_S
"""From so much history on a day is planned, by the hour; shorter ones tell of no day."""
QUICK_WINDOW_S = 4 * HOUR_S

_TOLERANCE_S = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """Observed windows and what is known about them.

    Parameters
    ----------
    source : str
        For people.
    described : bool
        Nobody saw it arrive: it was drawn from a description.
    arrival_cv2 : float
        Squared variation of the gaps between arrivals; 1 where single requests are not known.
    arrivals_known : bool
        Whether `arrival_cv2` was seen; else it is assumed.
    reuse_known : bool
        Whether cached tokens of 0 mean that nothing was seen before.
    """

    source: str
    described: bool = False
    windows: tuple[ObservedWindow, ...]
    ended_at: datetime
    arrival_cv2: float
    arrivals_known: bool = True
    reuse_known: bool
    notes: tuple[str, ...]

    @property
    def start_at(self) -> datetime:
        """When the first window begins."""
        return min(window.start_at for window in self.windows)


def seen_in_trace(
    path: Path, spec: Spec, *, start_at: datetime | None = None, at: datetime | None = None
) -> Seen:
    """The requests of a trace file, cut into the windows that `planning_spec` will ask for.

    Raises
    ------
    TraceError
        When the file is not usable, or no whole window lies before `at`.
    """
    workload, report = read_requests(path, start_at=start_at, until=at)
    windows = whole_windows(workload, path=path, window_s=_step_s(spec, workload), at=at)
    return Seen(
        source=path.name,
        windows=windows,
        ended_at=max(window.end_at for window in windows),
        arrival_cv2=arrival_cv2_of(workload),
        reuse_known=workload.prefix is not None,
        notes=(*report.notes, *notes_of(windows)),
    )


def seen_in_description(
    document: TraceDescriptionDocument,
    spec: Spec,
    *,
    start_at: datetime,
    rate_rps: float | None = None,
    seed: int = 0,
) -> Seen:
    """Requests drawn from a description, as if they had arrived.

    Parameters
    ----------
    start_at : datetime
        When they begin, where the description does not say.
    rate_rps : float or None
        Mean rate of all classes together, requests/s, instead of the description's.

    Raises
    ------
    InputError
        When nothing is drawn.
    """
    if rate_rps is not None:
        document = at_rate(document, rate_rps)
    workload = synthesize_classes(
        document.descriptions(),
        start_at=document.start_at or start_at,
        rng=np.random.default_rng(seed),
    )
    if len(workload) == 0:
        raise InputError(
            f"{document.name}: no request was drawn: the rate is too low for the duration"
        )
    step_s = _step_s(spec, workload)
    windows = whole_windows(workload, path=Path(document.name), window_s=step_s)
    return Seen(
        source=f"the description {document.name}",
        described=True,
        windows=windows,
        ended_at=max(window.end_at for window in windows),
        arrival_cv2=arrival_cv2_of(workload),
        reuse_known=True,
        notes=notes_of(windows),
    )


def at_rate(document: TraceDescriptionDocument, rate_rps: float) -> TraceDescriptionDocument:
    """The description with another mean rate of all classes together; shares stay.

    Raises
    ------
    InputError
        When that is no rate, or makes too many requests.
    """
    total = sum(part.request_rate_rps for part in document.classes)
    data = document.model_dump()
    for part in data["classes"]:
        part["request_rate_rps"] *= rate_rps / total
    try:
        return TraceDescriptionDocument.model_validate(data)
    except ValueError as error:
        raise InputError(
            f"--rate {rate_rps:g}: {document.name} cannot be drawn at that rate: more requests "
            "than are drawn at once, or none; give another rate or a shorter duration_s"
        ) from error


def seen_in_file(path: Path, *, at: datetime | None = None) -> Seen:
    """The observed windows of a JSON file. Raises HistoryError."""
    return seen_in_windows(history_of_file(path, at=at).windows, source=path.name)


def seen_in_windows(windows: tuple[ObservedWindow, ...], *, source: str) -> Seen:
    """Windows that somebody observed; of long histories the sums over whole hours.

    Raises
    ------
    HistoryError
        When there is none: no data is not zero traffic.
    """
    ended_at = history_end(windows, where=source)
    said = notes_of(windows)
    first = min(window.start_at for window in windows)
    if _is_long((ended_at - first).total_seconds()):
        windows = _by_the_hour(windows)
    return Seen(
        source=source,
        windows=windows,
        ended_at=ended_at,
        arrival_cv2=1.0,
        arrivals_known=False,
        reuse_known=any(window.cached_tokens for window in windows),
        notes=said,
    )


def planning_spec(spec: Spec, seen: Seen, *, quick: bool) -> Spec:
    """The spec with the windows that are planned: a day by the hour, where days were seen.

    A spec that looks a day or further ahead itself is left as it is.
    """
    own = spec.forecast
    ahead_s = own.window_s * own.horizon_windows
    if not _is_long((seen.ended_at - seen.start_at).total_seconds()) or ahead_s >= DAY_S:
        return spec
    window_s = QUICK_WINDOW_S if quick else HOUR_S
    changed = replace(own, window_s=window_s, horizon_windows=round(DAY_S / window_s))
    return replace(spec, forecast=changed)


def _is_long(duration_s: float) -> bool:
    return duration_s >= LONG_S - HOUR_S - _TOLERANCE_S


def _step_s(spec: Spec, workload: Workload) -> float:
    """How a trace is cut: by the hour, where a day is going to be planned."""
    own = spec.forecast
    if own.window_s * own.horizon_windows >= DAY_S or not _is_long(workload.duration_s):
        return own.window_s
    return HOUR_S


def _by_the_hour(windows: tuple[ObservedWindow, ...]) -> tuple[ObservedWindow, ...]:
    ordered = sorted(windows, key=lambda w: (w.request_class, w.start_at))
    hours = groupby(ordered, key=lambda w: (w.request_class, hour_of(w.start_at)))
    rolled = [window for _, of_hour in hours for window in roll_up(list(of_hour))]
    return tuple(sorted(rolled, key=lambda w: (w.start_at, w.request_class)))


def described_start(now: datetime) -> datetime:
    """Midnight UTC before `now`: where a described workload begins that says nothing of it."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

"""What was measured, written as it comes: an interrupted run goes on, or is used as it is."""

import json
import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from planner.domain.errors import MeasurementError, ProfileError
from profiler.fitting.profile import Setting
from profiler.samples import Kind, Point, Sample, Samples

SCHEMA = "poolwise/profile-journal/v1"
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


T = TypeVar("T", bound=_Line)


class HeaderLine(_Line):
    """What is measured, and of what: samples of something else must not be mixed in."""

    schema_version: Literal["poolwise/profile-journal/v1"] = "poolwise/profile-journal/v1"
    subject: dict[str, str]
    began_at: AwareDatetime


class SampleLine(_Line):
    """One sample."""

    kind: Kind
    x: int = Field(ge=0)
    y: int = Field(ge=0)
    values: dict[str, Finite]
    ratios: tuple[Annotated[float, Field(gt=0, le=1e3)], ...] = ()
    measured_at: AwareDatetime
    took_s: float = Field(ge=0)
    held_out: bool = False
    disturbed: bool = False


class NoteLine(_Line):
    """Something that a reader of the profile should know."""

    note: str


class DisturbedLine(_Line):
    """Samples from this instant up to this line are not to be used.

    Where `first` is given it counts, the place of the earliest of them among all samples: a clock
    that is set while they are taken misleads nobody.
    """

    disturbed_since: AwareDatetime
    why: str
    first: int | None = Field(default=None, ge=0)


class EngineLine(_Line):
    """The engine that answers from here on, by its start."""

    engine_start: str


class BaselineLine(_Line):
    """How long the same short request takes from here on: first token and gap, seconds."""

    baseline: tuple[Finite, Finite]


class SettingLine(_Line):
    """What is measured on what, as far as it was known: a profile can be made without asking."""

    setting: Setting


class FinishedLine(_Line):
    """Nothing is added after this: another run is another measurement."""

    finished_at: AwareDatetime


@dataclass(slots=True)
class Journal:
    """An append-only file of samples and notes.

    Every line is on the disk before the next request is sent.

    Parameters
    ----------
    subject : dict of str to str
        What is measured.
    engine_start : str or None
        Of the engine that answered last.
    baseline : (float, float) or None
        TTFT and gap of a short request when the samples were taken, seconds.
    setting : Setting or None
        As it was known last.
    finished_at : datetime or None
        None: the run was interrupted, or goes on.
    """

    path: Path
    samples: Samples
    notes: list[str]
    subject: dict[str, str]
    began_at: datetime
    engine_start: str | None = None
    baseline: tuple[float, float] | None = None
    setting: Setting | None = None
    finished_at: datetime | None = None
    _size: int | None = None
    """Bytes of the file as this run left it; None: it has written nothing yet."""

    def answered_by(self, engine_start: str | None) -> None:
        """Keep which start of the engine answers; note that samples are of several."""
        if engine_start is None or engine_start == self.engine_start:
            return
        if self.engine_start is not None and self.samples.taken:
            self.note(
                "the engine was started anew between the runs that took these samples; it says "
                "of itself that it is the same"
            )
        self._append(EngineLine(engine_start=engine_start))
        self.engine_start = engine_start

    def keep_baseline(self, ttft_s: float, gap_s: float) -> None:
        """Keep how fast the machine is while what follows is measured."""
        self._append(BaselineLine(baseline=(ttft_s, gap_s)))
        self.baseline = (ttft_s, gap_s)

    def keep_setting(self, setting: Setting) -> None:
        """Keep what is known of what is measured."""
        self._append(SettingLine(setting=setting))
        self.setting = setting

    def finish(self, at: datetime) -> None:
        """Close it."""
        self._append(FinishedLine(finished_at=at))
        self.finished_at = at

    def add(self, sample: Sample) -> None:
        """Keep a sample.

        Raises
        ------
        MeasurementError
            When the disk does not take it.
        """
        self._append(
            SampleLine(
                kind=sample.point.kind,
                x=sample.point.x,
                y=sample.point.y,
                values=dict(sample.values),
                ratios=sample.ratios,
                measured_at=sample.measured_at,
                took_s=sample.took_s,
                held_out=sample.held_out,
                disturbed=sample.disturbed,
            )
        )
        self.samples.add(sample)

    def note(self, text: str) -> None:
        """Keep a note, once."""
        if text not in self.notes:
            self._append(NoteLine(note=text))
            self.notes.append(text)

    def disturb(self, since: datetime, why: str, *, first: int | None = None) -> None:
        """Set aside the samples that were taken since an instant.

        Parameters
        ----------
        first : int or None
            The earliest of them by its place among all samples; None: by the instant.
        """
        self._append(DisturbedLine(disturbed_since=since, why=why, first=first))
        self._set_aside(since, why, first)

    def _set_aside(self, since: datetime, why: str, first: int | None) -> None:
        taken = self.samples.taken
        taken[:] = [
            replace(s, disturbed=True)
            if (s.measured_at >= since if first is None else place >= first)
            else s
            for place, s in enumerate(taken)
        ]
        if why not in self.notes:
            self.notes.append(why)

    def _append(self, line: _Line) -> None:
        """Add a line.

        Raises
        ------
        MeasurementError
            When the disk does not take it, or another run writes to the same file.
        """
        if self._size is not None and self._size != _size_of(self.path):
            raise MeasurementError(
                f"{self.path}: something else writes to it, or took it away: is the same command "
                "running twice? What both measure would be mixed: end one of them"
            )
        _write(self.path, line)
        self._size = _size_of(self.path)


def open_journal(path: Path, subject: dict[str, str], *, began_at: datetime) -> Journal:
    """Begin a journal, or go on with the one that an earlier run of the same thing left.

    Raises
    ------
    ProfileError
        When the file is something else, of another subject, or of a run that is finished.
    MeasurementError
        When the disk does not take it.
    """
    journal = read_journal(path)
    if journal is None:
        _write(path, HeaderLine(subject=subject, began_at=began_at))
        return Journal(path=path, samples=Samples(), notes=[], subject=subject, began_at=began_at)
    if journal.finished_at is not None:
        raise ProfileError(
            f"{path} is of a run that was finished at {journal.finished_at:%Y-%m-%d %H:%M} UTC: "
            "what is measured now is not mixed into it; --fresh measures anew and moves it aside"
        )
    before = journal.subject
    if before != subject:
        differing = sorted(k for k in before | subject if before.get(k) != subject.get(k))
        was = ", ".join(f"{k} {before.get(k)} then, {subject.get(k)} now" for k in differing)
        raise ProfileError(
            f"{path} holds measurements of something else ({was}): go on with what it was made "
            "for, or move it away (--fresh does so) to begin anew"
        )
    return journal


def read_journal(path: Path) -> Journal | None:
    """Read a journal; a last line that was cut off in the writing is dropped.

    Returns
    -------
    Journal or None
        None: there is none, or its first line was not written to its end.

    Raises
    ------
    ProfileError
        Naming the file, the line and what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ProfileError(
            f"{path}: no journal of measurements, for it is not text: move it away (--fresh does "
            "so) to begin anew"
        ) from error
    *lines, rest = text.split("\n")
    if not lines and (rest == "" or _begins_a_header(rest)):
        if rest:
            _cut_to(path, 0)
        return None
    header = _parsed(HeaderLine, lines[0] if lines else rest, path, 1)
    if rest and lines:
        _cut_to(path, len(text.encode()) - len(rest.encode()))
    journal = Journal(
        path=path,
        samples=Samples(),
        notes=[],
        subject=header.subject,
        began_at=header.began_at,
    )
    for number, line in enumerate(lines[1:], start=2):
        _take(line, number, journal)
    return journal


def _begins_a_header(text: str) -> bool:
    begin = f'{{"schema_version":"{SCHEMA}"'
    return text.startswith(begin) or begin.startswith(text)


def _take(line: str, number: int, journal: Journal) -> None:
    """Put one line where it belongs; its first field tells which it is."""
    path = journal.path
    match line[2:].partition('"')[0]:
        case "note":
            journal.notes.append(_parsed(NoteLine, line, path, number).note)
        case "disturbed_since":
            disturbed = _parsed(DisturbedLine, line, path, number)
            journal._set_aside(disturbed.disturbed_since, disturbed.why, disturbed.first)
        case "engine_start":
            journal.engine_start = _parsed(EngineLine, line, path, number).engine_start
        case "baseline":
            journal.baseline = _parsed(BaselineLine, line, path, number).baseline
        case "setting":
            journal.setting = _parsed(SettingLine, line, path, number).setting
        case "finished_at":
            journal.finished_at = _parsed(FinishedLine, line, path, number).finished_at
        case _:
            journal.samples.add(_sample(_parsed(SampleLine, line, path, number)))


def _sample(line: SampleLine) -> Sample:
    return Sample(
        point=Point(line.kind, line.x, line.y),
        values=line.values,
        ratios=line.ratios,
        measured_at=line.measured_at,
        took_s=line.took_s,
        held_out=line.held_out,
        disturbed=line.disturbed,
    )


def _parsed(kind: type[T], line: str, path: Path, number: int) -> T:
    try:
        return kind.model_validate(json.loads(line))
    except (ValidationError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ProfileError(
            f"{path}, line {number}: not a line of `{SCHEMA}` ({first}): move the file away and "
            "measure anew"
        ) from error


def _cut_to(path: Path, length: int) -> None:
    with path.open("r+b") as file:
        file.truncate(length)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _write(path: Path, line: _Line) -> None:
    data = (line.model_dump_json() + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = _size_of(path)
        try:
            with path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            if path.exists():
                _cut_to(path, before)  # half a line would spoil the next one
            raise
    except OSError as error:
        raise MeasurementError(
            f"{path}: cannot be written ({error.strerror}): what was measured before is kept in "
            "it; make room, and the same command goes on from there"
        ) from error

"""What was measured, written as it comes: an interrupted run goes on, or is used as it is."""

import json
import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from planner.domain.errors import MeasurementError, ProfileError
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
    """Samples from this instant up to this line are not to be used."""

    disturbed_since: AwareDatetime
    why: str


@dataclass(slots=True)
class Journal:
    """An append-only file of samples and notes.

    Every line is on the disk before the next request is sent.
    """

    path: Path
    samples: Samples
    notes: list[str]

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

    def disturb(self, since: datetime, why: str) -> None:
        """Set aside the samples that were taken since an instant."""
        self._append(DisturbedLine(disturbed_since=since, why=why))
        self._set_aside(since, why)

    def _set_aside(self, since: datetime, why: str) -> None:
        taken = self.samples.taken
        taken[:] = [replace(s, disturbed=s.disturbed or s.measured_at >= since) for s in taken]
        if why not in self.notes:
            self.notes.append(why)

    def _append(self, line: _Line) -> None:
        _write(self.path, line)


def open_journal(path: Path, subject: dict[str, str], *, began_at: datetime) -> Journal:
    """Begin a journal, or go on with the one that an earlier run of the same thing left.

    Raises
    ------
    ProfileError
        When the file is something else, or of another subject.
    MeasurementError
        When the disk does not take it.
    """
    if not path.exists():
        _write(path, HeaderLine(subject=subject, began_at=began_at))
        return Journal(path=path, samples=Samples(), notes=[])
    header, journal = read_journal(path)
    if header.subject != subject:
        differing = sorted(
            k for k in header.subject | subject if header.subject.get(k) != subject.get(k)
        )
        was = ", ".join(
            f"{k} {header.subject.get(k)} then, {subject.get(k)} now" for k in differing
        )
        raise ProfileError(
            f"{path} holds measurements of something else ({was}): go on with what it was made "
            "for, or move it away (--fresh does so) to begin anew"
        )
    return journal


def read_journal(path: Path) -> tuple[HeaderLine, Journal]:
    """Read a journal; a last line that was cut off in the writing is dropped.

    Raises
    ------
    ProfileError
        Naming the file, the line and what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot be read: {error}") from error
    lines = text.split("\n")
    if lines[-1]:
        _cut_to(path, len(text.encode()) - len(lines[-1].encode()))
    lines = lines[:-1]
    if not lines:
        raise ProfileError(f"{path}: empty: move it away and measure anew")
    header = _parsed(HeaderLine, lines[0], path, 1)
    journal = Journal(path=path, samples=Samples(), notes=[])
    for number, line in enumerate(lines[1:], start=2):
        if line.startswith('{"note"'):
            journal.notes.append(_parsed(NoteLine, line, path, number).note)
        elif line.startswith('{"disturbed_since"'):
            disturbed = _parsed(DisturbedLine, line, path, number)
            journal._set_aside(disturbed.disturbed_since, disturbed.why)
        else:
            journal.samples.add(_sample(_parsed(SampleLine, line, path, number)))
    return header, journal


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


def _write(path: Path, line: _Line) -> None:
    data = (line.model_dump_json() + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.stat().st_size if path.exists() else 0
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

"""Reading of foreign files: every complaint names the file, the field, and what to do."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from planner.domain.errors import ProfileError

LARGEST_BYTES = 512 * 1024 * 1024
"""A larger file is no summary of a benchmark: refused before it is read."""
SHORTEST_S, LONGEST_PROMPT_S, LONGEST_STEP_S = 1e-4, 600.0, 10.0
"""Outside of these, a time is none of a prompt or of a decode step: most likely another unit."""
MOST_TOKENS = 1e9
LARGEST_MEASURE = 1e15
"""No rate, count or time that anybody measures is larger."""
LARGEST_NUMBER = 10**300
"""JSON may hold whole numbers that no floating-point number is as large as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """How a foreign unit of time is converted.

    Parameters
    ----------
    name : str
        As it is written for people.
    seconds : float
        One of it, in seconds.
    """

    name: str
    seconds: float


S, MS = Unit(name="s", seconds=1.0), Unit(name="ms", seconds=1e-3)


def read_text(path: Path, *, what: str) -> str:
    """The text of a file.

    Parameters
    ----------
    what : str
        What it should be, for messages.

    Raises
    ------
    ProfileError
        When it is missing, a folder, too large, unreadable, or no text.
    """
    try:
        if path.is_dir():
            raise ProfileError(f"{path} is a folder; give the file of {what}")
        if path.stat().st_size > LARGEST_BYTES:
            raise ProfileError(f"{path} is larger than {LARGEST_BYTES:,} bytes: no file of {what}")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ProfileError(f"{path}: no such file; give the file of {what}") from error
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path}: not a text file; give the file of {what}") from error
    if not text.strip():
        raise ProfileError(f"{path} is empty; give the file of {what}")
    return text


def parse_json(text: str, *, where: str, what: str) -> object:
    """Parsed JSON.

    Raises
    ------
    ProfileError
        With line and column when it is broken off or not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ProfileError(
            f"{where}:{error.lineno}: not JSON: {error.msg} (column {error.colno}); is the file "
            f"whole, and the one of {what}?"
        ) from error
    except (RecursionError, ValueError) as error:
        raise ProfileError(f"{where}: not to be read as JSON: {error}") from error


def file_time(path: Path) -> datetime:
    """When a file was changed last, UTC."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """A JSON object (or a row) with its place, read field by field.

    Parameters
    ----------
    where : str
        File and place in it, for messages.
    what : str
        What the file should be, for messages.
    values : mapping
    """

    where: str
    what: str
    values: Mapping[str, object]

    @classmethod
    def of(cls, value: object, *, where: str, what: str) -> "Fields":
        """The fields of a parsed value; refuses what is no object."""
        if not isinstance(value, Mapping):
            raise ProfileError(
                f"{where}: a {type(value).__name__}, not an object: give the file of {what}"
            )
        return cls(where=where, what=what, values=value)

    def error(self, field: str, problem: str) -> ProfileError:
        """A complaint about one field."""
        return ProfileError(f"{self.where}: {field}: {problem}")

    def has(self, field: str) -> bool:
        """Whether it is there and not null."""
        return self.values.get(field) is not None

    def inside(self, *path: str) -> "Fields":
        """The object below a path of fields."""
        here: Fields = self
        for field in path:
            value = here.values.get(field)
            if not isinstance(value, Mapping):
                raise here._missing(field)
            here = Fields(where=f"{here.where}: {field}", what=self.what, values=value)
        return here

    def list_of(self, field: str) -> Sequence[object]:
        """A list."""
        value = self.values.get(field)
        if not isinstance(value, list):
            raise self._missing(field)
        return value

    def text(self, field: str) -> str | None:
        """A text, or None where it is absent or something else."""
        value = self.values.get(field)
        return value if isinstance(value, str) and value else None

    def number(self, field: str, *, least: float = 0.0, most: float = LARGEST_MEASURE) -> float:
        """A number within bounds.

        Raises
        ------
        ProfileError
            When it is missing, no number, not finite, or outside.
        """
        value = self.values.get(field)
        if value is None:
            raise self._missing(field)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(field, f"{value!r} is no number")
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise self.error(field, f"a number of {len(str(abs(value)))} digits is no measurement")
        if not math.isfinite(value):
            raise self.error(field, f"{value} is no measurement: leave this run out")
        if not least <= value <= most:
            raise self.error(field, f"{value:g} lies outside {least:g} to {most:g}")
        return float(value)

    def seconds(self, field: str, unit: Unit, *, most_s: float) -> float:
        """A time, converted to seconds; refuses one that no engine takes."""
        value = self.number(field, least=-math.inf)
        return checked_seconds(value, unit, where=f"{self.where}: {field}", most_s=most_s)

    def _missing(self, field: str) -> ProfileError:
        return self.error(field, f"is missing; give the file of {self.what}")


def checked_seconds(value: float, unit: Unit, *, where: str, most_s: float) -> float:
    """A time in seconds.

    Raises
    ------
    ProfileError
        When no engine takes so long or so short, with the unit that was expected.
    """
    seconds = value * unit.seconds
    if not SHORTEST_S <= seconds <= most_s:
        raise ProfileError(
            f"{where}: {value:g} {unit.name} lies outside {SHORTEST_S / unit.seconds:g} to "
            f"{most_s / unit.seconds:g} {unit.name}: is it in {unit.name}, and was it measured?"
        )
    return seconds

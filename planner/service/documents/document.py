"""What every JSON document of the API and the CLI has in common."""

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from planner.domain.errors import HistoryError
from planner.service.spec.problems import form_problems
from planner.service.spec.yaml_source import YamlSource

LARGEST_BYTES = 64 * 1024 * 1024
STDIN = Path("-")
"""Stands for standard input wherever a JSON file is read."""


class Document(BaseModel):
    """A JSON document: seconds, tokens, USD; instants with a time zone; no unknown field."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, from_attributes=True
    )


FIRST_YEAR, LAST_YEAR = 1970, 2200
"""Instants outside these years are a wrong unit or a wrong clock, and overflow arithmetic."""


def sane_instant(moment: datetime) -> datetime:
    """Refuse an instant in a year that no observation can come from."""
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"the year must lie between {FIRST_YEAR} and {LAST_YEAR}")
    return moment


def a_written_instant(value: object) -> object:
    """Refuse a number, or a text of one: seconds and milliseconds cannot be told apart."""
    if isinstance(value, int | float) or (isinstance(value, str) and _is_number(value)):
        raise PydanticCustomError(
            "instant_type",
            "input should be an instant in ISO 8601 with a time zone, as 2026-11-02T12:00:00Z, not "
            "a number",
        )
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


WrittenInstant = Annotated[AwareDatetime, BeforeValidator(a_written_instant)]
"""ISO 8601 with a time zone, of any year."""
Instant = Annotated[WrittenInstant, AfterValidator(sane_instant)]
"""ISO 8601 with a time zone."""


def a_number(value: object) -> object:
    """Refuse what only could be read as a number: a text, true or false."""
    if isinstance(value, str | bool):
        raise PydanticCustomError("number_type", "input should be a number, not text or a boolean")
    return value


Number = BeforeValidator(a_number)
WindowSeconds = Annotated[float, Number, Field(ge=0.001, le=366 * 86_400)]
"""Length of a window, seconds; at most a year."""
Total = Annotated[int, Number, Field(ge=0, le=10**12)]
"""A total of requests or tokens."""
ReplicaCount = Annotated[int, Field(strict=True, ge=0, le=10**6)]
"""How many replicas."""
Degree = Annotated[int, Field(strict=True, ge=1, le=10**4)]
"""A parallel degree."""
EngineLimit = Annotated[int, Field(strict=True, ge=1, le=10**9)]
"""What an engine takes at once, tokens or sequences."""

Made = TypeVar("Made", bound=Document)


def parse(kind: type[Made], data: Mapping[str, object], *, where: str) -> Made:
    """A document of `kind` from parsed JSON.

    Raises
    ------
    HistoryError
        With a line per problem: where, which field, what is wrong.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        source = YamlSource(where=where, data=data, lines={})
        raise HistoryError("\n".join(form_problems(error, source, kind))) from error


def read_json(path: Path, *, what: str) -> object:
    """Parsed JSON of a file, or of standard input for `-`.

    Raises
    ------
    HistoryError
        When it is missing, too large or not JSON.
    """
    try:
        if path == STDIN:
            text = sys.stdin.read(LARGEST_BYTES + 1)
        else:
            if path.stat().st_size > LARGEST_BYTES:
                raise HistoryError(f"{path}: too large for {what}")
            text = path.read_text(encoding="utf-8")
        parsed: object = json.loads(text)
    except FileNotFoundError as error:
        raise HistoryError(f"{path}: no such file; give {what} in JSON") from error
    except OSError as error:
        raise HistoryError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise HistoryError(f"{path}: not a text file; give {what} in JSON") from error
    except json.JSONDecodeError as error:
        raise HistoryError(
            f"{path}:{error.lineno}: not JSON: {error.msg} (column {error.colno}); "
            f"give {what} in JSON"
        ) from error
    except RecursionError as error:
        raise HistoryError(f"{path}: nested too deeply for {what}") from error
    except ValueError as error:  # a number of thousands of digits
        raise HistoryError(f"{path}: {error}") from error
    return parsed


def read_object(path: Path, *, what: str) -> Mapping[str, object]:
    """A parsed JSON object of a file; see `read_json`."""
    data = read_json(path, what=what)
    if not isinstance(data, dict):
        raise HistoryError(f"{path}: {what} is a JSON object, this is {_kind(data)}")
    return data


def _kind(data: object) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(data), "a number")

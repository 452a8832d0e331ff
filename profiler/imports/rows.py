"""CSV tables read strictly: the columns that are wanted, a line number in every complaint."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.domain.errors import ProfileError
from profiler.imports.reading import Fields, read_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table.

    Parameters
    ----------
    line : int
        Counted from 1, the header being the first.
    fields : Fields
        Numbers are numbers; everything else is text.
    """

    line: int
    fields: Fields


def header_of(path: Path, *, what: str) -> tuple[str, ...]:
    """The names of the columns."""
    _, first = next(_lines(path, what=what), (1, []))
    return tuple(name.strip() for name in first)


def read_rows(
    path: Path, columns: Sequence[str], *, what: str, exactly: bool = False
) -> Iterator[Row]:
    """The rows of a CSV file.

    Parameters
    ----------
    columns : sequence of str
        That must be there.
    exactly : bool
        Whether no others may be.

    Raises
    ------
    ProfileError
        When a column is missing or not known, or a row is longer or shorter than the header.
    """
    header = header_of(path, what=what)
    missing = [name for name in columns if name not in header]
    other = [name for name in header if exactly and name not in columns]
    twice = sorted({name for name in columns if header.count(name) > 1})
    for problem, names in (
        ("no column", missing),
        ("unknown column", other),
        ("two columns", twice),
    ):
        if names:
            raise ProfileError(
                f"{path}:1: {problem} {', '.join(names)}: the columns are {', '.join(columns)}; "
                f"give {what}"
            )
    lines = _lines(path, what=what)
    next(lines)
    empty = True
    for line, cells in lines:
        if not cells:
            continue
        if len(cells) != len(header):
            raise ProfileError(
                f"{path}:{line}: {len(cells)} values for {len(header)} columns: half a line?"
            )
        empty = False
        values = {name: _value(cell) for name, cell in zip(header, cells, strict=True)}
        yield Row(line=line, fields=Fields(where=f"{path}:{line}", what=what, values=values))
    if empty:
        raise ProfileError(f"{path}: has a header and no rows; give {what}")


def _lines(path: Path, *, what: str) -> Iterator[tuple[int, list[str]]]:
    """Every line with its number, split at commas."""
    reader = csv.reader(io.StringIO(read_text(path, what=what)))
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise ProfileError(f"{path}:{reader.line_num}: not CSV: {error}; give {what}") from error


def _value(cell: str) -> object:
    text = cell.strip()
    try:
        return float(text)
    except ValueError:
        return text or None

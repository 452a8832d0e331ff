"""Tables and facts of pages, as values: what a page says, without how it looks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a table.

    Parameters
    ----------
    bar_ratio : float or None
        Drawn as a bar under the text, 0..1.
    code : bool
        Whether the text is an equation or a name, set in a fixed width.
    href : str or None
        Where the text leads; None: nowhere.
    """

    text: str
    bar_ratio: float | None = None
    code: bool = False
    href: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column's heading; numbers stand to the right."""

    heading: str
    number: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under headings; the first cell of a row is its header."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    when_empty: str = ""


def text_columns(*headings: str) -> tuple[Column, ...]:
    """Columns of words."""
    return tuple(Column(heading=h) for h in headings)


def number_columns(*headings: str) -> tuple[Column, ...]:
    """Columns of numbers."""
    return tuple(Column(heading=h, number=True) for h in headings)


def cells(*texts: str) -> tuple[Cell, ...]:
    """A row of plain cells."""
    return tuple(Cell(text=t) for t in texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A term and what it is."""

    term: str
    value: str

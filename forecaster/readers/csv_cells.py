"""Cells of CSV traces: columns found by the header's names, whole numbers read strictly."""

from collections.abc import Sequence

from forecaster.readers.rows import check_class, shown
from planner.domain.slo import DEFAULT_CLASS

CLASS_COLUMN = "RequestClass"
"""A further column that Poolwise writes and reads: the SLO class of a request."""


class CsvCells:
    """The cells of each line, by the columns that the header names.

    Parameters
    ----------
    required : sequence of str
        Columns that must be there; further ones and any order are accepted.
    class_column : str or None
        Column of the request class. None: `CLASS_COLUMN` where the file has it.

    Raises
    ------
    ValueError
        When the header lacks a column or names one twice.
    """

    def __init__(self, header: str, required: Sequence[str], class_column: str | None) -> None:
        names = [name.strip() for name in header.split(",")]
        wanted = [*required, *([] if class_column is None else [class_column])]
        for column in wanted:
            if names.count(column) != 1:
                problem = "lacks" if column not in names else "repeats"
                raise ValueError(
                    f"the header {problem} the column {column}; it must hold {','.join(wanted)}"
                )
        self._width = len(names)
        self._required = [names.index(column) for column in required]
        name = class_column or CLASS_COLUMN
        self._class = names.index(name) if name in names else None

    def of(self, text: str) -> tuple[list[str], str]:
        """The required cells in their order, and the request class."""
        cells = text.split(",")
        if len(cells) != self._width:
            raise ValueError(f"{len(cells)} columns instead of {self._width}")
        request_class = DEFAULT_CLASS if self._class is None else check_class(cells[self._class])
        return [cells[index].strip() for index in self._required], request_class

    def first(self, text: str) -> str:
        """The first of the required cells, whatever the others hold."""
        cells = text.split(",")
        if len(cells) <= self._required[0]:
            raise ValueError(f"{len(cells)} columns instead of {self._width}")
        return cells[self._required[0]].strip()


def integer(column: str, text: str) -> int:
    """A whole number in plain digits; a ValueError names the column."""
    digits = text.removeprefix("-")
    # int() alone would also take "1_000", " 7" and other scripts' digits
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 40:
        raise ValueError(f"{column} must be an integer, got {shown(text)}")
    return int(text)

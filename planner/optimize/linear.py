"""A mixed-integer linear model as columns and named rows, whichever solver it goes to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

Term = tuple[Floats | float, Integers | Sequence[int] | int]
"""Coefficients and the columns that they stand before, broadcast."""

NO_COLUMN = -1
"""In arrays of columns: there is no such decision. Terms drop it."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """low <= coefficients @ columns <= high."""

    columns: Integers
    coefficients: Floats
    low: float
    high: float


@dataclass(slots=True, eq=False)
class LinearModel:
    """Filled by `add_variables` and the constraint functions; sparse, row after row.

    All columns are at least 0. A rate column is continuous and counts requests/s; all others are
    integers.
    """

    upper: list[float] = field(default_factory=list)
    is_rate: list[bool] = field(default_factory=list)
    row_names: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    _columns: list[Integers] = field(default_factory=list)
    _coefficients: list[Floats] = field(default_factory=list)

    def integers(self, upper: Integers) -> Integers:
        """New integer columns from 0 to `upper`, in its shape."""
        return self._new(np.asarray(upper, dtype=np.float64), is_rate=False)

    def rates(self, upper: Floats) -> Integers:
        """New continuous columns from 0 to `upper` requests/s, in its shape."""
        return self._new(np.asarray(upper, dtype=np.float64), is_rate=True)

    def row(
        self,
        name: str,
        index: tuple[object, ...],
        *terms: Term,
        low: float = -np.inf,
        high: float = np.inf,
    ) -> None:
        """Low <= sum of terms <= high."""
        columns, coefficients = [], []
        for coefficient, column in terms:
            these = np.atleast_1d(np.asarray(column, dtype=np.int64)).ravel()
            values = np.broadcast_to(np.asarray(coefficient, dtype=np.float64), these.shape)
            there = these != NO_COLUMN
            columns.append(these[there])
            coefficients.append(values[there])
        self._columns.append(np.concatenate(columns) if columns else np.zeros(0, dtype=np.int64))
        self._coefficients.append(np.concatenate(coefficients) if columns else np.zeros(0))
        self.row_names.append((name, index))
        self.low.append(low)
        self.high.append(high)

    def copy(self) -> "LinearModel":
        """A model that rows can be added to without changing this one."""
        return LinearModel(
            upper=list(self.upper),
            is_rate=list(self.is_rate),
            row_names=list(self.row_names),
            low=list(self.low),
            high=list(self.high),
            _columns=list(self._columns),
            _coefficients=list(self._coefficients),
        )

    @property
    def column_count(self) -> int:
        """How many columns there are."""
        return len(self.upper)

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self.low)

    def rows(self) -> Iterator[Row]:
        """Every row."""
        return map(Row, self._columns, self._coefficients, self.low, self.high)

    def matrix(self) -> tuple[Integers, Integers, Floats]:
        """Row starts (rows + 1), columns and coefficients of all rows, one after the other."""
        counts = [len(c) for c in self._columns]
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        if not counts:
            return starts, np.zeros(0, dtype=np.int64), np.zeros(0)
        return starts, np.concatenate(self._columns), np.concatenate(self._coefficients)

    def row_name(self, r: int) -> str:
        """As in `meet_demand[chat,14]`: the constraint's name and the index."""
        name, index = self.row_names[r]
        return f"{name}[{','.join(str(i) for i in index)}]"

    def _new(self, upper: Floats, *, is_rate: bool) -> Integers:
        first = len(self.upper)
        self.upper.extend(upper.ravel().tolist())
        self.is_rate.extend([is_rate] * upper.size)
        return np.arange(first, first + upper.size, dtype=np.int64).reshape(upper.shape)

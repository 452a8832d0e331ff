"""A mixed-integer linear model as columns and named rows, whichever solver it goes to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

Term = tuple[Floats | float, Integers | Sequence[int] | int]
"""Coefficients and the columns that they stand before, broadcast."""

TOLERANCE_RATIO = 1e-6
"""Of a row's bound, and absolute in its unit where that is below 1: so much above or below it is
still on it, for `check` and, with some room, for whatever solves."""

NO_COLUMN = -1
"""In arrays of columns: there is no such decision. Terms drop it."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """low <= coefficients @ columns <= high."""

    columns: Integers
    coefficients: Floats
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linear:
    """A finished model in arrays: low <= matrix @ x <= high, lower <= x <= upper.

    Parameters
    ----------
    matrix : (rows, columns) sparse
    low, high : (rows,) float
    lower, upper : (columns,) float
    is_rate : (columns,) bool
        A rate is continuous and counts requests/s; all others are integers.
    """

    matrix: csr_array
    low: Floats
    high: Floats
    lower: Floats
    upper: Floats
    is_rate: Mask

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
        starts = self.matrix.indptr.tolist()
        for r, (first, end) in enumerate(pairwise(starts)):
            columns = self.matrix.indices[first:end].astype(np.int64)
            yield Row(columns, self.matrix.data[first:end], float(self.low[r]), float(self.high[r]))

    def fixed(self, columns: Integers, values: Integers | Floats) -> "Linear":
        """The same model with these columns at these values."""
        lower, upper = np.array(self.lower), np.array(self.upper)
        lower[columns.ravel()] = upper[columns.ravel()] = np.asarray(values).ravel()
        return replace(self, lower=lower, upper=upper)

    def without_empty_rows(self) -> "Linear":
        """The same model without rows that no column is in."""
        kept = np.flatnonzero(np.diff(self.matrix.indptr))
        return replace(self, matrix=self.matrix[kept], low=self.low[kept], high=self.high[kept])

    def with_rows(self, matrix: csr_array, low: Floats) -> "Linear":
        """The same model with more rows: matrix @ x >= low."""
        return replace(
            self,
            matrix=csr_array(vstack([self.matrix, matrix])),
            low=np.concatenate([self.low, low]),
            high=np.concatenate([self.high, np.full(len(low), np.inf)]),
        )

    def part(self, columns: Integers, rows: Integers, given: Floats | None = None) -> "Linear":
        """Some columns and rows only; the columns left out are at the values given, else 0.

        Parameters
        ----------
        given : (columns of the whole,) float or None
        """
        strip = self.matrix[rows]
        moved = np.zeros(len(rows))
        if given is not None:
            others = np.array(given)
            others[columns] = 0.0
            moved = strip @ others
        return Linear(
            matrix=csr_array(strip[:, columns]),
            low=self.low[rows] - moved,
            high=self.high[rows] - moved,
            lower=self.lower[columns],
            upper=self.upper[columns],
            is_rate=self.is_rate[columns],
        )


@dataclass(slots=True, eq=False)
class LinearModel:
    """Filled by `add_variables` and the constraint functions, row after row.

    All columns are at least 0.
    """

    upper: list[float] = field(default_factory=list)
    is_rate: list[bool] = field(default_factory=list)
    row_names: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    _of_row: list[int] = field(default_factory=list)
    _columns: list[Integers | Sequence[int] | int] = field(default_factory=list)
    _coefficients: list[Floats | float] = field(default_factory=list)

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
        number = len(self.low)
        for coefficient, column in terms:
            self._of_row.append(number)
            self._columns.append(column)
            self._coefficients.append(coefficient)
        self.row_names.append((name, index))
        self.low.append(low)
        self.high.append(high)

    @property
    def column_count(self) -> int:
        """How many columns there are."""
        return len(self.upper)

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self.low)

    def finished(self) -> Linear:
        """All columns and rows as arrays."""
        row, column, coefficient = self._entries()
        there = (column != NO_COLUMN) & (coefficient != 0)
        shape = (self.row_count, self.column_count)
        entries = coefficient[there], (row[there], column[there])
        matrix = csr_array(entries, shape=shape)  # adds up what stands twice in a row
        return Linear(
            matrix=matrix,
            low=np.array(self.low, dtype=np.float64),
            high=np.array(self.high, dtype=np.float64),
            lower=np.zeros(self.column_count),
            upper=np.array(self.upper, dtype=np.float64),
            is_rate=np.array(self.is_rate, dtype=bool),
        )

    def _entries(self) -> tuple[Integers, Integers, Floats]:
        """Row, column and coefficient of every entry; columns may be missing."""
        sizes = [1 if isinstance(c, int) else np.size(c) for c in self._columns]
        row = np.repeat(np.array(self._of_row, dtype=np.int64), sizes)
        column = _joined(self._columns, sizes, np.int64).astype(np.int64)
        return row, column, _joined(self._coefficients, sizes, np.float64)

    def _new(self, upper: Floats, *, is_rate: bool) -> Integers:
        first = len(self.upper)
        self.upper.extend(upper.ravel().tolist())
        self.is_rate.extend([is_rate] * upper.size)
        return np.arange(first, first + upper.size, dtype=np.int64).reshape(upper.shape)


def _joined(
    parts: Sequence[Floats | Integers | Sequence[int] | float], sizes: list[int], kind: type
) -> NDArray[np.float64]:
    """All parts in one array; a single number stands for as many as its size."""
    flat: NDArray[np.float64] = np.empty(sum(sizes), dtype=kind)
    at = 0
    for part, size in zip(parts, sizes, strict=True):
        flat[at : at + size] = part if np.ndim(part) == 0 else np.ravel(part)
        at += size
    return flat

"""Structured arrays whose columns are read as attributes.

What numpy's record arrays do, without their cost: these look an attribute up as one of the array
first, at several microseconds each time, and a run reads some two hundred.
"""

from functools import cache
from typing import TypeVar, cast

import numpy as np

from planner.simulate.state import F, Floats, Integers, Small

Columns = TypeVar("Columns")


class Table(np.ndarray[tuple[int], np.dtype[np.void]]):
    """One structured array; a name that no array has is that of a column."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Floats | Integers | Small:
        """The column, as a plain array of the same memory."""
        try:
            return np.asarray(self[name])
        except ValueError as error:
            raise AttributeError(f"there is no column {name}") from error


@cache
def _row(names: tuple[str, ...], real: tuple[bool, ...], integer: type) -> np.dtype[np.void]:
    fields = [(n, np.float64 if r else integer) for n, r in zip(names, real, strict=True)]
    return np.dtype((np.record, fields))


def columns_of(kind: type[Columns], count: int, integer: type = np.int64) -> Columns:
    """A structured array of zeros with the columns that `kind` declares."""
    declared = kind.__annotations__
    row = _row(tuple(declared), tuple(a is F for a in declared.values()), integer)
    return cast("Columns", np.zeros(count, dtype=row).view(Table))

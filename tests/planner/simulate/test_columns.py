"""Structured arrays whose columns are attributes."""

import numpy as np
import pytest

from planner.simulate.columns import columns_of
from planner.simulate.state import Entries, Floats, Integers


def entries() -> Entries[Integers, Floats]:
    return columns_of(Entries, 3)


def test_a_column_is_the_memory_of_its_rows() -> None:
    made = entries()
    made.key[:] = [0.5, 1.5, 2.5]
    made[1].request = 7
    assert made[2].key == 2.5
    assert made.request.tolist() == [0, 7, 0]
    assert (made.key.dtype, made.request.dtype) == (np.float64, np.int64)
    assert type(made.key) is np.ndarray


def test_a_copy_has_rows_of_its_own() -> None:
    made = entries()
    made.copy().key[:] = 9.0
    assert made.key.tolist() == [0.0, 0.0, 0.0]


def test_what_is_no_column_is_neither_read_nor_written() -> None:
    made = entries()
    with pytest.raises(AttributeError, match="no column keys"):
        made.keys  # noqa: B018
    with pytest.raises(AttributeError):
        made.keys = 1.0

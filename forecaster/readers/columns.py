"""Rows collected into a workload, refused ones counted."""

from array import array
from datetime import datetime, timedelta

import numpy as np

from forecaster.prefixes import cached_tokens_of, leading_seen
from forecaster.readers.mooncake import BLOCK_TOKENS
from forecaster.readers.rows import Row
from forecaster.readers.ticks import arrival_tick_s
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.workload import Floats, PrefixBlocks, Workload

LISTED_REFUSALS = 10


class TraceColumns:
    """The columns of a workload while its file is being read."""

    def __init__(self) -> None:
        self.rows_read = 0
        self.rows_refused = 0
        self._refusals: list[tuple[int, str]] = []
        self._arrival_s = array("d")
        self._input_tokens = array("q")
        self._output_tokens = array("q")
        self._cached_tokens = array("q")
        self._block_ids = array("q")
        self._block_ends = array("q", [0])
        self._has_blocks = False
        self._seen: set[int] = set()

    def refuse(self, line: int, reason: str) -> None:
        """Count a row that is not usable."""
        self.rows_read += 1
        self.rows_refused += 1
        if len(self._refusals) < LISTED_REFUSALS:
            self._refusals.append((line, reason))

    def add(self, line: int, row: Row) -> None:
        """Take a row, or refuse it when it arrived before the one above."""
        if self._arrival_s and row.arrival_s < self._arrival_s[-1]:
            back_s = self._arrival_s[-1] - row.arrival_s
            self.refuse(line, f"arrives {back_s:g} s before the row above; rows must be in order")
            return
        self.rows_read += 1
        self._arrival_s.append(row.arrival_s)
        self._input_tokens.append(row.input_tokens)
        self._output_tokens.append(row.output_tokens)
        self._cached_tokens.append(self._add_blocks(row))

    def _add_blocks(self, row: Row) -> int:
        if row.block_ids is None:
            return 0
        self._has_blocks = True
        seen_blocks = leading_seen(row.block_ids, self._seen)
        self._seen.update(row.block_ids)
        self._block_ids.extend(row.block_ids)
        self._block_ends.append(len(self._block_ids))
        return cached_tokens_of(
            seen_blocks, block_tokens=BLOCK_TOKENS, input_tokens=row.input_tokens
        )

    @property
    def refusals(self) -> tuple[tuple[int, str], ...]:
        """The first refusals: line number and reason."""
        return tuple(self._refusals)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The first refusals as text, and how many more there are."""
        listed = tuple(f"line {line}: {reason}" for line, reason in self._refusals)
        more = self.rows_refused - len(listed)
        return (*listed, f"and {more} more rows") if more else listed

    @property
    def first_arrival_s(self) -> float:
        """Arrival of the first request on the trace's own clock, seconds."""
        return self._arrival_s[0]

    def workload(self, start_at: datetime) -> tuple[Workload, float | None]:
        """The requests, the first of them at `start_at`, and the tick of their clock."""
        arrivals = np.array(self._arrival_s, dtype=np.float64)
        offsets = arrivals - arrivals[0]
        tick_s = arrival_tick_s(offsets)
        count = len(offsets)
        workload = Workload(
            start_at=start_at,
            arrival_offset_s=offsets,
            input_tokens=np.array(self._input_tokens, dtype=np.int64),
            output_tokens=np.array(self._output_tokens, dtype=np.int64),
            cached_tokens=np.array(self._cached_tokens, dtype=np.int64),
            request_class=np.full(count, DEFAULT_CLASS),
            duration_s=_duration_s(offsets, tick_s),
            prefix=self._prefix(),
        )
        return workload, tick_s

    def _prefix(self) -> PrefixBlocks | None:
        if not self._has_blocks:
            return None
        return PrefixBlocks(
            block_tokens=BLOCK_TOKENS,
            offsets=np.array(self._block_ends, dtype=np.int64),
            block_ids=np.array(self._block_ids, dtype=np.int64),
        )


def shifted(start_at: datetime, seconds: float) -> datetime:
    """`start_at` moved by `seconds`."""
    return start_at + timedelta(seconds=seconds)


def _duration_s(offsets: Floats, tick_s: float | None) -> float:
    """The interval that the requests stand for: it ends one mean gap, or tick, after the last.

    A single instant tells no rate; it gets one second, so that it is neither 0 nor infinite.
    """
    last_s = float(offsets[-1])
    if last_s == 0:
        return 1.0
    return last_s + (tick_s if tick_s is not None else last_s / (len(offsets) - 1))

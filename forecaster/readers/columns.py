"""Rows collected into a workload, refused ones counted."""

import math
from array import array
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np

from forecaster.prefixes import cached_tokens_of, leading_seen
from forecaster.readers.mooncake import BLOCK_TOKENS
from forecaster.readers.rows import Row
from forecaster.readers.ticks import arrival_tick_s
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.workload import Floats, PrefixBlocks, Workload

LISTED_REFUSALS = 10
MOST_CLASSES = 1000
"""More request classes are no classes of service: the column holds something else."""
FEWEST_ROWS_OF_A_JUMP = 20
"""Fewer requests tell no pace, and so no jump of the clock."""


class _Future(NamedTuple):
    """The first rows beyond the end of reading, and what had been counted before them."""

    arrival_s: float
    counts: tuple[int, int, int, int]


class TraceColumns:
    """The columns of a workload while its file is being read.

    Each row is held back until the next one shows that its time stamp is no outlier.
    """

    def __init__(self) -> None:
        self.rows_read = 0
        self.rows_refused = 0
        self.requests_failed = 0
        self.repeated_rows = 0
        self.first_repeated_line = 0
        self._refusals: list[tuple[int, str]] = []
        self._instant_s = math.nan
        self._of_instant: set[int] = set()
        self._held: tuple[int, Row] | None = None
        self._line = array("q")
        self._arrival_s = array("d")
        self._input_tokens = array("q")
        self._output_tokens = array("q")
        self._cached_tokens = array("q")
        self._class = array("q")
        self._class_codes: dict[str, int] = {}
        self._block_ids = array("q")
        self._block_ends = array("q", [0])
        self._has_blocks = False
        self._seen: set[int] = set()
        self._until_s: float | None = None
        self._until_after_first = False
        self._ended = False
        self._future: _Future | None = None

    def end_at(self, until_s: float, *, after_first: bool) -> None:
        """Take nothing that arrived at `until_s` or later, on the trace's own clock.

        Parameters
        ----------
        after_first : bool
            `until_s` counts from the first request.
        """
        self._until_s, self._until_after_first = until_s, after_first

    @property
    def ended(self) -> bool:
        """Whether a row from `end_at` on was confirmed by the next one; none of them counts."""
        return self._ended

    def refuse(self, line: int, reason: str, *, arrival_s: float | None = None) -> None:
        """Count a row that is not usable; `arrival_s` is when it says that it arrived."""
        if arrival_s is not None and self._is_future(arrival_s):
            return
        self.rows_read += 1
        self._refuse(line, reason)

    def fail(self, arrival_s: float) -> None:
        """Count a request that got no answer."""
        if self._is_future(arrival_s):
            return
        self.rows_read += 1
        self.requests_failed += 1

    def add(self, line: int, row: Row) -> None:
        """Take a row; of two that are out of order refuse the one that does not fit the rest."""
        if self._is_future(row.arrival_s):
            return
        self.rows_read += 1
        if row.request_class not in self._class_codes:
            if len(self._class_codes) == MOST_CLASSES:
                self._refuse(line, f"its request class is one more than {MOST_CLASSES}")
                return
            self._class_codes[row.request_class] = len(self._class_codes)
        if self._held is not None:
            held_line, held = self._held
            if row.arrival_s < held.arrival_s:
                apart_s = held.arrival_s - row.arrival_s
                must = "rows must be in order"
                if self._arrival_s and row.arrival_s < self._arrival_s[-1]:
                    self._refuse(line, f"arrives {apart_s:g} s before the row above; {must}")
                    return
                self._refuse(held_line, f"arrives {apart_s:g} s after the row below; {must}")
            else:
                self._keep(held_line, held)
        self._note_repeat(line, row)
        self._held = (line, row)
        if not self._is_beyond(row.arrival_s):
            self._future = None  # the past goes on: a stamp beyond it was a single wrong one

    def finish(self) -> None:
        """Take the row that is still held back; to be called after the last one."""
        if self._future is not None:
            self._end(self._future)
        elif self._held is not None:
            self._keep(*self._held)
            self._held = None

    def _is_future(self, arrival_s: float) -> bool:
        """Whether reading has ended: this row and one before it lie beyond the end, in order."""
        if not self._is_beyond(arrival_s):
            return False
        if self._future is None:
            self._future = _Future(arrival_s, self._counts)
        elif arrival_s >= self._future.arrival_s:
            self._end(self._future)
        else:
            self._future = _Future(arrival_s, self._future.counts)
        return self._ended

    def _is_beyond(self, arrival_s: float) -> bool:
        if self._until_s is None:
            return False
        first_s = arrival_s
        if self._arrival_s:
            first_s = self._arrival_s[0]
        elif self._held is not None:
            first_s = self._held[1].arrival_s
        return arrival_s >= self._until_s + (first_s if self._until_after_first else 0.0)

    @property
    def _counts(self) -> tuple[int, int, int, int]:
        return self.rows_read, self.rows_refused, self.requests_failed, len(self._refusals)

    def _end(self, future: "_Future") -> None:
        """Forget what was counted since the future began; the last row before it is confirmed."""
        self._ended, self._future = True, None
        self.rows_read, self.rows_refused, self.requests_failed, listed = future.counts
        del self._refusals[listed:]
        if self._held is not None and not self._is_beyond(self._held[1].arrival_s):
            self._keep(*self._held)
        self._held = None

    def _interval_s(self) -> float | None:
        """How long the interval is where it was cut; None where it was not."""
        if not self._ended or self._until_s is None:
            return None
        return self._until_s - (0.0 if self._until_after_first else self._arrival_s[0])

    def jump(self) -> tuple[int, float] | None:
        """A jump of the clock: the row it comes before, and how far it goes, seconds.

        One gap that is longer than all the rest of the trace together: with it more than half
        of the interval would be a time in which the clock, not the traffic, stood still.
        """
        if len(self._arrival_s) < FEWEST_ROWS_OF_A_JUMP:
            return None
        gaps = np.diff(np.array(self._arrival_s))
        after = int(np.argmax(gaps)) + 1
        span_s = self._arrival_s[-1] - self._arrival_s[0]
        gap_s = float(gaps[after - 1])
        return (after, gap_s) if gap_s > span_s - gap_s else None

    def line_of(self, row: int) -> int:
        """The line of a row that was taken."""
        return self._line[row]

    def cut(self, first: int, last: int, reason: str) -> None:
        """Keep rows `first` to `last` (exclusive) and refuse those outside."""
        for row in (*range(first), *range(last, len(self))):
            self._refuse(self._line[row], reason)
        ends = self._block_ends[first : last + 1] if self._has_blocks else array("q", [0])
        self._block_ids = self._block_ids[ends[0] : ends[-1]]
        self._block_ends = array("q", (end - ends[0] for end in ends))
        for name in ("_line", "_arrival_s", "_input_tokens", "_output_tokens", "_class"):
            setattr(self, name, getattr(self, name)[first:last])
        self._cached_tokens = self._cached_tokens[first:last]
        if self._has_blocks and first:
            self._count_cached_again()

    def _count_cached_again(self) -> None:
        self._seen.clear()
        for row in range(len(self)):
            ids = self._block_ids[self._block_ends[row] : self._block_ends[row + 1]].tolist()
            self._cached_tokens[row] = self._cached(ids, self._input_tokens[row])

    def _refuse(self, line: int, reason: str) -> None:
        self.rows_refused += 1
        if len(self._refusals) < LISTED_REFUSALS:
            self._refusals.append((line, reason))

    def _note_repeat(self, line: int, row: Row) -> None:
        """Count a row that equals one above it; only rows of one time stamp are remembered."""
        if row.arrival_s != self._instant_s:
            self._instant_s = row.arrival_s
            self._of_instant.clear()
        told = hash(row._replace(block_ids=None) + tuple(row.block_ids or ()))
        if told in self._of_instant:
            self.first_repeated_line = self.first_repeated_line or line
            self.repeated_rows += 1
        self._of_instant.add(told)

    def _keep(self, line: int, row: Row) -> None:
        self._line.append(line)
        self._arrival_s.append(row.arrival_s)
        self._input_tokens.append(row.input_tokens)
        self._output_tokens.append(row.output_tokens)
        self._class.append(self._class_codes[row.request_class])
        if row.block_ids is None:
            self._cached_tokens.append(0)
            return
        self._has_blocks = True
        self._cached_tokens.append(self._cached(row.block_ids, row.input_tokens))
        self._block_ids.extend(row.block_ids)
        self._block_ends.append(len(self._block_ids))

    def _cached(self, block_ids: list[int], input_tokens: int) -> int:
        seen_blocks = leading_seen(block_ids, self._seen)
        self._seen.update(block_ids)
        return cached_tokens_of(seen_blocks, block_tokens=BLOCK_TOKENS, input_tokens=input_tokens)

    def __len__(self) -> int:
        return len(self._arrival_s)

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
        names = np.array(list(self._class_codes) or [DEFAULT_CLASS])
        workload = Workload(
            start_at=start_at,
            arrival_offset_s=offsets,
            input_tokens=np.array(self._input_tokens, dtype=np.int64),
            output_tokens=np.array(self._output_tokens, dtype=np.int64),
            cached_tokens=np.array(self._cached_tokens, dtype=np.int64),
            request_class=names[np.array(self._class, dtype=np.int64)],
            duration_s=self._interval_s() or _duration_s(offsets, tick_s),
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

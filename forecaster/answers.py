"""Answer tokens of windows that did not count them, which is not the same as none."""

import math
from bisect import bisect_left
from collections.abc import Sequence

from forecaster.series import Total
from planner.domain.workload import ObservedWindow

ANSWER_WINDOWS = 6
"""So many windows tell the answers of one that did not count its own."""


class CountedAnswers:
    """The busy windows that counted their answers.

    Parameters
    ----------
    windows : sequence of ObservedWindow
        In order of their ends.
    """

    def __init__(self, windows: Sequence[ObservedWindow]) -> None:
        self._counted = [w for w in windows if w.requests > 0 and w.has_answers_counted]
        self._ends = [w.end_at for w in self._counted]

    def near(self, window: ObservedWindow) -> Sequence[ObservedWindow]:
        """The last of them that ended before this window; before the first: the first; or none."""
        until = bisect_left(self._ends, window.end_at)
        return (
            self._counted[max(until - ANSWER_WINDOWS, 0) : until] or self._counted[:ANSWER_WINDOWS]
        )


def counted_answers(windows: Sequence[ObservedWindow]) -> Total:
    """Output tokens of windows of one class; NaN where answers were not counted.

    A window without requests tells as much of answers as the busy one before it (before the first:
    as that one): among windows that were not counted its zero would be all that is known.

    Parameters
    ----------
    windows : sequence of ObservedWindow
        In order of time.
    """
    counted = next((w.has_answers_counted for w in windows if w.requests > 0), True)
    told: set[ObservedWindow] = set()
    for window in windows:
        if window.requests > 0:
            counted = window.has_answers_counted
        if counted:
            told.add(window)
    return lambda w: w.output_tokens if w in told else math.nan


def expected_answers(windows: Sequence[ObservedWindow]) -> Total:
    """Output tokens; where they were not counted, of requests as long as those counted near by.

    NaN in every window where no busy one was counted.
    """
    if all(w.has_answers_counted for w in windows):
        return lambda w: w.output_tokens
    counted = CountedAnswers(windows)

    def total(window: ObservedWindow) -> float:
        near = counted.near(window)
        if not near:
            return math.nan
        if window.has_answers_counted:
            return window.output_tokens
        tokens, requests = sum(w.output_tokens for w in near), sum(w.requests for w in near)
        return window.requests * tokens / requests

    return total

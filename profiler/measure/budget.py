"""The time of a run: what is left of it, what a sample will take, and what the rest must pay."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from planner.domain.errors import MeasurementError
from profiler.measure.probe import (
    ALONE,
    ALONE_CHEAP,
    BURST,
    BURST_CHEAP,
    CHEAP_S,
    FIRST_OUTPUT,
    OWN_TOKENS,
    SENTINEL_PROMPT,
    SETTLE_S,
)
from profiler.measure.where import LEAST_POINTS, Range, cost_s
from profiler.samples import Kind, Point, Samples

OVERRUN_RATIO = 0.05
"""A sample may end so much of the budget late: its time was guessed, and half of it is nothing."""
NEEDED_OVERRUN_RATIO = 1.0
"""Without the least points of every table a run is worth nothing: they may take so much more."""
COARSE_RATIO = 0.7
"""Of the time at hand the coarse points may take: the rest looks whether the machine is itself."""
WARM_UP_RATIO = 0.2
SHRINK = 0.75
SHORTEST_PROMPT_TOKENS = 64
LOOK_S = 0.5

T = TypeVar("T")


class BudgetSpentError(MeasurementError):
    """The time was over before the answers were there."""


@dataclass(slots=True, kw_only=True)
class Budget:
    """Counts a run's time, engine starts and outages excluded.

    Parameters
    ----------
    total_s : float
    lost_s : callable
        Seconds in which the server was down or restarted so far.
    kept_back_s : float
        For what is measured after the tables, seconds.
    earlier_s : float
        What an interrupted run had spent, seconds.
    binds : bool
        Whether what takes longer is broken off.
    """

    total_s: float
    lost_s: Callable[[], float] = lambda: 0.0
    kept_back_s: float = 0.0
    earlier_s: float = 0.0
    binds: bool = True
    clock: Callable[[], float] = time.perf_counter
    _began_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._began_s = self.clock()

    @property
    def spent_s(self) -> float:
        """So far, seconds."""
        return self.clock() - self._began_s - self.lost_s() + self.earlier_s

    @property
    def left_s(self) -> float:
        """For the tables, seconds; below 0 when they took longer."""
        return self.total_s - self.kept_back_s - self.spent_s

    async def within(self, work: Coroutine[None, None, T], *, needed: bool = False) -> T:
        """Do something, but no longer than the time left and a little.

        Parameters
        ----------
        needed : bool
            There is no table without it: it may take `NEEDED_OVERRUN_RATIO` of the budget more.

        Raises
        ------
        BudgetSpentError
            When it was not done by then; it is broken off.
        """
        task = asyncio.ensure_future(work)
        late_s = (NEEDED_OVERRUN_RATIO if needed else OVERRUN_RATIO) * self.total_s
        try:
            while not task.done():
                left_s = self.left_s + late_s if self.binds else LOOK_S
                if left_s <= 0:
                    raise BudgetSpentError(f"the budget of {self.total_s:.0f} s was spent")
                await asyncio.wait({task}, timeout=min(left_s, LOOK_S))
            return task.result()
        finally:
            if not task.done():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def guess_s(point: Point, ttft_s: float, gap_s: float) -> float:
    """About how long a sample takes by what a short request takes, before any was taken.

    Parameters
    ----------
    ttft_s, gap_s : float
        Of a prompt of `SENTINEL_PROMPT` tokens, and between the tokens of its answer, seconds.
    """
    token_s = ttft_s / SENTINEL_PROMPT
    if point.kind is Kind.PREFILL:
        once_s = max(point.x, 1) * token_s
        cheap = once_s < CHEAP_S
        bursts = 2 * (BURST_CHEAP if cheap else BURST)  # the first of a length is thrown away
        return once_s * ((ALONE_CHEAP if cheap else ALONE) + bursts) + point.y * token_s
    if point.kind is Kind.DECODE:
        own = min(point.y, OWN_TOKENS) * point.x
        steps = FIRST_OUTPUT + 2 * point.x
        return (own + point.y) * token_s + steps * gap_s * (1 + 0.05 * point.x)
    steps = 4 * FIRST_OUTPUT
    return SETTLE_S + (point.x + OWN_TOKENS * point.y) * token_s + steps * gap_s


def price_s(samples: Samples, point: Point, ttft_s: float, gap_s: float) -> float:
    """About how long a sample of a point takes, by like ones, else by a short request, seconds."""
    if samples.good(point.kind):
        return cost_s(samples, point)
    return guess_s(point, ttft_s, gap_s)


def payable(
    area: Range, kinds: Sequence[Kind], *, ttft_s: float, gap_s: float, left_s: float
) -> Range:
    """The largest part of a range whose coarse points can be paid once.

    Prompts and prefixes, or batches and contexts, are made shorter, whichever takes longer.
    """

    def takes_s(kind: Kind) -> float:
        return sum(guess_s(p, ttft_s, gap_s) for p in area.coarse(kind))

    def suffices(smaller: Range) -> bool:
        """Whether it is another range, and both tables can still be made from it."""
        return smaller != area and all(
            len(smaller.coarse(k)) >= LEAST_POINTS for k in (Kind.PREFILL, Kind.DECODE)
        )

    while sum(takes_s(k) for k in kinds) > COARSE_RATIO * left_s:
        by_price = sorted((Kind.PREFILL, Kind.DECODE), key=takes_s, reverse=True)
        smaller = next((s for s in (_smaller(area, k) for k in by_price) if suffices(s)), None)
        if smaller is None:
            break
        area = smaller
    return area


def _smaller(area: Range, kind: Kind) -> Range:
    def less(name: str, least: int) -> tuple[int, int]:
        low, high = getattr(area, name)
        return low, max(int(SHRINK * high), low, min(least, high))

    if kind is Kind.PREFILL:
        cached = int(SHRINK * area.cached_tokens[1]) // area.block_tokens * area.block_tokens
        return replace(
            area,
            new_tokens=less("new_tokens", SHORTEST_PROMPT_TOKENS),
            cached_tokens=(area.cached_tokens[0], max(cached, area.cached_tokens[0])),
        )
    return replace(
        area,
        sequences=less("sequences", 2),
        context_tokens=less("context_tokens", SHORTEST_PROMPT_TOKENS),
    )


def shrunk_text(asked: Range, area: Range, total_s: float, ttft_s: float) -> str:
    """What a reader should know of a range that was too dear."""
    return (
        f"a budget of {total_s:.0f} s pays for less than was to be covered, as this engine takes "
        f"{ttft_s:.2g} s for a prompt of {SENTINEL_PROMPT} tokens: the tables end at prompts of "
        f"{area.new_tokens[1]:,} (of {asked.new_tokens[1]:,}) new and {area.cached_tokens[1]:,} "
        f"(of {asked.cached_tokens[1]:,}) cached tokens, {area.sequences[1]:,} (of "
        f"{asked.sequences[1]:,}) sequences and contexts of {area.context_tokens[1]:,} (of "
        f"{asked.context_tokens[1]:,}): a longer --budget-s reaches further"
    )

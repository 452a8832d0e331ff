"""One profiling run: coarse points, points to judge by, then wherever the doubt is largest."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import zip_longest

from planner.domain.errors import MeasurementError
from profiler.fitting.choice import fitted
from profiler.fitting.prompts import with_every_prompt
from profiler.measure.budget import (
    NEEDED_OVERRUN_RATIO,
    OVERRUN_RATIO,
    WARM_UP_RATIO,
    Budget,
    BudgetSpentError,
    payable,
    price_s,
    shrunk_text,
)
from profiler.measure.journal import Journal
from profiler.measure.probe import SENTINEL_ANSWER, Probe
from profiler.measure.requests import TooLongError, UnmeasurableError
from profiler.measure.watch import Watch
from profiler.measure.where import LEAST_POINTS, Range, largest_doubt
from profiler.samples import Kind, Point

RECOVERY_S = 45.0
"""So long a disturbance is waited out before the machine counts as changed."""
MOST_PASSES = 2
LEAST_GAP_S = 5e-5
"""No engine writes tokens so fast: they were held back, and came together."""
HANGS_RATIO, HANGS_S = 20.0, 5.0
"""A short request that takes so many times as long as usual, and so long, gets no answer."""
SHORTEST_TOKENS = 64
"""A server that takes no longer requests than this is not shortened for any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    Parameters
    ----------
    budget_s : float
        Measuring takes no longer (engine starts and outages excluded), seconds.
    target_ratio : float
        Where no place of the tables is in doubt by more, the run ends.
    held_out : int
        Points of each table that only tell the error.
    least_samples : int
        Of every coarse and held-out point.
    step_tokens : int
        Prompt tokens that the engine computes in one step at the most.
    seed : int
        For the held-out points.
    whole_area : bool
        Cover all of the range coarsely even where that takes longer than the budget; else less is
        covered, and said.
    """

    area: Range
    kinds: tuple[Kind, ...] = (Kind.PREFILL, Kind.DECODE)
    budget_s: float
    target_ratio: float = 0.03
    held_out: int = 6
    least_samples: int = 2
    step_tokens: int = 8192
    seed: int = 0
    whole_area: bool = False
    disturbed_ratio: float = 0.15
    look_every_s: float = 12.0
    poll_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is.

    Parameters
    ----------
    spent_s, left_s : float
        Of the budget, seconds.
    points, samples : int
        Measured so far.
    doubt_ratio : float or None
        The largest error that is suspected anywhere; None while too little is known.
    """

    spent_s: float
    left_s: float
    points: int
    samples: int
    doubt_ratio: float | None
    next_text: str


Tell = Callable[[Progress], None]


@dataclass(slots=True, kw_only=True)
class Session:
    """A run against one target; everything that it measures is in the journal at once."""

    probe: Probe
    journal: Journal
    plan: Plan
    tell: Tell = lambda _progress: None
    identity: Callable[[], str | None] = lambda: None
    """Tells engines apart: changes when the engine restarts."""
    kept_back: Callable[[float, float], float] = lambda _ttft_s, _gap_s: 0.0
    """Seconds that are measured after the tables, by TTFT and gap of a short request."""
    clock: Callable[[], float] = time.perf_counter
    _watch: Watch = field(init=False)
    budget: Budget = field(init=False)
    _watched_s: float = field(init=False)
    _since: tuple[datetime, int] = field(init=False)
    """When the machine was itself last, and how many samples there were then."""
    _doubt: float | None = field(default=None, init=False)
    _engine: str | None = field(default=None, init=False)
    _left_out: set[Point] = field(default_factory=set, init=False)

    async def run(self) -> bool:
        """Measure until the target or the budget is reached; return whether the target was.

        Raises
        ------
        MeasurementError
            When the engine answers no more. The journal holds what was measured before.
        """
        self._watch = Watch(read=self.probe.sentinel, tolerance_ratio=self.plan.disturbed_ratio)
        taken = self.journal.samples.taken
        self.budget = Budget(
            total_s=self.plan.budget_s,
            lost_s=lambda: self.probe.sender.outage_s,
            earlier_s=sum(s.took_s for s in taken if not s.disturbed),
            binds=not self.plan.whole_area,
            clock=self.clock,
        )
        if self._is_spent():
            return False
        self._engine = self.identity()
        self.journal.answered_by(self._engine)
        await self._warm_up()
        self._go_on()
        self.budget.kept_back_s = self.kept_back(*self._short_s)
        self._keep_to_budget()
        self._watched_s = self.clock()
        self._since = datetime.now(UTC), len(self.journal.samples.taken)
        await self._cover_coarse()
        await self._cover(self._judges(), held_out=True)
        reached = await self._refine()
        await self._look_around()
        await self._cover_coarse()
        self._own_up()
        return reached

    def _is_spent(self) -> bool:
        """Whether earlier runs took all of the budget; then what they left has to do.

        Raises
        ------
        MeasurementError
            When that is too little for tables.
        """
        budget, earlier_s = self.budget, self.budget.earlier_s
        if not budget.binds or not earlier_s or budget.left_s > OVERRUN_RATIO * budget.total_s:
            return False
        spent = f"earlier runs took {earlier_s:.0f} s of a budget of {budget.total_s:.0f} s"
        if not enough_to_fit(self.journal, self.plan):
            raise MeasurementError(
                f"{self.journal.path}: {spent}, and left too few points for a table: the same "
                "command with a longer --budget-s goes on from them"
            )
        self.journal.note(f"{spent}: nothing more was measured")
        return True

    def _go_on(self) -> None:
        """Set aside what an earlier run measured on a machine that was faster or slower."""
        journal, before = self.journal, self.journal.baseline
        if before is not None and journal.samples.taken:
            off = self._watch.since(before)
            if off:
                journal.disturb(
                    journal.began_at,
                    f"samples of an earlier run were set aside: the machine is {abs(off):.0%} "
                    f"{'slower' if off > 0 else 'faster'} now than it was then",
                    first=0,
                )
                before = None
        if before is None:
            journal.keep_baseline(*self._watch.baseline.tolist())

    @property
    def left_s(self) -> float:
        """Of the budget, seconds; what an interrupted run had spent is spent."""
        return self.budget.left_s

    @property
    def _short_s(self) -> tuple[float, float]:
        """TTFT and gap of a short request, seconds."""
        ttft_s, gap_s = self._watch.baseline.tolist()
        return ttft_s, gap_s

    async def _warm_up(self) -> None:
        most_s = math.inf if self.plan.whole_area else WARM_UP_RATIO * self.plan.budget_s
        try:
            await self.budget.within(self._watch.warm_up(most_s=most_s))
        except BudgetSpentError as error:
            earlier_s = self.budget.earlier_s
            left = f", of which earlier runs took {earlier_s:.0f} s" if earlier_s else ""
            raise MeasurementError(
                f"{self._url} did not answer a few short requests within the budget of "
                f"{self.plan.budget_s:.0f} s{left}: it hangs, or is too slow for it (--budget-s)"
            ) from error
        if self._short_s[1] < LEAST_GAP_S:
            raise MeasurementError(
                f"{self._url} streams, but the tokens of an answer come all at once: it, or a "
                "proxy before it, holds them back until the answer is whole, so that first tokens "
                "and steps cannot be timed: turn that buffering off (nginx: proxy_buffering off)"
            )

    @property
    def _url(self) -> str:
        return self.probe.sender.client.url

    def _keep_to_budget(self) -> None:
        """Cover less where the coarse points alone would take longer than there is time."""
        if self.plan.whole_area:
            return
        asked, (ttft_s, gap_s) = self.plan.area, self._short_s
        area = payable(
            asked,
            self.plan.kinds,
            ttft_s=ttft_s,
            gap_s=gap_s,
            left_s=self.left_s + self.budget.earlier_s,
        )
        if area != asked:
            self.plan = replace(self.plan, area=area)
            self.journal.note(shrunk_text(asked, area, self.plan.budget_s, ttft_s))

    def _price_s(self, point: Point) -> float:
        return price_s(self.journal.samples, point, *self._short_s)

    def _coarse(self) -> list[Point]:
        """All tables in turn, so that a run that breaks off has something of each."""
        tables = [self.plan.area.coarse(kind) for kind in self.plan.kinds]
        return [p for row in zip_longest(*tables) for p in row if p is not None]

    def _judges(self) -> list[Point]:
        tables = [k for k in self.plan.kinds if k is not Kind.MIXED]
        return [
            p
            for kind in tables
            for p in self.plan.area.drawn(kind, self.plan.held_out, seed=self.plan.seed)
        ]

    async def _cover_coarse(self) -> None:
        """Sample the coarse points; others when the server turns out to take less."""
        while True:
            area = self.plan.area
            await self._cover(self._coarse(), held_out=False)
            if self.plan.area is area:
                return

    async def _cover(self, points: list[Point], *, held_out: bool) -> None:
        """Sample every point; those whose samples are set aside meanwhile once more."""
        for _ in range(self.plan.least_samples + MOST_PASSES):
            for point in points:
                await self._at_least(point, held_out=held_out)

    def _own_up(self) -> None:
        """Say which points were measured on a disturbed machine only."""
        samples = self.journal.samples
        points = [p for kind in self.plan.kinds for p in samples.points(kind)]
        if spoilt := [p.text for p in points if not samples.undisturbed(p)]:
            self.journal.note(
                "measured only while the machine was not itself, and used for want of better: "
                + "; ".join(spoilt)
            )
        late_s = -self.left_s
        if self.budget.binds and late_s > OVERRUN_RATIO * self.plan.budget_s:
            self.journal.note(
                f"the points without which there is no table took {late_s:.0f} s more than the "
                f"budget of {self.plan.budget_s:.0f} s"
            )

    async def _at_least(self, point: Point, *, held_out: bool) -> None:
        """One more sample of a point that has too few."""
        samples = self.journal.samples
        have = len(samples.undisturbed(point))
        if have >= self.plan.least_samples:
            return
        if not self._may_take(point, have=have, held_out=held_out):
            return
        await self._take(point, held_out=held_out)

    def _may_take(self, point: Point, *, have: int, held_out: bool) -> bool:
        """Whether there is time; a table's first points are tried even where there is none."""
        if held_out:
            return self._price_s(point) <= self.left_s / 3
        if have == 0 and self.plan.whole_area:
            return True
        if have == 0 and self._needs(point.kind):
            return self.left_s + NEEDED_OVERRUN_RATIO * self.plan.budget_s > 0
        return self._price_s(point) <= self.left_s

    def _needs(self, kind: Kind) -> bool:
        """Whether there is no table of this kind yet, whatever is measured of the others."""
        return len(self.journal.samples.points(kind)) < LEAST_POINTS

    async def _refine(self) -> bool:
        """Sample where the doubt is largest until it is small, or nothing more can be paid."""
        while self.left_s > 0:
            doubt = largest_doubt(
                with_every_prompt(self.journal.samples),
                self.plan.area,
                self.plan.kinds,
                step_tokens=self.plan.step_tokens,
                left_s=self.left_s,
                left_out=self._left_out,
            )
            if doubt is None:
                return False
            self._doubt = doubt.ratio if math.isfinite(doubt.ratio) else None
            if doubt.ratio <= self.plan.target_ratio:
                return True
            await self._take(doubt.point, held_out=doubt.held_out)
        return False

    async def _take(self, point: Point, *, held_out: bool = False) -> None:
        if point in self._left_out or not self.plan.area.holds(point):
            return
        self._say(point.text)
        try:
            sample = await self.budget.within(
                self.probe.sample(point, held_out=held_out), needed=self._needs(point.kind)
            )
        except BudgetSpentError as error:
            await self._check_answering()
            self._leave_out(point, error)
            return
        except TooLongError as error:
            self._shorten(point, error)
            return
        except UnmeasurableError as error:
            self._leave_out(point, error)
            return
        if self._restarted():
            self.journal.note("the engine restarted in the middle: it was warmed up again")
            await self._warm_up()
            return
        self.journal.add(sample)
        if self.clock() - self._watched_s > self.plan.look_every_s:
            await self._look_around()

    async def _check_answering(self) -> None:
        """Tell a server that hangs from a sample that only took too long.

        Raises
        ------
        MeasurementError
            What a server that hangs leaves is no finished run.
        """
        ttft_s, gap_s = self._short_s
        most_s = max(HANGS_RATIO * (ttft_s + SENTINEL_ANSWER * gap_s), HANGS_S)
        try:
            await asyncio.wait_for(self.probe.sentinel(), most_s)
        except TimeoutError as error:
            raise MeasurementError(
                f"{self._url} does not answer any more: a short request waited for {most_s:.0f} s; "
                "it hangs, and its log says more; what was measured is kept: the same command "
                "goes on from it"
            ) from error

    def _shorten(self, point: Point, error: TooLongError) -> None:
        """Take a shorter range when it is the prompt that does not fit; else leave the point out.

        A server that does not say what it takes is asked for a quarter less each time.
        """
        told = error.longest_tokens
        longest = point.tokens * 3 // 4 if told is None else told
        if longest >= self.plan.area.longest_tokens or longest < SHORTEST_TOKENS:
            self._leave_out(point, error)
            return
        self.plan = replace(self.plan, area=self.plan.area.within(longest))
        self.journal.note(f"the tables end at requests of {longest} tokens: {error}")

    def _leave_out(self, point: Point, error: MeasurementError) -> None:
        self._left_out.add(point)
        self.journal.note(f"left out: {point.text}: {error}")

    def _restarted(self) -> bool:
        """Whether this is another engine than before; a sample that saw both is thrown away."""
        now = self.identity()
        before, self._engine = self._engine, now if now is not None else self._engine
        return None not in (now, before) and now != before

    async def _look_around(self) -> None:
        try:
            await self.budget.within(self._look())
        except BudgetSpentError:
            self.journal.note(
                "whether the machine was itself in the end is not known: the budget was spent"
            )

    async def _look(self) -> None:
        """Ask the sentinel; samples since it was last content are doubtful when it is not."""
        self._say("looking whether the machine is as it was")
        off = await self._watch.deviation()
        if off:
            since, first = self._since
            self.journal.disturb(since, _disturbed_text(off), first=first)
            until_s = self.clock() + self._recovery_s
            while off and self.clock() < until_s:
                self._say(f"waiting: the machine is {_slower(off)}")
                await asyncio.sleep(self.plan.poll_s)
                off = await self._watch.deviation()
            if off:
                self.journal.note(
                    f"the machine stayed {_slower(off)} (throttled, or shared with somebody): "
                    "what follows was measured so"
                )
                await self._watch.rebase()
                self.journal.keep_baseline(*self._watch.baseline.tolist())
        self._since = datetime.now(UTC), len(self.journal.samples.taken)
        self._watched_s = self.clock()

    @property
    def _recovery_s(self) -> float:
        """How long to wait for the machine: as long as what is still to be measured can spare."""
        if self.plan.whole_area:
            return RECOVERY_S
        missing = [p for p in self._coarse() if not self.journal.samples.undisturbed(p)]
        spare_s = self.left_s - sum(self._price_s(p) for p in missing)
        return max(0.0, min(RECOVERY_S, spare_s))

    def _say(self, text: str) -> None:
        samples = self.journal.samples
        self.tell(
            Progress(
                spent_s=max(self.plan.budget_s - self.left_s, 0.0),
                left_s=max(self.left_s, 0.0),
                points=len({s.point for s in samples.taken}),
                samples=len(samples.taken),
                doubt_ratio=self._doubt,
                next_text=text,
            )
        )


def _slower(off: float) -> str:
    return f"{abs(off):.0%} {'slower' if off > 0 else 'faster'} than at the beginning"


def _disturbed_text(off: float) -> str:
    return f"samples were thrown away because the machine was {_slower(off)}"


def enough_to_fit(journal: Journal, plan: Plan) -> bool:
    """Whether an interrupted run can be made into a profile."""
    try:
        for kind in (Kind.PREFILL, Kind.DECODE):
            fitted(journal.samples, kind, step_tokens=plan.step_tokens)
    except MeasurementError:
        return False
    return True

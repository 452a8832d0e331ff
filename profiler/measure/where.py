"""Where to measure: the range, the coarse start, the candidates, and the next best point."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from planner.domain.errors import InputError, MeasurementError
from profiler.fitting.choice import fitted
from profiler.measure.probe import BURST_CHEAP, OWN_TOKENS
from profiler.samples import Kind, Point, Samples

CANDIDATE_ROWS, CANDIDATE_COLUMNS = 9, 4
LEAST_POINTS = 3
"""Fewer make no table."""
ANSWER_ROOM = 64
"""Tokens that an answer needs at the least while a decode step is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What is to be covered; a profile says nothing outside.

    Parameters
    ----------
    new_tokens, cached_tokens : (int, int)
        Of prompts, least and most. Cached: least is 0; (0, 0) without a prefix cache.
    sequences, context_tokens : (int, int)
        Of decode steps.
    longest_tokens : int
        Prompt and answer together, as the engine takes them.
    block_tokens : int
        Cached prefixes are whole blocks of so many tokens.
    """

    new_tokens: tuple[int, int]
    cached_tokens: tuple[int, int]
    sequences: tuple[int, int]
    context_tokens: tuple[int, int]
    longest_tokens: int
    block_tokens: int = 16

    def __post_init__(self) -> None:
        for name in ("new_tokens", "cached_tokens", "sequences", "context_tokens"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise InputError(f"{name} of a profile must grow from 0 or more, got {low}..{high}")
        if max(self.new_tokens[1], self.context_tokens[1]) >= self.longest_tokens:
            raise InputError(
                f"prompts of {self.new_tokens[1]} and contexts of {self.context_tokens[1]} tokens "
                f"leave no room for an answer: the engine takes {self.longest_tokens} in all"
            )

    def holds(self, point: Point) -> bool:
        """Whether the engine takes requests of this point."""
        room = ANSWER_ROOM if point.kind is Kind.DECODE else 0
        return point.tokens < self.longest_tokens - room

    def within(self, longest_tokens: int) -> Self:
        """The same for a server that takes shorter requests than was thought."""
        prompt = max(min(self.new_tokens[1], longest_tokens - 2), 1)
        prefix = min(self.cached_tokens[1], longest_tokens // 2)
        room = max(longest_tokens - 2 * ANSWER_ROOM, longest_tokens // 2, 1)
        context = min(self.context_tokens[1], room)
        return replace(
            self,
            new_tokens=(min(self.new_tokens[0], prompt), prompt),
            cached_tokens=(0, prefix // self.block_tokens * self.block_tokens),
            context_tokens=(min(self.context_tokens[0], context), context),
            longest_tokens=longest_tokens,
        )

    def coarse(self, kind: Kind) -> list[Point]:
        """The first points: the corners, so that a run that breaks off has them; the middle."""
        if kind is Kind.PREFILL:
            (low, high), most = self.new_tokens, self.cached_tokens[1]
            middle = _middle(low, high)
            if most:
                furthest = (min(high, self.longest_tokens - most - 1), most)
                wanted = [(low, 0), (high, 0), furthest, (middle, 0), (middle, most)]
            else:  # one more than determine a form, so that it can be tested
                wanted = [(n, 0) for n in (low, high, middle, _middle(middle, high))]
        elif kind is Kind.DECODE:
            (low, high), (short, long) = self.sequences, self.context_tokens
            middle = _middle(low, high)
            wanted = [(low, short), (high, short), (high, long), (middle, short), (middle, long)]
        else:
            middle = _middle(*self.new_tokens)
            some, many = _middle(*self.sequences), self.sequences[1]
            wanted = [(middle, some), (self.new_tokens[1], some), (middle, many)]
        points = dict.fromkeys(self._at(kind, x, y) for x, y in wanted)
        held = [p for p in points if self.holds(p)]
        if kind is not Kind.MIXED and len(held) < LEAST_POINTS:  # one batch, or one length
            others = [p for p in self.candidates(kind) if p not in held]
            held += others[: LEAST_POINTS - len(held)]
        return held

    def _at(self, kind: Kind, x: int, y: int) -> Point:
        """The nearest point that is cheap to prepare: what is cached is whole blocks."""
        if kind is Kind.MIXED:
            return Point(kind, x, y)
        own = OWN_TOKENS if kind is Kind.DECODE else 0
        blocks = round(max(y - own, 0) / self.block_tokens)
        if kind is Kind.DECODE and blocks == 0:
            return Point(kind, x, y)
        return Point(kind, x, blocks * self.block_tokens + own)

    def candidates(self, kind: Kind) -> list[Point]:
        """Points that may be added, evenly spread in logarithms."""
        if kind is Kind.PREFILL:
            xs = _spread(*self.new_tokens, CANDIDATE_ROWS)
            most = self.cached_tokens[1]
            ys = sorted({0, *(_spread(most // 4, most, CANDIDATE_COLUMNS - 1) if most else ())})
        elif kind is Kind.DECODE:
            xs = _spread(*self.sequences, CANDIDATE_ROWS)
            ys = _spread(*self.context_tokens, CANDIDATE_COLUMNS)
        else:
            return []
        points = dict.fromkeys(self._at(kind, x, y) for x in xs for y in ys)
        return [p for p in points if self.holds(p)]

    def drawn(self, kind: Kind, count: int, *, seed: int) -> list[Point]:
        """Points to judge by, at random, evenly in logarithms; none that a candidate is at."""
        rng = np.random.default_rng([seed, *kind.value.encode()])
        (low, high), (short, long) = (
            (self.new_tokens, self.cached_tokens)
            if kind is Kind.PREFILL
            else (self.sequences, self.context_tokens)
        )
        taken = {*self.candidates(kind), *self.coarse(kind)}
        found: list[Point] = []
        for _ in range(200 * count):
            x = round(np.exp(rng.uniform(np.log(max(low, 1)), np.log(max(high, 1)))))
            if kind is Kind.PREFILL and (long == 0 or len(found) % 2 == 0):
                y = 0
            else:
                least = max(short, long // 8, 1)
                y = round(np.exp(rng.uniform(np.log(least), np.log(max(long, least)))))
            point = self._at(kind, x, y)
            if point not in taken and self.holds(point) and len(found) < count:
                found.append(point)
                taken.add(point)
        return found

    @property
    def exhaustive_points(self) -> int:
        """A full grid of the candidates' spacing: what an adaptive run is held against."""
        return sum(len(self.candidates(k)) for k in (Kind.PREFILL, Kind.DECODE))


def _middle(low: int, high: int) -> int:
    return round(float(np.sqrt(max(low, 1) * max(high, 1))))


def _spread(low: int, high: int, count: int) -> list[int]:
    return sorted({round(v) for v in np.geomspace(max(low, 1), max(high, 1), count)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Where the profile is least sure.

    Parameters
    ----------
    ratio : float
        About the error there.
    repeated : bool
        Whether the point was measured before: its samples disagree, or are few.
    held_out : bool
        Whether it only tells the error: it must be known as well as what it judges.
    """

    point: Point
    ratio: float
    repeated: bool
    held_out: bool = False


def largest_doubt(
    samples: Samples,
    area: Range,
    kinds: Sequence[Kind],
    *,
    step_tokens: int,
    left_s: float,
    left_out: Set[Point] = frozenset(),
) -> Doubt | None:
    """Where one more sample helps most, among those that can be paid and are not left out.

    New points are doubted as far as fits disagree there that leave out a point each or have
    another form; measured ones by the standard error of their mean.
    """
    found: list[Doubt] = []
    for kind in kinds:
        noise = samples.noise_ratio(kind)
        measured = samples.points(kind)
        judges = set(samples.points(kind, held_out=True))
        found += [
            Doubt(
                point=p,
                ratio=samples.error_ratio(p, noise),
                repeated=True,
                held_out=p in judges,
            )
            for p in measured
        ]
        new = [p for p in area.candidates(kind) if p not in measured]
        # Of equal doubts the first counts: the furthest from what was measured.
        new.sort(key=lambda p: -min((_apart(p, m) for m in measured), default=0.0))
        if new and kind is not Kind.MIXED:
            found += _doubts(samples, kind, new, step_tokens)
    possible = [d for d in found if d.point not in left_out and area.holds(d.point)]
    payable = [d for d in possible if cost_s(samples, d.point) <= left_s]
    return max(payable, key=lambda d: d.ratio, default=None)


def _apart(a: Point, b: Point) -> float:
    """How many times as much work of either kind one is as the other, in logarithms."""
    return abs(float(np.log((a.x + 1) / (b.x + 1)))) + abs(float(np.log((a.y + 64) / (b.y + 64))))


def _doubts(samples: Samples, kind: Kind, new: list[Point], step_tokens: int) -> Iterable[Doubt]:
    try:
        choice = fitted(samples, kind, step_tokens=step_tokens)
    except MeasurementError:
        return []
    x, y = (np.array([getattr(p, a) for p in new], dtype=np.float64) for a in ("x", "y"))
    return [
        Doubt(point=p, ratio=float(r), repeated=False)
        for p, r in zip(new, choice.doubt(x, y), strict=True)
    ]


def cost_s(samples: Samples, point: Point) -> float:
    """About how long a sample of a point takes, from what like ones took, seconds."""
    same = samples.of(point)
    if same:
        return min(s.took_s for s in same)
    like = samples.good(point.kind)
    if not like:
        return 0.0

    def size(p: Point) -> float:
        """Work in units that cancel: prompts by their tokens, decoding by its sequences."""
        if p.kind is Kind.PREFILL:
            return p.x + 0.2 * p.y + 50.0
        return p.x + 8.0 + 0.01 * p.y

    near = min(like, key=lambda s: abs(np.log(size(s.point) / size(point))))
    return near.took_s * size(point) / size(near.point) * (1 + 1 / BURST_CHEAP)

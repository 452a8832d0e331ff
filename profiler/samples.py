"""What is measured: points, samples of them, and what the samples of a point say together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import numpy as np

from profiler.fitting.forms import Floats, Scatter

UNKNOWN_NOISE_RATIO = 0.05
"""Standard deviation of one sample over its value while nothing was measured twice."""
LEAST_NOISE_RATIO = 0.002
PRIOR_SAMPLES = 2
"""A point's own spread counts against that of all points as its samples against so many more."""


class Kind(StrEnum):
    """What a point is about.

    `prefill`: x new tokens of a prompt, y of them before found in the prefix cache. `decode`: x
    sequences of y context tokens each. `mixed`: a prompt of x tokens beside y running answers.
    """

    PREFILL = "prefill"
    DECODE = "decode"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """One place to measure."""

    kind: Kind
    x: int
    y: int

    @property
    def tokens(self) -> int:
        """Of one prompt of it."""
        if self.kind is Kind.PREFILL:
            return self.x + self.y
        return self.y if self.kind is Kind.DECODE else self.x

    @property
    def text(self) -> str:
        """For progress and messages."""
        if self.kind is Kind.PREFILL:
            return f"prefill {self.x} new + {self.y} cached tokens"
        if self.kind is Kind.DECODE:
            return f"decode {self.x} sequences of {self.y} tokens"
        return f"a prompt of {self.x} tokens beside {self.y} answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement of a point.

    Parameters
    ----------
    values : mapping of str to float
        Of prefill: `busy_s` (what each further prompt adds to a burst), `burst` (prompts in it),
        `alone_ttft_s` (the mean of `alone_count`), `transfer_s` and `transfer_bytes` (idle, per
        prompt), `loaded_transfer_s`. Of decode: `step_s`,
        `context_tokens` (the mean while it was measured). Of mixed: `beside_s` (what a prompt
        costs the answers that are being written), `stall_s` (their longest gap).
    ratios : tuple of float
        Of decode: equally likely ratios of a single gap to the mean.
    held_out : bool
        Kept from fitting and from choosing a form: it tells the error.
    disturbed : bool
        The machine was not itself: kept for the record, and not used.
    """

    point: Point
    values: Mapping[str, float]
    measured_at: datetime
    took_s: float
    ratios: tuple[float, ...] = ()
    held_out: bool = False
    disturbed: bool = False


MAIN = {Kind.PREFILL: "busy_s", Kind.DECODE: "step_s", Kind.MIXED: "beside_s"}
"""The value that a table is made of."""


@dataclass(slots=True)
class Samples:
    """All samples so far."""

    taken: list[Sample] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Take another one in."""
        self.taken.append(sample)

    def good(self, kind: Kind, *, held_out: bool | None = None) -> list[Sample]:
        """Samples of a kind that are used; None: held-out ones and others.

        Disturbed ones only where a point has no others.
        """
        return [s for p in self.points(kind, held_out=held_out) for s in self.of(p)]

    @property
    def disturbed(self) -> int:
        """How many samples were taken while the machine was not itself."""
        return sum(s.disturbed for s in self.taken)

    def points(self, kind: Kind, *, held_out: bool | None = None) -> list[Point]:
        """Points with a sample, in the order of their first."""
        return list(
            dict.fromkeys(
                s.point
                for s in self.taken
                if s.point.kind is kind and (held_out is None or s.held_out is held_out)
            )
        )

    def of(self, point: Point) -> list[Sample]:
        """Samples of a point that are used."""
        return self.undisturbed(point) or [s for s in self.taken if s.point == point]

    def undisturbed(self, point: Point) -> list[Sample]:
        """Samples of a point that were taken while the machine was itself."""
        return [s for s in self.taken if s.point == point and not s.disturbed]

    def noise_ratio(self, kind: Kind) -> float:
        """Standard deviation of one sample over its value, from all points measured twice."""
        squares, freedom = 0.0, 0
        for point in self.points(kind):
            values = _values(self.of(point), MAIN[kind])
            if len(values) > 1:
                squares += float(np.sum((values / values.mean() - 1) ** 2))
                freedom += len(values) - 1
        if freedom == 0:
            return UNKNOWN_NOISE_RATIO
        return max(float(np.sqrt(squares / freedom)), LEAST_NOISE_RATIO)

    def error_ratio(self, point: Point, noise_ratio: float) -> float:
        """Standard error of a point's mean over the mean.

        Its own spread is drawn towards that of all points of its kind, since two or three samples
        say little about their spread.
        """
        values = _values(self.of(point), MAIN[point.kind])
        count = len(values)
        own = float(np.sum((values / values.mean() - 1) ** 2))
        drawn = (own + PRIOR_SAMPLES * noise_ratio**2) / (count - 1 + PRIOR_SAMPLES)
        return float(np.sqrt(drawn / count))

    def scatter(self, kind: Kind, *, held_out: bool | None = False) -> Scatter:
        """Points with the means of their samples, for fitting."""
        noise = self.noise_ratio(kind)
        points = self.points(kind, held_out=held_out)
        rows = [(p.x, self._y(p), mean_of(self.of(p), MAIN[kind])) for p in points]
        table = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
        return Scatter(
            x=table[:, 0],
            y=table[:, 1],
            seconds=table[:, 2],
            noise_ratio=np.array([self.error_ratio(p, noise) for p in points]),
        )

    def _y(self, point: Point) -> float:
        """The second quantity as it was: contexts grow while they are measured."""
        if point.kind is Kind.DECODE:
            return mean_of(self.of(point), "context_tokens")
        return float(point.y)


def _values(samples: Iterable[Sample], name: str) -> Floats:
    return np.array([s.values[name] for s in samples if name in s.values], dtype=np.float64)


def mean_of(samples: Sequence[Sample], name: str) -> float:
    """Mean of a value, without the extremes where there are five or more; NaN without any."""
    values = np.sort(_values(samples, name))
    if len(values) == 0:
        return float("nan")
    cut = len(values) // 5
    return float(values[cut : len(values) - cut].mean())

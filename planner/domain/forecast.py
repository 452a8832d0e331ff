"""Expected demand per future window, with its uncertainty."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from planner.domain.output_length import OutputLengths
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.workload import Floats, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """A distribution known at a few levels.

    Parameters
    ----------
    levels : tuple of float
        Increasing, between 0 and 1.
    values : tuple of float
        Not decreasing, in the unit of the field that holds them.
    """

    levels: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.values) or not self.levels:
            raise ValueError("levels and values must be equally many, at least one")
        if any(b <= a for a, b in zip(self.levels, self.levels[1:], strict=False)):
            raise ValueError("levels must increase")
        if any(b < a for a, b in zip(self.values, self.values[1:], strict=False)):
            raise ValueError("values must not decrease")

    def at(self, level: float) -> float:
        """Value at a level, linear between the known ones; the ends are held."""
        return float(np.interp(level, self.levels, self.values))

    @property
    def median(self) -> float:
        """Value at level 0.5."""
        return self.at(0.5)

    def times(self, ratio: float) -> "Quantiles":
        """The distribution with every value multiplied."""
        return Quantiles(levels=self.levels, values=tuple(ratio * v for v in self.values))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demand:
    """Expected arrivals of one request class in one window.

    Parameters
    ----------
    request_rate_rps, input_tokens_per_s, output_tokens_per_s : Quantiles
        Requests/s and tokens/s; input counts cached tokens too.
    shape : Shape
        Joint lengths of one request, prefix reuse included.
    output_lengths : OutputLengths or None
        Answers' lengths, finer than the shape has them; None where only totals were seen.
    reuse_ratio : Quantiles or None
        Share of the prompt tokens that is cached, 0..1; None when no prompt was seen.
    arrival_cv2 : float
        Squared coefficient of variation of the gaps between arrivals; 1 is Poisson.
    """

    request_class: str = DEFAULT_CLASS
    request_rate_rps: Quantiles
    input_tokens_per_s: Quantiles
    output_tokens_per_s: Quantiles
    shape: Shape
    output_lengths: OutputLengths | None = None
    reuse_ratio: Quantiles | None = None
    arrival_cv2: float = 1.0

    def part(self, ratio: NDArray[np.float64]) -> "Demand | None":
        """So much of every bucket's requests; None: none of any.

        A part p of renewal arrivals, chosen at random, varies less: cv2 = 1 + p (cv2 - 1).

        Parameters
        ----------
        ratio : (buckets,) float
            Share of the bucket's requests, 0..1.

        References
        ----------
        Splitting of renewal processes: Whitt, Bell System Technical Journal 62 (1983), section 4.4.
        """
        if bool(np.all(ratio == 1)):
            return self
        weight = self.shape.weight * ratio
        share, some = float(weight.sum()), weight > 0
        if share <= 0:
            return None
        shape = Shape(
            input_tokens=self.shape.input_tokens[some],
            output_tokens=self.shape.output_tokens[some],
            cached_tokens=self.shape.cached_tokens[some],
            weight=weight[some] / share,
        )
        rate = self.request_rate_rps.times(share)
        return replace(
            self,
            request_rate_rps=rate,
            input_tokens_per_s=rate.times(shape.isl_mean),
            output_tokens_per_s=rate.times(shape.osl_mean),
            shape=shape,
            arrival_cv2=1 + share * (self.arrival_cv2 - 1),
        )

    def longer(self, *, isl_ratio: float, osl_ratio: float) -> "Demand":
        """The same requests with prompts and answers so many times as long; reuse stays.

        Lengths are whole tokens, one at least.
        """
        shape = self.shape
        prompts = np.maximum(np.rint(shape.input_tokens * isl_ratio), 1)
        answers = np.maximum(np.rint(shape.output_tokens * osl_ratio), 1)
        cached = np.minimum(np.rint(shape.cached_tokens * isl_ratio), prompts)
        changed = Shape(
            input_tokens=prompts.astype(shape.input_tokens.dtype),
            output_tokens=answers.astype(shape.output_tokens.dtype),
            cached_tokens=cached.astype(shape.cached_tokens.dtype),
            weight=shape.weight,
        )
        return replace(
            self,
            input_tokens_per_s=self.input_tokens_per_s.times(changed.isl_mean / shape.isl_mean),
            output_tokens_per_s=self.output_tokens_per_s.times(changed.osl_mean / shape.osl_mean),
            shape=changed,
            output_lengths=self.output_lengths if osl_ratio == 1 else None,
        )

    @property
    def rates(self) -> tuple[Quantiles, Quantiles, Quantiles]:
        """Requests/s, input and output tokens/s, in the order of `Paths`."""
        return (self.request_rate_rps, self.input_tokens_per_s, self.output_tokens_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownEvent:
    """Something that people know and no history tells: a launch, a sale, a holiday.

    Parameters
    ----------
    rate_ratio : float
        Requests during the event over those without it; 2: twice as many, 0: none.
    request_class : str or None
        The class that it concerns; None: all.
    """

    name: str
    start_at: datetime
    end_at: datetime
    rate_ratio: float
    request_class: str | None = None

    def __post_init__(self) -> None:
        if self.start_at.tzinfo is None or self.end_at.tzinfo is None:
            raise ValueError("start_at and end_at need a time zone")
        if not self.end_at > self.start_at:
            raise ValueError("end_at must be after start_at")
        if not 0 <= self.rate_ratio <= LARGEST_EVENT_RATIO:
            raise ValueError(
                f"rate_ratio must lie between 0 and {LARGEST_EVENT_RATIO:g}, "
                f"got {self.rate_ratio:g}"
            )

    def ratio_in(self, request_class: str, start_at: datetime, end_at: datetime) -> float:
        """Requests of a class in [start_at, end_at) over those without the event."""
        if self.request_class not in (None, request_class):
            return 1.0
        overlap = min(end_at, self.end_at) - max(start_at, self.start_at)
        share = max(overlap.total_seconds(), 0.0) / (end_at - start_at).total_seconds()
        return 1.0 + (self.rate_ratio - 1.0) * share


LARGEST_EVENT_RATIO = 1000.0
"""More than a thousandfold traffic is a slip of the pen."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dependence:
    """How the errors of one class's forecasts went together, over windows and quantities.

    Parameters
    ----------
    ranks : (origins, windows, 3) float, 0..1
        For each past origin the rank of its error among all origins': of the request rate, input
        and output tokens. Origins in order of time; none when too few errors are known.
    """

    request_class: str
    ranks: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A change of a class's request lengths beyond what its windows differ by anyway.

    Parameters
    ----------
    distance, usual : float
        Distance between the recent lengths and those before, and the largest 5 % of distances
        among the windows before (`forecaster.drift`).
    """

    request_class: str
    since: datetime
    distance: float
    usual: float
    what: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForecastWindow:
    """Demand of every class in [start_at, start_at + window_s). No demand: no traffic expected."""

    start_at: datetime
    window_s: float
    demands: tuple[Demand, ...]

    @property
    def end_at(self) -> datetime:
        """When it ends."""
        return self.start_at + timedelta(seconds=self.window_s)

    def request_rate_rps(self, level: float) -> float:
        """Requests/s of all classes together, each at its own quantile `level`."""
        return sum(d.request_rate_rps.at(level) for d in self.demands)

    def times(self, ratio: float) -> "ForecastWindow":
        """The same window with so many times the requests, of the same lengths."""
        return replace(
            self,
            demands=tuple(
                replace(
                    d,
                    request_rate_rps=d.request_rate_rps.times(ratio),
                    input_tokens_per_s=d.input_tokens_per_s.times(ratio),
                    output_tokens_per_s=d.output_tokens_per_s.times(ratio),
                )
                for d in self.demands
            ),
        )

    def longer(self, *, isl_ratio: float, osl_ratio: float) -> "ForecastWindow":
        """The same window with prompts and answers so many times as long."""
        longer = (d.longer(isl_ratio=isl_ratio, osl_ratio=osl_ratio) for d in self.demands)
        return replace(self, demands=tuple(longer))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecast:
    """What is coming for one model.

    Parameters
    ----------
    forecast_id : str
        Derived from its content: equal forecasts have equal ids.
    made_at : datetime
        Nothing after this instant was used.
    method : str
        Which forecasting method was chosen, per series, for people.
    events : tuple of str
        Known events that changed a window, for people.
    drifts : tuple of Drift
        Classes whose requests have changed their lengths.
    dependence : tuple of Dependence
        How errors go together, where it is known; paths are drawn with it.
    """

    forecast_id: str
    model: str
    made_at: datetime
    windows: tuple[ForecastWindow, ...]
    method: str
    events: tuple[str, ...] = ()
    drifts: tuple[Drift, ...] = ()
    dependence: tuple[Dependence, ...] = ()

    def __post_init__(self) -> None:
        if self.made_at.tzinfo is None:
            raise ValueError("made_at needs a time zone")
        if not self.windows:
            raise ValueError("a forecast needs at least one window")


QUANTITIES = 3
"""Of a path: requests/s, input tokens/s, output tokens/s."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassPaths:
    """Possible futures of one request class.

    Parameters
    ----------
    levels : (paths, windows, 3) float, 0..1
        Where in their distributions the rates lie.
    rates : (paths, windows, 3) float
        Requests/s, input and output tokens/s.
    """

    request_class: str
    levels: Floats
    rates: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Paths:
    """Possible futures through all windows of a forecast, all alike likely.

    Parameters
    ----------
    windows : tuple of ForecastWindow
        The forecast that they were drawn from.
    classes : tuple of ClassPaths
        Path `i` of all classes is one future.
    rule : str
        How windows and quantities go together, for people.
    """

    windows: tuple[ForecastWindow, ...]
    classes: tuple[ClassPaths, ...]
    rule: str

    @property
    def count(self) -> int:
        """How many there are; 0 without any class."""
        return len(self.classes[0].levels) if self.classes else 0

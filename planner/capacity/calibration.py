"""Observed beside predicted: how much slower than profiled replicas must be, and when that counts.

Queues answer more than proportionally to slower replicas, so that a ratio of times says little.
Instead the factor is sought by which the profile's times must grow for the closed form to predict
what was observed: of decode steps from the mean gap between tokens, of prompts from the mean TTFT.
One such factor a tick goes into a cumulative sum; only when that leaves its limits, and the drift
has lasted for some ticks, is the correction changed.

References
----------
CUSUM: Page, "Continuous inspection schemes" (1954). Its mean time between false alarms: Siegmund,
*Sequential Analysis* (1985); Montgomery, *Introduction to Statistical Quality Control*, 9.1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from planner.capacity.means import Means, predict_means
from planner.capacity.split import PoolLoad
from planner.domain.calibration import CalibrationSettings, Correction, Leg
from planner.domain.workload import Shape

WIDEST = 3.0
"""Factors are looked for between 1 / WIDEST and WIDEST."""
LEAST_TICKS = 5
"""Readings that a drift must have lasted for: one slow moment is none."""
FIRST_NOISE = 0.1
"""Spread of the factors' logarithms that is taken for granted at first..."""
FIRST_NOISE_TICKS = 10
"""...and counts as so many readings."""
LEAST_NOISE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observed:
    """What was seen of a deployment over one tick.

    Parameters
    ----------
    seconds : float
        How long it was looked at.
    ttft_mean_s, itl_mean_s, output_tokens_per_s : float or None
        None: not known.
    """

    seconds: float
    request_rate_rps: float
    shape: Shape
    ttft_mean_s: float | None = None
    itl_mean_s: float | None = None
    output_tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Implied:
    """How many times as long as profiled each leg lasts, by what was observed. None: not told."""

    prefill: float | None = None
    decode: float | None = None

    def of(self, leg: Leg) -> float | None:
        """The factor of one leg."""
        return self.prefill if leg is Leg.PREFILL else self.decode


def means_with(
    pools: Sequence[PoolLoad], observed: Observed, factors: Mapping[Leg, float]
) -> Means | None:
    """The means that are predicted for the observed load by profiles with these factors.

    Raises
    ------
    OutsideProfileError
        As `predict_means`.
    """
    slowed = [
        replace(
            pool,
            profile=pool.profile.lasting(
                prefill=factors.get(Leg.PREFILL, 1.0), decode=factors.get(Leg.DECODE, 1.0)
            ),
        )
        for pool in pools
    ]
    return predict_means(
        slowed,
        observed.shape,
        request_rate_rps=observed.request_rate_rps,
        window_s=observed.seconds,
    )


def implied(pools: Sequence[PoolLoad], observed: Observed, factors: Mapping[Leg, float]) -> Implied:
    """The factors by which the closed form predicts what was observed.

    Parameters
    ----------
    pools : sequence of PoolLoad
        With the profiles as they were measured.
    factors : mapping of Leg to float
        Present corrections; where the sought one starts from.

    Raises
    ------
    OutsideProfileError
        As `predict_means`.
    """
    found = dict(factors)
    decode = prefill = None
    if observed.itl_mean_s is not None:
        decode = _sought(
            lambda x: _itl(means_with(pools, observed, {**found, Leg.DECODE: x})),
            observed.itl_mean_s,
        )
        found[Leg.DECODE] = found.get(Leg.DECODE, 1.0) if decode is None else decode
    if observed.ttft_mean_s is not None:
        prefill = _sought(
            lambda x: _ttft(means_with(pools, observed, {**found, Leg.PREFILL: x})),
            observed.ttft_mean_s,
        )
    return Implied(prefill=prefill, decode=decode)


def _itl(means: Means | None) -> float | None:
    return None if means is None else means.itl_s


def _ttft(means: Means | None) -> float | None:
    return None if means is None else means.ttft_s


def _sought(predicted: Callable[[float], float | None], observed: float) -> float | None:
    """The factor at which a growing prediction is what was observed, by bisection (to 1 %)."""
    low, high = -math.log(WIDEST), math.log(WIDEST)
    for _ in range(8):
        middle = (low + high) / 2
        told = predicted(math.exp(middle))
        if told is None or not math.isfinite(told):
            return None
        low, high = (low, middle) if told >= observed else (middle, high)
    return math.exp((low + high) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A cumulative sum over what one leg's factors say beyond the present correction.

    Parameters
    ----------
    high, low : float
        Sums of the logarithms above and below what is let pass; 0: nothing has piled up.
    high_ticks, low_ticks : int
        For how long they have been above 0.
    high_total, low_total : float
        Sums of the logarithms since then, whose mean is the size of the drift.
    readings : int
    noise_total : float
        Sum of squared differences between one reading and the next.
    last : float or None
    """

    high: float = 0.0
    low: float = 0.0
    high_ticks: int = 0
    low_ticks: int = 0
    high_total: float = 0.0
    low_total: float = 0.0
    readings: int = 0
    noise_total: float = 0.0
    last: float | None = None

    @property
    def noise(self) -> float:
        """Spread of single readings: from neighbours' differences, which a drift leaves alone."""
        pairs = max(self.readings - 1, 0)
        first = FIRST_NOISE_TICKS * FIRST_NOISE**2
        variance = (first + self.noise_total / 2) / (FIRST_NOISE_TICKS + pairs)
        return max(math.sqrt(variance), LEAST_NOISE)

    def add(self, value: float, allowance: float) -> "Watch":
        """One reading more, the logarithm of a factor beyond the present correction."""
        jump = 0.0 if self.last is None else value - self.last
        high = max(self.high + value - allowance, 0.0)
        low = max(self.low - value - allowance, 0.0)
        return Watch(
            high=high,
            low=low,
            high_ticks=self.high_ticks + 1 if high > 0 else 0,
            low_ticks=self.low_ticks + 1 if low > 0 else 0,
            high_total=self.high_total + value if high > 0 else 0.0,
            low_total=self.low_total + value if low > 0 else 0.0,
            readings=self.readings + 1,
            noise_total=self.noise_total + jump**2,
            last=value,
        )

    def alarm(self, limit: float) -> float | None:
        """The drift's size, a logarithm, where a sum is above the limit for long enough."""
        if self.high > limit and self.high_ticks >= LEAST_TICKS:
            return self.high_total / self.high_ticks
        if self.low > limit and self.low_ticks >= LEAST_TICKS:
            return self.low_total / self.low_ticks
        return None

    def begun_anew(self) -> "Watch":
        """Nothing piled up; what is known of the noise stays."""
        return Watch(readings=self.readings, noise_total=self.noise_total)


def limit_of(noise: float, allowance: float, false_alarm_ticks: float) -> float:
    """The sum at which a two-sided CUSUM falsely alarms once in so many ticks on average.

    Siegmund's ARL = (exp(2 k b) - 2 k b - 1) / (2 k^2) of one side, with b = h + 1.166; all in
    units of the noise. Two sides alarm twice as often.
    """
    k = max(allowance / noise, 0.01)
    wanted = 2.0 * false_alarm_ticks
    low, high = 0.0, 1_000.0
    for _ in range(60):
        b = (low + high) / 2
        grown = 2 * k * b
        told = math.inf if grown > 700 else (math.exp(grown) - grown - 1) / (2 * k * k)
        low, high = (low, b) if told >= wanted else (b, high)
    return max(high - 1.166, 0.5) * noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What is known of one leg of one profile.

    Parameters
    ----------
    correction : Correction
    drift : float
        Where the readings point, as a factor beyond the correction; 1: nowhere.
    """

    correction: Correction
    watch: Watch = Watch()

    @property
    def drift(self) -> float:
        """Mean of the readings that have piled up, as a factor beyond the correction."""
        watch = self.watch
        if watch.high > watch.low:
            return math.exp(watch.high_total / watch.high_ticks)
        if watch.low > 0:
            return math.exp(watch.low_total / watch.low_ticks)
        return 1.0

    @property
    def profile_again(self) -> bool:
        """Whether the profile does not say any more what its replicas do."""
        return self.correction.factor != 1.0 or self.correction.at_bound


def first_calibration(profile_id: str, leg: Leg, *, at: datetime) -> Calibration:
    """Of a profile that nothing was observed of yet."""
    return Calibration(
        correction=Correction(profile_id=profile_id, leg=leg, factor=1.0, since_at=at, ticks=0)
    )


def calibrated(
    before: Calibration, factor: float, settings: CalibrationSettings, *, at: datetime
) -> Calibration:
    """The calibration after one more tick in which the leg lasted `factor` times the profile.

    The correction stays as it is until the sum leaves its limits and the drift is no smaller than
    the tolerance; then it becomes what the readings of the drift say in the mean, within the
    bounds of the settings, and 1 where that is within half the tolerance of the profile.
    """
    allowance = math.log1p(settings.tolerance_ratio) / 2
    value = math.log(factor / before.correction.factor)
    watch = before.watch.add(value, allowance)
    drift = watch.alarm(limit_of(watch.noise, allowance, settings.false_alarm_ticks))
    if drift is None:
        return replace(before, watch=watch)
    if abs(drift) < 2 * allowance:
        return replace(before, watch=watch.begun_anew())
    wanted = before.correction.factor * math.exp(drift)
    bounded = settings.bounded(wanted)
    allowed = math.exp(allowance)
    if 1 / allowed < bounded < allowed:
        bounded = 1.0
    ticks = watch.high_ticks if drift > 0 else watch.low_ticks
    return Calibration(
        correction=replace(
            before.correction,
            factor=bounded,
            since_at=at,
            ticks=ticks,
            at_bound=not bounded / allowed <= wanted <= bounded * allowed,
        ),
        watch=watch.begun_anew(),
    )

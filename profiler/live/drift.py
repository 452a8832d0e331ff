"""Live traffic against a profile: how much slower or faster than it says, with an interval.

Two quantities are compared, each as a ratio of observed to predicted:

- the gap between tokens: `sum_i D_i (1 - p) / step_s(b_i, c)` tokens are predicted for the
  `D_i` seconds that requests spent decoding in interval i (the sum of all gaps), in batches of
  `b_i` (running requests, scaled so that they make up all the `D_i`) of mean context `c`, while
  the share `p` of busy time went to prompts that the engine computed itself;
- the time from scheduled to first token: the mean of `prefill_s` over the lengths seen, with the
  decode steps that run along.

The interval is that of a ratio of sums over the intervals watched (delta method, Student's t).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from planner.domain.profile import Floats, Profile
from profiler.live.traffic import Interval, Watched
from serving.telemetry import Histogram, Traffic

LEAST_GAPS = 100
"""Gaps between tokens that are needed to compare them."""
LEAST_PREFILLS = 10
"""Finished requests that are needed to compare prefill."""
LEAST_INTERVALS = 4
"""Intervals with traffic that are needed for an interval of the ratio."""
LEAST_TOLERANCE = 0.1
"""A smaller difference is not called drift, however small the profile's error."""
BUSIEST_PREFILL = 0.3
"""Above this share of time spent on prompts they wait for each other, which no table says."""
MOST_PREFILL = 0.7
"""Above this share of busy time decoding is what prompts leave over: not compared."""


class Verdict(StrEnum):
    """What a comparison comes to."""

    OK = "ok"
    DRIFTED = "drifted"
    TOO_LITTLE = "not_enough_traffic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One quantity: observed to predicted.

    Parameters
    ----------
    observed_s, predicted_s : float or None
        Means, seconds.
    ratio, low, high : float or None
        Observed / predicted with its 95 % interval; None: not compared.
    samples : int
        Gaps or requests behind it.
    reason : str
        Why there is no verdict; empty when there is one.
    """

    quantity: str
    verdict: Verdict
    observed_s: float | None = None
    predicted_s: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    samples: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The load that was seen, which the profile was asked about.

    Parameters
    ----------
    batch : float
        Mean sequences decoded together, over tokens.
    context_tokens, isl, osl : float
        Mean context while decoding, prompt and answer, tokens.
    computed_ratio : float
        Share of prompt tokens that the engines computed themselves, 0..1.
    prefill_share : float
        Predicted share of busy time spent on prompts, 0..1.
    """

    seconds: float
    requests: int
    batch: float
    context_tokens: float
    isl: float
    osl: float
    computed_ratio: float
    prefill_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The outcome of watching engines."""

    verdict: Verdict
    tolerance_ratio: float
    load: Load | None
    drifts: tuple[Drift, ...]
    notes: tuple[str, ...]


class _Pair(NamedTuple):
    """Of one interval: what was observed, and the same as predicted."""

    observed: float
    predicted: float


def check(profile: Profile, watched: Sequence[Watched], *, tolerance: float | None) -> Check:
    """What the engines did against what the profile says of such a load.

    Parameters
    ----------
    tolerance : float or None
        Relative difference that is no drift; None: the profile's own error, 10 % at least.
    """
    allowed = max(profile.provenance.error_ratio, LEAST_TOLERANCE)
    allowed = allowed if tolerance is None else tolerance
    every = [i for w in watched for i in w.intervals]
    notes = _notes(profile, watched)
    served = _sum(every)
    if served is None or served.ttft_s.count + served.itl_s.count <= 0:
        return Check(
            verdict=Verdict.TOO_LITTLE,
            tolerance_ratio=allowed,
            load=None,
            drifts=(),
            notes=(*notes, "no request was served while watching"),
        )
    load = _load(profile, every, served)
    drifts = (
        _decoding(profile, watched, served, load, allowed),
        _prefilling(profile, every, served, load, allowed),
    )
    verdicts = {d.verdict for d in drifts}
    verdict = next(v for v in (Verdict.DRIFTED, Verdict.OK, Verdict.TOO_LITTLE) if v in verdicts)
    return Check(
        verdict=verdict, tolerance_ratio=allowed, load=load, drifts=drifts, notes=tuple(notes)
    )


def _notes(profile: Profile, watched: Sequence[Watched]) -> list[str]:
    notes = []
    for one in watched:
        if one.model is not None and one.model != profile.model:
            notes.append(f"{one.url} serves {one.model}, the profile is of {profile.model}")
        if one.restarts:
            notes.append(
                f"{one.url} was restarted {one.restarts} times while watching: those intervals "
                "are left out"
            )
        if one.missed:
            notes.append(f"{one.url} did not answer {one.missed} times while watching")
    return notes


def _sum(intervals: Sequence[Interval]) -> Traffic | None:
    if not intervals:
        return None
    first, *others = (i.traffic for i in intervals)
    nothing = first - first
    total = first
    for other in others:
        total = total - (nothing - other)
    return total


def _load(profile: Profile, intervals: Sequence[Interval], served: Traffic) -> Load:
    prompts = served.ttft_s.count or served.prompt_lengths.count
    isl = served.prompt_tokens / prompts if prompts > 0 else served.prompt_lengths.mean or 0.0
    finished = served.requests_finished
    # Without a finished answer: the tokens so far are the least that answers have.
    osl = served.generation_tokens / max(finished, served.ttft_s.count, 1.0)
    computed = served.computed_tokens / served.prompt_tokens if served.prompt_tokens > 0 else 0.0
    busy_s = sum(i.seconds for i in intervals if i.running > 0 or i.traffic.itl_s.count > 0)
    lengths = _lengths(served, isl)
    spent_s = served.ttft_s.count * _mean_prefill_s(profile, lengths, min(computed, 1.0))
    decoding_s = served.itl_s.total
    return Load(
        seconds=sum(i.seconds for i in intervals),
        requests=int(served.ttft_s.count),
        batch=max(decoding_s / busy_s, 0.0) if busy_s > 0 else 0.0,
        context_tokens=isl + osl / 2.0,
        isl=isl,
        osl=osl,
        computed_ratio=min(computed, 1.0),
        prefill_share=min(spent_s / busy_s, 1.0) if busy_s > 0 and computed > 0 else 0.0,
    )


class _Lengths(NamedTuple):
    tokens: Floats
    weights: Floats


def _lengths(served: Traffic, isl: float) -> _Lengths:
    """Prompt lengths with their shares: buckets' middles, scaled so that the mean is right."""
    seen: Histogram = served.prompt_lengths
    counts = np.asarray(seen.counts)
    if seen.count <= 0 or len(counts) == 0 or counts.sum() <= 0:
        return _Lengths(np.asarray([isl]), np.asarray([1.0]))
    upper = np.asarray(seen.upper)
    lower = np.concatenate([[1.0], upper[:-1]])
    upper = np.where(np.isfinite(upper), upper, 2 * lower)
    middle = np.sqrt(lower * np.maximum(upper, lower))
    kept = counts > 0  # the largest buckets lie beyond every profile
    middle, weights = middle[kept], counts[kept] / counts[kept].sum()
    return _Lengths(middle * isl / float((middle * weights).sum()), weights)


def _mean_prefill_s(profile: Profile, lengths: _Lengths, computed: float) -> float:
    new, cached = lengths.tokens * computed, lengths.tokens * (1.0 - computed)
    return float((profile.prefill.extended_at(new, cached) * lengths.weights).sum())


def _decoding(
    profile: Profile, watched: Sequence[Watched], served: Traffic, load: Load, allowed: float
) -> Drift:
    gaps = int(served.itl_s.count)
    plain = Drift(
        quantity="itl_s",
        verdict=Verdict.TOO_LITTLE,
        observed_s=served.itl_s.mean,
        samples=max(gaps, 0),
    )
    if gaps < LEAST_GAPS:
        return _without(plain, f"{gaps} gaps between tokens, {LEAST_GAPS} are needed")
    if load.prefill_share > MOST_PREFILL:
        return _without(plain, f"prompts take {load.prefill_share:.0%} of the time")
    pairs: list[_Pair] = []
    for one in watched:
        pairs += _token_pairs(profile, one.intervals, load)
    inside = [p for p in pairs if not math.isnan(p.predicted)]
    tokens = sum(p.observed for p in inside)
    if tokens < 0.5 * gaps:
        return _without(plain, "most batches or contexts lie outside what the profile measured")
    # Tokens predicted for the same seconds: more of them than came means slower than predicted.
    return _judged(plain, [_Pair(p.predicted, p.observed) for p in inside], allowed)


def _token_pairs(profile: Profile, intervals: Sequence[Interval], load: Load) -> list[_Pair]:
    """Tokens that came and tokens predicted, of every interval with any; NaN: outside."""
    table = profile.decode_step
    decoding_s = sum(i.traffic.itl_s.total for i in intervals)
    running_s = sum(i.running * i.seconds for i in intervals)
    scale = min(decoding_s / running_s, 1.0) if running_s > 0 else 1.0
    pairs = []
    for one in intervals:
        gaps = one.traffic.itl_s
        if gaps.count <= 0:
            continue
        batch = max(one.running * scale or gaps.total / one.seconds, 1.0)
        at = np.asarray(batch), np.asarray(load.context_tokens)
        step_s = float(table.extended_at(*at)) if bool(table.covers(*at)) else math.nan
        pairs.append(_Pair(gaps.count, gaps.total * (1.0 - load.prefill_share) / step_s))
    return pairs


def _prefilling(
    profile: Profile, intervals: Sequence[Interval], served: Traffic, load: Load, allowed: float
) -> Drift:
    seen = served.prefill_s
    plain = Drift(
        quantity="prefill_s",
        verdict=Verdict.TOO_LITTLE,
        observed_s=seen.mean,
        samples=max(int(seen.count), 0),
    )
    if load.computed_ratio <= 0:
        return _without(plain, "no prompt was computed here: their KV caches came from elsewhere")
    if seen.count < LEAST_PREFILLS:
        return _without(plain, f"{seen.count:.0f} finished requests, {LEAST_PREFILLS} are needed")
    if load.prefill_share > BUSIEST_PREFILL:
        return _without(
            plain,
            f"prompts take {load.prefill_share:.0%} of the time, so that they wait for each other",
        )
    lengths = _lengths(served, load.isl)
    longest = np.asarray(float((lengths.tokens * load.computed_ratio).max()))
    cached = np.asarray(float((lengths.tokens * (1 - load.computed_ratio)).max()))
    if not bool(profile.prefill.covers(longest, cached)):
        return _without(plain, "prompts are longer than the profile measured")
    mean_s = _mean_prefill_s(profile, lengths, load.computed_ratio) + _steps_along(profile, load)
    pairs = [
        _Pair(i.traffic.prefill_s.total, i.traffic.prefill_s.count * mean_s)
        for i in intervals
        if i.traffic.prefill_s.count > 0
    ]
    return _judged(plain, pairs, allowed)


def _steps_along(profile: Profile, load: Load) -> float:
    """What decoding adds to the steps of a prompt, seconds."""
    if load.batch < 0.5:
        return 0.0
    step_s = float(profile.decode_step.extended_at(load.batch, load.context_tokens))
    alone_s = float(profile.decode_step.seconds.min())
    steps = math.ceil(load.isl * load.computed_ratio / profile.limits.max_num_batched_tokens)
    return max(step_s - alone_s, 0.0) * steps


def _without(plain: Drift, reason: str) -> Drift:
    return Drift(
        quantity=plain.quantity,
        verdict=Verdict.TOO_LITTLE,
        observed_s=plain.observed_s,
        samples=plain.samples,
        reason=reason,
    )


def _judged(plain: Drift, pairs: Sequence[_Pair], allowed: float) -> Drift:
    """Ratio of the sums with its interval, and whether it lies outside what is allowed."""
    if len(pairs) < LEAST_INTERVALS:
        return _without(
            plain, f"traffic in {len(pairs)} intervals, {LEAST_INTERVALS} are needed: watch longer"
        )
    ratio, half = _ratio_of_sums(pairs)
    low, high = max(ratio - half, 0.0), ratio + half
    least, most = 1.0 / (1.0 + allowed), 1.0 + allowed
    verdict, reason = Verdict.OK, ""
    if low > most or high < least:
        verdict = Verdict.DRIFTED
    elif not least <= ratio <= most:
        verdict = Verdict.TOO_LITTLE
        reason = "it varies too much to tell: watch longer"
    return Drift(
        quantity=plain.quantity,
        verdict=verdict,
        observed_s=plain.observed_s,
        predicted_s=None if plain.observed_s is None else plain.observed_s / ratio,
        ratio=ratio,
        low=low,
        high=high,
        samples=plain.samples,
        reason=reason,
    )


def _ratio_of_sums(pairs: Sequence[_Pair]) -> tuple[float, float]:
    """Sum of observed over sum of predicted, and half its 95 % interval.

    References
    ----------
    Cochran, Sampling Techniques (1977), section 6.4: variance of a ratio estimator.
    """
    from scipy.stats import t

    observed = np.asarray([p.observed for p in pairs])
    predicted = np.asarray([p.predicted for p in pairs])
    ratio = float(observed.sum() / predicted.sum())
    count = len(pairs)
    spread = float(((observed - ratio * predicted) ** 2).sum()) * count / (count - 1)
    half = float(t.ppf(0.975, count - 1)) * math.sqrt(spread) / float(predicted.sum())
    return ratio, half

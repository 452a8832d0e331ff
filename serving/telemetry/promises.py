"""How well promises are kept, from what histograms can tell: bounds, never one number too good."""

from collections.abc import Sequence
from dataclasses import dataclass

from planner.domain.slo import Slo
from serving.telemetry.histogram import Share
from serving.telemetry.signals import Judged, Latency, Signal, SloSignals

ALL_ALIKE = "no source tells request classes apart"
NO_FAILURES = "how many requests failed is not told: none is counted as a miss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """What requests experienced, each objective in a histogram of its own.

    Parameters
    ----------
    ttft, tpot, e2e : Latency
        Of requests that were answered.
    failed_per_s : Signal
        Requests/s; they miss every promise.
    seconds : float or None
        Over which all of it was seen.
    judged : tuple of Judged
        What a gate says that judges every request by itself.
    classes_told_apart : bool
        Whether the histograms hold one class only.
    """

    ttft: Latency
    tpot: Latency
    e2e: Latency
    failed_per_s: Signal
    seconds: float | None
    judged: tuple[Judged, ...] = ()
    classes_told_apart: bool = True


def jointly(shares: Sequence[Share]) -> Share:
    """Bounds of the share of requests that meet several objectives at once.

    However the objectives hang together, at least sum(share) - (n - 1) and at most the smallest
    share of them meet all.

    References
    ----------
    Fréchet's inequalities (1935) for the probability of a conjunction.
    """
    return Share(
        low=max(sum(share.low for share in shares) - (len(shares) - 1), 0.0),
        high=min(share.high for share in shares),
    )


def kept(slo: Slo, seen: Experience) -> SloSignals:
    """How well one promise is kept: counted where a gate judges it, else within bounds."""
    judged = next((j for j in seen.judged if j.request_class == slo.request_class), None)
    if judged is not None:
        return _counted(slo, judged)
    shares = _shares(slo, seen)
    if isinstance(shares, str):
        return _unknown(slo, shares)
    if seen.seconds is None or seen.seconds <= 0:
        return _unknown(slo, "the interval is not known")
    answered = seen.ttft.count.value or 0.0
    failed = (seen.failed_per_s.value or 0.0) * seen.seconds
    # A request that failed after its first token is among the answered ones, others are not. At
    # worst all failed ones are, and were in time by then; at best as many as were late anyway.
    met = jointly(shares)
    low = max(met.low - failed / answered, 0.0)
    in_time = met.high * answered
    among = min(failed, answered - in_time)
    high = in_time / (answered + failed - among)
    allowed = 1.0 - slo.attainment_ratio
    return SloSignals(
        request_class=slo.request_class,
        target_ratio=slo.attainment_ratio,
        attainment_ratio=_between(low, high),
        goodput_rps=_between(low * answered / seen.seconds, met.high * answered / seen.seconds),
        error_budget_used_ratio=_between((1 - high) / allowed, (1 - low) / allowed),
        from_bounds=True,
        note="" if seen.failed_per_s.known else NO_FAILURES,
    )


def _counted(slo: Slo, judged: Judged) -> SloSignals:
    """By requests that were judged one by one, against the promises that the gate was given."""
    every, met = judged.judged_per_s, judged.met_per_s
    if every.value is None or met.value is None:
        return _unknown(slo, every.missing or met.missing)
    if every.value <= 0:
        return _unknown(slo, "no request was judged in the interval")
    attained = min(met.value / every.value, 1.0)
    return SloSignals(
        request_class=slo.request_class,
        target_ratio=slo.attainment_ratio,
        attainment_ratio=Signal(value=attained, metric=every.metric),
        goodput_rps=met,
        error_budget_used_ratio=Signal(
            value=(1 - attained) / (1 - slo.attainment_ratio), metric=every.metric
        ),
        from_bounds=False,
    )


def _shares(slo: Slo, seen: Experience) -> list[Share] | str:
    """Share within each objective, or why one is not known."""
    if not seen.classes_told_apart:
        return ALL_ALIKE
    wanted = [("TTFT", seen.ttft, slo.ttft_s), ("TPOT", seen.tpot, slo.tpot_s)]
    if slo.e2e_s is not None:
        wanted.append(("end-to-end time", seen.e2e, slo.e2e_s))
    shares = []
    for name, latency, limit in wanted:
        share = latency.distribution.within(limit) if latency.distribution else None
        if share is None:
            return f"{name}: {latency.p50_s.missing or 'its distribution is not told'}"
        shares.append(share)
    return shares


def _between(low: float, high: float) -> Signal:
    return Signal(value=(low + high) / 2, low=low, high=high)


def _unknown(slo: Slo, reason: str) -> SloSignals:
    lacking = Signal.lacking(reason)
    return SloSignals(
        request_class=slo.request_class,
        target_ratio=slo.attainment_ratio,
        attainment_ratio=lacking,
        goodput_rps=lacking,
        error_budget_used_ratio=lacking,
        from_bounds=True,
    )

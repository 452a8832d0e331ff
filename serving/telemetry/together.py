"""Several workers as one: counts and rates summed, ratios as means, latencies over all values."""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce

from planner.domain.fleet import Role
from serving.telemetry.histogram import Histogram
from serving.telemetry.interval import latency_of, mean_of
from serving.telemetry.signals import (
    Activity,
    HardwareSignals,
    Judged,
    Latency,
    RoleSignals,
    Signal,
    TargetSignals,
    TransferSignals,
)

NOBODY = "no worker of this role answers"


def of_role(role: Role, workers: Sequence[TargetSignals]) -> RoleSignals:
    """All workers of a role; the figures are of those that answer."""
    answering = [worker for worker in workers if worker.answers]
    return RoleSignals(
        role=role,
        workers=len(workers),
        answering=len(answering),
        activity=together(answering),
    )


def together(workers: Sequence[TargetSignals]) -> Activity:
    """The workers' activities as one.

    A sum of which a part is not known is not known: it would look like less load than there is.
    """
    own = [worker.activity for worker in workers]

    def total(of: Callable[[Activity], Signal]) -> Signal:
        return summed(zip((w.name for w in workers), map(of, own), strict=True))

    def merged(of: Callable[[Activity], Latency]) -> Latency:
        return merge([of(activity) for activity in own])

    prompts = _lengths([a.prompt_lengths for a in own])
    answers = _lengths([a.answer_lengths for a in own])
    return Activity(
        running=total(lambda a: a.running),
        waiting=total(lambda a: a.waiting),
        waiting_for_kv=total(lambda a: a.waiting_for_kv),
        kv_usage_ratio=_weighted([(a.kv_usage_ratio, a.kv_capacity_tokens) for a in own]),
        kv_usage_most_ratio=_most([a.kv_usage_ratio for a in own]),
        kv_capacity_tokens=total(lambda a: a.kv_capacity_tokens),
        requests_per_s=total(lambda a: a.requests_per_s),
        failed_per_s=total(lambda a: a.failed_per_s),
        preemptions_per_s=total(lambda a: a.preemptions_per_s),
        input_tokens_per_s=total(lambda a: a.input_tokens_per_s),
        output_tokens_per_s=total(lambda a: a.output_tokens_per_s),
        computed_tokens_per_s=total(lambda a: a.computed_tokens_per_s),
        cached_tokens_per_s=total(lambda a: a.cached_tokens_per_s),
        transferred_tokens_per_s=total(lambda a: a.transferred_tokens_per_s),
        prefix_hit_ratio=_weighted([(a.prefix_hit_ratio, a.input_tokens_per_s) for a in own]),
        external_hit_ratio=_weighted([(a.external_hit_ratio, a.input_tokens_per_s) for a in own]),
        ttft=merged(lambda a: a.ttft),
        itl=merged(lambda a: a.itl),
        tpot=merged(lambda a: a.tpot),
        e2e=merged(lambda a: a.e2e),
        queueing=merged(lambda a: a.queueing),
        prefilling=merged(lambda a: a.prefilling),
        decoding=merged(lambda a: a.decoding),
        step_tokens=_mean([a.step_tokens for a in own]),
        isl=_mean_length(prompts, [a.isl for a in own]),
        osl=_mean_length(answers, [a.osl for a in own]),
        prompt_lengths=prompts,
        answer_lengths=answers,
        judged=_judged(workers),
        transfer=TransferSignals(
            latency=merged(lambda a: a.transfer.latency),
            transfers_per_s=total(lambda a: a.transfer.transfers_per_s),
            bytes_per_s=total(lambda a: a.transfer.bytes_per_s),
            failed_per_s=total(lambda a: a.transfer.failed_per_s),
            expired_per_s=total(lambda a: a.transfer.expired_per_s),
        ),
        hardware=_hardware([a.hardware for a in own], total),
    )


def _judged(workers: Sequence[TargetSignals]) -> tuple[Judged, ...]:
    own = [(worker.name, judged) for worker in workers for judged in worker.activity.judged]
    return tuple(
        Judged(
            request_class=name,
            judged_per_s=summed((w, j.judged_per_s) for w, j in own if j.request_class == name),
            met_per_s=summed((w, j.met_per_s) for w, j in own if j.request_class == name),
        )
        for name in sorted({judged.request_class for _, judged in own})
    )


def _hardware(
    own: Sequence[HardwareSignals], total: Callable[[Callable[[Activity], Signal]], Signal]
) -> HardwareSignals:
    return HardwareSignals(
        accelerator_ratio=_mean([h.accelerator_ratio for h in own]),
        memory_used_ratio=_mean([h.memory_used_ratio for h in own]),
        memory_bandwidth_ratio=_mean([h.memory_bandwidth_ratio for h in own]),
        tensor_ratio=_mean([h.tensor_ratio for h in own]),
        power_w=total(lambda a: a.hardware.power_w),
        cpu_cores=total(lambda a: a.hardware.cpu_cores),
        resident_bytes=total(lambda a: a.hardware.resident_bytes),
    )


def summed(parts: Iterable[tuple[str, Signal]]) -> Signal:
    """The sum of what named parts tell; not known when one of them is not."""
    every = list(parts)
    if not every:
        return Signal.lacking(NOBODY)
    for name, part in every:
        if not part.known:
            return Signal.lacking(f"{name}: {part.missing}" if len(every) > 1 else part.missing)
    return Signal(
        value=sum(part.value for _, part in every if part.value is not None),
        metric=every[0][1].metric,
    )


def merge(parts: Sequence[Latency]) -> Latency:
    """Quantiles over the values of all; buckets that not all have are joined to wider ones."""
    if not parts:
        return lacking_latency(NOBODY)
    histograms = [part.histogram for part in parts if part.histogram is not None]
    if len(histograms) < len(parts):
        without = next(part for part in parts if part.histogram is None)
        return parts[0] if len(parts) == 1 else lacking_latency(without.p50_s.missing)
    metric = parts[0].count.metric
    return latency_of(reduce(lambda a, b: a + b, histograms), metric=metric)


def lacking_latency(reason: str) -> Latency:
    """No quantiles, for this reason."""
    lacking = Signal.lacking(reason)
    return Latency(p50_s=lacking, p95_s=lacking, p99_s=lacking, mean_s=lacking, count=lacking)


def _known(signals: Sequence[Signal]) -> list[float]:
    return [signal.value for signal in signals if signal.value is not None]


def _mean(signals: Sequence[Signal]) -> Signal:
    """Mean over those that know it: a ratio of some is still a ratio."""
    known = _known(signals)
    if not known:
        return signals[0] if signals else Signal.lacking(NOBODY)
    return Signal(value=sum(known) / len(known), metric=_metric(signals))


def _most(signals: Sequence[Signal]) -> Signal:
    known = _known(signals)
    if not known:
        return signals[0] if signals else Signal.lacking(NOBODY)
    return Signal(value=max(known), metric=_metric(signals))


def _weighted(pairs: Sequence[tuple[Signal, Signal]]) -> Signal:
    """Mean of the first by the weight of the second; plain where a weight is not known."""
    known = [pair for pair in pairs if pair[0].known]
    weights = [weight.value for _, weight in known]
    if not known or None in weights or sum(w for w in weights if w is not None) <= 0:
        return _mean([signal for signal, _ in pairs])
    total = sum(
        signal.value * weight
        for (signal, _), weight in zip(known, weights, strict=True)
        if signal.value is not None and weight is not None
    )
    return Signal(
        value=total / sum(weight for weight in weights if weight is not None),
        metric=known[0][0].metric,
    )


def _metric(signals: Sequence[Signal]) -> str:
    return next((signal.metric for signal in signals if signal.known), "")


def _lengths(parts: Sequence[Histogram | None]) -> Histogram | None:
    whole = [part for part in parts if part is not None]
    if not whole or len(whole) < len(parts):
        return None
    return reduce(lambda a, b: a + b, whole)


def _mean_length(lengths: Histogram | None, signals: Sequence[Signal]) -> Signal:
    if lengths is not None:
        return mean_of(lengths, metric=_metric(signals))
    return _mean(signals)

"""Predicted beside observed, once a tick: kept, and profiles corrected where they drift apart."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from planner.capacity.calibration import (
    Calibration,
    Implied,
    Observed,
    calibrated,
    first_calibration,
    implied,
    means_with,
)
from planner.capacity.means import Means
from planner.capacity.split import PoolLoad
from planner.domain.calibration import Correction, Leg
from planner.domain.errors import PoolwiseError
from planner.domain.fleet import Role
from planner.domain.spec import Spec
from planner.domain.wording import agreed, counted
from planner.service.documents.calibration import ComparisonDocument, MeansDocument
from planner.service.store import Store
from serving.telemetry.expected import NotKnownError, answering_pools, observed_shape
from serving.telemetry.histogram import Histogram
from serving.telemetry.signals import (
    Activity,
    DeploymentSignals,
    Latency,
    RoleSignals,
    Signal,
)

LOG = logging.getLogger("poolwise.calibration")
LEAST_REQUESTS = 30
"""Answered in a tick; fewer say too little of a mean."""
_ROLES = {
    Leg.PREFILL: (Role.PREFILL, Role.AGGREGATED),
    Leg.DECODE: (Role.DECODE, Role.AGGREGATED),
}
_UNKNOWN = MeansDocument(ttft_s=None, itl_s=None, output_tokens_per_s=None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared:
    """What one tick saw, and what the profiles behind it say."""

    observed: Observed
    pools: Sequence[PoolLoad]


def calibrate(
    store: Store, spec: Spec, model: str, readings: Sequence[DeploymentSignals], *, now: datetime
) -> tuple[Correction, ...]:
    """Compare what was read since the last tick, keep it, and return the corrections that hold.

    Raises
    ------
    StoreError
        When the store does not answer; nothing is corrected then.
    """
    kept = store.calibrations(spec.name)
    before = kept.all()
    if not readings:
        return corrections_of(before)
    seconds = sum(_seconds(one) for one in readings)
    try:
        compared = compare(spec, model, readings)
        factors = _factors(compared.pools, before)
        told = implied(compared.pools, compared.observed, factors)
        predicted = means_with(compared.pools, compared.observed, factors)
    except (NotKnownError, PoolwiseError, ValueError) as error:
        document = ComparisonDocument(
            compared_at=now,
            model=model,
            seconds=seconds,
            requests=0.0,
            observed=_UNKNOWN,
            predicted=_UNKNOWN,
            implied={},
            reason=str(error),
        )
        kept.keep(document, (), changed=(), at=now)
        return corrections_of(before)
    after = _after(spec, compared.pools, before, told, now=now)
    changed = [one for one in after if _differs(one, before)]
    kept.keep(_document(compared, predicted, told, model, now), after, changed=changed, at=now)
    for one in changed:
        LOG.warning("deployment=%s %s", spec.name, one.correction.sentence)
    return corrections_of(_merged(before, after))


def corrections_of(calibrations: Iterable[Calibration]) -> tuple[Correction, ...]:
    """Those that change or question a profile."""
    return tuple(c.correction for c in calibrations if c.profile_again)


def _differs(one: Calibration, before: Sequence[Calibration]) -> bool:
    """Whether its correction is another one than before; at first there was none."""
    now = one.correction
    for old in (c.correction for c in before):
        if (old.profile_id, old.leg) == (now.profile_id, now.leg):
            return (old.factor, old.at_bound) != (now.factor, now.at_bound)
    return one.profile_again


def compare(spec: Spec, model: str, readings: Sequence[DeploymentSignals]) -> Compared:
    """All readings of a tick as one observation.

    Raises
    ------
    NotKnownError
        When too little was answered, workers came or went meanwhile, or a figure is not told.
    """
    workers = {tuple((r.role, r.workers, r.answering) for r in one.roles) for one in readings}
    if len(workers) > 1:
        raise NotKnownError("workers came or went meanwhile")
    roles = _together(readings)
    seconds = sum(_seconds(one) for one in readings)
    requests = _per_second(readings, [one.requests_per_s for one in readings]) * seconds
    if requests < LEAST_REQUESTS:
        raise NotKnownError(
            f"{counted(requests, 'request')} {agreed(requests, 'was', 'were')} answered, "
            f"{LEAST_REQUESTS} are needed"
        )
    tokens = [one.output_tokens_per_s for one in readings]
    return Compared(
        observed=Observed(
            seconds=seconds,
            request_rate_rps=requests / seconds,
            shape=observed_shape(roles),
            ttft_mean_s=_mean([one.ttft for one in readings]),
            itl_mean_s=_mean([one.itl for one in readings]),
            output_tokens_per_s=(
                _per_second(readings, tokens) if all(t.known for t in tokens) else None
            ),
        ),
        pools=answering_pools(spec, model, roles),
    )


def _seconds(signals: DeploymentSignals) -> float:
    return max((t.interval_s for t in signals.targets if t.interval_s), default=0.0)


def _per_second(readings: Sequence[DeploymentSignals], rates: Sequence[Signal]) -> float:
    """A rate over all readings, each for as long as it lasted."""
    total = 0.0
    for one, rate in zip(readings, rates, strict=True):
        if rate.value is None:
            raise NotKnownError(f"the request rate: {rate.missing}")
        total += rate.value * _seconds(one)
    seconds = sum(_seconds(one) for one in readings)
    if seconds <= 0:
        raise NotKnownError("the readings tell no interval")
    return total / seconds


def _mean(latencies: Sequence[Latency]) -> float | None:
    """The mean over all values of all readings; None where none is told."""
    told = [
        (latency.mean_s.value, latency.count.value)
        for latency in latencies
        if latency.mean_s.value is not None and latency.count.value
    ]
    count = sum(n for _, n in told)
    return sum(mean * n for mean, n in told) / count if count > 0 else None


def _together(readings: Sequence[DeploymentSignals]) -> tuple[RoleSignals, ...]:
    """The roles of the last reading, with the lengths of all of them."""
    return tuple(
        replace(
            role,
            activity=_lengths(
                [r.activity for one in readings for r in one.roles if r.role is role.role]
            ),
        )
        for role in readings[-1].roles
    )


def _lengths(activities: Sequence[Activity]) -> Activity:
    last = activities[-1]
    prompts = _added([a.prompt_lengths for a in activities])
    answers = _added([a.answer_lengths for a in activities])
    return replace(
        last,
        prompt_lengths=prompts,
        answer_lengths=answers,
        isl=_mean_length([a.isl for a in activities], [a.prompt_lengths for a in activities]),
        osl=_mean_length([a.osl for a in activities], [a.answer_lengths for a in activities]),
    )


def _added(histograms: Sequence[Histogram | None]) -> Histogram | None:
    known = [one for one in histograms if one is not None]
    if not known:
        return None
    total = known[0]
    for one in known[1:]:
        total = total + one
    return total


def _mean_length(means: Sequence[Signal], histograms: Sequence[Histogram | None]) -> Signal:
    """Of single readings' means, each counted as often as it has values."""
    told = [
        (mean.value, 1.0 if values is None else values.count)
        for mean, values in zip(means, histograms, strict=True)
        if mean.value is not None
    ]
    count = sum(n for _, n in told)
    if count <= 0:
        return means[-1]
    return Signal(value=sum(mean * n for mean, n in told) / count, metric=means[-1].metric)


def _profile_of(pools: Sequence[PoolLoad], leg: Leg) -> str | None:
    return next((p.profile.profile_id for p in pools if p.role in _ROLES[leg]), None)


def _factors(pools: Sequence[PoolLoad], before: Sequence[Calibration]) -> dict[Leg, float]:
    known = {(c.correction.profile_id, c.correction.leg): c.correction.factor for c in before}
    return {leg: known.get((_profile_of(pools, leg) or "", leg), 1.0) for leg in Leg}


def _after(
    spec: Spec,
    pools: Sequence[PoolLoad],
    before: Sequence[Calibration],
    told: Implied,
    *,
    now: datetime,
) -> list[Calibration]:
    known = {(c.correction.profile_id, c.correction.leg): c for c in before}
    after = []
    for leg in Leg:
        profile_id, factor = _profile_of(pools, leg), told.of(leg)
        if profile_id is None or factor is None or not math.isfinite(factor):
            continue
        old = known.get((profile_id, leg)) or first_calibration(profile_id, leg, at=now)
        after.append(calibrated(old, factor, spec.calibration, at=now))
    return after


def _merged(before: Sequence[Calibration], after: Sequence[Calibration]) -> list[Calibration]:
    found = {(c.correction.profile_id, c.correction.leg): c for c in (*before, *after)}
    return list(found.values())


def _document(
    compared: Compared, predicted: Means | None, told: Implied, model: str, now: datetime
) -> ComparisonDocument:
    observed = compared.observed
    return ComparisonDocument(
        compared_at=now,
        model=model,
        seconds=observed.seconds,
        requests=observed.request_rate_rps * observed.seconds,
        observed=MeansDocument(
            ttft_s=observed.ttft_mean_s,
            itl_s=observed.itl_mean_s,
            output_tokens_per_s=observed.output_tokens_per_s,
        ),
        predicted=MeansDocument.model_validate(predicted) if predicted else _UNKNOWN,
        implied={leg: told.of(leg) for leg in Leg},
        reason="",
    )

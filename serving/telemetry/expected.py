"""What the profiles say of the load that is observed, to stand beside what is observed."""

import math

import numpy as np

from planner.capacity.deployment import ClassPromise, predict
from planner.capacity.split import PoolLoad
from planner.domain.errors import PoolwiseError
from planner.domain.fleet import Role
from planner.domain.spec import Spec
from planner.domain.workload import Floats, Shape
from serving.telemetry.histogram import Histogram
from serving.telemetry.signals import Activity, Expected, RoleSignals, Signal


def expect(
    spec: Spec, model: str, roles: tuple[RoleSignals, ...], request_rate_rps: Signal
) -> Expected:
    """The closed form's prediction for the observed rate, lengths and answering workers.

    Prompt and answer lengths are taken as independent of each other: metrics pages tell each by
    itself only.
    """
    try:
        return _expect(spec, model, roles, request_rate_rps)
    except (NotKnownError, PoolwiseError, ValueError) as error:
        lacking = Signal.lacking(str(error))
        return Expected(
            ttft_p50_s=lacking,
            ttft_p95_s=lacking,
            tpot_p95_s=lacking,
            itl_p95_s=lacking,
            attainment_ratio=lacking,
        )


class NotKnownError(Exception):
    """A figure that the prediction needs is not known; its text says which."""


def _expect(
    spec: Spec, model: str, roles: tuple[RoleSignals, ...], request_rate_rps: Signal
) -> Expected:
    if request_rate_rps.value is None:
        raise NotKnownError(f"the request rate: {request_rate_rps.missing}")
    if request_rate_rps.value <= 0:
        raise NotKnownError("no request arrived in the interval")
    slos = [slo for slo in spec.slos if slo.model == model]
    if not slos:
        raise NotKnownError(f"the spec promises nothing for {model}")
    shape = observed_shape(roles)
    found = predict(
        answering_pools(spec, model, roles),
        shape,
        slos[0],
        request_rate_rps=request_rate_rps.value,
        classes=(
            [ClassPromise(slo=slos[0], of=np.ones(len(shape.weight), dtype=np.bool_))]
            if len(slos) == 1
            else []
        ),
    )
    told = found.prediction
    source = "closed form of the profiles"
    return Expected(
        ttft_p50_s=_signal(told.ttft_p50_s, source),
        ttft_p95_s=_signal(told.ttft_p95_s, source),
        tpot_p95_s=_signal(told.tpot_p95_s, source),
        itl_p95_s=_signal(told.itl_p95_s, source),
        attainment_ratio=_signal(told.attainment_ratio, source),
        bottleneck=found.bottleneck,
    )


def _signal(value: float | None, source: str) -> Signal:
    if value is None or not math.isfinite(value):
        return Signal.lacking("the closed form does not tell it for this load")
    return Signal(value=value, metric=source)


def answering_pools(spec: Spec, model: str, roles: tuple[RoleSignals, ...]) -> list[PoolLoad]:
    """The answering workers of each role with the profile of the spec's pool in it.

    Raises
    ------
    NotKnownError
        When the spec has no pool, several, or no profile for a role.
    """
    return [_pool(spec, model, role) for role in roles if role.answering]


def _pool(spec: Spec, model: str, role: RoleSignals) -> PoolLoad:
    """The answering workers of a role with the profile of the spec's pool in that role."""
    bounds = spec.bounds_in(role.role, model=model)
    profiles = {pool.shape.label: spec.profile_of(pool.shape) for pool in bounds}
    if len(profiles) != 1:
        how = "no pool" if not profiles else "several pools"
        raise NotKnownError(f"the spec has {how} in role {role.role} for {model}")
    profile = next(iter(profiles.values()))
    if profile is None:
        raise NotKnownError(f"the spec has no profile for role {role.role} of {model}")
    return PoolLoad(profile=profile, role=role.role, replicas=role.answering)


def observed_shape(roles: tuple[RoleSignals, ...]) -> Shape:
    """Request lengths as engines saw them: prompts where computed, answers where decoded.

    Raises
    ------
    NotKnownError
        When no worker of a needed role answers, or lengths are not told.
    """
    by_role = {role.role: role.activity for role in roles if role.answering}
    prompts = _part(by_role, Role.PREFILL)
    answers = _part(by_role, Role.DECODE)
    return shape_of(
        prompts.prompt_lengths,
        prompts.isl,
        answers.answer_lengths,
        answers.osl,
        cached_ratio=prompts.prefix_hit_ratio.value or 0.0,
    )


def shape_of(
    prompts: Histogram | None,
    isl: Signal,
    answers: Histogram | None,
    osl: Signal,
    *,
    cached_ratio: float,
) -> Shape:
    """The joint distribution of lengths whose marginals were seen, taken to be independent.

    Parameters
    ----------
    prompts, answers : Histogram or None
        Lengths in tokens; None: as the means.
    isl, osl : Signal
        Their means, tokens.
    cached_ratio : float
        Share of a prompt that is in a prefix cache; clipped to 0..1.
    """
    inputs, input_weight = _buckets(prompts, isl, "prompt lengths")
    outputs, output_weight = _buckets(answers, osl, "answer lengths")
    isl_tokens = np.repeat(inputs, len(outputs))
    return Shape(
        input_tokens=isl_tokens,
        output_tokens=np.tile(outputs, len(inputs)),
        cached_tokens=isl_tokens * min(max(cached_ratio, 0.0), 1.0),
        weight=np.outer(input_weight, output_weight).ravel(),
    )


def _part(by_role: dict[Role, Activity], role: Role) -> Activity:
    found = by_role.get(role) or by_role.get(Role.AGGREGATED)
    if found is None:
        raise NotKnownError(f"no worker of role {role} answers")
    return found


def _buckets(lengths: Histogram | None, mean: Signal, what: str) -> tuple[Floats, Floats]:
    """Lengths with their shares: the buckets' middles, scaled so that the mean is right."""
    if mean.value is None:
        raise NotKnownError(f"{what}: {mean.missing}")
    if lengths is None or sum(lengths.counts) <= 0:
        return np.array([max(mean.value, 1.0)]), np.array([1.0])
    counts = np.array(lengths.counts)
    upper = np.array(lengths.upper)
    lower = np.concatenate([[1.0], upper[:-1]])
    upper = np.where(np.isfinite(upper), upper, 2 * lower)
    middle = np.sqrt(lower * np.maximum(upper, lower))
    kept = counts > 0
    middle, weight = middle[kept], counts[kept] / counts[kept].sum()
    return np.maximum(middle * mean.value / float(middle @ weight), 1.0), weight

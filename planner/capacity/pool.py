"""What rate a pool of identical replicas sustains while a share of requests meets its objective."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from planner.capacity.aggregated import AggregatedLeg
from planner.capacity.batch import servable, steps_before_joining
from planner.capacity.decode import DecodeLeg
from planner.capacity.end_to_end import WHOLE, Split, limits_of, met_jointly
from planner.capacity.prefill import PrefillLeg, transfer_s
from planner.capacity.queueing import HIGHEST_STATIONARY_RATIO
from planner.domain.errors import ProfileError
from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from planner.domain.profile import Profile
from planner.domain.slo import Slo
from planner.domain.workload import Shape

Floats = NDArray[np.float64]

SLOT_WAIT_SHARE = 0.1
"""Share of the TTFT objective that a decode pool may spend on waiting for a free slot."""

_NEAR = 2e-4
"""The sustained rate is found to this share of the saturation rate, from below."""
_NO_MISS = 1e-9
_GROWN = 1.2
"""Load beyond what is sustained at which remedies are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a pool sustains.

    Parameters
    ----------
    sustained_rps : float
        Highest rate at which the target share of requests meets the objective; 0 when even an
        idle pool misses it.
    utilization_ratio : float
        sustained_rps / saturation_rps.
    saturation_rps : float
        Rate above which the queue grows without bound.
    bottleneck : Bottleneck
        What misses first above sustained_rps.
    """

    sustained_rps: float
    utilization_ratio: float
    saturation_rps: float
    bottleneck: Bottleneck


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Misses:
    """(buckets,) probabilities of missing, by cause."""

    prompt: Floats
    slot: Floats
    step: Floats

    @property
    def met(self) -> Floats:
        """(buckets,) probability of meeting all of them, causes taken as independent."""
        return (1 - self.prompt) * (1 - self.slot) * (1 - self.step)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Requests of which so many have to be in time by themselves: those of one class.

    Parameters
    ----------
    of : (buckets,) bool
        Which buckets of the shape are theirs.
    target_ratio : float
        Share of them, 0..1.
    """

    of: NDArray[np.bool_]
    target_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Case:
    """What a pool is asked."""

    profile: Profile
    shape: Shape
    slo: Slo
    served: NDArray[np.bool_]
    replicas: int
    arrival_cv2: float
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _PoolModel:
    """One pool as a function of its rate.

    Parameters
    ----------
    bottleneck_at : function of requests/s
        What misses first there.
    """

    saturation_rps: float
    weight: Floats
    misses_at: Callable[[float], Misses]
    bottleneck_at: Callable[[float], Bottleneck]


def sustained_rps(
    profile: Profile,
    role: Role,
    shape: Shape,
    slo: Slo,
    *,
    replicas: int,
    target_ratio: float,
    arrival_cv2: float = 1.0,
    judged: Sequence[Judged] = (),
    split: Split = WHOLE,
) -> Capacity:
    """Highest rate at which `target_ratio` of the requests meet this role's objective.

    prefill: TTFT, with the transfer and the first decode step taken from this profile. decode:
    TPOT, and no more than a tenth of the TTFT objective spent on a free slot. aggregated: both.
    Requests that fit into no replica miss. A least-loaded router is assumed.

    Parameters
    ----------
    target_ratio : float
        Share of requests, 0..1; `role_target` splits a joint target over the roles.
    arrival_cv2 : float
        Squared coefficient of variation of the gaps between arrivals to the pool.
    judged : sequence of Judged
        Classes that share the pool, each held to its own target instead of all to `target_ratio`.
    split : Split
        How prefill and decode share an end-to-end objective (`planner.capacity.end_to_end`);
        aggregated pools are judged jointly, whatever it is.

    Raises
    ------
    OutsideProfileError
        When the shape lies beyond what was measured.
    ProfileError
        When the profile was not measured in this role.

    References
    ----------
    `planner.capacity.queueing` and `planner.capacity.batch` name the formulas.
    """
    if not 0 < target_ratio <= 1 or not 0 <= arrival_cv2 < math.inf:
        raise ValueError(
            f"target_ratio must lie in (0, 1] and arrival_cv2 be finite and at least 0, got "
            f"{target_ratio:g} and {arrival_cv2:g}"
        )
    if role not in profile.roles:
        raise ProfileError(
            f"profile {profile.profile_id} was measured as {', '.join(profile.roles)}, not as "
            f"{role}: measure it in that role (`poolwise profile run`)"
        )
    served = servable(profile, role, shape)
    if not bool(served.any()):
        return _nothing(Bottleneck.MEMORY)
    if replicas < 1:
        return _nothing(Bottleneck.DECODE if role is Role.DECODE else Bottleneck.PREFILL)
    model = _MODELS[role](
        _Case(
            profile=profile,
            shape=shape,
            slo=slo,
            served=served,
            replicas=replicas,
            arrival_cv2=arrival_cv2,
            split=split,
        )
    )
    everybody = Judged(of=np.ones(len(shape.weight), dtype=np.bool_), target_ratio=target_ratio)
    spare = _spare_of(model, shape.weight * served, shape.weight, judged or (everybody,))
    rate_rps = _highest_rate(spare, model.saturation_rps)
    return Capacity(
        sustained_rps=rate_rps,
        utilization_ratio=rate_rps / model.saturation_rps,
        saturation_rps=model.saturation_rps,
        bottleneck=model.bottleneck_at(max(1.02 * rate_rps, 1e-6 * model.saturation_rps)),
    )


def _nothing(bottleneck: Bottleneck) -> Capacity:
    return Capacity(
        sustained_rps=0.0, utilization_ratio=0.0, saturation_rps=0.0, bottleneck=bottleneck
    )


def _spare_of(
    model: _PoolModel, served: Floats, arriving: Floats, judged: Sequence[Judged]
) -> Callable[[float], float]:
    """Logarithm of permitted misses over misses, of the class that has least to spare."""
    whole = [(j, float(arriving @ j.of)) for j in judged]
    shares = [(served * j.of / own, j.target_ratio) for j, own in whole if own > 0]

    @cache
    def spare(rate_rps: float) -> float:
        met = model.misses_at(rate_rps).met
        return min(
            math.log(max(1 - target, _NO_MISS) / max(1 - float(share @ met), _NO_MISS))
            for share, target in shares
        )

    return spare


def _highest_rate(spare: Callable[[float], float], saturation_rps: float) -> float:
    """The largest rate found that keeps every target; attainment does not grow with the rate.

    Brent's method on the logarithm of the misses, which grow about exponentially with the load:
    seven or eight evaluations instead of eleven.

    Parameters
    ----------
    spare : function of requests/s
        0 where a target is just kept, below 0 where one is missed.
    """
    low, high = 1e-9 * saturation_rps, HIGHEST_STATIONARY_RATIO * saturation_rps

    if spare(low) < 0:
        return 0.0
    if spare(high) >= 0:
        return high
    precision = _NEAR / 2 * saturation_rps
    found = float(brentq(spare, low, high, xtol=precision, rtol=1e-9))
    return found if spare(found) >= 0 else max(found - precision, low)


def _by_misses(
    weight: Floats,
    misses_at: Callable[[float], Misses],
    causes: tuple[Bottleneck, Bottleneck, Bottleneck],
) -> Callable[[float], Bottleneck]:
    """Name the cause of most misses: of prompt, slot or step."""

    def bottleneck_at(rate_rps: float) -> Bottleneck:
        misses = misses_at(rate_rps)
        shares = [float(weight @ m) for m in (misses.prompt, misses.slot, misses.step)]
        return causes[int(np.argmax(shares))]

    return bottleneck_at


def _prefill_model(case: _Case) -> _PoolModel:
    """Prompts in time; the bottleneck is what would help most if it took half as long."""
    leg = PrefillLeg.of(case.profile, case.shape, case.served, replicas=case.replicas)
    moving = transfer_s(case.profile, case.shape)
    first_s, _ = limits_of(case.slo, case.shape, split=case.split)
    slack_s = (
        first_s
        - case.profile.first_token_s
        - leg.service_s
        - moving
        - _assumed_first_step_s(case.profile, case.slo)
    )
    none = np.zeros(len(case.shape.weight))

    def misses_at(rate_rps: float) -> Misses:
        wait = leg.wait(rate_rps, arrival_cv2=case.arrival_cv2, window_s=0.0)
        return Misses(prompt=wait.exceeds(slack_s), slot=none, step=none)

    faster = replace(leg, service_s=leg.service_s / 2, fixed_s=leg.fixed_s / 2)
    eased = {
        Bottleneck.PREFILL: (faster, slack_s + leg.service_s / 2),
        Bottleneck.CACHE_TRANSFER: (leg, slack_s + moving / 2),
        Bottleneck.SCHEDULING: (leg, slack_s + case.profile.first_token_s / 2),
    }

    def bottleneck_at(rate_rps: float) -> Bottleneck:
        def met(cause: Bottleneck) -> float:
            easier, slack = eased[cause]
            wait = easier.wait(_GROWN * rate_rps, arrival_cv2=case.arrival_cv2, window_s=0.0)
            return -float(leg.weight @ wait.exceeds(slack))

        return max(eased, key=met)

    return _PoolModel(
        saturation_rps=leg.saturation_rps,
        weight=leg.weight,
        misses_at=misses_at,
        bottleneck_at=bottleneck_at,
    )


def _assumed_first_step_s(profile: Profile, slo: Slo) -> float:
    """The first decode step as planned for, while the decode pool is not known.

    A step that keeps the TPOT objective, or the fullest step this profile knows, if shorter.
    """
    table = profile.decode_step
    batch = min(float(profile.limits.max_num_seqs), float(table.x[-1]))
    fullest_s = float(table.extended_at(batch, float(table.y[0])))
    return (1 + steps_before_joining(profile.limits)) * min(slo.tpot_s, fullest_s)


def _decode_model(case: _Case) -> _PoolModel:
    leg = DecodeLeg.of(case.profile, case.shape, case.served, replicas=case.replicas)
    first_s, limit_s = limits_of(case.slo, case.shape, split=case.split)
    slot_s = SLOT_WAIT_SHARE * np.maximum(first_s, 0.0)

    def misses_at(rate_rps: float) -> Misses:
        state = leg.solve(rate_rps, arrival_cv2=case.arrival_cv2, window_s=0.0)
        met = leg.tpot_met(state, limit_s, arrival_cv2=case.arrival_cv2)
        return Misses(
            prompt=np.zeros(len(case.shape.weight)), slot=state.wait.exceeds(slot_s), step=1 - met
        )

    decoding_s = float(leg.weight @ leg.tokens) * float(leg.chain.step_s[-1])
    moving = float(leg.weight @ leg.transfer_s) > decoding_s
    slot = Bottleneck.CACHE_TRANSFER if moving else leg.admission.limit
    return _PoolModel(
        saturation_rps=leg.saturation_rps,
        weight=leg.weight,
        misses_at=misses_at,
        bottleneck_at=_by_misses(
            leg.weight, misses_at, (Bottleneck.DECODE, slot, Bottleneck.DECODE)
        ),
    )


def _aggregated_model(case: _Case) -> _PoolModel:
    leg = AggregatedLeg.of(case.profile, case.shape, case.served, replicas=case.replicas)
    _, limit_s = limits_of(case.slo, case.shape)

    def misses_at(rate_rps: float) -> Misses:
        state = leg.solve(rate_rps, arrival_cv2=case.arrival_cv2, window_s=0.0)
        fixed_s = case.profile.first_token_s + state.prompt_s + leg.joining_s(state)

        def late(limit: Floats) -> tuple[Floats, Floats]:
            slack_s = limit - fixed_s
            return (
                state.wait.exceeds(slack_s),
                state.batch.wait.exceeds(np.maximum(slack_s, 0.0)),
            )

        def ttft_met(limit: Floats) -> Floats:
            prompt, slot = late(limit)
            return (1 - prompt) * (1 - slot)

        def tpot_met(limit: Floats) -> Floats:
            return leg.tpot_met(state, limit, arrival_cv2=case.arrival_cv2, rate_rps=rate_rps)

        prompt, slot = late(np.full(len(case.shape.weight), case.slo.ttft_s))
        if case.slo.e2e_s is None:
            return Misses(prompt=prompt, slot=slot, step=1 - tpot_met(limit_s))
        met = met_jointly(case.slo, case.shape, ttft_met=ttft_met, tpot_met=tpot_met)
        step = 1 - met / np.maximum((1 - prompt) * (1 - slot), 1e-12)
        return Misses(prompt=prompt, slot=slot, step=np.clip(step, 0.0, 1.0))

    # Where even the fullest step keeps the objective, only prompts in between can break it.
    disturbed = float(leg.chain.step_s[-1]) <= float(limit_s.min())
    return _PoolModel(
        saturation_rps=leg.saturation_rps,
        weight=leg.prefill.weight,
        misses_at=misses_at,
        bottleneck_at=_by_misses(
            leg.prefill.weight,
            misses_at,
            (
                Bottleneck.PREFILL,
                leg.admission.limit,
                Bottleneck.SCHEDULING if disturbed else Bottleneck.DECODE,
            ),
        ),
    )


_MODELS: dict[Role, Callable[[_Case], _PoolModel]] = {
    Role.PREFILL: _prefill_model,
    Role.DECODE: _decode_model,
    Role.AGGREGATED: _aggregated_model,
}

"""Where the closed form is known to be off: measured against the twin by `bench_capacity`.

Elsewhere the rate that it names is within a tenth of the twin's (`docs/accuracy.md`).
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from planner.capacity.aggregated import AggregatedLeg
from planner.capacity.decode import DecodeLeg
from planner.capacity.prefill import PrefillLeg
from planner.capacity.split import LoadedPool
from planner.domain.plan import Bottleneck
from planner.domain.slo import Slo

EDGE_RATIO = 0.35
LIGHT_RATIO = 0.6
TIGHT_PROMPTS = 32.0
FEW_PROMPTS = 6.0
SHORT_ANSWER_TOKENS = 40.0
BURSTY_CV2 = 2.0
STRICT_RATIO = 0.98


class Doubt(StrEnum):
    """Why the closed form may be off by more than a tenth.

    memory: KV capacity bounds the batch; preemptions are not modelled. edge: on an idle deployment
    a third of the permitted misses is used up, or it is by pools of light load, or TTFT is few
    prompts long: the longest requests decide, which buckets blur.
    interference: aggregated replicas whose prompts are long, bursty or many beside short answers,
    or a strict target; single prompts in the way are then what misses. bursty: arrivals burstier
    than Poisson against a TTFT objective of few prompts' length.
    """

    MEMORY = "memory"
    EDGE = "edge"
    INTERFERENCE = "interference"
    BURSTY = "bursty"


def doubts_of(
    loaded: Sequence[LoadedPool], slo: Slo, *, attained_ratio: float, idle_ratio: float
) -> tuple[Doubt, ...]:
    """What makes the closed form doubtful for these pools under their load.

    Parameters
    ----------
    slo : Slo
    attained_ratio, idle_ratio : float
        Attainment under this load, and without any.
    """
    found = set()
    many = EDGE_RATIO * (1 - slo.attainment_ratio)
    busiest = max((p.traffic.rate_rps / p.leg.saturation_rps for p in loaded), default=0.0)
    if 1 - idle_ratio > many or (busiest < LIGHT_RATIO and 1 - attained_ratio > many):
        found.add(Doubt.EDGE)
    for pool in loaded:
        leg = pool.leg
        if isinstance(leg, PrefillLeg):
            prompts = slo.ttft_s / leg.service_mean_s
            if prompts < FEW_PROMPTS:
                found.add(Doubt.EDGE)
            if pool.traffic.arrival_cv2 > BURSTY_CV2 and prompts < TIGHT_PROMPTS:
                found.add(Doubt.BURSTY)
        if isinstance(leg, (DecodeLeg, AggregatedLeg)) and (
            leg.admission.limit is Bottleneck.MEMORY
        ):
            found.add(Doubt.MEMORY)
        if isinstance(leg, AggregatedLeg) and _interferes(leg, pool, slo.attainment_ratio):
            found.add(Doubt.INTERFERENCE)
    return tuple(sorted(found))


def _interferes(leg: AggregatedLeg, pool: LoadedPool, target_ratio: float) -> bool:
    weight = leg.prefill.weight
    longest = float(np.max(leg.chunks[weight > 0]))
    return (
        float(weight @ leg.tokens) < SHORT_ANSWER_TOKENS
        or longest > 1.0
        or pool.traffic.arrival_cv2 > BURSTY_CV2
        or target_ratio > STRICT_RATIO
    )

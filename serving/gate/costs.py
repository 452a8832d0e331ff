"""What one request cost: the accelerator time that it took, at the spec's prices. Pure."""

from dataclasses import dataclass

from planner.domain.hardware import Accelerator, PurchaseOption
from planner.domain.profile import Profile
from serving.gate.estimates import CellTimes, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Price of one replica for a second, USD."""

    prefill_usd_per_s: float
    decode_usd_per_s: float


def replica_usd_per_s(accelerator: Accelerator, profile: Profile) -> float:
    """Price of a replica for a second: on demand, or its first offer where it is not sold so."""
    offer = accelerator.offer(PurchaseOption.ON_DEMAND) or accelerator.offers[0]
    return offer.usd_per_gpu_hour * profile.tp * profile.pp * profile.dp / 3600.0


def request_usd(
    times: CellTimes, prices: Prices, prompt: Prompt, *, output_tokens: int, together: float
) -> float:
    """Its prompt's seconds of a prefill replica, and its part of every decode step.

    Idle time of replicas belongs to nobody and is not in it.

    Parameters
    ----------
    output_tokens : int
        As they came.
    together : float
        Sequences of one decode replica that shared its steps.
    """
    batch = max(together, 1.0)
    context = prompt.input_tokens + output_tokens / 2
    prompt_s = times.prompt_s(prompt.new_tokens, prompt.cached_tokens)
    decode_s = output_tokens * times.step_s(batch, context) / batch
    return prompt_s * prices.prefill_usd_per_s + decode_s * prices.decode_usd_per_s

"""What the workers cost, by the prices of a spec."""

from collections.abc import Sequence

from planner.domain.hardware import PurchaseOption
from planner.domain.spec import PoolBounds, Spec
from serving.telemetry.signals import RoleSignals, Signal

NO_SPEC = "no prices: give --spec"
_TOKENS = 1e6
_HOUR_S = 3600.0


def usd_per_hour(spec: Spec, model: str, roles: Sequence[RoleSignals]) -> Signal:
    """Price of all workers, down ones too: they are paid while they are there.

    Accelerators are priced on demand where they are sold so, else by their first offer. Not known
    where the spec has pools of several prices in a role: no metrics page tells which one a worker
    belongs to.
    """
    total = 0.0
    for role in roles:
        prices = {
            _worker_usd_per_hour(spec, pool) for pool in spec.bounds_in(role.role, model=model)
        }
        if len(prices) != 1:
            how = "no pool" if not prices else "pools of several prices"
            return Signal.lacking(f"the spec has {how} in role {role.role} for {model}")
        total += role.workers * prices.pop()
    if not roles:
        return Signal.lacking("no worker is known")
    return Signal(value=total, metric="prices of the spec")


def usd_per_million_tokens(usd: Signal, output_tokens_per_s: Signal) -> Signal:
    """Cost of a million generated tokens at the observed rate."""
    if usd.value is None or output_tokens_per_s.value is None:
        return usd if usd.value is None else output_tokens_per_s
    if output_tokens_per_s.value <= 0:
        return Signal.lacking("no token was generated in the interval")
    per_s = usd.value / _HOUR_S
    return Signal(value=per_s / output_tokens_per_s.value * _TOKENS, metric=usd.metric)


def _worker_usd_per_hour(spec: Spec, pool: PoolBounds) -> float:
    accelerator = spec.accelerator(pool.shape.accelerator)
    offer = accelerator.offer(PurchaseOption.ON_DEMAND) or accelerator.offers[0]
    return pool.shape.accelerators * offer.usd_per_gpu_hour

"""The last hour of a deployment's signals, a few numbers of each, for plots."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from serving.telemetry.signals import DeploymentSignals, RoleSignals, Signal

MOST_KEPT = 720
"""Readings: an hour at one in 5 s, two hours at the usual one in 10 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """One reading in a few numbers. None: not known.

    Parameters
    ----------
    ttft_p95_s, itl_p95_s : float or None
        Seconds.
    input_tokens_per_s, output_tokens_per_s : float or None
        Tokens/s.
    waiting : float or None
        Requests in the queues of all engines.
    kv_usage_ratio : float or None
        Of the fullest worker, 0..1.
    """

    at: datetime
    ttft_p95_s: float | None
    itl_p95_s: float | None
    requests_per_s: float | None
    input_tokens_per_s: float | None
    output_tokens_per_s: float | None
    waiting: float | None
    kv_usage_ratio: float | None


@dataclass(slots=True)
class RecentSignals:
    """What was seen lately, in this process; a restart forgets it."""

    _kept: deque[Glance] = field(default_factory=lambda: deque(maxlen=MOST_KEPT), init=False)

    def add(self, signals: DeploymentSignals) -> None:
        """Keep a reading."""
        self._kept.append(glance_of(signals))

    def since(self, start_at: datetime) -> tuple[Glance, ...]:
        """Readings from an instant on, oldest first."""
        return tuple(one for one in tuple(self._kept) if one.at >= start_at)


def glance_of(signals: DeploymentSignals) -> Glance:
    """A reading in a few numbers."""
    return Glance(
        at=signals.looked_at,
        ttft_p95_s=signals.ttft.p95_s.value,
        itl_p95_s=signals.itl.p95_s.value,
        requests_per_s=signals.requests_per_s.value,
        input_tokens_per_s=signals.input_tokens_per_s.value,
        output_tokens_per_s=signals.output_tokens_per_s.value,
        waiting=waiting_in(signals),
        kv_usage_ratio=fullest_kv(signals),
    )


def waiting_in(signals: DeploymentSignals) -> float | None:
    """Requests in the queues of all engines; None: no role tells."""
    known = _values(signals, lambda role: role.activity.waiting)
    return sum(known) if known else None


def fullest_kv(signals: DeploymentSignals) -> float | None:
    """Share of the KV cache in use at the worker where it is highest, 0..1; None: not told."""
    most = _values(signals, lambda role: role.activity.kv_usage_most_ratio)
    return max(most or _values(signals, lambda role: role.activity.kv_usage_ratio), default=None)


def _values(signals: DeploymentSignals, of: Callable[[RoleSignals], Signal]) -> list[float]:
    values = (of(role).value for role in signals.roles)
    return [value for value in values if value is not None]

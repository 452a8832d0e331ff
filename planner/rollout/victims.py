"""Which replicas of a pool leave first, where the target lets us choose."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A replica as its target and its metrics show it.

    Parameters
    ----------
    ready : bool
        It takes traffic.
    running_requests : int or None
        None: its metrics do not answer.
    kv_usage_ratio : float
        Share of its KV cache in use, 0..1: what other requests could reuse is lost with it.
    """

    name: str
    ready: bool
    started_at: datetime
    running_requests: int | None = None
    kv_usage_ratio: float = 0.0


def victims(candidates: Iterable[Candidate], count: int) -> tuple[str, ...]:
    """Names of those that leave, first one first.

    Those that serve nobody yet, then those with the fewest requests (unknown: last, as they may
    have many), then those with the least KV cache in use, then the youngest.
    """

    def order(candidate: Candidate) -> tuple[bool, float, float, float, str]:
        running = candidate.running_requests
        return (
            candidate.ready,
            float("inf") if running is None else float(running),
            candidate.kv_usage_ratio,
            -candidate.started_at.timestamp(),
            candidate.name,
        )

    return tuple(c.name for c in sorted(candidates, key=order)[: max(0, count)])

"""What a diagnosis rests on: some moments of every worker, and what to compare them with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.domain.slo import Slo
from serving.telemetry.signals import TargetSignals


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One moment of a worker.

    Parameters
    ----------
    running, waiting : float
        Requests in the batch and in the queue.
    waiting_for_kv : float
        Those of `waiting` that wait for a KV cache from another worker.
    kv_usage_ratio : float
        Share of the KV cache in use, 0..1.
    """

    running: float
    waiting: float
    waiting_for_kv: float
    kv_usage_ratio: float

    @property
    def queued(self) -> float:
        """Requests that wait for the worker itself."""
        return max(self.waiting - self.waiting_for_kv, 0.0)


def look_of(signals: TargetSignals) -> Look | None:
    """The moment at the end of an interval; None where the worker does not tell it."""
    told = signals.activity
    running, waiting = told.running.value, told.waiting.value
    usage = told.kv_usage_ratio.value
    if not signals.answers or running is None or waiting is None or usage is None:
        return None
    return Look(
        running=running,
        waiting=waiting,
        waiting_for_kv=told.waiting_for_kv.value or 0.0,
        kv_usage_ratio=usage,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedWorker:
    """One worker over the interval.

    Parameters
    ----------
    role : Role
    signals : TargetSignals
        Rates and latencies of the whole interval.
    looks : tuple of Look
        Moments of it, evenly spaced.
    """

    role: Role
    signals: TargetSignals
    looks: tuple[Look, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardsticks:
    """What measurements are compared with; each is optional, and without it less can be told.

    Parameters
    ----------
    slo : Slo or None
        The strictest objectives that are promised.
    profiles : mapping of Role to Profile
        What one replica of a role was measured to do.
    max_num_seqs : mapping of Role to int
        Batch limit, where no profile tells it.
    link_bytes_per_s : float or None
        What all KV transfers get together.
    """

    slo: Slo | None = None
    profiles: Mapping[Role, Profile] = field(default_factory=dict)
    max_num_seqs: Mapping[Role, int] = field(default_factory=dict)
    link_bytes_per_s: float | None = None

    @classmethod
    def of(
        cls,
        slos: Iterable[Slo],
        profiles: Sequence[Profile],
        *,
        max_num_seqs: int | None = None,
        link_bytes_per_s: float | None = None,
    ) -> Self:
        """The strictest of some promises, and the first profile of each role."""
        by_role = {role: next((p for p in profiles if role in p.roles), None) for role in Role}
        return cls(
            slo=min(slos, key=lambda s: s.tpot_s, default=None),
            profiles={role: p for role, p in by_role.items() if p is not None},
            max_num_seqs={} if max_num_seqs is None else {Role.DECODE: max_num_seqs},
            link_bytes_per_s=link_bytes_per_s,
        )

    @property
    def matters_s(self) -> float:
        """Seconds of a first token's time from which they are worth a name.

        A tenth of the objective; a twentieth of a second without one.
        """
        return 0.05 if self.slo is None else 0.1 * self.slo.ttft_s

    def batch_limit(self, role: Role) -> int | None:
        """Sequences that a replica runs together at the most; None: not known."""
        if role in self.max_num_seqs:
            return self.max_num_seqs[role]
        profile = self.profiles.get(role)
        return None if profile is None else profile.limits.max_num_seqs


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUse:
    """Prefix caches of the workers that compute prompts, as a KV view saw them.

    Parameters
    ----------
    blocks : int
        Whole blocks of prompts that the shares are of.
    found_ratio : float
        Found in the cache of the worker that each request went to.
    routed_ratio : float
        Of the same in caches of the present size, each request sent where most of it lies.
    unbounded_ratio : float
        Of the same in a cache without bounds.
    evicted_per_s : float
        Blocks.
    wanted_again_ratio : float
        Of stored blocks, those that their worker had evicted before.
    is_complete : bool
        Whether no message of any worker is missing.
    """

    blocks: int
    found_ratio: float
    routed_ratio: float
    unbounded_ratio: float
    evicted_per_s: float
    wanted_again_ratio: float
    is_complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A deployment over an interval.

    Parameters
    ----------
    seconds : float
        Its length.
    front : TargetSignals or None
        The gate or router that requests come in by; None: it was not read.
    caches : CacheUse or None
        None: no KV view was there, for the reason that `no_caches` gives.
    """

    seconds: float
    workers: tuple[WatchedWorker, ...]
    front: TargetSignals | None = None
    yardsticks: Yardsticks = field(default_factory=Yardsticks)
    caches: CacheUse | None = None
    no_caches: str = "no KV events are listened to"

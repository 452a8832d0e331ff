"""The KV manager view: what every worker's cache holds, loses and could share. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from planner.domain.fleet import Role
from planner.domain.prefix_cache import CacheReuse, PrefixCache
from serving.kv.cache import CacheTotals, Held, WorkerCache
from serving.kv.events import Batch, Medium
from serving.kv.reuse import Reuse, ReusePotential, ReuseTotals, potential
from serving.kv.sequence import Arrival, Stream
from serving.telemetry.signals import Activity, Signal, TargetSignals, TargetState

_COMPUTE_PROMPTS = (Role.PREFILL, Role.AGGREGATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class HitSources:
    """Where the KV cache of prompt tokens came from in an interval, shares that sum to 1.

    Parameters
    ----------
    tokens_per_s : float
        Prompt tokens taken in.
    computed_ratio, local_ratio, transferred_ratio : float
        Computed here; found in this worker's prefix cache; moved from another worker or tier.
    """

    tokens_per_s: float
    computed_ratio: float
    local_ratio: float
    transferred_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerKv:
    """One worker's KV cache; rates and shares over the interval.

    Parameters
    ----------
    listening : bool
        Whether any event came from it; without, `held` and what follows from it is not known.
    missing_batches : int
        Event messages that were lost and not replayed: blocks may be named that are gone, or gone
        unnoticed.
    restarts : int
        Times that it began anew while it was watched.
    held : tuple of Held
        What is cached, by medium: free blocks whose content can still be found count too.
    capacity_tokens : int or None
    cached_ratio : float or None
        Share of its (device) cache with content that can be found.
    usage_ratio : float or None
        Share in use by requests right now: the pressure.
    kv_bytes_per_token : float or None
    waiting, preemptions_per_s : float or None
    stored_per_s, evicted_per_s : float
        Blocks.
    wanted_again_ratio : float or None
        Of stored blocks, those that this worker had evicted before: work that a larger cache saves.
    eviction_age_s : float or None
        Median time from storing to evicting a block, since the view began.
    sources : HitSources or None
        None without prompts, or without its metrics.
    """

    name: str
    role: Role
    listening: bool
    missing_batches: int
    restarts: int
    held: tuple[Held, ...]
    block_tokens: int
    capacity_tokens: int | None
    cached_ratio: float | None
    usage_ratio: float | None
    kv_bytes_per_token: float | None
    waiting: float | None
    preemptions_per_s: float | None
    stored_per_s: float
    evicted_per_s: float
    wanted_again_ratio: float | None
    eviction_age_s: float | None
    sources: HitSources | None

    @property
    def held_tokens(self) -> int:
        """Tokens that are cached, in all media."""
        return sum(h.tokens for h in self.held)

    @property
    def is_complete(self) -> bool:
        """Whether every event is known since the worker's start."""
        return self.listening and self.missing_batches == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KvSnapshot:
    """All workers, and what their prompts could share.

    Parameters
    ----------
    seconds : float
        Length of the interval.
    prefix_reuse_ratio : float or None
        Share of prompt tokens found in a prefix cache by the workers that compute prompts: the
        forecaster's ratio of `cached_tokens` to `input_tokens`.
    reuse, reuse_so_far : ReusePotential or None
        Of this interval, and since the view began; None without any prompt.
    prefix_cache : PrefixCache or None
        The caches that these prompts met and how reuse goes with their size, for the forecaster;
        None before enough prompts were seen, or when the size of a worker's cache is not known.
    """

    seconds: float
    workers: tuple[WorkerKv, ...]
    prefix_reuse_ratio: float | None
    reuse: ReusePotential | None
    reuse_so_far: ReusePotential | None
    prefix_cache: PrefixCache | None = None

    def of_role(self, *roles: Role) -> tuple[WorkerKv, ...]:
        """Workers of these roles."""
        return tuple(w for w in self.workers if w.role in roles)

    @property
    def computing_prompts(self) -> tuple[WorkerKv, ...]:
        """Workers whose prefix caches prompts meet."""
        return self.of_role(*_COMPUTE_PROMPTS)


@dataclass(slots=True)
class _Watched:
    role: Role
    cache: WorkerCache = field(default_factory=WorkerCache)
    stream: Stream = field(default_factory=Stream)
    messages: int = 0
    restarts_seen: int = 0
    before: CacheTotals = field(default_factory=CacheTotals)
    capacity_tokens: int | None = None
    bytes_per_token: float | None = None


@dataclass(slots=True)
class KvView:
    """Takes in events and metrics; `snapshot` says what they come to.

    Parameters
    ----------
    roles : mapping of str to Role
        Workers by name.
    kv_bytes_per_token : float or None
        When it is known; else it is taken from the transfers that a worker reports.
    """

    roles: Mapping[str, Role]
    kv_bytes_per_token: float | None = None
    reuse: Reuse = field(default_factory=lambda: Reuse(capacities={}))
    _workers: dict[str, _Watched] = field(default_factory=dict)
    _reuse_before: ReuseTotals = field(default_factory=ReuseTotals)

    def __post_init__(self) -> None:
        self._workers = {name: _Watched(role=role) for name, role in self.roles.items()}

    def follow(self, roles: Mapping[str, Role]) -> None:
        """These are the workers from now on; of those that stay everything is still known."""
        if roles == self.roles:
            return
        self.roles = roles
        known = self._workers
        self._workers = {
            name: replace(known[name], role=role) if name in known else _Watched(role=role)
            for name, role in roles.items()
        }
        self._size_ghosts()

    def expected(self, worker: str) -> int:
        """Number of the next event message of a worker."""
        return self._workers[worker].stream.expected

    def place(self, worker: str, number: int, at_s: float) -> Arrival:
        """Say what a message is to those before; does not take it."""
        return self._workers[worker].stream.place(number, at_s)

    def take(self, worker: str, number: int, batch: Batch) -> None:
        """Take in one event message; what is known already changes nothing."""
        watched = self._workers[worker]
        arrival = watched.stream.take(number, batch.at_s)
        if arrival is Arrival.REPEAT:
            return
        if arrival is Arrival.RESTART:
            watched.cache.clear()
        watched.messages += 1
        watched.cache.apply(batch)
        if watched.role in _COMPUTE_PROMPTS:
            if worker not in self.reuse.capacities:
                self._size_ghosts()
            self.reuse.apply(batch)

    def forget(self, worker: str) -> None:
        """The worker began anew: its cache is empty."""
        watched = self._workers[worker]
        watched.stream.begin_anew()
        watched.cache.clear()

    def observe(self, signals: Mapping[str, TargetSignals]) -> None:
        """Take in what the workers' metrics say: sizes for the ghosts, and restarts."""
        for name, told in signals.items():
            watched = self._workers.get(name)
            if watched is None:
                continue
            # The stream may have shown the restart already: its new events must not be lost.
            noticed = watched.stream.restarts > watched.restarts_seen
            if told.state is TargetState.RESTARTED and watched.messages and not noticed:
                self.forget(name)
            watched.restarts_seen = watched.stream.restarts
            capacity = told.activity.kv_capacity_tokens.value
            if capacity is not None:
                watched.capacity_tokens = int(capacity)
            watched.bytes_per_token = _bytes_per_token(told.activity) or watched.bytes_per_token
        self._size_ghosts()

    def snapshot(self, signals: Mapping[str, TargetSignals], *, seconds: float) -> KvSnapshot:
        """What happened since the last snapshot, and what is held now.

        Parameters
        ----------
        signals : mapping of str to TargetSignals
            Of that interval, by worker; those that did not answer may be missing.
        seconds : float
            Its length.
        """
        self.observe(signals)
        workers = tuple(
            self._worker(name, watched, signals.get(name), seconds)
            for name, watched in self._workers.items()
        )
        totals, sample = self.reuse.totals, self.reuse.sample_ratio
        interval = potential(totals - self._reuse_before, sample_ratio=sample)
        self._reuse_before = totals
        return KvSnapshot(
            seconds=seconds,
            workers=workers,
            prefix_reuse_ratio=_prefix_reuse(workers),
            reuse=interval,
            reuse_so_far=potential(totals, sample_ratio=sample),
            prefix_cache=self._prefix_cache(),
        )

    def _prefix_cache(self) -> PrefixCache | None:
        computing = [w for w in self._workers.values() if w.role in _COMPUTE_PROMPTS]
        sizes = [w.capacity_tokens for w in computing if w.capacity_tokens is not None]
        by_size = self.reuse.by_size
        if not by_size or len(sizes) < len(computing):
            return None
        block_tokens = max(w.cache.block_tokens for w in computing)
        return PrefixCache(
            cache_tokens=sum(sizes),
            reuse=tuple(
                CacheReuse(cache_tokens=tokens, reuse_ratio=ratio)
                for tokens, ratio in {b * block_tokens: ratio for b, ratio in by_size}.items()
            ),
        )

    def _worker(
        self, name: str, watched: _Watched, told: TargetSignals | None, seconds: float
    ) -> WorkerKv:
        activity = told.activity if told is not None and told.answers else Activity()
        done = watched.cache.totals - watched.before
        watched.before = watched.cache.totals
        held = watched.cache.held
        on_device = sum(h.tokens for h in held if h.medium is Medium.DEVICE)
        capacity = watched.capacity_tokens
        return WorkerKv(
            name=name,
            role=watched.role,
            listening=watched.messages > 0,
            missing_batches=watched.stream.missing,
            restarts=watched.stream.restarts,
            held=held,
            block_tokens=watched.cache.block_tokens,
            capacity_tokens=capacity,
            cached_ratio=on_device / capacity if capacity and watched.messages else None,
            usage_ratio=activity.kv_usage_ratio.value,
            kv_bytes_per_token=self.kv_bytes_per_token or watched.bytes_per_token,
            waiting=activity.waiting.value,
            preemptions_per_s=activity.preemptions_per_s.value,
            stored_per_s=done.stored_blocks / seconds,
            evicted_per_s=done.evicted_blocks / seconds,
            wanted_again_ratio=(
                done.wanted_again_blocks / done.stored_blocks if done.stored_blocks else None
            ),
            eviction_age_s=watched.cache.ages.median_s,
            sources=_sources(activity),
        )

    def _size_ghosts(self) -> None:
        capacities = {
            name: w.capacity_tokens // w.cache.block_tokens
            for name, w in self._workers.items()
            if w.role in _COMPUTE_PROMPTS and w.capacity_tokens and w.cache.block_tokens
        }
        if capacities != dict(self.reuse.capacities):
            self.reuse.resize(capacities)


def _bytes_per_token(activity: Activity) -> float | None:
    """Bytes that moved over tokens that they were, of a worker that receives KV caches."""
    moved, tokens = activity.transfer.bytes_per_s.value, activity.transferred_tokens_per_s.value
    return moved / tokens if moved and tokens else None


def _sources(activity: Activity) -> HitSources | None:
    parts = [
        _or_zero(s)
        for s in (
            activity.computed_tokens_per_s,
            activity.cached_tokens_per_s,
            activity.transferred_tokens_per_s,
        )
    ]
    total = sum(parts)
    if total <= 0:
        return None
    computed, local, transferred = (part / total for part in parts)
    return HitSources(
        tokens_per_s=total,
        computed_ratio=computed,
        local_ratio=local,
        transferred_ratio=transferred,
    )


def _or_zero(signal: Signal) -> float:
    """A part that a source does not tell is left out of the sum."""
    return signal.value or 0.0


def _prefix_reuse(workers: Sequence[WorkerKv]) -> float | None:
    told = [w.sources for w in workers if w.role in _COMPUTE_PROMPTS and w.sources is not None]
    total = sum(s.tokens_per_s for s in told)
    return sum(s.tokens_per_s * s.local_ratio for s in told) / total if total > 0 else None

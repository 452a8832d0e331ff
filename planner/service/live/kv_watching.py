"""The KV view of a live deployment as people ask for it."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import psutil

from planner.domain.errors import EngineError, InputError
from planner.domain.fleet import Role
from serving.fleet.endpoints import Endpoints
from serving.kv.events import EventAddress
from serving.kv.subscriber import EventFeed, catch_up, pump
from serving.kv.view import KvSnapshot, KvView
from serving.telemetry.signals import TargetKind, TargetSignals
from serving.telemetry.targets import Look, Target, look, signals_of, targets_of

DEADLINE_S = 5.0
PUMP_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class KvSource:
    """Workers, and where the events of some of them are had."""

    targets: tuple[Target, ...]
    addresses: Mapping[str, EventAddress]

    @property
    def caches(self) -> tuple["_Cache", ...]:
        """Every cache: one a worker, or one a data-parallel rank of it."""
        return tuple(
            _Cache(name=f"{target.name} rank {rank}", target=target, rank=rank)
            if address is not None and address.ranks > 1
            else _Cache(name=target.name, target=target)
            for target in self.targets
            for address in (self.addresses.get(target.name),)
            for rank in range(1 if address is None else address.ranks)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cache:
    """A KV cache that events tell of: a worker's, or that of one of its ranks."""

    name: str
    target: Target
    rank: int | None = None

    def part(self, look: Look) -> Look:
        """What a look at the worker says of this cache."""
        if self.rank is None or look.page is None:
            return look
        return replace(look, page=look.page.of_rank(self.rank))


def named_source(targets: Sequence[Target], events: Sequence[str]) -> KvSource:
    """Workers that were named, with one address each in the same order.

    Raises
    ------
    InputError
        When there are more or fewer addresses than workers, or one is written otherwise.
    """
    if len(targets) != len(events):
        raise InputError(
            f"{len(targets)} --worker and {len(events)} --events: give one address for each "
            "worker, in the same order"
        )
    addresses = {t.name: EventAddress.parse(e) for t, e in zip(targets, events, strict=True)}
    return KvSource(targets=tuple(targets), addresses=addresses)


def deployed_source(endpoints: Endpoints) -> KvSource:
    """Workers of a running local deployment.

    Raises
    ------
    EngineError
        When none of them sends events, or none runs.
    """
    given = {w.name: w.kv_events for w in endpoints.workers if w.kv_events is not None}
    if not given and not psutil.pid_exists(endpoints.pid):
        raise EngineError(
            f"the deployment's process ({endpoints.pid}) was killed, and its workers ended with "
            "it: start it again with `poolwise deployment up`"
        )
    if not endpoints.workers:
        raise EngineError(
            "no worker of the deployment takes traffic yet: try again once `poolwise deployment "
            "list` shows ready ones"
        )
    if not given:
        raise EngineError(
            "no worker of the deployment sends KV events: start it with `poolwise deployment up "
            "--kv-events`, or name --worker and --events"
        )
    return KvSource(
        targets=tuple(t for t in targets_of(endpoints) if t.kind is TargetKind.ENGINE),
        addresses={name: EventAddress.parse(address) for name, address in given.items()},
    )


def watch_kv(
    now: Callable[[], KvSource], *, every_s: float, kv_bytes_per_token: float | None
) -> Generator[KvSnapshot, None, None]:
    """A snapshot after each `every_s` seconds, without end.

    Parameters
    ----------
    now : callable
        What is to be watched; asked anew after each snapshot, so that workers may come and go.

    Raises
    ------
    EngineError
        When an address cannot be listened at, or there is nothing to watch any more.
    """
    source = now()
    view = KvView(roles=_roles(source), kv_bytes_per_token=kv_bytes_per_token)
    with EventFeed(_addresses(source)) as feed:
        before = _look(source)
        view.observe(_signals(source, {}, before))
        began_s = time.monotonic()
        while True:
            catch_up(feed, view)
            _pump_for(feed, view, began_s + every_s)
            catch_up(feed, view)
            after = _look(source)
            ended_s = time.monotonic()
            told = _signals(source, before, after)
            yield view.snapshot(told, seconds=max(ended_s - began_s, 1e-3))
            before, began_s = after, ended_s
            source = now()
            view.follow(_roles(source))
            feed.follow(_addresses(source))


def watch_once(source: KvSource, *, for_s: float) -> KvSnapshot:
    """One snapshot of what is there now, after so long.

    Raises
    ------
    EngineError
        When an address cannot be listened at.
    """
    snapshots = watch_kv(lambda: source, every_s=for_s, kv_bytes_per_token=None)
    try:
        return next(snapshots)
    finally:
        snapshots.close()


def _roles(source: KvSource) -> dict[str, Role]:
    return {c.name: c.target.role for c in source.caches if c.target.role is not None}


def _addresses(source: KvSource) -> dict[str, EventAddress]:
    return {
        cache.name: source.addresses[cache.target.name].of_rank(cache.rank or 0)
        for cache in source.caches
        if cache.target.name in source.addresses
    }


def _pump_for(feed: EventFeed, view: KvView, until_s: float) -> None:
    while (left := until_s - time.monotonic()) > 0:
        pump(feed, view, min(left, PUMP_S))


def _look(source: KvSource) -> dict[str, Look]:
    return {x.target.name: x for x in look(source.targets, deadline_s=DEADLINE_S)}


def _signals(
    source: KvSource, earlier: Mapping[str, Look], later: Mapping[str, Look]
) -> dict[str, TargetSignals]:
    found = {}
    for cache in source.caches:
        first = earlier.get(cache.target.name)
        before = cache.part(first) if first is not None and first.page else None
        found[cache.name] = signals_of(before, cache.part(later[cache.target.name]))
    return found

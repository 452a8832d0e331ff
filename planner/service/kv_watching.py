"""The KV view of a live deployment as people ask for it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from planner.domain.errors import EngineError, InputError
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
        When none of them sends events.
    """
    given = {w.name: w.kv_events for w in endpoints.workers if w.kv_events is not None}
    if not given:
        raise EngineError(
            "no worker of the deployment sends KV events: start workers with --kv-events-config "
            "(serving/kv/events.py: events_config), or name --worker and --events"
        )
    return KvSource(
        targets=tuple(t for t in targets_of(endpoints) if t.kind is TargetKind.ENGINE),
        addresses={name: EventAddress.parse(address) for name, address in given.items()},
    )


def watch_kv(
    source: KvSource, *, every_s: float, kv_bytes_per_token: float | None
) -> Iterator[KvSnapshot]:
    """A snapshot after each `every_s` seconds, without end.

    Raises
    ------
    EngineError
        When an address cannot be listened at.
    """
    view = KvView(
        roles={t.name: t.role for t in source.targets if t.role is not None},
        kv_bytes_per_token=kv_bytes_per_token,
    )
    with EventFeed(source.addresses) as feed:
        before = look(source.targets, deadline_s=DEADLINE_S)
        view.observe(_signals((None,) * len(before), before))
        began_s = time.monotonic()
        while True:
            catch_up(feed, view)
            _pump_for(feed, view, began_s + every_s)
            catch_up(feed, view)
            now = look(source.targets, deadline_s=DEADLINE_S)
            ended_s = time.monotonic()
            yield view.snapshot(_signals(before, now), seconds=max(ended_s - began_s, 1e-3))
            before, began_s = now, ended_s


def _pump_for(feed: EventFeed, view: KvView, until_s: float) -> None:
    while (left := until_s - time.monotonic()) > 0:
        pump(feed, view, min(left, PUMP_S))


def _signals(earlier: Sequence[Look | None], later: Sequence[Look]) -> dict[str, TargetSignals]:
    return {
        b.target.name: signals_of(a if a is not None and a.page else None, b)
        for a, b in zip(earlier, later, strict=True)
    }

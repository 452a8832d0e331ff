"""Events over real sockets: late starts, lost messages, restarts, other senders."""

import socket
import time

import pytest

from planner.domain.errors import EngineError
from planner.domain.fleet import Role
from serving.kv.events import EventAddress, events_address
from serving.kv.subscriber import REPLAY_TIMEOUT_S, EventFeed, catch_up, pump
from serving.kv.view import KvView, WorkerKv
from serving.workers.processes import free_ports
from tests.serving.kv.wire import payload, publisher, removed, stored


def worker_of(view: KvView) -> WorkerKv:
    return view.snapshot({}, seconds=1.0).workers[0]


def pump_until(feed: EventFeed, view: KvView, number: int, *, seconds: float = 5.0) -> None:
    """Pump until message `number` is the next to come."""
    end = time.monotonic() + seconds
    while view.expected("w") < number and time.monotonic() < end:
        pump(feed, view, 0.1)
        catch_up(feed, view)
    assert view.expected("w") == number


def test_events_arrive_and_are_counted() -> None:
    port, replay = free_ports(2)
    address = EventAddress.parse(events_address(port, replay))
    view = KvView(roles={"w": Role.PREFILL})
    with EventFeed({"w": address}) as feed, publisher(address.events, address.replay) as sender:
        sender.send(payload(stored([1, 2, 3])))
        catch_up(feed, view)
        sender.send(payload(removed([2]), at_s=2.0))
        pump_until(feed, view, 2)
    kv = worker_of(view)
    assert (kv.held_tokens, kv.missing_batches, kv.is_complete) == (256, 0, True)


def test_what_was_lost_is_asked_for_again() -> None:
    port, replay = free_ports(2)
    address = EventAddress.parse(events_address(port, replay))
    view = KvView(roles={"w": Role.PREFILL})
    with EventFeed({"w": address}) as feed, publisher(address.events, address.replay) as sender:
        sender.send(payload(stored([1])))
        catch_up(feed, view)
        sender.send(payload(stored([2]), at_s=2.0), lost=True)
        sender.send(payload(stored([3]), at_s=3.0), lost=True)
        _send_until_heard(sender, feed, view)
    kv = worker_of(view)
    assert kv.missing_batches == 0
    assert kv.held_tokens >= 4 * 128


def test_without_a_replay_what_was_lost_is_told() -> None:
    (port,) = free_ports(1)
    address = EventAddress.parse(events_address(port))
    view = KvView(roles={"w": Role.PREFILL})
    with EventFeed({"w": address}) as feed, publisher(address.events) as sender:
        sender.send(payload(stored([1])), lost=True)
        sender.send(payload(stored([2])), lost=True)
        _send_until_heard(sender, feed, view)
    kv = worker_of(view)
    assert kv.missing_batches >= 2
    assert not kv.is_complete


def test_a_worker_that_began_anew_holds_nothing_of_before() -> None:
    port, replay = free_ports(2)
    address = EventAddress.parse(events_address(port, replay))
    view = KvView(roles={"w": Role.PREFILL})
    with EventFeed({"w": address}) as feed:
        with publisher(address.events, address.replay) as sender:
            for block in range(5):
                sender.send(payload(stored([block]), at_s=float(block)))
            catch_up(feed, view)
        with publisher(address.events, address.replay) as sender:
            sender.send(payload(stored([99]), at_s=100.0))
            sender.send(payload(stored([98]), at_s=101.0))
            end = time.monotonic() + 5
            while not worker_of(view).restarts and time.monotonic() < end:
                sender.send(payload(stored([97]), at_s=102.0))
                pump(feed, view, 0.1)
    kv = worker_of(view)
    assert (kv.restarts, kv.missing_batches) == (1, 0)
    assert kv.held_tokens == 3 * 128


def test_what_is_no_event_is_counted_and_does_no_harm() -> None:
    port, replay = free_ports(2)
    address = EventAddress.parse(events_address(port, replay))
    view = KvView(roles={"w": Role.PREFILL})
    with EventFeed({"w": address}) as feed, publisher(address.events, address.replay) as sender:
        sender.send(b"what is this")
        sender.send(payload(stored([1])))
        catch_up(feed, view)
        assert feed.unreadable == 1
    assert worker_of(view).held_tokens == 128


def test_an_address_that_is_taken_says_by_whom() -> None:
    (port,) = free_ports(1)
    address = EventAddress.parse(events_address(port))
    with (
        EventFeed({"w": address}),
        pytest.raises(EngineError, match="another view listens there"),
        EventFeed({"w": address}),
    ):
        pass


def test_workers_that_answer_no_replay_hold_up_nobody_and_are_let_alone_for_a_while() -> None:
    ports = free_ports(16)
    pairs = list(zip(ports[::2], ports[1::2], strict=True))
    addresses = {
        name: EventAddress.parse(events_address(*pair))
        for name, pair in zip("wabcdefg", pairs, strict=True)
    }
    view = KvView(roles=dict.fromkeys(addresses, Role.PREFILL))
    mute = [socket.create_server(("127.0.0.1", replay)) for _, replay in pairs[1:]]
    here = addresses["w"]
    with EventFeed(addresses) as feed, publisher(here.events, here.replay) as sender:
        sender.send(payload(stored([1, 2, 3])))
        assert all(map(feed.can_replay, addresses))
        began = time.monotonic()
        catch_up(feed, view)
        # One deadline for all: one after the other they would take seven.
        assert time.monotonic() - began < 5 * REPLAY_TIMEOUT_S
        assert view.expected("w") == 1
        assert [name for name in addresses if feed.can_replay(name)] == ["w"]
    for listener in mute:
        listener.close()


def _send_until_heard(sender, feed, view) -> None:
    """A subscription takes a moment: events before it are lost, as vLLM's are."""
    end = time.monotonic() + 5
    block = 1000
    before = view.expected("w")
    while view.expected("w") == before and time.monotonic() < end:
        sender.send(payload(stored([block]), at_s=float(block)))
        block += 1
        pump(feed, view, 0.1)
    assert view.expected("w") > before

"""The sockets at which workers' KV events arrive, and the pump that feeds a view from them."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import zmq

from planner.domain.errors import EngineError
from serving.kv.events import Batch, EventAddress, decode
from serving.kv.sequence import Arrival
from serving.kv.view import KvView

HIGH_WATER = 100_000
"""Messages that wait in memory while the reader does something else: vLLM's own bound."""
REPLAY_TIMEOUT_S = 3.0
"""A worker serves replays between its steps, at least every 0.1 s."""
SILENT_S = 30.0
"""One that did not answer in that time is not asked again for so long: it must not hold up the
others, nor whoever waits for a snapshot."""
_END = b"\xff" * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One step's events of one worker."""

    worker: str
    number: int
    batch: Batch


@dataclass(slots=True)
class EventFeed:
    """Receives the events of all workers. Use as a context manager.

    Parameters
    ----------
    addresses : mapping of str to EventAddress
        By the worker's name.
    unreadable : int
        Messages that were none of vLLM's.
    """

    addresses: Mapping[str, EventAddress]
    unreadable: int = 0
    _context: "zmq.Context[zmq.Socket[bytes]]" = field(default_factory=zmq.Context)
    _names: "dict[zmq.Socket[bytes], str]" = field(default_factory=dict)
    _silent_until_s: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> Self:
        try:
            for name, address in self.addresses.items():
                self._open(name, address)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all sockets."""
        for socket in self._names:
            socket.close(linger=0)
        self._names.clear()
        self._context.term()

    def follow(self, addresses: Mapping[str, EventAddress]) -> None:
        """Listen at these from now on.

        Raises
        ------
        EngineError
            When one of them cannot be listened at.
        """
        known, self.addresses = self.addresses, addresses
        for socket, name in list(self._names.items()):
            if addresses.get(name) != known.get(name):
                del self._names[socket]
                socket.close(linger=0)
        for name in addresses.keys() - set(self._names.values()):
            self._open(name, addresses[name])

    def poll(self, timeout_s: float) -> list[Message]:
        """What has arrived; waits up to `timeout_s` for the first message."""
        poller = zmq.Poller()
        for socket in self._names:
            poller.register(socket, zmq.POLLIN)
        messages: list[Message] = []
        for socket, _flags in poller.poll(round(max(timeout_s, 0.0) * 1000)):
            messages += self._drain(socket)
        return messages

    def can_replay(self, worker: str) -> bool:
        """Whether a worker can be asked for past events, and answered when it last was."""
        if self.addresses[worker].replay is None:
            return False
        return time.monotonic() >= self._silent_until_s.get(worker, 0.0)

    def replay(self, since: Mapping[str, int]) -> list[Message]:
        """Past messages of some workers, oldest first of each; what came in time.

        All are asked at once, so that any number of them takes `REPLAY_TIMEOUT_S` at the most.

        Parameters
        ----------
        since : mapping of str to int
            Number of the first message that is wanted, by worker; each must have `can_replay`.
        """
        asked: dict[zmq.Socket[bytes], str] = {}
        try:
            for worker, number in since.items():
                socket = self._context.socket(zmq.DEALER)
                asked[socket] = worker
                socket.setsockopt(zmq.LINGER, 0)
                socket.connect(self.addresses[worker].replay or "")
                socket.send_multipart([b"", number.to_bytes(8, "big")])
            return list(self._answers(dict(asked)))
        finally:
            for socket in asked:
                socket.close()

    def _open(self, name: str, address: EventAddress) -> None:
        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            if address.binds:
                socket.bind(address.events)
            else:
                socket.connect(address.events)
        except zmq.ZMQError as error:
            socket.close()
            held = error.errno == zmq.EADDRINUSE
            raise EngineError(
                f"KV events of {name} cannot be received at {address.events}: {error}"
                + ("; another view listens there: stop it, one at a time can" if held else "")
            ) from error
        self._names[socket] = name

    def _drain(self, socket: "zmq.Socket[bytes]") -> list[Message]:
        found: list[Message] = []
        while len(found) < HIGH_WATER:
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            message = self._message(self._names[socket], frames[1:])
            if message is not None:
                found.append(message)
        return found

    def _answers(self, waiting: "dict[zmq.Socket[bytes], str]") -> Iterator[Message]:
        deadline = time.monotonic() + REPLAY_TIMEOUT_S
        poller = zmq.Poller()
        for socket in waiting:
            poller.register(socket, zmq.POLLIN)
        while waiting and (left := deadline - time.monotonic()) > 0:
            for socket, _flags in poller.poll(round(left * 1000)):
                frames = socket.recv_multipart()
                if len(frames) < 3 or frames[2] == _END:
                    poller.unregister(socket)
                    del waiting[socket]
                    continue
                message = self._message(waiting[socket], frames[2:])
                if message is not None:
                    yield message
        for worker in waiting.values():
            self._silent_until_s[worker] = time.monotonic() + SILENT_S

    def _message(self, worker: str, frames: list[bytes]) -> Message | None:
        """A message of [number, payload]; None, and counted, for anything else."""
        try:
            number, payload = frames
            batch = decode(payload)
        except (EngineError, ValueError):
            self.unreadable += 1
            return None
        return Message(worker=worker, number=int.from_bytes(number, "big"), batch=batch)


def pump(feed: EventFeed, view: KvView, timeout_s: float) -> int:
    """Feed what has arrived into a view, asking for what was lost; return how many messages."""
    messages = feed.poll(timeout_s)
    for message in messages:
        _deliver(feed, view, message)
    return len(messages)


def catch_up(feed: EventFeed, view: KvView) -> None:
    """Ask every worker that can for what it sent and did not arrive.

    At the start that is all that it sent before; later, a last message that was lost, which only
    the next one would show.
    """
    _replay(feed, view, *filter(feed.can_replay, feed.addresses))


def _deliver(feed: EventFeed, view: KvView, message: Message) -> None:
    worker, number, at_s = message.worker, message.number, message.batch.at_s
    if view.place(worker, number, at_s) is Arrival.RESTART:
        view.forget(worker)
    if view.place(worker, number, at_s) is Arrival.GAP and feed.can_replay(worker):
        _replay(feed, view, worker)
    view.take(worker, number, message.batch)


def _replay(feed: EventFeed, view: KvView, *workers: str) -> None:
    for old in feed.replay({worker: view.expected(worker) for worker in workers}):
        view.take(old.worker, old.number, old.batch)

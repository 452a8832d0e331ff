"""A client's connection: what belongs together goes out as one write, and leaving is told."""

import asyncio
from collections.abc import Callable

from serving.gate.connections import Link


class Wire(asyncio.Transport):
    """Keeps what is written, as a socket's other end would see it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed


def test_writes_inside_a_block_leave_as_one_and_later_ones_at_once() -> None:
    wire = Wire()
    link = Link(wire)
    with link:
        link.write(b"head")
        link.write(b"piece")
        assert wire.writes == []
    assert wire.writes == [b"headpiece"]
    link.write(b"more")
    assert wire.writes == [b"headpiece", b"more"]


def test_an_empty_block_writes_nothing() -> None:
    wire = Wire()
    with Link(wire):
        pass
    assert wire.writes == []


def test_what_is_kept_is_written_before_a_connection_closes() -> None:
    wire = Wire()
    link = Link(wire)
    with link:
        link.write(b"refused")
        link.flush()
        wire.closed = True
    assert wire.writes == [b"refused"]


def test_leaving_is_told_to_who_waits_and_to_who_comes_later() -> None:
    told: list[str] = []

    def note(name: str) -> Callable[[], object]:
        return lambda: told.append(name)

    link = Link(Wire())
    link.on_leave(note("waited"))
    link.on_leave(None)
    link.on_leave(note("waits"))
    link.left()
    link.on_leave(note("later"))
    assert told == ["waits", "later"]

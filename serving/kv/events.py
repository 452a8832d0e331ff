"""vLLM's KV events: how a worker is told to send them, and what comes over the wire.

A worker publishes one message after each engine step that stored or evicted blocks: a topic, a
sequence number (8 bytes, big-endian) and a msgpack batch. Token ids are in it too; they are
skipped while decoding and never kept.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from planner.domain.errors import EngineError, InputError

HOST = "127.0.0.1"
MASK = (1 << 64) - 1
_GROUP_STRIDE = 0x9E3779B97F4A7C15
"""Odd constant (the golden ratio in 64 bits) that keeps the groups of hybrid models apart."""
_ADDRESS = re.compile(
    r"(?P<connect>connect\+)?(?P<events>(tcp|ipc)://[^#?\s]+)(#(?P<replay>[^?\s]+))?"
    r"(\?ranks=(?P<ranks>[1-9]\d{0,3}))?"
)
_PORT_AT_END = re.compile(r":(\d+)$")
_LARGEST_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class EventAddress:
    """Where a worker's events are had.

    Written as one text in the endpoints file and on the command line:

    * `tcp://127.0.0.1:5557`: the worker connects there, the subscriber binds (what
      `events_config` asks for; one subscriber at a time);
    * `tcp://127.0.0.1:5557#5558`: and the worker replays past batches on port 5558 of that host;
    * `ipc:///run/x.sock` or `connect+tcp://10.0.0.7:5557`: the worker binds, subscribers connect;
    * `tcp://127.0.0.1:5557#5567?ranks=4`: four data-parallel ranks, each with a cache of its own,
      send on 5557 to 5560 and replay on 5567 to 5570.

    Parameters
    ----------
    events : str
        ZMQ endpoint.
    replay : str or None
        ZMQ endpoint of the worker's replay socket, to which subscribers connect.
    binds : bool
        Whether the subscriber binds.
    ranks : int
        Data-parallel ranks; the endpoints are those of the first.
    """

    events: str
    replay: str | None = None
    binds: bool = True
    ranks: int = 1

    def of_rank(self, rank: int) -> "EventAddress":
        """The address of one rank alone: vLLM adds the rank to the ports."""
        return EventAddress(
            events=_moved(self.events, rank),
            replay=None if self.replay is None else _moved(self.replay, rank),
            binds=self.binds,
        )

    @classmethod
    def parse(cls, text: str) -> "EventAddress":
        """Read the written form.

        Raises
        ------
        InputError
            When it is none of the forms above.
        """
        found = _ADDRESS.fullmatch(text.strip())
        if found is None:
            raise InputError(
                f"KV event address {text!r}: write it as tcp://127.0.0.1:PORT, as "
                "tcp://127.0.0.1:PORT#REPLAYPORT, or as connect+tcp://HOST:PORT where the worker "
                "binds"
            )
        events, replay = found["events"], found["replay"]
        ranks = int(found["ranks"] or 1)
        tcp = events.startswith("tcp://")
        if ranks > 1 and not tcp:
            raise InputError(f"KV event address {text!r}: ranks have ports of their own: give tcp")
        if tcp:
            host, _, port = events.removeprefix("tcp://").rpartition(":")
            _check_port(port, text, ranks)
            if host in ("*", ""):
                raise InputError(
                    f"KV event address {text!r} would listen on every network: name one host"
                )
            if replay is not None and replay.isdecimal():
                _check_port(replay, text, ranks)
                replay = f"tcp://{host}:{replay}"
        if replay is not None and not replay.startswith(("tcp://", "ipc://")):
            raise InputError(f"KV event address {text!r}: after # comes a port or a ZMQ endpoint")
        return cls(events=events, replay=replay, binds=tcp and not found["connect"], ranks=ranks)


def _check_port(port: str, text: str, ranks: int) -> None:
    if not port.isdecimal() or not 0 < int(port) <= _LARGEST_PORT - ranks + 1:
        raise InputError(f"KV event address {text!r}: {port!r} is no port")


def _moved(endpoint: str, rank: int) -> str:
    return _PORT_AT_END.sub(lambda port: f":{int(port[1]) + rank}", endpoint)


def events_address(port: int, replay_port: int | None = None, *, ranks: int = 1) -> str:
    """The written address (see `EventAddress`) of a worker started with `events_config`."""
    replay = f"#{replay_port}" if replay_port is not None else ""
    return f"tcp://{HOST}:{port}{replay}" + (f"?ranks={ranks}" if ranks > 1 else "")


def events_config(port: int, replay_port: int | None = None) -> str:
    """What `--kv-events-config` gets for a worker on this machine.

    The worker connects to `tcp://127.0.0.1:PORT`, where the subscriber has to bind; what it sends
    while nobody listens is lost, unless it replays. Put `events_address(port, replay_port)` into
    the endpoints file as `kv_events`.

    Parameters
    ----------
    port : int
        A free loopback port, own to this worker; of several data-parallel ranks each takes the
        port after that of the one before.
    replay_port : int or None
        Another one (of ranks: so many in a row), on which the worker answers with past batches
        (its last 10,000); without it a view that starts late, or loses a message, says that it
        does not know all.
    """
    config: dict[str, str | bool] = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://{HOST}:{port}",
    }
    if replay_port is not None:
        config["replay_endpoint"] = f"tcp://{HOST}:{replay_port}"
    return json.dumps(config)


class Medium(StrEnum):
    """Where a block lies."""

    DEVICE = "device"
    HOST = "host"
    STORAGE = "storage"


_MEDIA = {
    None: Medium.DEVICE,
    "GPU": Medium.DEVICE,
    "CPU": Medium.HOST,
    "STORAGE": Medium.STORAGE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Blocks that are in the cache now; `blocks` are 64-bit hashes along one prompt.

    Parameters
    ----------
    parent : int or None
        The block before the first of them; None: they begin a prompt.
    block_tokens : int
        Tokens in each.
    counts_tokens : bool
        False for the further cache groups of a hybrid model, which hold the same tokens again.
    """

    blocks: tuple[int, ...]
    parent: int | None
    block_tokens: int
    medium: Medium
    counts_tokens: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """Blocks that were evicted."""

    blocks: tuple[int, ...]
    medium: Medium


@dataclass(frozen=True, slots=True)
class Cleared:
    """The whole cache was reset."""


Event = Stored | Removed | Cleared


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one engine step changed.

    Parameters
    ----------
    at_s : float
        The worker's clock, seconds since 1970.
    """

    at_s: float
    events: tuple[Event, ...]


_Hash = int | bytes


class _BlockStored(msgspec.Struct, tag="BlockStored", gc=False):
    block_hashes: list[_Hash]
    block_size: int
    parent_block_hash: _Hash | None = None
    medium: str | None = None
    group_idx: int | None = None


class _BlockRemoved(msgspec.Struct, tag="BlockRemoved", gc=False):
    block_hashes: list[_Hash]
    medium: str | None = None
    group_idx: int | None = None


class _AllBlocksCleared(msgspec.Struct, tag="AllBlocksCleared", gc=False):
    pass


class _Batch(msgspec.Struct, array_like=True, gc=False):
    ts: float
    events: list[_BlockStored | _BlockRemoved | _AllBlocksCleared]


_DECODER = msgspec.msgpack.Decoder(_Batch)


def decode(payload: bytes) -> Batch:
    """Read one message's payload.

    Raises
    ------
    EngineError
        When it is no batch of events as vLLM 0.32 or newer writes them.
    """
    try:
        raw = _DECODER.decode(payload)
    except msgspec.DecodeError as error:
        raise EngineError(
            f"a KV event message cannot be read ({error}): is the sender a vLLM 0.32 or newer?"
        ) from error
    return Batch(at_s=raw.ts, events=tuple(_event(e) for e in raw.events))


def _event(raw: _BlockStored | _BlockRemoved | _AllBlocksCleared) -> Event:
    if isinstance(raw, _AllBlocksCleared):
        return Cleared()
    group = raw.group_idx or 0
    blocks = tuple(_key(h, group) for h in raw.block_hashes)
    medium = _MEDIA.get(raw.medium, Medium.STORAGE)
    if isinstance(raw, _BlockRemoved):
        return Removed(blocks=blocks, medium=medium)
    return Stored(
        blocks=blocks,
        parent=None if raw.parent_block_hash is None else _key(raw.parent_block_hash, group),
        block_tokens=max(raw.block_size, 1),
        medium=medium,
        counts_tokens=group == 0,
    )


def _key(block_hash: _Hash, group: int) -> int:
    """64 bits of a block's hash, as vLLM itself shortens it; other groups are moved apart."""
    number = block_hash if isinstance(block_hash, int) else int.from_bytes(block_hash, "big")
    return (number ^ (group * _GROUP_STRIDE)) & MASK

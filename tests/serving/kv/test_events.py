"""vLLM's messages into values, and addresses as people write them."""

import json

import pytest

from planner.domain.errors import EngineError, InputError
from serving.kv.events import (
    Cleared,
    EventAddress,
    Medium,
    Removed,
    Stored,
    decode,
    events_address,
    events_config,
)
from tests.serving.kv.wire import payload, removed, stored


def test_a_batch_is_read_without_its_tokens() -> None:
    batch = decode(
        payload(stored([11, 12], parent=9), removed([5]), {"type": "AllBlocksCleared"}, at_s=3.5)
    )
    assert batch.at_s == 3.5
    assert batch.events == (
        Stored(blocks=(11, 12), parent=9, block_tokens=128, medium=Medium.DEVICE),
        Removed(blocks=(5,), medium=Medium.DEVICE),
        Cleared(),
    )
    assert "token" not in repr(batch).replace("block_tokens", "").replace("counts_tokens", "")


def test_hashes_of_32_bytes_become_the_numbers_that_vllm_makes_of_them() -> None:
    digest = bytes(range(32))
    (event,) = decode(payload(stored([digest], parent=digest))).events
    assert isinstance(event, Stored)
    assert event.blocks == (int.from_bytes(digest[-8:], "big"),)
    assert event.parent == event.blocks[0]


def test_the_groups_of_a_hybrid_model_do_not_count_their_tokens_twice() -> None:
    first, second = decode(payload(stored([3], group_idx=0), stored([3], group_idx=1))).events
    assert isinstance(first, Stored)
    assert isinstance(second, Stored)
    assert first.counts_tokens
    assert not second.counts_tokens
    assert first.blocks != second.blocks


def test_media_are_told_apart() -> None:
    batch = decode(payload(stored([1], medium="CPU"), removed([2], medium="STORAGE")))
    assert [e.medium for e in batch.events] == [Medium.HOST, Medium.STORAGE]


@pytest.mark.parametrize("junk", [b"", b"\x00", b"not msgpack", payload({"type": "Unheard"})])
def test_junk_is_an_error_that_says_what_was_expected(junk: bytes) -> None:
    with pytest.raises(EngineError, match="is the sender a vLLM"):
        decode(junk)


def test_a_worker_is_told_the_port_that_its_address_names() -> None:
    config = json.loads(events_config(5557, 5558))
    address = EventAddress.parse(events_address(5557, 5558))
    assert config["endpoint"] == address.events == "tcp://127.0.0.1:5557"
    assert config["replay_endpoint"] == address.replay == "tcp://127.0.0.1:5558"
    assert address.binds
    assert "replay_endpoint" not in json.loads(events_config(5557))
    assert EventAddress.parse(events_address(5557)).replay is None


def test_ranks_have_the_ports_after_the_first() -> None:
    address = EventAddress.parse(events_address(5557, 5567, ranks=4))
    assert address.ranks == 4
    last = address.of_rank(3)
    assert (last.events, last.replay, last.ranks) == (
        "tcp://127.0.0.1:5560",
        "tcp://127.0.0.1:5570",
        1,
    )


@pytest.mark.parametrize(
    "text", ["tcp://h:65535?ranks=2", "tcp://h:1#65535?ranks=2", "ipc:///x?ranks=2", "tcp://h:1?r"]
)
def test_ranks_without_ports_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="KV event address"):
        EventAddress.parse(text)


@pytest.mark.parametrize("text", ["connect+tcp://10.0.0.7:5557", "ipc:///run/events.sock"])
def test_where_the_worker_binds_the_subscriber_connects(text: str) -> None:
    assert not EventAddress.parse(text).binds


@pytest.mark.parametrize(
    "text", ["", "5557", "tcp://", "tcp://127.0.0.1", "tcp://h:99999", "tcp://*:5557", "http://h:1"]
)
def test_an_address_of_another_form_is_refused_with_the_right_ones(text: str) -> None:
    with pytest.raises(InputError, match="KV event address"):
        EventAddress.parse(text)

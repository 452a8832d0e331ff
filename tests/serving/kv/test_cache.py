"""One cache and its stream of events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.kv.cache import Ages, WorkerCache
from serving.kv.events import Batch, Cleared, Medium, Stored
from serving.kv.sequence import Arrival, Stream
from tests.serving.kv.wire import remove, store


def test_what_is_held_is_what_was_stored_and_not_evicted() -> None:
    cache = WorkerCache()
    cache.apply(store([1, 2, 3]))
    cache.apply(remove([2]))
    (held,) = cache.held
    assert (held.medium, held.blocks, held.tokens) == (Medium.DEVICE, 2, 256)
    assert cache.holds(3)
    assert not cache.holds(2)


def test_a_block_that_is_stored_again_is_held_once() -> None:
    cache = WorkerCache()
    cache.apply(store([1, 2]))
    cache.apply(store([2], parent=1))
    assert cache.held[0].tokens == 256
    assert cache.totals.stored_again_blocks == 1


def test_a_block_that_was_evicted_and_is_stored_again_was_wanted_again() -> None:
    cache = WorkerCache()
    cache.apply(store([1, 2], at_s=10.0))
    cache.apply(remove([2], at_s=18.0))
    cache.apply(store([2], parent=1, at_s=30.0))
    assert cache.totals.wanted_again_blocks == 1
    assert cache.totals.evicted_blocks == 1
    assert cache.ages.median_s == pytest.approx(8, rel=0.5)


def test_a_block_that_moved_to_the_host_is_not_gone() -> None:
    cache = WorkerCache()
    cache.apply(store([1]))
    cache.apply(store([1], medium=Medium.HOST))
    cache.apply(remove([1]))
    assert [h.medium for h in cache.held] == [Medium.HOST]
    cache.apply(store([1]))
    assert cache.totals.wanted_again_blocks == 0


def test_a_reset_empties_it() -> None:
    cache = WorkerCache()
    cache.apply(store([1, 2]))
    cache.apply(Batch(at_s=2.0, events=(Cleared(),)))
    assert cache.held == ()


def test_partial_blocks_count_their_own_tokens() -> None:
    cache = WorkerCache()
    cache.apply(store([1], tokens=64))
    cache.apply(store([2], tokens=128))
    assert cache.held[0].tokens == 192
    cache.apply(remove([1]))
    assert cache.held[0].tokens == 128


def test_further_groups_hold_no_tokens_of_their_own() -> None:
    cache = WorkerCache()
    for group, counts in ((1, True), (2, False)):
        event = Stored(
            blocks=(group,),
            parent=None,
            block_tokens=16,
            medium=Medium.DEVICE,
            counts_tokens=counts,
        )
        cache.take(event, 1.0)
    assert (cache.held[0].blocks, cache.held[0].tokens) == (2, 16)
    cache.apply(remove([2]))
    assert (cache.held[0].blocks, cache.held[0].tokens) == (1, 16)


def test_memory_stays_bounded_when_evictions_are_never_told() -> None:
    cache = WorkerCache(most_blocks=100, remembered_blocks=10)
    for block in range(1000):
        cache.apply(store([block]))
    assert cache.held[0].blocks == 100
    assert cache.overflowed_blocks == 900
    cache.apply(remove(range(900, 1000)))
    assert cache.held == ()
    cache.apply(store(range(900, 1000)))
    assert cache.totals.wanted_again_blocks == 10


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=60))
def test_held_tokens_are_the_blocks_times_their_size(steps: list[tuple[bool, int]]) -> None:
    cache, expected = WorkerCache(), set()
    for keeps, block in steps:
        cache.apply(store([block]) if keeps else remove([block]))
        (expected.add if keeps else expected.discard)(block)
    held = cache.held[0] if cache.held else None
    assert (held.blocks if held else 0) == len(expected)
    assert (held.tokens if held else 0) == 128 * len(expected)


def test_ages_are_known_to_a_factor() -> None:
    ages = Ages()
    for seconds in (0.2, 90.0, 100.0, 110.0, 5000.0):
        ages.add(seconds)
    assert ages.median_s == pytest.approx(100, rel=0.42)
    assert Ages().median_s is None


def test_messages_in_order_are_next_and_missing_ones_are_a_gap() -> None:
    stream = Stream()
    assert stream.take(0, 1.0) is Arrival.NEXT
    assert stream.place(3, 2.0) is Arrival.GAP
    stream.take(3, 2.0)
    assert (stream.missing, stream.expected) == (2, 4)


def test_an_old_message_is_a_repeat_and_a_newer_one_with_a_low_number_a_restart() -> None:
    stream = Stream()
    for number in range(5):
        stream.take(number, float(number))
    assert stream.take(2, 2.0) is Arrival.REPEAT
    assert stream.expected == 5
    assert stream.take(0, 9.0) is Arrival.RESTART
    assert (stream.restarts, stream.expected, stream.missing) == (1, 1, 0)

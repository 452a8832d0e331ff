"""What prompts could share, from stored blocks alone."""

import pytest

from serving.kv.reuse import Reuse, potential
from tests.serving.kv.wire import mixed, store


def prompt(reuse: Reuse, blocks: list[int], *, known: int = 0, at_s: float = 0.0) -> None:
    """A request whose first `known` blocks its worker had: only the others are stored."""
    chain = [mixed(b) for b in blocks]
    parent = chain[known - 1] if known else None
    reuse.apply(store(chain[known:], parent, at_s=at_s))


def test_nothing_is_shared_by_prompts_of_their_own() -> None:
    reuse = Reuse(capacities={"a": 100, "b": 100})
    for request in range(10):
        prompt(reuse, [10 * request + i for i in range(1, 5)])
    found = potential(reuse.totals, sample_ratio=1.0)
    assert found is not None
    assert (found.blocks, found.infinite_ratio, found.cache_aware_ratio) == (40, 0.0, 0.0)


def test_a_hit_is_seen_by_the_parent_of_what_was_stored_after_it() -> None:
    reuse = Reuse(capacities={"a": 100})
    prompt(reuse, [1, 2, 3, 4], at_s=0.0)
    prompt(reuse, [1, 2, 3, 9], known=3, at_s=1.0)
    assert reuse.totals.referenced == 8
    assert reuse.totals.seen_before == 3
    assert reuse.totals.cache_aware == 3


def test_further_chunks_of_one_prompt_are_no_hits() -> None:
    reuse = Reuse(capacities={"a": 100})
    chain = [mixed(b) for b in range(1, 9)]
    reuse.apply(store(chain[:4]))
    reuse.apply(store(chain[4:], chain[3]))
    assert (reuse.totals.referenced, reuse.totals.seen_before) == (8, 0)


def test_routing_blindly_computes_a_shared_prefix_once_per_worker() -> None:
    workers = dict.fromkeys("abcd", 1000)
    reuse = Reuse(capacities=workers)
    for conversation in range(3):
        for turn in range(4):
            blocks = [1000 * conversation + i for i in range(1, 10 * (turn + 1) + 1)]
            # Every worker recomputes what it lacks; all of it is stored as new each time.
            prompt(reuse, blocks, at_s=100.0 * turn)
    found = potential(reuse.totals, sample_ratio=1.0)
    assert found is not None
    assert found.infinite_ratio == pytest.approx(0.6)
    assert found.cache_aware_ratio == pytest.approx(0.6)
    assert found.blind_ratio < 0.4


def test_traffic_in_a_period_that_fits_the_workers_is_routed_blindly_all_the_same() -> None:
    reuse = Reuse(capacities={"a": 1000, "b": 1000})
    for request in range(30):  # six documents in turn: taking turns too would meet one worker each
        prompt(reuse, [100 * (request % 6) + i for i in range(1, 5)], at_s=100.0 * request)
    assert reuse.totals.blind < reuse.totals.cache_aware


def test_a_small_cache_holds_less_than_an_infinite_one() -> None:
    reuse = Reuse(capacities={"a": 20})
    for _round in range(3):
        for document in range(10):
            prompt(reuse, [100 * document + i for i in range(1, 11)])
    found = potential(reuse.totals, sample_ratio=1.0)
    assert found is not None
    assert found.infinite_ratio == pytest.approx(2 / 3)
    assert found.cache_aware_ratio == 0.0


def test_the_head_of_a_prompt_is_kept_longest() -> None:
    reuse = Reuse(capacities={"a": 6})
    prompt(reuse, [1, 2, 3, 4])
    prompt(reuse, [11, 12, 13, 14])
    prompt(reuse, [1, 2, 3, 4])
    assert reuse.totals.cache_aware == 2


def test_memory_is_bounded_and_the_shares_stay() -> None:
    def shares(most: int) -> tuple[float, float, int]:
        reuse = Reuse(capacities={"a": 4000, "b": 4000}, most_blocks=most)
        for request in range(400):
            document = request * 7 % 40
            prompt(reuse, [1000 * document + i for i in range(1, 41)], at_s=100.0 * request)
        found = potential(reuse.totals, sample_ratio=reuse.sample_ratio)
        assert found is not None
        return found.infinite_ratio, found.cache_aware_ratio, reuse.tracked_blocks

    whole, sampled = shares(10_000), shares(200)
    assert sampled[2] <= 200 < whole[2]
    assert sampled[0] == pytest.approx(whole[0], abs=0.05)
    assert sampled[1] == pytest.approx(whole[1], abs=0.05)


def test_without_sizes_nothing_is_said() -> None:
    reuse = Reuse(capacities={})
    prompt(reuse, [1, 2])
    assert potential(reuse.totals, sample_ratio=1.0) is None


def test_what_workers_did_hold_is_told_apart_from_what_they_could() -> None:
    reuse = Reuse(capacities={"a": 100, "b": 100})
    prompt(reuse, [1, 2, 3, 4], at_s=0.0)
    prompt(reuse, [1, 2, 3, 4], at_s=100.0)  # at a worker that had none of it
    prompt(reuse, [1, 2, 3, 9], known=3, at_s=200.0)
    found = potential(reuse.totals, sample_ratio=1.0)
    assert found is not None
    assert found.found_ratio == pytest.approx(3 / 12)
    assert found.infinite_ratio == found.cache_aware_ratio == pytest.approx(7 / 12)


def ten_documents_in_turn(reuse: Reuse) -> None:
    """A loop over 100 blocks: LRU finds nothing in less, everything from there on."""
    for request in range(100):
        prompt(reuse, [100 * (request % 10) + i for i in range(1, 11)], at_s=100.0 * request)


def test_reuse_by_size_is_that_of_an_lru_cache_of_each_size() -> None:
    reuse = Reuse(capacities={"a": 30, "b": 30})
    assert reuse.by_size == ()
    ten_documents_in_turn(reuse)
    assert [size for size, _ in reuse.by_size] == [15, 30, 60, 120, 240]
    assert [found for _, found in reuse.by_size] == pytest.approx([0, 0, 0, 0.9, 0.9])


def test_sampling_keeps_reuse_by_size() -> None:
    reuse = Reuse(capacities={"a": 3000, "b": 3000}, most_blocks=200)
    for request in range(400):
        document = request % 100
        prompt(reuse, [1000 * document + i for i in range(1, 101)], at_s=100.0 * request)
    assert reuse.sample_ratio < 0.1
    assert [found for _, found in reuse.by_size] == pytest.approx([0, 0, 0, 0.75, 0.75], abs=0.06)


def test_reuse_by_size_begins_anew_when_the_caches_change() -> None:
    reuse = Reuse(capacities={"a": 60})
    ten_documents_in_turn(reuse)
    reuse.resize({"a": 60, "b": 60})
    assert reuse.by_size == ()
    ten_documents_in_turn(reuse)
    assert [size for size, _ in reuse.by_size] == [30, 60, 120, 240, 480]
    # Nothing of what the smaller caches found counts any more.
    assert reuse.by_size[2][1] > 0.9

"""Profiles side by side: what they do, how they differ, and whether that is more than noise."""

from dataclasses import replace

import pytest

from profiler.comparison import (
    Quantity,
    agreements,
    combined_error,
    common_context,
    compare,
    decode_rate,
    same_replica,
)
from tests.fakes.profiles import linear_profile


def erring(profile, error_ratio):
    return replace(profile, provenance=replace(profile.provenance, error_ratio=error_ratio))


def rows(profiles, itl_s=(0.02,), usd=None, context_tokens=None):
    return compare(
        profiles,
        itl_s=itl_s,
        context_tokens=context_tokens,
        usd_per_hour=usd or [None] * len(profiles),
    )


def row(found, quantity):
    return next(one for one in found if one.quantity is quantity)


def test_a_profile_twice_as_fast_has_twice_the_tokens_per_second():
    found = rows([linear_profile(), linear_profile(speed=2.0)])
    prefill = [one for one in found if one.quantity is Quantity.PREFILL]
    assert len(prefill) > 3
    assert all(one.ratios == pytest.approx((1.0, 2.0)) for one in prefill)


def test_decoding_takes_the_largest_batch_that_keeps_the_promise():
    # 10 ms + 0.2 ms a sequence: 50 sequences take 20 ms.
    rate, batch = decode_rate(linear_profile(), itl_s=0.02, context_tokens=1024)
    assert batch == 50
    assert rate == pytest.approx(50 / 0.02)


@pytest.mark.parametrize(
    ("changes", "batch"),
    [({"max_num_seqs": 8}, 8), ({"kv_capacity_tokens": 4096}, 4), ({"max_batch": 16}, 16)],
)
def test_decoding_is_limited_by_the_engine_its_kv_cache_and_what_was_measured(changes, batch):
    assert decode_rate(linear_profile(**changes), itl_s=1.0, context_tokens=1024)[1] == batch


def test_a_promise_that_no_batch_keeps_and_a_context_never_measured_have_no_rate():
    profile = linear_profile(max_context_tokens=2048)
    assert decode_rate(profile, itl_s=0.001, context_tokens=1024) is None
    assert decode_rate(profile, itl_s=1.0, context_tokens=4096) is None
    found = row(rows([profile, linear_profile()], itl_s=(0.001,)), Quantity.DECODE)
    assert found.values == (None, None)
    assert found.ratios == (None, None)


def test_the_interval_of_a_ratio_is_that_of_both_errors():
    first, second = erring(linear_profile(), 0.3), erring(linear_profile(speed=2.0), 0.4)
    assert combined_error(first, second) == pytest.approx(0.5)
    found = row(rows([first, second]), Quantity.DECODE)
    assert found.low[1] == pytest.approx(found.ratios[1] / 1.5)
    assert found.high[1] == pytest.approx(found.ratios[1] * 1.5)
    capacity = row(rows([first, second]), Quantity.KV_CAPACITY)
    assert capacity.low == capacity.high == capacity.ratios


def test_tokens_per_usd_count_an_hour_of_the_whole_replica():
    found = row(rows([linear_profile(), linear_profile()], usd=[2.0, None]), Quantity.DECODE)
    assert found.per_usd[0] == pytest.approx(found.values[0] * 1800)
    assert found.per_usd[1] is None


def test_two_measurements_of_one_replica_agree_within_their_errors():
    first, second = erring(linear_profile(), 0.05), erring(linear_profile(speed=1.04), 0.05)
    assert same_replica(first, second)
    for one in agreements(first, second):
        assert one.median_ratio == pytest.approx(1 - 1 / 1.04, rel=1e-6)
        assert one.bias_ratio < 0
        assert not one.exceeds


def test_more_than_the_errors_explain_is_said():
    first, second = erring(linear_profile(), 0.05), erring(linear_profile(speed=0.8), 0.05)
    assert all(one.exceeds for one in agreements(first, second))


def test_other_accelerators_are_not_asked_to_agree():
    assert not same_replica(linear_profile(), linear_profile(accelerator="gpu"))


def test_contexts_are_compared_where_all_were_measured():
    profiles = [linear_profile(), linear_profile(max_context_tokens=512)]
    assert common_context(profiles) == 512

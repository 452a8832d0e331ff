"""What fits into a replica's memory, against published sizes and plain arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.capacity.memory import BLOCK_TOKENS, MEMORY_SHARE, memory_fit, step_bytes
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.model import Dtype
from tests.fakes.models import LLAMA_8B, LLAMA_70B, SCOUT

GB = 1e9
H100 = 80 * GB


def shape(tp=1, **more):
    return ReplicaShape(role=Role.DECODE, model="llama", accelerator="h100", tp=tp, **more)


@pytest.mark.parametrize(
    ("dtype", "gigabytes"), [(Dtype.BFLOAT16, 140), (Dtype.FP8, 70), (Dtype.INT4, 35)]
)
def test_weights_of_70b_take_140_70_and_35_gb(dtype, gigabytes):
    fit = memory_fit(LLAMA_70B, shape(weight_dtype=dtype), H100)
    assert fit.weight_bytes == pytest.approx(gigabytes * GB, rel=0.01)


def test_llama_70b_takes_about_40_gb_of_cache_at_128k():
    fit = memory_fit(LLAMA_70B, shape(), H100)
    assert fit.kv_bytes_per_token * 131_072 == 42_949_672_960
    halved = memory_fit(LLAMA_70B, shape(kv_dtype=Dtype.FP8), H100)
    assert halved.kv_bytes_per_token * 131_072 == 42_949_672_960 / 2


@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (4, 1), (2, 2), (8, 1), (1, 8)])
def test_weights_and_cache_are_divided_among_the_accelerators(tp, pp):
    whole = memory_fit(LLAMA_70B, shape(), H100)
    part = memory_fit(LLAMA_70B, shape(tp=tp, pp=pp), H100)
    assert part.weight_bytes * tp * pp == pytest.approx(whole.weight_bytes)
    assert part.kv_bytes_per_token * tp * pp == pytest.approx(whole.kv_bytes_per_token)


def test_with_more_accelerators_than_kv_heads_each_still_holds_one():
    eight, sixteen = (memory_fit(LLAMA_70B, shape(tp=tp), H100) for tp in (8, 16))
    assert sixteen.kv_bytes_per_token == eight.kv_bytes_per_token
    assert sixteen.weight_bytes == eight.weight_bytes / 2


def test_the_fullest_stage_of_an_uneven_pipeline_decides():
    fit = memory_fit(LLAMA_70B, shape(pp=3), H100)
    assert fit.weight_bytes == pytest.approx(LLAMA_70B.weight_bytes * 27 / 80)


def test_70b_in_bf16_needs_more_than_two_h100_and_in_fp8_two_will_do():
    assert memory_fit(LLAMA_70B, shape(tp=2), H100).kv_tokens == 0
    assert memory_fit(LLAMA_70B, shape(tp=2, weight_dtype=Dtype.FP8), H100).kv_tokens > 131_072


def test_what_vllm_reported_for_8b_on_one_h100_is_met():
    """vLLM pull request 10511: 1.26 GiB of activations, 53.29 GiB for KV cache of 79.22 GiB."""
    assert step_bytes(LLAMA_8B, 8192) == pytest.approx(1.26 * 2**30, rel=0.05)
    fit = memory_fit(LLAMA_8B, shape(), 79.22 * 2**30)
    assert fit.kv_bytes == pytest.approx(53.29 * 2**30, rel=0.03)


def test_a_million_tokens_fit_where_the_model_and_the_memory_allow():
    """48 layers x 8 heads x 128 x 2 x 2 bytes = 196,608 bytes a token: 206 GB for 1M tokens."""
    fit = memory_fit(SCOUT, shape(tp=8), 141 * GB)
    assert fit.kv_bytes_per_token * 8 * 1_048_576 == pytest.approx(206.2 * GB, rel=0.001)
    assert fit.kv_tokens > 1_048_576
    assert fit.missing_bytes(1_048_576) == 0
    h100 = memory_fit(SCOUT, shape(tp=8, kv_dtype=Dtype.BFLOAT16), H100)
    assert 0 < h100.kv_tokens < 10_485_760
    assert h100.missing_bytes(10_485_760) > 0


@given(
    tp=st.sampled_from([1, 2, 4, 8]),
    memory=st.floats(20e9, 300e9),
    context=st.integers(1, 10**7),
    chunk=st.sampled_from([None, 512, 32_768]),
)
def test_a_request_fits_exactly_when_nothing_is_missing(tp, memory, context, chunk):
    fit = memory_fit(LLAMA_8B, shape(tp=tp, max_num_batched_tokens=chunk), memory)
    assert (fit.missing_bytes(context) == 0) == (fit.kv_tokens >= context)
    assert fit.kv_tokens % BLOCK_TOKENS == 0
    taken = fit.weight_bytes + fit.overhead_bytes + fit.kv_tokens * fit.kv_bytes_per_token
    if fit.kv_tokens:
        assert taken <= MEMORY_SHARE * memory * (1 + 1e-9)


def test_a_larger_chunk_leaves_less_for_the_cache():
    small, large = (
        memory_fit(LLAMA_70B, shape(tp=4, max_num_batched_tokens=n), H100) for n in (2048, 16_384)
    )
    assert large.kv_tokens < small.kv_tokens

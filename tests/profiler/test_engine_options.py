"""Options that are handed on to vLLM: what they change, and which are refused."""

import pytest

from planner.domain.errors import InputError
from planner.domain.model import Dtype
from profiler.engine_options import EngineOptions, read_engine_options


def test_without_options_the_engine_does_as_it_does() -> None:
    assert read_engine_options(()) == EngineOptions()
    assert read_engine_options(("--enable-prefix-caching", "--seed", "3")) == EngineOptions()


def test_options_that_only_begin_alike_are_others() -> None:
    assert read_engine_options(("--data-parallel-size-local", "1")) == EngineOptions()
    assert read_engine_options(("--dtype-of-nothing", "half")) == EngineOptions()


@pytest.mark.parametrize(
    "flags",
    [
        ("--kv-cache-d=fp8",),
        ("--kv-cache-dtype=fp8",),
        ("--kv_cache_dtype", "fp8_e4m3"),
        ("--kv-cache-dtype", "fp8"),
    ],
)
def test_the_format_of_the_kv_cache_is_seen_however_it_is_written(flags: tuple[str, ...]) -> None:
    options = read_engine_options(flags)
    assert (options.kv_dtype, options.weight_dtype) == (Dtype.FP8, None)


def test_numbers_are_those_of_weights_and_kv_cache_alike() -> None:
    options = read_engine_options(("--dtype", "half"))
    assert (options.weight_dtype, options.kv_dtype) == (Dtype.FLOAT16, Dtype.FLOAT16)
    both = read_engine_options(("--dtype=half", "--quantization", "fp8", "--kv-cache-dtype=fp8"))
    assert (both.weight_dtype, both.kv_dtype) == (Dtype.FP8, Dtype.FP8)


def test_scheduling_is_as_the_last_option_says() -> None:
    assert read_engine_options(("--no-async-scheduling",)).async_scheduling is False
    assert read_engine_options(("--async-scheduling",)).async_scheduling is True


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--max-num-seqs=8",), "give it as --max-num-seqs"),
        (("--max_num_batched_tokens", "64"), "give it as --max-num-batched-tokens"),
        (("-tp", "2"), "give it as --tp"),
        (("--port", "80"), "is set by whoever launches"),
        (("-pcp", "2"), "is set by whoever launches"),
        (("--max-num-s=8",), "give it as --max-num-seqs"),
        (("--tensor-parallel", "2"), "give it as --tp"),
        (("--config=engine.yaml",), "would not know what the file says"),
        (("--kv-cache-dtype", "nvfp4"), "not known here; known are auto, float16"),
    ],
)
def test_options_that_a_profile_would_not_know_of_are_refused(
    flags: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        read_engine_options(flags)

"""How an engine is started on this processor."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from planner.domain.errors import EngineError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.model import Dtype
from serving.workers.engine import (
    Devices,
    EngineFlags,
    EngineInstall,
    ModelFiles,
    Ports,
    command,
    cpu_command,
    cpu_number_format,
    environment,
)

PLAIN = ReplicaShape(role=Role.DECODE, model="tiny", accelerator="h100", tp=4)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse2 avx avx2 fma\n", "float32"),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16\n", "bfloat16"),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n", "bfloat16"),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", "bfloat16"),
        ("processor\t: 0\n", "bfloat16"),
    ],
)
def test_number_format_is_one_that_the_processor_computes_fast(
    tmp_path: Path, cpuinfo: str, expected: str
) -> None:
    features = tmp_path / "cpuinfo"
    features.write_text(cpuinfo)
    assert cpu_number_format(features) == expected


def test_number_format_is_the_models_own_where_the_processor_is_not_described(
    tmp_path: Path,
) -> None:
    assert cpu_number_format(tmp_path / "absent") == "bfloat16"


def line(shape: ReplicaShape) -> list[str]:
    engine = EngineInstall(python=Path(sys.executable))
    model = ModelFiles(name="tiny", directory=Path("model"))
    flags = EngineFlags(max_num_seqs=16, max_num_batched_tokens=4096)
    return command(engine, model, flags, shape, Ports(http=1, nixl=2))


def option(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words else None


def test_a_shape_that_leaves_things_open_is_started_with_the_sites_flags() -> None:
    words = line(PLAIN)
    assert option(words, "--tensor-parallel-size") == "4"
    assert option(words, "--max-num-seqs") == "16"
    assert option(words, "--max-num-batched-tokens") == "4096"
    assert not {"--dtype", "--quantization", "--kv-cache-dtype"} & set(words)


def test_what_a_shape_states_becomes_vllms_options() -> None:
    words = line(
        replace(
            PLAIN,
            pp=2,
            weight_dtype=Dtype.FP8,
            kv_dtype=Dtype.FP8,
            max_num_seqs=64,
            max_num_batched_tokens=2048,
        )
    )
    assert option(words, "--pipeline-parallel-size") == "2"
    assert option(words, "--quantization") == "fp8"
    assert option(words, "--kv-cache-dtype") == "fp8"
    assert option(words, "--max-num-seqs") == "64"
    assert option(words, "--max-num-batched-tokens") == "2048"


def test_a_stated_number_format_is_not_replaced_by_the_processors() -> None:
    words = cpu_command(line(replace(PLAIN, weight_dtype=Dtype.FLOAT32)))
    assert words.count("--dtype") == 1
    assert option(words, "--dtype") == "float32"


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"weight_dtype": Dtype.INT4}, "serve a checkpoint that is stored so"),
        ({"kv_dtype": Dtype.INT4}, "use bfloat16 or fp8"),
    ],
)
def test_formats_that_vllm_does_not_make_are_refused(stated: dict[str, Dtype], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        line(replace(PLAIN, **stated))


def test_gpus_are_numbered_as_nvidias_management_library_does() -> None:
    ports = Ports(http=1, nixl=2)
    given = environment(EngineFlags(), Devices(gpus=(2, 5)), ports, {})
    assert given["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert given["CUDA_VISIBLE_DEVICES"] == "2,5"
    assert "CUDA_DEVICE_ORDER" not in environment(EngineFlags(), Devices(), ports, {})

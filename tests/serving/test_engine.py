"""How an engine is started on this processor."""

from pathlib import Path

import pytest

from serving.engine import cpu_number_format


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

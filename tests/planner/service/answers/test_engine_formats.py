"""What an engine that is launched here keeps, and what bounds it: nothing is started."""

import pytest

from planner.domain.errors import SpecError
from planner.domain.model import Dtype
from planner.service.answers.engine_formats import launched_engine, launched_kv_bytes
from planner.service.spec.catalogue import read_catalogue
from profiler.engine_options import read_engine_options
from serving.workers.engine import ModelFiles, cpu_number_format
from tests.planner.service.examples import CONFIG, write_json

DEEPSEEK_V3 = {
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "n_routed_experts": 256,
    "moe_intermediate_size": 2048,
    "intermediate_size": 18432,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "something-new"},
}


def launched(folder, config, *flags, accelerator="h100", gpus=True):
    write_json(folder / "config.json", config)
    files = ModelFiles(name="m", directory=folder)
    options = read_engine_options(flags)
    return launched_engine(files, options, accelerator=accelerator, tp=2, gpus=gpus)


def test_latent_attention_keeps_one_vector_a_token(tmp_path):
    assert launched(tmp_path, DEEPSEEK_V3).kv_bytes_per_token == 61 * (512 + 64) * 2 == 70_272
    eight_bits = launched(tmp_path, DEEPSEEK_V3, "--kv-cache-dtype=fp8")
    assert eight_bits.kv_bytes_per_token == 70_272 / 2
    assert eight_bits.formats == (None, Dtype.FP8)


def test_a_model_inside_another_is_read(tmp_path):
    inside = {"architectures": ["Seer"], "text_config": CONFIG}
    assert launched(tmp_path, inside).kv_bytes_per_token == 2 * 8 * 2 * 64 * 2


def test_a_config_that_does_not_tell_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(SpecError, match="num_hidden_layers"):
        launched(tmp_path, {k: v for k, v in CONFIG.items() if k != "num_hidden_layers"})


def test_the_format_that_is_the_models_own_is_not_stated(tmp_path):
    assert launched(tmp_path, CONFIG, "--dtype=bfloat16").formats == (None, None)
    assert launched(tmp_path, CONFIG, "--dtype=half").formats == (Dtype.FLOAT16, Dtype.FLOAT16)


def test_a_processor_keeps_what_it_computes_in(tmp_path):
    write_json(tmp_path / "config.json", CONFIG)
    number = Dtype(cpu_number_format()).bytes_per_value
    assert launched_kv_bytes(tmp_path) == 2 * 8 * 2 * 64 * number
    assert launched(tmp_path, CONFIG, gpus=False).kv_bytes_per_token == launched_kv_bytes(tmp_path)


def test_the_roof_is_known_where_model_and_accelerator_are(tmp_path):
    known = read_catalogue()
    roof = launched(tmp_path, CONFIG).roof(known)
    assert roof is not None
    assert (roof.accelerators, roof.peak.bytes_per_s) == (2, 3.35e12)
    assert launched(tmp_path, CONFIG, accelerator="own-chip").roof(known) is None
    assert launched(tmp_path, CONFIG, gpus=False).roof(known) is None
    assert launched(tmp_path, DEEPSEEK_V3).roof(known) is None

"""config.json to Model, against published facts."""

import pytest

from planner.domain.errors import SpecError
from planner.domain.model import Dtype
from planner.service.spec.model_config import Overrides, model_of

LLAMA_31_70B = {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}

QWEN2_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def model(config, **overrides):
    return model_of(config, name="m", priority=0, overrides=Overrides(**overrides))


def test_llama_70b_has_the_parameters_of_its_model_card():
    assert model(LLAMA_31_70B).parameters == 70_553_706_496


def test_qwen2_7b_has_the_parameters_of_its_model_card():
    assert model(QWEN2_7B).parameters == 7_615_616_512


def test_llama_70b_needs_40_gb_of_cache_at_128k():
    assert model(LLAMA_31_70B).kv_bytes_per_token * 131_072 == pytest.approx(43e9, rel=0.01)


def test_tied_embeddings_count_once():
    tied = {**LLAMA_31_70B, "tie_word_embeddings": True}
    assert model(LLAMA_31_70B).parameters - model(tied).parameters == 128256 * 8192


def test_quantized_weights_do_not_change_the_cache():
    quantized = model({**LLAMA_31_70B, "quantization_config": {"quant_method": "fp8"}})
    assert (quantized.weight_dtype, quantized.kv_dtype) == (Dtype.FP8, Dtype.BFLOAT16)


def test_an_unknown_quantization_must_be_stated():
    config = {**LLAMA_31_70B, "quantization_config": {"quant_method": "magic"}}
    with pytest.raises(SpecError, match="state `weight_dtype`"):
        model(config)
    assert model(config, weight_dtype=Dtype.INT4).weight_dtype is Dtype.INT4


def test_latent_attention_caches_one_vector_per_token_and_layer():
    deepseek = {
        **LLAMA_31_70B,
        "n_routed_experts": 256,
        "num_hidden_layers": 61,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
    }
    assert model(deepseek, parameters=671 * 10**9).kv_bytes_per_token == 61 * 576 * 2


def test_the_text_part_of_a_multimodal_config_counts():
    assert model({"text_config": LLAMA_31_70B}).layers == 80


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "max_position_embeddings"])
def test_a_missing_field_is_named(field):
    config = {key: value for key, value in LLAMA_31_70B.items() if key != field}
    with pytest.raises(SpecError, match=field):
        model(config)


@pytest.mark.parametrize("value", ["8192", -1, 0, 1.5, True, []])
def test_a_field_that_is_no_count_is_named(value):
    with pytest.raises(SpecError, match="hidden_size"):
        model({**LLAMA_31_70B, "hidden_size": value})

"""A model's `config.json` (Hugging Face transformers) read as `Model`.

Only fields that decide about weights and KV cache are read. Parameters are counted for dense
llama-like decoders; for anything else the spec states `parameters`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from planner.domain.errors import SpecError
from planner.domain.model import Dtype, Model

LARGEST_BYTES = 4 * 1024 * 1024

_DTYPES = {
    "float32": Dtype.FLOAT32,
    "bfloat16": Dtype.BFLOAT16,
    "float16": Dtype.FLOAT16,
    "half": Dtype.FLOAT16,
}
_QUANTIZED = {"fp8": Dtype.FP8, "int8": Dtype.INT8, "awq": Dtype.INT4, "gptq": Dtype.INT4}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the spec states beside `config.json`; None: taken from there.

    Parameters
    ----------
    parameters, active_parameters : int or None
        Counts of weights: all, and those that one token passes through.
    max_context_tokens : int or None
        Longest prompt plus answer that is served.
    """

    parameters: int | None = None
    active_parameters: int | None = None
    weight_dtype: Dtype | None = None
    kv_dtype: Dtype | None = None
    max_context_tokens: int | None = None


def read_model_config(path: Path) -> dict[str, object]:
    """The parsed `config.json`.

    Raises
    ------
    SpecError
        When it is missing or not a JSON object.
    """
    file = path
    try:
        file = path / "config.json" if path.is_dir() else path
        if file.stat().st_size > LARGEST_BYTES:
            raise SpecError(f"{file} is too large for a config.json")
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SpecError(
            f"{file} does not exist: give the model's config.json (paths count from the spec's "
            "folder)"
        ) from error
    except OSError as error:
        raise SpecError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{file} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise SpecError(f"{file} is not a JSON object, so no config.json")
    return data


def model_of(
    config: Mapping[str, object], *, name: str, priority: int, overrides: Overrides
) -> Model:
    """The model that a `config.json` describes.

    Raises
    ------
    SpecError
        When a needed field is missing or its parameters cannot be counted.
    """
    text = config.get("text_config")
    inner = text if isinstance(text, Mapping) else config
    hidden = _whole(inner, "hidden_size")
    heads = _whole(inner, "num_attention_heads")
    layers = _whole(inner, "num_hidden_layers")
    head_size = _optional_whole(inner, "head_dim") or hidden // heads
    kv_heads = _optional_whole(inner, "num_key_value_heads") or heads
    parameters = overrides.parameters or _dense_parameters(inner, head_size, kv_heads)
    weight_dtype = overrides.weight_dtype or _weight_dtype(config, inner)
    rank = _optional_whole(inner, "kv_lora_rank")
    if rank is not None:
        # Latent attention caches one vector of rank + rope values a token, not keys and values
        # (DeepSeek-V2, arXiv 2405.04434, section 2.1): half of it as keys, half as values here.
        kv_heads, head_size = 1, (rank + (_optional_whole(inner, "qk_rope_head_dim") or 0)) // 2
    # KV is stored in the compute format; quantized weights do not change it.
    compute = _dtype(config, inner)
    return Model(
        name=name,
        layers=layers,
        kv_heads=kv_heads,
        head_size=head_size,
        parameters=parameters,
        active_parameters=overrides.active_parameters or parameters,
        weight_dtype=weight_dtype,
        kv_dtype=overrides.kv_dtype or compute,
        max_context_tokens=overrides.max_context_tokens or _whole(inner, "max_position_embeddings"),
        priority=priority,
        attention_heads=heads,
    )


def computes_in(config: Mapping[str, object]) -> Dtype:
    """The format of numbers that the model computes in unless told."""
    text = config.get("text_config")
    return _dtype(config, text if isinstance(text, Mapping) else config)


def kv_bytes_per_token(config: Mapping[str, object], kv_dtype: Dtype | None = None) -> float:
    """Bytes of KV cache of one token; the model may be one whose parameters are not counted.

    Raises
    ------
    SpecError
        When a needed field is missing.
    """
    uncounted = Overrides(
        parameters=1, weight_dtype=Dtype.BFLOAT16, kv_dtype=kv_dtype, max_context_tokens=1
    )
    return model_of(config, name="", priority=0, overrides=uncounted).kv_bytes_per_token


def _dense_parameters(config: Mapping[str, object], head_size: int, kv_heads: int) -> int:
    """Weights of a dense llama-like decoder.

    Embeddings (twice when input and output are not tied), and per layer: q, k, v, o projections,
    three matrices of the gated MLP, two norms; q, k, v biases where the config has them.
    Llama 3.1 70B gives 70,553,706,496, as its model card says.
    """
    experts = next((key for key in _EXPERTS if (_optional_whole(config, key) or 0) > 1), None)
    if experts is not None:
        raise SpecError(
            f"is a mixture of experts ({experts}), whose parameters are not counted from "
            "config.json: state `parameters` and `active_parameters` in the spec"
        )
    hidden, layers = _whole(config, "hidden_size"), _whole(config, "num_hidden_layers")
    heads, vocabulary = _whole(config, "num_attention_heads"), _whole(config, "vocab_size")
    inner = _whole(config, "intermediate_size")
    attention = 2 * hidden * heads * head_size + 2 * hidden * kv_heads * head_size
    if config.get("attention_bias") is True or config.get("model_type") == "qwen2":
        attention += (heads + 2 * kv_heads) * head_size
    per_layer = attention + 3 * hidden * inner + 2 * hidden
    embeddings = vocabulary * hidden * (1 if config.get("tie_word_embeddings") is True else 2)
    return embeddings + layers * per_layer + hidden


def _dtype(config: Mapping[str, object], inner: Mapping[str, object]) -> Dtype:
    for source in (inner, config):
        for key in ("dtype", "torch_dtype"):
            name = source.get(key)
            if isinstance(name, str) and name.removeprefix("torch.") in _DTYPES:
                return _DTYPES[name.removeprefix("torch.")]
    return Dtype.BFLOAT16


def _weight_dtype(config: Mapping[str, object], inner: Mapping[str, object]) -> Dtype:
    quantization = config.get("quantization_config")
    if not isinstance(quantization, Mapping):
        return _dtype(config, inner)
    method = str(quantization.get("quant_method", ""))
    dtype = _QUANTIZED.get(method)
    if method in ("awq", "gptq") and quantization.get("bits") == 8:
        return Dtype.INT8
    if dtype is None:
        raise SpecError(
            f"has quantization `{method}`, which is not known here: state `weight_dtype` "
            "in the spec"
        )
    return dtype


def _whole(config: Mapping[str, object], key: str) -> int:
    value = _optional_whole(config, key)
    if value is None:
        raise SpecError(
            f"its config.json has no {key}: give the config.json of a decoder-only transformer"
        )
    return value


def _optional_whole(config: Mapping[str, object], key: str) -> int | None:
    value = config.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(f"its config.json has {key} = {value!r}, which is not a count")
    return value

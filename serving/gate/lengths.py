"""How many tokens a prompt has and its answer will have, learned from what servers count."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from planner.domain.output_length import OutputLengths
from serving.gate.requests import Asked, Kind

CHARACTERS_PER_TOKEN = 4.0
"""Before anything was learned: English text with common vocabularies (OpenAI's help page "What are
tokens and how to count them?")."""
MEMORY_TOKENS = 1e6
"""What was learned from more tokens ago counts half."""
KEPT_ANSWERS = 1000
FEWEST_ANSWERS = 20
"""With fewer answers of a class, an answer is taken to be as long as it may be."""
MOST_LIMITS = 4096
"""Limits of clients whose mean answer is kept at hand."""
UNKNOWN_ANSWER_TOKENS = 256
"""Where a client sets no limit and nothing was learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCount:
    """Tokens of a prompt.

    Parameters
    ----------
    exact : bool
        Whether they were counted, not estimated from characters.
    """

    tokens: int
    exact: bool


@dataclass(slots=True)
class PromptLengths:
    """Characters per token by model and kind of call (chat templates add tokens)."""

    _sums: dict[tuple[str, Kind], tuple[float, float]] = field(default_factory=dict)

    def count(self, asked: Asked, model: str) -> TokenCount:
        """Tokens of a request's prompt."""
        if asked.prompt_tokens is not None:
            return TokenCount(tokens=asked.prompt_tokens, exact=True)
        tokens = round(asked.characters / self.characters_per_token(model, asked.kind))
        return TokenCount(tokens=max(tokens, 1), exact=False)

    def characters_per_token(self, model: str, kind: Kind) -> float:
        """What was learned for a model, or the usual ratio."""
        characters, tokens = self._sums.get((model, kind), (0.0, 0.0))
        return characters / tokens if tokens > 0 and characters > 0 else CHARACTERS_PER_TOKEN

    def learn(self, asked: Asked, model: str, counted_tokens: int) -> None:
        """A server counted the tokens of a prompt."""
        if asked.prompt_tokens is not None or counted_tokens < 1 or asked.characters < 1:
            return
        characters, tokens = self._sums.get((model, asked.kind), (0.0, 0.0))
        kept = 0.5 ** (counted_tokens / MEMORY_TOKENS)
        self._sums[model, asked.kind] = (
            characters * kept + asked.characters,
            tokens * kept + counted_tokens,
        )


@dataclass(slots=True)
class AnswerLengths:
    """How long answers of each request class turn out (`planner.domain.output_length`)."""

    _seen: dict[str, deque[int]] = field(default_factory=dict)
    _known: dict[str, tuple[int, OutputLengths]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _means: dict[tuple[str, int | None], float] = field(default_factory=dict)

    def expected(self, asked: Asked, request_class: str) -> float:
        """Tokens that all answers of a request will have together, mean."""
        longest = asked.max_tokens
        lengths = self._distribution(request_class)
        if lengths is None:
            return float(asked.answers * (longest or UNKNOWN_ANSWER_TOKENS))
        key = request_class, longest
        if key not in self._means:
            if len(self._means) >= MOST_LIMITS:
                self._means.clear()
            one = lengths.mean if longest is None else _cut_mean(lengths, longest)
            self._means[key] = max(one, 1.0)
        return asked.answers * self._means[key]

    def learn(self, request_class: str, output_tokens: int) -> None:
        """An answer came to its end."""
        if output_tokens < 1:
            return
        seen = self._seen.setdefault(request_class, deque(maxlen=KEPT_ANSWERS))
        seen.append(output_tokens)
        self._counts[request_class] = self._counts.get(request_class, 0) + 1

    def _distribution(self, request_class: str) -> OutputLengths | None:
        """The distribution so far; made anew after every tenth part more answers."""
        count = self._counts.get(request_class, 0)
        if count < FEWEST_ANSWERS:
            return None
        known = self._known.get(request_class)
        if known is None or count - known[0] >= max(known[0] // 10, FEWEST_ANSWERS):
            lengths = np.array(self._seen[request_class], dtype=np.int64)
            known = (count, OutputLengths.of(lengths))
            self._known[request_class] = known
            self._means.clear()
        return known[1]


def _cut_mean(lengths: OutputLengths, longest: int) -> float:
    """Mean of answers that end at `longest` at the latest, tokens."""
    return float(np.minimum(lengths.upper, longest) @ lengths.share)

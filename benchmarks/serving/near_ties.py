"""Whether greedy answers differ only where the model itself hardly prefers one token. Pure.

Sums of floating-point numbers depend on their order, and their order on the batch: outside of
eager mode with one request in flight, greedy answers of one server differ from run to run where
the two likeliest tokens are nearly tied. An answer by another way may differ from one server's no
more clearly than that: at its first differing token the gap between the two likeliest tokens' log-
probabilities must lie below the largest such gap at which runs of one server came apart.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, zip_longest
from typing import cast


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer.

    Parameters
    ----------
    text : str
        `token_id:N` where the server tells ids, which no two tokens share as they may a text.
    gap : float
        Log-probability of the likeliest token less that of the second; infinite without a second.
    """

    text: str
    gap: float


Answer = tuple[Token, ...]


def answer_of(body: Mapping[str, object]) -> Answer | None:
    """The tokens of a completion asked for with `logprobs: 2`; None where it tells none."""
    choices = cast("Sequence[Mapping[str, object]]", body.get("choices") or ())
    told = choices[0].get("logprobs") if choices else None
    if not isinstance(told, Mapping):
        return None
    tops = [sorted((top or {}).values(), reverse=True) for top in told["top_logprobs"]]
    gaps = [top[0] - top[1] if len(top) > 1 else math.inf for top in tops]
    return tuple(Token(text, gap) for text, gap in zip(told["tokens"], gaps, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where two answers to one prompt first differ.

    Parameters
    ----------
    prompt : int
        Its index among the prompts asked.
    position : int
        Index of the first token of the answer that differs, from 0.
    reference_gap, gap : float or None
        Log-probability of the likeliest token less that of the second at that position, in the
        reference's answer and in the other; None where that answer had ended before.
    """

    prompt: int
    position: int
    reference_gap: float | None
    gap: float | None

    @property
    def clearest(self) -> float:
        """The larger of both gaps."""
        return max(gap for gap in (self.reference_gap, self.gap) if gap is not None)


def first_difference(reference: Answer, other: Answer, *, prompt: int = 0) -> Difference | None:
    """The first token that differs, be it that one answer ends there; None: equal."""
    for position, (mine, yours) in enumerate(zip_longest(reference, other)):
        if mine is None or yours is None or mine.text != yours.text:
            return Difference(
                prompt=prompt,
                position=position,
                reference_gap=None if mine is None else mine.gap,
                gap=None if yours is None else yours.gap,
            )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parting:
    """How the answers by one way differ from those to compare with.

    Parameters
    ----------
    asked, compared : int
        All prompts, and those that both answered.
    differences : tuple of Difference
        Of the answers that differ, in order of the prompts.
    """

    asked: int
    compared: int
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> int:
        """Answers without a difference."""
        return self.compared - len(self.differences)

    @property
    def largest_gap(self) -> float:
        """0 where nothing differs."""
        return max((found.clearest for found in self.differences), default=0.0)

    def of(self, prompt: int) -> Difference | None:
        """The difference at one prompt."""
        return next((found for found in self.differences if found.prompt == prompt), None)


def parting(reference: Sequence[Answer | None], others: Sequence[Answer | None]) -> Parting:
    """The differences between two runs over the same prompts."""
    pairs = [
        (prompt, one, other)
        for prompt, (one, other) in enumerate(zip(reference, others, strict=True))
        if one is not None and other is not None
    ]
    found = (first_difference(one, other, prompt=prompt) for prompt, one, other in pairs)
    return Parting(
        asked=len(reference),
        compared=len(pairs),
        differences=tuple(difference for difference in found if difference is not None),
    )


def partings(runs: Sequence[Sequence[Answer | None]]) -> tuple[Parting, ...]:
    """The differences of every two runs."""
    return tuple(parting(one, other) for one, other in combinations(runs, 2))


def noise(runs: Sequence[Sequence[Answer | None]]) -> float:
    """The largest gap at which any two runs on one server came apart; 0 where none did."""
    return max((found.largest_gap for found in partings(runs)), default=0.0)


def is_within(found: Parting, noise_gap: float) -> bool:
    """Whether all was answered and differs no more clearly than one server from itself."""
    return found.compared == found.asked and all(
        difference.clearest <= noise_gap for difference in found.differences
    )

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
from typing import cast


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer.

    Parameters
    ----------
    text : str
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


def gap_where_they_part(one: Answer, other: Answer) -> float | None:
    """The gap at the first token that differs, the larger of both answers'; None: equal.

    An answer that ends where the other goes on parts there, by the longer one's gap.
    """
    for mine, yours in zip(one, other, strict=False):
        if mine.text != yours.text:
            return max(mine.gap, yours.gap)
    longer = max(one, other, key=len)
    shorter = min(len(one), len(other))
    return longer[shorter].gap if len(longer) > shorter else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parting:
    """How the answers by one way differ from those to compare with.

    Parameters
    ----------
    compared : int
        Prompts that both answered.
    gaps : tuple of float
        Of the answers that differ, at their first differing token.
    """

    compared: int
    gaps: tuple[float, ...]

    @property
    def equal(self) -> int:
        """Answers without a difference."""
        return self.compared - len(self.gaps)

    @property
    def largest_gap(self) -> float:
        """0 where nothing differs."""
        return max(self.gaps, default=0.0)


def parting(reference: Sequence[Answer | None], others: Sequence[Answer | None]) -> Parting:
    """The differences between two runs over the same prompts."""
    pairs = [
        (one, other)
        for one, other in zip(reference, others, strict=True)
        if one is not None and other is not None
    ]
    gaps = (gap_where_they_part(one, other) for one, other in pairs)
    return Parting(compared=len(pairs), gaps=tuple(gap for gap in gaps if gap is not None))


def noise(runs: Sequence[Sequence[Answer | None]]) -> float:
    """The largest gap at which any two runs on one server came apart."""
    found = (
        parting(one, other).largest_gap for i, one in enumerate(runs) for other in runs[i + 1 :]
    )
    return max(found, default=0.0)


def is_within(found: Parting, noise_gap: float) -> bool:
    """Whether all differences are no clearer than those of one server with itself."""
    return all(gap <= noise_gap for gap in found.gaps)

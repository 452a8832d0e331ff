"""Work that waits in front of a model's replicas, as the fast decision sees it."""

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

GROWTH_OVER_S = 30.0
"""Sequences are compared with those of so long before."""

_CLEARLY = 2.0
"""Growth counts beyond so many deviations of what chance alone makes of it: numbers of sequences in
independent service are about Poisson, their difference has twice the variance."""


_TRUSTED = 2.0
"""Growth goes on for so many times as long as it was watched, at the most: continued through a
start of five minutes, every half minute that grows by chance would fill all batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Work that waits in front of a model's replicas.

    Parameters
    ----------
    waiting_prompt_tokens : int
        Prompt tokens that no replica has begun to compute, cached ones left out.
    decoding_sequences : int
        Sequences being decoded or waiting for a decode slot.
    context_tokens : float
        Mean prompt and answer so far of those sequences.
    request_rate_rps, input_tokens_per_s : float or None
        What arrived lately; None: not known, and then nothing is started.
    sequences_before : int or None
        `decoding_sequences` as they were `GROWTH_OVER_S` before; None: not known.
    """

    model: str
    observed_at: datetime
    waiting_prompt_tokens: int
    decoding_sequences: int
    context_tokens: float = 0.0
    request_rate_rps: float | None = None
    input_tokens_per_s: float | None = None
    sequences_before: int | None = None

    def sequences_in(self, seconds: float) -> float:
        """Decoding sequences so much later, if they clearly grow; those of now if not."""
        now = float(self.decoding_sequences)
        if self.sequences_before is None:
            return now
        chance = math.sqrt(now + self.sequences_before)
        grown = now - self.sequences_before - _CLEARLY * chance
        lasting_s = min(seconds, _TRUSTED * GROWTH_OVER_S)
        return now + max(grown, 0.0) / GROWTH_OVER_S * lasting_s


@dataclass(slots=True)
class Line:
    """Decode's sequences as they were lately."""

    _seen: deque[tuple[datetime, int]] = field(default_factory=deque)

    def take(self, at: datetime, sequences: int) -> int | None:
        """One reading more; how many there were `GROWTH_OVER_S` before it, None: not known.

        Between readings that lie further apart they are taken to have grown evenly.
        """
        while len(self._seen) > 1 and (at - self._seen[1][0]).total_seconds() >= GROWTH_OVER_S:
            self._seen.popleft()
        self._seen.append((at, sequences))
        since, count = self._seen[0]
        age_s = (at - since).total_seconds()
        if age_s < GROWTH_OVER_S:
            return None
        return round(sequences - (sequences - count) * GROWTH_OVER_S / age_s)

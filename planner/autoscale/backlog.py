"""Work that waits in front of a model's replicas, as the fast decision sees it."""

from dataclasses import dataclass
from datetime import datetime


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
    """

    model: str
    observed_at: datetime
    waiting_prompt_tokens: int
    decoding_sequences: int
    context_tokens: float = 0.0
    request_rate_rps: float | None = None
    input_tokens_per_s: float | None = None

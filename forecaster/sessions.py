"""Conversations of several turns: each prompt holds all that was said before."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from forecaster.lengths import Lengths, tokens_at
from planner.domain.errors import TraceError
from planner.domain.workload import Floats, Integers, PrefixBlocks

MOST_BLOCKS = 100_000_000
"""More prefix blocks than this are not kept in memory (8 bytes each, several times over)."""
LONGEST_LIFE_GAPS = 10.0
"""Sessions that began so many mean lives before the trace may reach into it; older ones do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """How requests belong together.

    A session's first prompt is drawn from the description's `isl`; each further one is the
    prompt before it, its answer, and `growth` new tokens.

    Parameters
    ----------
    turns : float
        Mean number of requests in a session (geometric), at least 1.
    growth : LognormalLengths, Quantiles or HistogramLengths
        Tokens that each further turn adds besides the answer before.
    think_time_p50_s, think_time_p99_s : float
        From one request of a session to its next (lognormal), seconds; the time that the answer
        takes is part of it.
    system_prompt_tokens : int
        Leading tokens that all sessions share; they come on top of `isl`.
    most_input_tokens : int
        A session whose prompt would grow beyond begins anew.
    """

    turns: float
    growth: Lengths
    think_time_p50_s: float
    think_time_p99_s: float
    system_prompt_tokens: int = 0
    most_input_tokens: int = 131_072

    def __post_init__(self) -> None:
        if not 1 <= self.turns <= 10_000:
            raise ValueError(f"turns must be in [1, 10000], got {self.turns:g}")
        if not 0 < self.think_time_p50_s <= self.think_time_p99_s < math.inf:
            raise ValueError("think times need 0 < p50 <= p99 and must be finite")
        if self.system_prompt_tokens < 0:
            raise ValueError("system_prompt_tokens must be at least 0")
        if self.most_input_tokens <= self.system_prompt_tokens:
            raise ValueError("most_input_tokens must be above system_prompt_tokens")

    @property
    def _log_sd(self) -> float:
        return math.log(self.think_time_p99_s / self.think_time_p50_s) / float(ndtri(0.99))

    @property
    def warm_up_s(self) -> float:
        """How long before the trace the oldest session began that may reach into it, seconds."""
        mean_s = self.think_time_p50_s * math.exp(self._log_sd**2 / 2)
        return LONGEST_LIFE_GAPS * self.turns * mean_s

    def think_times(self, count: int, rng: np.random.Generator) -> Floats:
        """(count,) seconds."""
        drawn: Floats = self.think_time_p50_s * np.exp(self._log_sd * rng.standard_normal(count))
        return drawn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SessionRequests:
    """Requests of sessions in order of arrival; `blocks` are their prompts' prefix blocks."""

    arrival_s: Floats
    input_tokens: Integers
    output_tokens: Integers
    blocks: PrefixBlocks


def session_requests(
    sessions: Sessions,
    *,
    starts_s: Floats,
    first_tokens: Integers,
    osl: Lengths,
    block_tokens: int,
    duration_s: float,
    rng: np.random.Generator,
) -> SessionRequests:
    """The requests in [0, duration_s) of sessions that begin at `starts_s`.

    Parameters
    ----------
    starts_s : (sessions,) float, seconds
        From minus `Sessions.warm_up_s` on.
    first_tokens : (sessions,) int
        First prompts without the system prompt, tokens.
    """
    turns = rng.geometric(1.0 / sessions.turns, len(starts_s))
    owner = np.repeat(np.arange(len(starts_s)), turns)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(turns) - turns, turns)
    waits = np.where(place == 0, 0.0, sessions.think_times(len(owner), rng))
    since = np.cumsum(waits)
    since -= np.repeat(since[place == 0], turns)
    arrival_s = starts_s[owner] + since
    outputs = tokens_at(osl, rng.random(len(owner)))
    growth = tokens_at(sessions.growth, rng.random(len(owner)))
    first = np.minimum(sessions.system_prompt_tokens + first_tokens, sessions.most_input_tokens)
    inputs, conversation = _prompts(
        np.where(place == 0, first[owner], 0), first[owner], outputs, growth, sessions
    )
    inside = np.flatnonzero((arrival_s >= 0) & (arrival_s < duration_s))
    order = inside[np.argsort(arrival_s[inside], kind="stable")]
    return SessionRequests(
        arrival_s=arrival_s[order],
        input_tokens=inputs[order],
        output_tokens=outputs[order],
        blocks=_blocks(
            inputs[order], conversation[order], sessions.system_prompt_tokens, block_tokens
        ),
    )


def _prompts(
    opening: Integers, anew: Integers, outputs: Integers, growth: Integers, sessions: Sessions
) -> tuple[Integers, Integers]:
    """Prompt lengths, and the conversation that each belongs to.

    `opening` is the prompt that begins a session, 0 for further turns; `anew` the one that a
    session begins again with.
    """
    inputs, conversation = [], []
    said = number = 0
    rows = zip(opening.tolist(), anew.tolist(), outputs.tolist(), growth.tolist(), strict=True)
    for first, again, answer, new in rows:
        said += new
        if first or said > sessions.most_input_tokens:
            said = first or again
            number += 1
        inputs.append(said)
        conversation.append(number)
        said += answer
    return np.array(inputs, dtype=np.int64), np.array(conversation, dtype=np.int64)


def _blocks(
    inputs: Integers, conversation: Integers, system_tokens: int, block_tokens: int
) -> PrefixBlocks:
    """Ids of prompt blocks: full ones are a conversation's own, an unfinished one is unique."""
    check_blocks(inputs, block_tokens)
    shared = system_tokens // block_tokens
    full = inputs // block_tokens
    counts = -(-inputs // block_tokens)
    # Places for the blocks of each conversation, one after the other.
    _, member = np.unique(conversation, return_inverse=True)
    longest = np.zeros(int(member.max(initial=-1)) + 1, dtype=np.int64)
    np.maximum.at(longest, member, full)
    base = shared + np.concatenate([[0], np.cumsum(longest)])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    own = np.repeat(base[member], counts) + position
    ids = np.where(position < shared, position, own)
    unfinished = position == np.repeat(full, counts)
    ids[unfinished] = base[-1] + np.arange(int(unfinished.sum()))
    return PrefixBlocks(block_tokens=block_tokens, offsets=offsets, block_ids=ids.astype(np.int64))


def check_blocks(input_tokens: Integers, block_tokens: int) -> None:
    """Refuse prompts with more blocks than `MOST_BLOCKS`.

    Raises
    ------
    TraceError
        With what to do.
    """
    blocks = int((input_tokens // block_tokens + 1).sum())
    if blocks > MOST_BLOCKS:
        raise TraceError(
            f"the prompts would have {blocks:,} prefix blocks, more than {MOST_BLOCKS:,}: use "
            "larger block_tokens, shorter prompts or fewer requests"
        )

"""What a request would meet in one cell now, from measured profiles. Pure.

The planner's closed forms describe a pool under a rate; here the queue is known, so that the same
parts are added up: prompts ahead, the prompt itself, KV transfer, joining the batch, its steps.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from planner.capacity.batch import steps_before_joining, steps_to_join
from planner.capacity.prefill import step_without_tokens_s
from planner.domain.profile import Profile, TimeTable

_KEPT_BITS = 6
"""Lengths are told apart to 3 %, so that few distinct ones are looked up in the tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A request's lengths, tokens.

    Parameters
    ----------
    input_tokens, cached_tokens : int
        Of the prompt, and those of them expected in the prefix cache.
    output_tokens : float
        Expected.
    decode_computes : bool
        Its prompt is computed where its answer is, whatever is handed over.
    """

    input_tokens: int
    cached_tokens: int = 0
    output_tokens: float
    decode_computes: bool = False

    @property
    def new_tokens(self) -> int:
        """Tokens to compute, at least 1."""
        return max(self.input_tokens - self.cached_tokens, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellLoad:
    """What is under way in one cell.

    Parameters
    ----------
    prefill_replicas, decode_replicas : int
        Aggregated replicas count as both.
    prompts : int
        Requests without their first token.
    prompt_work_s : float
        What those ahead still add to prefill steps together, one replica's seconds.
    answers : int
        Requests that are being answered.
    answer_tokens : float
        Their mean expected length, tokens.
    held_tokens : float
        KV cache that everything under way will need at its end, tokens.
    kv_usage_ratio : float or None
        Of the fullest decode replica, as it says itself; None: not known.
    tightest_tpot_s : float or None
        The strictest promise per token among requests under way, seconds.
    """

    prefill_replicas: int
    decode_replicas: int
    prompts: int = 0
    prompt_work_s: float = 0.0
    answers: int = 0
    answer_tokens: float = 0.0
    held_tokens: float = 0.0
    kv_usage_ratio: float | None = None
    tightest_tpot_s: float | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return self.prompts + self.answers == 0

    @property
    def emptied(self) -> "CellLoad":
        """The same cell with nothing to do."""
        return CellLoad(
            prefill_replicas=self.prefill_replicas, decode_replicas=self.decode_replicas
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a request would meet, seconds.

    Parameters
    ----------
    ttft_s, tpot_s : float
    queue_s : float
        The part of `ttft_s` that waits for others.
    step_s : float
        A decode step as it is now, without the request.
    extrapolated : bool
        Whether the profile was not measured so far.
    """

    ttft_s: float
    tpot_s: float
    queue_s: float
    step_s: float
    extrapolated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CellTimes:
    """Looks durations up in the profiles of a cell's replicas.

    Parameters
    ----------
    prefill, decode : Profile
        The same one twice for aggregated replicas.
    disaggregated : bool
        Whether prompts and answers are computed by different replicas.
    """

    prefill: Profile
    decode: Profile
    disaggregated: bool
    _prompts: dict[tuple[int, int], float] = field(default_factory=dict, repr=False)
    _steps: dict[tuple[int, int], float] = field(default_factory=dict, repr=False)
    _fixed: dict[int, float] = field(default_factory=dict, repr=False)
    _transfers: dict[int, float] = field(default_factory=dict, repr=False)

    def prompt_s(self, new_tokens: int, cached_tokens: int) -> float:
        """Seconds to compute a prompt alone."""
        key = _coarse(new_tokens), _coarse(cached_tokens)
        if key not in self._prompts:
            self._prompts[key] = float(self.prefill.prefill.extended_at(*map(float, key)))
        return self._prompts[key]

    def work_s(self, new_tokens: int, cached_tokens: int) -> float:
        """What a prompt adds to a step that runs anyway, seconds."""
        fixed = self.fixed_s(cached_tokens)
        return max(self.prompt_s(new_tokens, cached_tokens) - fixed, 0.0)

    def fixed_s(self, cached_tokens: int = 0) -> float:
        """The part of a prefill step that does not grow with its tokens, seconds."""
        key = _coarse(cached_tokens)
        if key not in self._fixed:
            found = step_without_tokens_s(self.prefill, np.array([float(key)]))
            self._fixed[key] = float(found[0])
        return self._fixed[key]

    def step_s(self, sequences: float, context_tokens: float) -> float:
        """Seconds of a decode step of so many sequences with so many tokens each."""
        key = max(math.ceil(sequences), 1), _coarse(int(context_tokens))
        if key not in self._steps:
            self._steps[key] = float(self.decode.decode_step.extended_at(*map(float, key)))
        return self._steps[key]

    def transfer_s(self, input_tokens: int) -> float:
        """Seconds to move a prompt's KV cache; 0 where nothing is moved."""
        if not self.disaggregated:
            return 0.0
        key = _coarse(input_tokens)
        if key not in self._transfers:
            kv_bytes = self.prefill.limits.kv_bytes_per_token * key
            self._transfers[key] = float(self.prefill.transfer.seconds(kv_bytes))
        return self._transfers[key]

    @property
    def steps_to_join(self) -> float:
        """Decode steps that a request waits for at a busy replica before its first one."""
        if self.disaggregated:
            return steps_before_joining(self.decode.limits)
        return steps_to_join(self.decode.limits)

    def covers(self, prompt: Prompt, sequences: float) -> bool:
        """Whether a request lies within what was measured."""
        context = prompt.input_tokens + prompt.output_tokens / 2
        return _within(self.prefill.prefill, prompt.new_tokens, prompt.cached_tokens) and _within(
            self.decode.decode_step, sequences, context
        )


def _within(table: TimeTable, x: float, y: float) -> bool:
    """`TimeTable.covers` of one point, without making arrays of it."""
    return bool(x <= table.x[-1] and (len(table.y) == 1 or y <= table.y[-1]))


def _coarse(tokens: int) -> int:
    """The nearest number with few significant bits."""
    shift = max(tokens.bit_length() - _KEPT_BITS, 0)
    return (tokens + (1 << shift >> 1)) >> shift << shift


def estimate(times: CellTimes, load: CellLoad, prompt: Prompt) -> Estimate:
    """What a request would meet on the cell's usual way.

    TTFT = fixed part + prompts ahead / replicas + own prompt + transfer + joining the batch. Its
    batch is made of those answers that will not have ended by then (their ages are spread evenly
    over their lives) and of the prompts ahead. Where all slots are taken it waits for one.
    """
    prefill_replicas, decode_replicas = max(load.prefill_replicas, 1), max(load.decode_replicas, 1)
    context = prompt.input_tokens + prompt.output_tokens / 2
    step_s = times.step_s(load.answers / decode_replicas, context)
    busy_s = times.fixed_s() if load.prompts else 0.0
    queue_s = (load.prompt_work_s + busy_s) / prefill_replicas
    ttft_s = (
        times.prefill.first_token_s
        + queue_s
        + times.prompt_s(prompt.new_tokens, prompt.cached_tokens)
        + times.transfer_s(prompt.input_tokens)
    )
    life_s = max(load.answer_tokens, 1.0) * step_s
    staying = load.answers * max(1.0 - ttft_s / life_s, 0.0)
    together = (staying + load.prompts + 1) / decode_replicas
    slots = times.decode.limits.max_num_seqs
    slot_s = max(together - slots, 0.0) * max(load.answer_tokens, 1.0) * step_s / slots
    tpot_s = times.step_s(min(together, slots), context)
    joining = 1 + (times.steps_to_join if load.answers else 0.0)
    if not times.disaggregated:  # prompts ahead and behind stop the answer while they are computed
        tpot_s += load.prompt_work_s / prefill_replicas / max(prompt.output_tokens, 1.0)
    return Estimate(
        ttft_s=ttft_s + slot_s + joining * tpot_s,
        tpot_s=tpot_s,
        queue_s=queue_s + slot_s,
        step_s=step_s,
        extrapolated=not times.covers(prompt, min(together, slots)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLoad:
    """One decode worker.

    Parameters
    ----------
    running : int
        Requests in its batch.
    direct_prompts : int
        Prompts sent straight to it that have no first token yet.
    kv_usage_ratio : float
    """

    running: int
    direct_prompts: int
    kv_usage_ratio: float


def estimate_direct(times: CellTimes, worker: WorkerLoad, prompt: Prompt) -> Estimate:
    """What a request would meet if a decode worker computed its prompt, too.

    Its prompt joins a step that decodes: that step takes its work longer for everybody.
    """
    context = prompt.input_tokens + prompt.output_tokens / 2
    step_s = times.step_s(worker.running, context)
    alone_s = times.prompt_s(prompt.new_tokens, prompt.cached_tokens)
    work_s = times.work_s(prompt.new_tokens, prompt.cached_tokens)
    queue_s = steps_to_join(times.decode.limits) * step_s if worker.running else 0.0
    prompt_s = step_s + work_s if worker.running else alone_s
    return Estimate(
        ttft_s=times.prefill.first_token_s + queue_s + prompt_s,
        tpot_s=times.step_s(worker.running + 1, context),
        queue_s=queue_s,
        step_s=step_s,
        extrapolated=not times.covers(prompt, worker.running + 1),
    )

"""What aiconfigurator 0.12 makes of step times, applied to the tables of a Poolwise profile.

No arrivals and no queues: a worker runs at a fixed batch. Its corrections are kept:

* prefill: n prompts take T(n) x 1.1; n / that x 0.9 requests/s; x 1.8 is the TTFT.
* decode: a step of b sequences takes T(b) x 1.08 at the mean context; b / (osl - 1) steps x 0.92
  requests/s; the KV cache holds b x (isl + osl) tokens.
* aggregated: b requests at once, k prompts in each of ceil(b / k) mixed steps, the other steps
  of osl decode only; no more than b in TTFT + (osl - 1) TPOT. TTFT is the mixed step and 0.8 ms a
  layer, times 1 + log2(b) / 8.

References
----------
aiconfigurator 0.12.0: `sdk/sweep.py` (0.9, 0.92, 1.8), `sdk/task_v2.py` (1.1, 1.08),
`sdk/backends/base_backend.py: run_agg`, `sdk/backends/vllm_backend.py` (0.8 ms, log2, at most 2).
"""

import math
from collections.abc import Iterator

import numpy as np

from benchmarks.aiconfigurator.question import Question, Rated, Worker
from planner.capacity.prefill import step_without_tokens_s
from planner.domain.fleet import Role
from planner.domain.profile import Profile

PREFILL_CORRECTION, DECODE_CORRECTION = 1.1, 1.08
PREFILL_RATIO, DECODE_RATIO = 0.9, 0.92
TTFT_CORRECTION = 1.8
PREFILL_TOKENS = 16_384
"""Prompt tokens in a step of its prefill workers at the most."""
DISPATCH_S_PER_LAYER = 0.8e-3
MOST_PROMPTS_MIXED = 2


def best(
    profile: Profile, role: Role, question: Question, *, most_batch: float = math.inf
) -> Rated | None:
    """The operating point of most requests/s that keeps the objectives; None: there is none."""
    points = {Role.PREFILL: _prefill, Role.DECODE: _decode, Role.AGGREGATED: _aggregated}
    kept = (
        r
        for r in points[role](profile, question)
        if keeps(r, question) and r.worker.batch <= most_batch
    )
    return max(kept, key=lambda r: (r.rps, -r.worker.batch), default=None)


def keeps(rated: Rated, question: Question) -> bool:
    """Whether both objectives hold."""
    return rated.ttft_s < question.ttft_s and rated.tpot_s < question.tpot_s


def _worker(profile: Profile, role: Role, batch: int, prompts: int = 1) -> Worker:
    return Worker(
        role=role, accelerator=profile.accelerator, tp=profile.tp, batch=batch, prompts=prompts
    )


def _prompts_s(profile: Profile, question: Question, prompts: int) -> tuple[float, float]:
    """Seconds of a step of so many prompts, and the part of it that they share."""
    alone = float(profile.prefill.at(question.isl, 0))
    shared = float(step_without_tokens_s(profile, np.zeros(1))[0])
    return shared + prompts * (alone - shared), shared


def _prefill(profile: Profile, question: Question) -> Iterator[Rated]:
    for prompts in range(1, PREFILL_TOKENS // question.isl + 1):
        seconds = PREFILL_CORRECTION * _prompts_s(profile, question, prompts)[0]
        yield Rated(
            worker=_worker(profile, Role.PREFILL, prompts),
            rps=PREFILL_RATIO * prompts / seconds,
            ttft_s=TTFT_CORRECTION * seconds,
            tpot_s=0.0,
        )


def _batches(profile: Profile, question: Question) -> range:
    """Batches that the table covers and the KV cache holds."""
    limits = profile.limits
    held = limits.kv_capacity_tokens // (question.isl + question.osl)
    return range(1, min(held, limits.max_num_seqs, int(profile.decode_step.x[-1])) + 1)


def _step_s(profile: Profile, question: Question, batch: int) -> float:
    return float(profile.decode_step.at(batch, question.isl + question.osl / 2))


def _decode(profile: Profile, question: Question) -> Iterator[Rated]:
    for batch in _batches(profile, question):
        step_s = DECODE_CORRECTION * _step_s(profile, question, batch)
        yield Rated(
            worker=_worker(profile, Role.DECODE, batch),
            rps=DECODE_RATIO * batch / ((question.osl - 1) * step_s),
            ttft_s=0.0,
            tpot_s=step_s,
        )


def _aggregated(profile: Profile, question: Question) -> Iterator[Rated]:
    osl = question.osl
    for batch in _batches(profile, question):
        for prompts in range(1, MOST_PROMPTS_MIXED + 1):
            if batch <= prompts:
                continue
            mixed_s = mixed_step_s(profile, question, prompts=prompts, decoding=batch - prompts)
            mixed = min(math.ceil(batch / prompts), osl)
            total_s = mixed * mixed_s + (osl - mixed) * _step_s(profile, question, batch)
            tpot_s = total_s / osl
            ttft_s = (mixed_s + DISPATCH_S_PER_LAYER * question.layers) * min(
                1 + math.log2(batch) / 8, 2
            )
            # It counts osl - 1 tokens a request and as many requests.
            rps = batch / max(total_s, ttft_s + tpot_s * (osl - 1))
            yield Rated(
                worker=_worker(profile, Role.AGGREGATED, batch, prompts),
                rps=rps,
                ttft_s=ttft_s,
                tpot_s=tpot_s,
            )


def mixed_step_s(profile: Profile, question: Question, *, prompts: int, decoding: int) -> float:
    """A step with prompts and decoding requests, composed of the profile's two tables."""
    prompts_s, shared_s = _prompts_s(profile, question, prompts)
    return prompts_s - shared_s + _step_s(profile, question, decoding)

"""Whether a request is let in now, and which way it goes. Pure.

A request is shed when, with it, its own promise or that of somebody already let in would be
missed because of the load: early rejection as in Mooncake (FAST 2025, section 5.2). What an idle
deployment could not keep either is let in, since coming again later would not help it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from planner.domain.slo import Slo
from serving.gate.estimates import (
    CellLoad,
    CellTimes,
    Estimate,
    Prompt,
    WorkerLoad,
    estimate,
    estimate_direct,
)

RESERVED_RATIO = 0.4
"""The lowest priority may use the first 60 % of the room that objectives leave."""
FULL_KV_RATIO = 0.95
"""A KV cache this full makes engines preempt: vLLM recomputes what it throws out."""
DIRECT_KV_RATIO = 0.8
LONGEST_RETRY_S = 60.0
HOPELESS_RATIO = 0.1
"""What no idle deployment would keep may be delayed by such a part of its own time."""


class Way(StrEnum):
    """What becomes of a request."""

    ADMIT = "admit"
    DIRECT = "direct"
    SHED = "shed"


class Why(StrEnum):
    """Why."""

    FITS = "fits"
    IDLE = "idle"
    NO_ESTIMATE = "no_estimate"
    OFF = "off"
    SHORT_PROMPT = "short_prompt"
    DECODE_COMPUTES = "decode_computes"
    TTFT = "ttft"
    TPOT = "tpot"
    OTHERS_TPOT = "others_tpot"
    E2E = "e2e"
    KV_CACHE = "kv_cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a request was promised.

    Parameters
    ----------
    slo : Slo or None
        None: nothing; it is shed for the sake of others only.
    rank : float
        0 for the highest priority in use, 1 for the lowest.
    """

    slo: Slo | None
    rank: float = 0.0

    @property
    def share(self) -> float:
        """Share of the room between idle and objective that it may use."""
        return 1.0 - RESERVED_RATIO * self.rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Slack:
    """How much later than estimated requests were lately, at the promise's level, seconds."""

    ttft_s: float = 0.0
    tpot_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of a request.

    Parameters
    ----------
    estimate : Estimate or None
        Of the way it takes; None: there is no estimate.
    retry_after_s : float
        For one that is shed: when the load will have gone down enough, seconds.
    """

    way: Way
    why: Why
    estimate: Estimate | None = None
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request before a cell.

    Parameters
    ----------
    worker : WorkerLoad or None
        The decode worker that would take it directly; None: none may.
    """

    times: CellTimes
    load: CellLoad
    prompt: Prompt
    promise: Promise
    slack: Slack = Slack()
    worker: WorkerLoad | None = None

    @property
    def kv_ratio(self) -> float:
        """KV cache in use with the request: as it will be, or as it is, whichever is more."""
        limits = self.times.decode.limits
        room = limits.kv_capacity_tokens * max(self.load.decode_replicas, 1)
        needed = self.load.held_tokens + self.prompt.input_tokens + self.prompt.output_tokens
        return max(needed / room, self.load.kv_usage_ratio or 0.0)

    @property
    def strictest_tpot_s(self) -> float | None:
        """The strictest promise per token, its own or one under way, seconds."""
        own = None if self.promise.slo is None else self.promise.slo.tpot_s
        promised = [p for p in (own, self.load.tightest_tpot_s) if p is not None]
        return min(promised, default=None)


def decide(case: Case) -> Decision:
    """Let a request in, send it straight to a decode worker, or shed it."""
    if case.worker is not None and case.prompt.decode_computes:
        # Handed over or not, decode computes it: prefill would do so for nothing.
        direct = estimate_direct(case.times, case.worker, case.prompt)
        return _within_limits(case, direct, Way.DIRECT, Why.DECODE_COMPUTES)
    expected = estimate(case.times, case.load, case.prompt)
    if case.worker is not None and _has_room(case, case.worker):
        direct = estimate_direct(case.times, case.worker, case.prompt)
        if _goes_direct(case, direct, expected):
            return Decision(way=Way.DIRECT, why=Why.SHORT_PROMPT, estimate=direct)
    return _within_limits(case, expected, Way.ADMIT, Why.FITS)


def _within_limits(case: Case, expected: Estimate, way: Way, why: Why) -> Decision:
    """Let a request in this way, unless it would break a limit."""
    if case.load.is_idle:
        return Decision(way=way, why=Why.IDLE if why is Why.FITS else why, estimate=expected)
    broken = next(((why, over_s) for why, over_s in _limits(case, expected) if over_s > 0), None)
    if broken is None:
        return Decision(way=way, why=why, estimate=expected)
    why, over_s = broken
    life_s = max(case.load.answer_tokens, 1.0) * expected.step_s
    wait_s = over_s if why in (Why.TTFT, Why.E2E) else life_s / max(case.load.answers, 1)
    return Decision(
        way=Way.SHED, why=why, estimate=expected, retry_after_s=min(wait_s, LONGEST_RETRY_S)
    )


def _limits(case: Case, expected: Estimate) -> Iterator[tuple[Why, float]]:
    """By how much the request would break each limit, where above 0."""
    promise, slack = case.promise, case.slack
    yield Why.KV_CACHE, case.kv_ratio - FULL_KV_RATIO
    if _surely_fits(case, expected):
        return
    alone = estimate(case.times, case.load.emptied, case.prompt)
    tpot_s = expected.tpot_s + slack.tpot_s
    if case.load.tightest_tpot_s is not None:
        yield Why.OTHERS_TPOT, tpot_s - max(case.load.tightest_tpot_s, alone.tpot_s + slack.tpot_s)
    slo = promise.slo
    if slo is None:
        return
    ttft_s = expected.ttft_s + slack.ttft_s
    yield Why.TTFT, ttft_s - _limit(slo.ttft_s, alone.ttft_s, slack.ttft_s, promise)
    yield Why.TPOT, tpot_s - _limit(slo.tpot_s, alone.tpot_s, slack.tpot_s, promise)
    if slo.e2e_s is not None:
        gaps = max(case.prompt.output_tokens - 1, 0.0)
        idle_s, late_s = alone.ttft_s + gaps * alone.tpot_s, slack.ttft_s + gaps * slack.tpot_s
        whole_s = ttft_s + gaps * tpot_s
        yield Why.E2E, whole_s - _limit(slo.e2e_s, idle_s, late_s, promise)


def _surely_fits(case: Case, expected: Estimate) -> bool:
    """Whether every limit is kept whatever an idle deployment would do: no need to look then."""
    tpot_s, slo = expected.tpot_s + case.slack.tpot_s, case.promise.slo
    if case.load.tightest_tpot_s is not None and tpot_s > case.load.tightest_tpot_s:
        return False
    if slo is None:
        return True
    share, ttft_s = case.promise.share, expected.ttft_s + case.slack.ttft_s
    whole_s = ttft_s + max(case.prompt.output_tokens - 1, 0.0) * tpot_s
    return (
        ttft_s <= share * slo.ttft_s
        and tpot_s <= share * slo.tpot_s
        and (slo.e2e_s is None or whole_s <= share * slo.e2e_s)
    )


def _limit(objective_s: float, idle_s: float, slack_s: float, promise: Promise) -> float:
    """What may be expected of a request, slack included, seconds.

    Its share of the room above an idle deployment; where that could not keep the objective
    either, a little more than it would take.
    """
    alone_s = idle_s + slack_s
    if alone_s >= objective_s:
        return alone_s + HOPELESS_RATIO * idle_s
    return alone_s + (objective_s - alone_s) * promise.share


def _goes_direct(case: Case, direct: Estimate, expected: Estimate) -> bool:
    """Whether a decode worker answers sooner, without a promise per token being missed.

    The longest gap that it makes is a step with the whole prompt in it. That stays within the
    strictest promise under way, so that even such a prompt in every step would not break it.
    """
    prompt, strictest_s, slo = case.prompt, case.strictest_tpot_s, case.promise.slo
    if strictest_s is None or direct.ttft_s >= expected.ttft_s:
        return False
    gap_s = direct.tpot_s + case.times.work_s(prompt.new_tokens, prompt.cached_tokens)
    return gap_s <= strictest_s and (slo is None or direct.ttft_s <= slo.ttft_s)


def _has_room(case: Case, worker: WorkerLoad) -> bool:
    """Whether a decode worker may take a prompt beside its answers: one at a time."""
    return (
        worker.direct_prompts == 0
        and worker.kv_usage_ratio <= DIRECT_KV_RATIO
        and worker.running < case.times.decode.limits.max_num_seqs
    )

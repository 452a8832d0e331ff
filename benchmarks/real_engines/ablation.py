"""What would change the twin's answer: its rules written once more, small, with remedies added.

The rules are those of `docs/twin.md` for deployments without prefix caches, topology, changes
and full KV caches, with `least_loaded` routing. Without a remedy the figures must be the twin's
(`score.py` prints both). A remedy changes how long a step takes:

- `jitter`: every step is multiplied by a draw from the measured distribution of gaps over their
  mean, at the nearest measured batch.
- `join_s`: a step in which a sequence joins the batch of a decode worker takes so much longer
  (the request's HTTP call, its tokens, the NIXL read: they need the same half core).
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_engines.steps import Steps
from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.domain.workload import Workload

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Jitter:
    """Measured steps at one batch over their mean."""

    batch: int
    ratios: Floats


def jitter_of(steps: Sequence[Steps]) -> tuple[Jitter, ...]:
    """The distributions of measured gaps, each with mean 1."""
    return tuple(
        Jitter(batch=s.batch, ratios=np.array(s.gaps_s) / float(np.mean(s.gaps_s))) for s in steps
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Remedies:
    """What is added to the twin's rules; nothing by default."""

    jitter: tuple[Jitter, ...] = ()
    join_s: float = 0.0

    def factor(self, batch: int, rng: np.random.Generator) -> float:
        """A draw of step time over its mean, at the nearest measured batch."""
        if not self.jitter:
            return 1.0
        near = min(self.jitter, key=lambda j: abs(math.log(j.batch / max(batch, 1))))
        return float(rng.choice(near.ratios))


@dataclass(slots=True, kw_only=True)
class _Request:
    index: int
    arrival_s: float
    input_tokens: int
    output_tokens: int
    token_s: list[float] = field(default_factory=list)
    computed: int = 0

    @property
    def done(self) -> bool:
        return len(self.token_s) == self.output_tokens


@dataclass(slots=True, kw_only=True)
class _Worker:
    number: int
    role: Role
    profile: Profile
    line: list[_Request] = field(default_factory=list)
    moving: int = 0
    arrived: list[_Request] = field(default_factory=list)
    batch: list[_Request] = field(default_factory=list)
    chunked: _Request | None = None
    prompts: list[_Request] = field(default_factory=list)
    busy: bool = False
    owed_s: float = 0.0
    chunks_s: float = 0.0

    @property
    def admitted(self) -> int:
        computing = len(self.prompts) + (self.chunked is not None)
        return len(self.batch) + self.moving + len(self.arrived) + computing

    @property
    def present(self) -> int:
        return self.admitted + len(self.line)

    def prompt_s(self, tokens: float) -> float:
        """`P` of the rules, without a prefix: the first segment continued to 0."""
        table = self.profile.prefill
        x, y = table.x, table.seconds[:, 0]
        if len(x) == 1:
            return float(y[0] * tokens / x[0])
        i = int(np.clip(np.searchsorted(x, tokens, side="right") - 1, 0, len(x) - 2))
        value = y[i] + (tokens - x[i]) * (y[i + 1] - y[i]) / (x[i + 1] - x[i])
        if tokens < x[0]:
            none_s = float(np.clip(y[0] - x[0] * (y[1] - y[0]) / (x[1] - x[0]), 0.0, y[0]))
            value = none_s + (y[0] - none_s) * tokens / x[0]
        return float(max(value, 0.0))


class Replayed:
    """One replay; `requests` carry the instants of their tokens afterwards."""

    def __init__(
        self,
        profile: Profile,
        roles: Sequence[Role],
        workload: Workload,
        remedies: Remedies,
        rng: np.random.Generator,
    ) -> None:
        self.profile, self.remedies, self.rng = profile, remedies, rng
        self.workers = [_Worker(number=i, role=r, profile=profile) for i, r in enumerate(roles)]
        self.requests = [
            _Request(
                index=i,
                arrival_s=float(workload.arrival_offset_s[i]),
                input_tokens=int(workload.input_tokens[i]),
                output_tokens=int(workload.output_tokens[i]),
            )
            for i in range(len(workload))
        ]
        self._order = 0
        self._events: list[tuple[float, int, int, int, int]] = []
        for r in self.requests:
            self._push(r.arrival_s, 2, 0, r.index)
        while self._events:
            at_s, kind, worker, _, request = heapq.heappop(self._events)
            (self._end_step, self._kv_arrives, self._arrive)[kind](at_s, worker, request)

    def ttft_s(self) -> Floats:
        """(requests,) time to first token, seconds."""
        first = [r.token_s[0] - r.arrival_s for r in self.requests]
        return np.array(first) + self.profile.first_token_s

    def gaps_s(self) -> Floats:
        """All gaps between tokens, seconds."""
        return np.concatenate([np.diff(r.token_s) for r in self.requests])

    def tokens_per_s(self) -> float:
        """Tokens over the time from the first arrival to the last token."""
        end_s = max(r.token_s[-1] for r in self.requests) + self.profile.first_token_s
        return sum(r.output_tokens for r in self.requests) / (end_s - self.requests[0].arrival_s)

    def _push(self, at_s: float, kind: int, worker: int, request: int) -> None:
        self._order += 1
        heapq.heappush(self._events, (at_s, kind, worker, self._order, request))

    def _arrive(self, t: float, _worker: int, index: int) -> None:
        request = self.requests[index]
        able = [w for w in self.workers if w.role is not Role.DECODE]
        worker = min(able, key=lambda w: (round(w.owed_s, 9), w.present, w.number))
        worker.owed_s += worker.prompt_s(request.input_tokens)
        self._wait(worker, request, t)

    def _hand_over(self, t: float, request: _Request) -> None:
        able = [w for w in self.workers if w.role is Role.DECODE]
        self._wait(min(able, key=lambda w: (w.present, w.number)), request, t)

    def _wait(self, worker: _Worker, request: _Request, t: float) -> None:
        worker.line.append(request)
        if not worker.busy:
            self._begin_step(worker, t)

    def _kv_arrives(self, t: float, number: int, index: int) -> None:
        worker = self.workers[number]
        worker.moving -= 1
        worker.arrived.append(self.requests[index])
        if not worker.busy:
            self._begin_step(worker, t)

    def _end_step(self, t: float, number: int, _request: int) -> None:
        worker = self.workers[number]
        worker.busy = False
        worker.owed_s -= worker.chunks_s
        for request in worker.batch:
            request.token_s.append(t)
        finished, worker.prompts = worker.prompts, []
        for request in finished:
            if worker.role is Role.PREFILL:
                self._hand_over(t, request)
            else:
                request.token_s.append(t)
                worker.batch.append(request)
        worker.batch = [r for r in worker.batch if not r.done]
        self._begin_step(worker, t)

    def _begin_step(self, worker: _Worker, t: float) -> None:
        joining = len(worker.arrived)
        worker.batch += worker.arrived
        worker.arrived = []
        worker.chunks_s = 0.0
        computes = self._fill(worker, t)
        if not worker.batch and not computes:
            return
        seconds = worker.prompt_s(0.0)
        if worker.batch:
            context = sum(r.input_tokens + len(r.token_s) for r in worker.batch)
            size = len(worker.batch)
            seconds = float(self.profile.decode_step.extended_at(size, context / size))
        seconds = (seconds + worker.chunks_s) * self.remedies.factor(len(worker.batch), self.rng)
        worker.busy = True
        self._push(t + seconds + joining * self.remedies.join_s, 0, worker.number, 0)

    def _fill(self, worker: _Worker, t: float) -> bool:
        limits = self.profile.limits
        budget, computes = max(limits.max_num_batched_tokens - len(worker.batch), 1), False
        while budget > 0:
            if worker.chunked is None:
                if not worker.line or worker.admitted >= limits.max_num_seqs:
                    break
                request = worker.line.pop(0)
                if worker.role is Role.DECODE:
                    worker.moving += 1
                    moved = request.input_tokens * limits.kv_bytes_per_token
                    arrives_s = t + float(self.profile.transfer.seconds(moved))
                    self._push(arrives_s, 1, worker.number, request.index)
                    continue
                worker.chunked = request
            request, computes = worker.chunked, True
            chunk = min(request.input_tokens - request.computed, budget)
            before_s = worker.prompt_s(request.computed)
            request.computed += chunk
            worker.chunks_s += worker.prompt_s(request.computed) - before_s
            budget -= chunk
            if request.computed == request.input_tokens:
                worker.prompts.append(request)
                worker.chunked = None
        return computes

"""The twin once more, written independently: token by token, objects and lists, no cleverness.

One clock for the whole deployment; every token of every sequence has its own instant. Kept as the
truth that the compiled loop is compared with, and as the baseline of its benchmark.
"""

import math
from dataclasses import dataclass, field

from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.simulate import RouterPolicy, Scenario


@dataclass
class Request:
    index: int
    arrival_s: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    token_s: list[float] = field(default_factory=list)
    kv_arrives_s: float = math.inf
    prompt_left: int = 0
    overhead_s: float = 0.0

    @property
    def new_tokens(self) -> int:
        return max(self.input_tokens - self.cached_tokens, 1)

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def done(self) -> bool:
        return len(self.token_s) == self.output_tokens


@dataclass
class Worker:
    profile: Profile
    role: Role
    ready_s: float
    waiting: list[Request] = field(default_factory=list)
    moving: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    chunked: Request | None = None
    completing: list[Request] = field(default_factory=list)
    step_ends_s: float | None = None
    step_prompt_s: float = 0.0
    outstanding_s: float = 0.0
    free_s: float = 0.0

    def holds(self, request: Request) -> bool:
        limits = self.profile.limits
        need = request.input_tokens + (1 if self.role is Role.PREFILL else request.output_tokens)
        return need <= min(limits.kv_capacity_tokens, limits.max_model_len)

    def prefill_s(self, request: Request) -> float:
        new = request.new_tokens
        return float(
            self.profile.prefill.extended_at(float(new), float(request.input_tokens - new))
        )

    def transfer_s(self, request: Request) -> float:
        kv_bytes = self.profile.limits.kv_bytes_per_token * request.input_tokens
        return float(self.profile.transfer.seconds(kv_bytes))

    def step_s(self, batch: int, context: float) -> float:
        return float(self.profile.decode_step.extended_at(float(batch), context))

    def inside(self) -> list[Request]:
        chunked = [self.chunked] if self.chunked is not None else []
        return self.running + self.moving + self.completing + chunked

    def present(self) -> int:
        return len(self.inside()) + len(self.waiting)

    def room_for(self, request: Request) -> bool:
        limits, inside = self.profile.limits, self.inside()
        kv_tokens = sum(r.tokens for r in inside) + request.tokens
        return len(inside) < limits.max_num_seqs and kv_tokens <= limits.kv_capacity_tokens

    def next_s(self) -> float:
        """When something happens here by itself."""
        if self.step_ends_s is not None:
            return self.step_ends_s
        arrivals = [r.kv_arrives_s for r in self.moving]
        if self.waiting and not self.inside():
            arrivals.append(max(self.ready_s, self.waiting[0].kv_arrives_s))
        return min(arrivals, default=math.inf)


class Reference:
    """One run; after `run()` every request carries the instants of its tokens."""

    def __init__(self, scenario: Scenario) -> None:
        workload = scenario.workload
        self.policy = scenario.router
        self.workers = [
            Worker(profile=g.profile, role=g.role, ready_s=g.start_delay_s, free_s=g.start_delay_s)
            for g in scenario.groups
            for _ in range(g.replicas)
        ]
        self.first_decode = next(
            (
                Worker(profile=g.profile, role=g.role, ready_s=0.0)
                for g in scenario.groups
                if g.role is Role.DECODE
            ),
            None,
        )
        self.requests = [
            Request(
                index=i,
                arrival_s=float(workload.arrival_offset_s[i]),
                input_tokens=int(workload.input_tokens[i]),
                output_tokens=int(workload.output_tokens[i]),
                cached_tokens=int(workload.cached_tokens[i]),
            )
            for i in range(len(workload))
        ]
        self.prompts: list[tuple[float, int]] = []
        self.turns = {True: 0, False: 0}
        fullest = [
            w.step_s(w.profile.limits.max_num_seqs, float(w.profile.decode_step.y[0]))
            for w in self.workers
        ]
        self.slowness = [s / min(fullest) for s in fullest]

    def run(self) -> None:
        arriving = list(self.requests)
        while True:
            own = min((w.next_s() for w in self.workers), default=math.inf)
            prompt = min(self.prompts, default=(math.inf, 0))
            arrival = arriving[0].arrival_s if arriving else math.inf
            if min(own, prompt[0], arrival) == math.inf:
                return
            if own <= min(prompt[0], arrival):
                for worker in self.workers:
                    if worker.next_s() == own:
                        self.boundary(worker, own)
            elif prompt[0] <= arrival:
                self.prompts.remove(prompt)
                self.decode(self.requests[prompt[1]], prompt[0])
            else:
                self.arrive(arriving.pop(0), arrival)

    def choose(self, request: Request, t: float, *, decoding: bool) -> Worker | None:
        able = [
            (i, w)
            for i, w in enumerate(self.workers)
            if (w.role is Role.DECODE) == decoding and w.holds(request)
        ]
        if not decoding and not any(
            w.holds(request) for w in self.workers if w.role is Role.DECODE
        ):
            able = [(i, w) for i, w in able if w.role is Role.AGGREGATED]
        if not able:
            return None
        ready = [(i, w) for i, w in able if w.ready_s <= t]
        count = len(self.workers)
        turn = self.turns[decoding]
        if not ready:
            order = able
            if self.policy is RouterPolicy.ROUND_ROBIN:
                order = sorted(able, key=lambda x: (x[0] - turn) % count)
            best = min(order, key=lambda x: x[1].ready_s)
        elif self.policy is RouterPolicy.ROUND_ROBIN:
            best = min(ready, key=lambda x: (x[0] - turn) % count)
        else:
            best = ready[0]
            for i, w in ready[1:]:
                mine, other = self.load(i, w, request, t), self.load(*best, request, t)
                if mine < other - 1e-12 or (
                    abs(mine - other) <= 1e-12 and w.present() < best[1].present()
                ):
                    best = (i, w)
        self.turns[decoding] = best[0] + 1
        return best[1]

    def load(self, index: int, worker: Worker, request: Request, t: float) -> float:
        if worker.role is Role.DECODE:
            return (worker.present() + 1) * self.slowness[index]
        prefill_s = worker.prefill_s(request)
        if worker.role is Role.PREFILL:
            assert self.first_decode is not None
            handoff_s = self.first_decode.transfer_s(request) + self.first_decode.step_s(
                1, float(request.input_tokens)
            )
            return max(worker.free_s - t, 0.0) + prefill_s + handoff_s
        batch = len(worker.running) + 1
        context = sum(r.input_tokens + len(r.token_s) for r in worker.running)
        context += request.input_tokens
        slots = worker.profile.limits.max_num_seqs
        step_s = worker.step_s(min(batch, slots), context / batch)
        return max(worker.outstanding_s, 0.0) + prefill_s + step_s

    def arrive(self, request: Request, t: float) -> None:
        worker = self.choose(request, t, decoding=False)
        if worker is None:
            return
        request.overhead_s = worker.profile.first_token_s
        if worker.role is Role.PREFILL:
            worker.free_s = max(worker.free_s, t) + worker.prefill_s(request)
            self.prompts.append((worker.free_s, request.index))
            return
        worker.outstanding_s += worker.prefill_s(request)
        request.kv_arrives_s = t
        worker.waiting.append(request)

    def decode(self, request: Request, t: float) -> None:
        worker = self.choose(request, t, decoding=True)
        assert worker is not None
        request.kv_arrives_s = t
        worker.waiting.append(request)
        if worker.ready_s <= t:
            self.admit(worker, t)

    def admit(self, worker: Worker, t: float) -> None:
        while worker.waiting and worker.room_for(worker.waiting[0]):
            request = worker.waiting.pop(0)
            request.kv_arrives_s = t + worker.transfer_s(request)
            worker.moving.append(request)

    def boundary(self, worker: Worker, t: float) -> None:
        if worker.step_ends_s is not None:
            for request in worker.running + worker.completing:
                request.token_s.append(t)
            worker.running = [r for r in worker.running + worker.completing if not r.done]
            worker.completing = []
            worker.outstanding_s -= worker.step_prompt_s
            worker.step_prompt_s = 0.0
            worker.step_ends_s = None
        if worker.role is Role.DECODE:
            self.admit(worker, t)
            worker.running += [r for r in worker.moving if r.kv_arrives_s <= t]
            worker.moving = [r for r in worker.moving if r.kv_arrives_s > t]
        else:
            self.compute_prompts(worker)
        seconds = worker.step_prompt_s
        if worker.running:
            context = sum(r.input_tokens + len(r.token_s) for r in worker.running)
            seconds += worker.step_s(len(worker.running), context / len(worker.running))
        if seconds > 0:
            worker.step_ends_s = t + seconds

    def compute_prompts(self, worker: Worker) -> None:
        budget = max(worker.profile.limits.max_num_batched_tokens - len(worker.running), 1)
        while budget > 0:
            if worker.chunked is None:
                if not worker.waiting or not worker.room_for(worker.waiting[0]):
                    return
                worker.chunked = worker.waiting.pop(0)
                worker.chunked.prompt_left = worker.chunked.new_tokens
            request = worker.chunked
            chunk = min(request.prompt_left, budget)
            worker.step_prompt_s += worker.prefill_s(request) * chunk / request.new_tokens
            request.prompt_left -= chunk
            budget -= chunk
            if request.prompt_left == 0:
                worker.completing.append(request)
                worker.chunked = None

"""The twin's rules (`docs/twin.md`) once more: token by token, in plain Python, as plain as can be.

Every step of every worker is an event; blocks are counted sequence by sequence; nothing is kept
that can be counted anew. Slow on purpose, and written without the machine's arrays.
"""

import heapq
import itertools
import math
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.simulate import Event, Incident, Outcome, ReplicaGroup, RouterPolicy, Scenario
from tests.planner.simulate.reference_parts import (
    Flow,
    Network,
    can_hold,
    prompt_s,
    relative_speeds,
)

NEVER = math.inf


@dataclass(eq=False)
class Request:
    """One request, and where it has got to."""

    number: int
    arrival_s: float
    prompt: int
    answer: int
    given_cached: int
    units: list[int]
    fits: list[bool]
    place: str = "away"
    worker: "Worker | None" = None
    source: "Worker | None" = None
    outcome: Outcome = Outcome.NOT_ARRIVED
    token_s: list[float] = field(default_factory=list)
    generated: int = 0  # tokens of the answer so far
    in_kv: int = 0  # tokens whose KV is here
    cached: int = 0
    computed: int = 0  # tokens of the prompt computed here, cached ones aside
    expected_s: float = 0.0  # prompt seconds that its router counts while it is in line
    left_s: float = 0.0  # prompt seconds that are still to come once it is being computed
    chunk_s: float = 0.0
    admission: int = 0
    preemptions: int = 0
    has_left: bool = False
    prompt_group: int = -1
    decode_group: int = -1
    finished_s: float = math.nan
    stuck_since_s: float = 0.0  # since when it stands in this line
    noticed_s: float = 0.0  # when its worker was first told of it, or of its KV cache


@dataclass(eq=False)
class Worker:
    """One replica."""

    number: int
    group: int
    spec: ReplicaGroup
    block_tokens: int
    unit_blocks: int
    ready_s: float
    state: str = "serving"
    flips_to: int | None = None
    wakes_s: float = NEVER  # end of the step, or when to look if idle
    stepping: bool = False
    begun_s: list[float] = field(default_factory=list)  # steps since it was idle
    line_until_s: float = NEVER  # who stood in line before, may be let in now
    kv_until_s: float = NEVER  # whose KV cache was there before, may join now
    line: list[Request] = field(default_factory=list)
    batch: list[Request] = field(default_factory=list)
    partial: Request | None = None
    completing: list[Request] = field(default_factory=list)  # prompts that the step completes
    coming: list[Request] = field(default_factory=list)  # KV on its way
    arrived: list[Request] = field(default_factory=list)
    held: list[Request] = field(default_factory=list)  # computed here, to be pulled
    own: dict[Request, int] = field(default_factory=dict)  # tokens that a request's blocks hold
    users: dict[int, int] = field(default_factory=dict)  # of prefix units in use
    kept: "OrderedDict[int, None]" = field(default_factory=OrderedDict)  # units without users
    admissions: int = 0
    life: int = 0  # how often it was started

    @property
    def profile(self) -> Profile:
        return self.spec.profile

    @property
    def capacity(self) -> int:
        return self.profile.limits.kv_capacity_tokens // self.block_tokens

    @property
    def slots(self) -> int:
        """Slots in use."""
        return (
            len(self.batch) + len(self.completing) + (self.partial is not None)
            + len(self.coming) + len(self.arrived)
        )  # fmt: skip

    @property
    def present(self) -> int:
        return self.slots + len(self.line)

    def blocks(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    @property
    def used(self) -> int:
        own = sum(
            self.blocks(tokens) - len(r.units) * self.unit_blocks for r, tokens in self.own.items()
        )
        return own + len(self.users) * self.unit_blocks

    def make_room(self) -> None:
        while self.used + len(self.kept) * self.unit_blocks > self.capacity:
            self.kept.popitem(last=False)

    def hit_tokens(self, request: Request, prefix: bool) -> int:
        if not prefix:
            return min(request.given_cached, request.prompt - 1)
        there = itertools.takewhile(lambda u: u in self.users or u in self.kept, request.units)
        tokens = len(list(there)) * self.unit_blocks * self.block_tokens
        return min(tokens, request.prompt - 1)

    def room_for(self, request: Request, tokens: int) -> bool:
        shared = sum(u in self.users for u in request.units)
        return self.used + self.blocks(tokens) - shared * self.unit_blocks <= self.capacity

    def take(self, request: Request, tokens: int) -> None:
        for unit in request.units:
            self.kept.pop(unit, None)
            self.users[unit] = self.users.get(unit, 0) + 1
        self.own[request] = tokens
        self.make_room()

    def give_back(self, request: Request) -> None:
        del self.own[request]
        for unit in reversed(request.units):
            self.users[unit] -= 1
            if self.users[unit] == 0:
                del self.users[unit]
                self.kept[unit] = None

    def decode_s(self, batch: int, context: float) -> float:
        return float(self.profile.decode_step.extended_at(batch, context))

    def outstanding_s(self) -> float:
        """Prompt seconds in line and in work, the step in progress included."""
        waiting = sum(r.expected_s for r in self.line if r.place == "in line")
        work = [*self.completing, *([self.partial] if self.partial else [])]
        return waiting + sum(r.left_s for r in work)


class Reference:
    """Runs a scenario (without a policy)."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        workload = scenario.workload
        self.prefix = workload.prefix if scenario.prefix_cache else None
        unit = self.prefix.block_tokens if self.prefix is not None else 0
        self.requests = [
            Request(
                number=i,
                arrival_s=float(workload.arrival_offset_s[i]),
                prompt=int(workload.input_tokens[i]),
                answer=int(workload.output_tokens[i]),
                given_cached=int(workload.cached_tokens[i]),
                units=self._units(i),
                fits=[can_hold(scenario, g, i) for g in range(len(scenario.groups))],
            )
            for i in range(len(workload))
        ]
        self.workers: list[Worker] = []
        for g, group in enumerate(scenario.groups):
            block = group.profile.limits.kv_block_tokens
            size = math.gcd(block, unit) if unit else block
            for k in range(group.room):
                self.workers.append(
                    Worker(
                        len(self.workers), g, group, size, unit // size, group.start_delay_s,
                        state="serving" if k < group.replicas else "absent",
                    )
                )  # fmt: skip
        self.speeds = relative_speeds(scenario)
        self.network = Network(scenario, self.workers)
        self.now_s = 0.0
        self.turns = {"prompt": 0, "answer": 0}
        self.moving: list[tuple[float, int]] = []
        self.arrivals = list(self.requests)
        self.agenda = [(e.at_s, i, e) for i, e in enumerate(scenario.events)]
        heapq.heapify(self.agenda)
        self.goings: list[tuple[float, int]] = []
        if scenario.patience_s is not None:
            leaves_s = workload.arrival_offset_s + scenario.patience_s
            self.goings = sorted((float(t), i) for i, t in enumerate(leaves_s) if t < NEVER)
        self.stopped = False
        self.ends_life: dict[int, int] = {}  # ends of notice: which life they end
        self.kept_events: list[Event] = []

    def _units(self, i: int) -> list[int]:
        if self.prefix is None:
            return []
        full = int(self.scenario.workload.input_tokens[i]) // self.prefix.block_tokens
        return [int(u) for u in self.prefix.of(i)[:full]]

    # The course of events

    def run(self) -> "Reference":
        while not self.stopped:
            worker = min(self.workers, key=lambda w: (w.wakes_s, w.number))
            times = [
                worker.wakes_s,
                self.moving[0][0] if self.moving else NEVER,
                self.network.next_end_s,
                self.arrivals[0].arrival_s if self.arrivals else NEVER,
                self.goings[0][0] if self.goings else NEVER,
            ]
            if min(times) == NEVER:
                break
            if self.agenda and self.agenda[0][0] < min(times):
                self.now_s, _, event = heapq.heappop(self.agenda)
                self.happen(event)
                continue
            self.now_s = min(times)
            kind = times.index(self.now_s)
            if kind == 0:
                self.boundary(worker)
            elif kind == 1:
                self.kv_arrives(self.requests[heapq.heappop(self.moving)[1]])
            elif kind == 2:
                for flow in self.network.end(self.now_s):
                    self.push_moving(self.now_s + flow.base_s, flow.request)
            elif kind == 3:
                self.route(self.arrivals.pop(0))
            else:
                self.client_leaves(self.requests[self.goings.pop(0)[1]])
        return self

    def push_moving(self, at_s: float, request: int) -> None:
        heapq.heappush(self.moving, (at_s, request))

    def wake(self, worker: Worker) -> None:
        if not worker.stepping:
            worker.wakes_s = max(self.now_s, worker.ready_s)

    # Choosing a worker

    def route(self, r: Request) -> None:
        r.outcome, r.place = Outcome.IN_FLIGHT, "away"
        worker = self.decoder_for_short(r) or self.choose(r, "prompt")
        if worker is None:
            self.end(r, Outcome.REJECTED)
            return
        own_s = self.own_prompt_s(worker, r)
        if self.scenario.early_rejection_s < NEVER:
            wait_s = max(worker.ready_s - self.now_s, 0.0)
            if worker.spec.role is Role.PREFILL:
                wait_s += self.shortest_answer_wait_s(r)
            if self.expected_s(worker, r, own_s) + wait_s > self.scenario.early_rejection_s:
                self.end(r, Outcome.REJECTED)
                return
        r.prompt_group = worker.group
        if worker.spec.role is not Role.PREFILL:
            r.decode_group = worker.group
        r.place, r.expected_s = "in line", own_s
        self.join_line(worker, r)

    def shortest_answer_wait_s(self, r: Request) -> float:
        """How long the first in line has waited, where among decoders that is shortest."""
        waits = [
            (self.now_s - w.line[0].stuck_since_s if w.line else 0.0)
            + max(w.ready_s - self.now_s, 0.0)
            for w in self.workers
            if w.spec.role is Role.DECODE and w.state == "serving" and r.fits[w.group]
        ]  # fmt: skip
        return min(waits, default=0.0)

    def decoder_for_short(self, r: Request) -> Worker | None:
        if self.scenario.local_prefill_tokens == 0:
            return None
        turn = self.turns["answer"]
        worker = self.choose(r, "answer")
        if worker is not None:
            new = r.prompt - worker.hit_tokens(r, self.prefix is not None)
            if new < self.scenario.local_prefill_tokens:
                return worker
        self.turns["answer"] = turn
        return None

    def choose(self, r: Request, what: str, origin: Worker | None = None) -> Worker | None:
        able = [
            w for w in self.workers
            if w.state == "serving" and r.fits[w.group]
            and (w.spec.role is Role.DECODE) == (what == "answer")
        ]  # fmt: skip
        ready = [w for w in able if w.ready_s <= self.now_s]
        in_turn = self.scenario.router is RouterPolicy.ROUND_ROBIN
        if not able:
            return None
        turn, count = self.turns[what], len(self.workers)
        if in_turn:
            first = min if ready else None
            by_turn = sorted(able, key=lambda w: (w.number - turn) % count)
            if first is not None:
                chosen = next(w for w in by_turn if w in ready)
            else:
                chosen = min(by_turn, key=lambda w: w.ready_s)
            self.turns[what] = chosen.number + 1
            return chosen
        if not ready:
            return min(able, key=lambda w: w.ready_s)
        best, best_load = ready[0], self.load(ready[0], r, what)
        for w in ready[1:]:
            load = self.load(w, r, what)
            same = abs(load - best_load) <= 1e-12
            if (load < best_load and not same) or (same and self.goes_before(w, best, origin)):
                best, best_load = w, load
        return best

    def goes_before(self, w: Worker, best: Worker, origin: Worker | None) -> bool:
        if w.present != best.present or origin is None:
            return w.present < best.present
        return self.network.distance(w, origin) < self.network.distance(best, origin)

    def load(self, w: Worker, r: Request, what: str) -> float:
        if what == "answer":
            return (w.present + 1) / self.speeds[w.group]
        return self.expected_s(w, r, self.own_prompt_s(w, r))

    def own_prompt_s(self, w: Worker, r: Request) -> float:
        cached = 0
        if self.scenario.router is RouterPolicy.PREFIX_AWARE or self.prefix is None:
            cached = w.hit_tokens(r, self.prefix is not None)
        return prompt_s(w.profile, r.prompt - cached, cached)

    def expected_s(self, w: Worker, r: Request, own_s: float) -> float:
        waiting_s = w.outstanding_s() + own_s
        if w.spec.role is not Role.PREFILL:
            batch = len(w.batch) + 1
            context = (sum(x.prompt + x.generated for x in w.batch) + r.prompt) / batch
            return waiting_s + w.decode_s(min(batch, w.profile.limits.max_num_seqs), context)
        for group in self.scenario.groups:
            if group.role is Role.DECODE:
                kv_bytes = r.prompt * group.profile.limits.kv_bytes_per_token
                moved_s = float(group.profile.transfer.seconds(kv_bytes))
                step_s = float(group.profile.decode_step.extended_at(1, r.prompt))
                return waiting_s + moved_s + step_s
        return waiting_s

    def join_line(self, w: Worker, r: Request) -> None:
        w.line.append(r)
        r.worker, r.noticed_s, r.stuck_since_s = w, self.now_s, self.now_s
        self.look_at(w.line[0])
        self.wake(w)

    def look_at(self, first: Request) -> None:
        if self.now_s - first.stuck_since_s > self.scenario.unstable_wait_s:
            self.stopped = True

    # A worker's step

    def boundary(self, w: Worker) -> None:
        w.wakes_s = NEVER
        w.line_until_s = w.kv_until_s = NEVER
        if w.stepping:
            w.stepping = False
            self.end_step(w)
            self.look_back(w)
        else:
            w.begun_s = []
        self.next_step(w)
        if not w.stepping and w.kv_until_s < NEVER:
            w.begun_s = []
            w.line_until_s = w.kv_until_s = NEVER
            self.next_step(w)
        self.settle(w)

    def look_back(self, w: Worker) -> None:
        """What the step after those in `begun_s` may know of."""
        limits = w.profile.limits
        steps_back = limits.async_scheduling + limits.late_kv_notice
        if limits.async_scheduling:
            w.line_until_s = w.begun_s[-1]
        if steps_back:
            w.kv_until_s = w.begun_s[-steps_back] if steps_back <= len(w.begun_s) else w.begun_s[0]

    def next_step(self, w: Worker) -> None:
        self.join_batch(w)
        preempted = self.preempt(w)
        for r in w.batch:
            w.own[r] = r.in_kv + 1  # where the next token's KV goes
        w.make_room()
        self.start_step(w, admits=not preempted)

    def end_step(self, w: Worker) -> None:
        for r in w.completing:
            r.left_s -= r.chunk_s
        if w.partial is not None:
            w.partial.left_s -= w.partial.chunk_s
        for r in w.batch:
            r.token_s.append(self.now_s)
            r.generated += 1
            r.in_kv += 1
        for r in sorted(w.batch, key=lambda r: r.number):
            if r.generated == r.answer:
                self.leave_batch(w, r)
        for r in sorted(w.batch, key=lambda r: r.number):
            if r.has_left:
                self.leave_batch(w, r)
        completed, w.completing = w.completing, []
        for i, r in enumerate(completed):
            w.completing = completed[i + 1 :]  # they keep their slots until it is their turn
            if r.has_left:
                w.give_back(r)
                r.place = "away"
            elif w.spec.role is Role.PREFILL:
                self.hand_over(w, r)
            else:
                self.end_prompt(w, r)
        if w.partial is not None and w.partial.has_left:
            w.give_back(w.partial)
            w.partial.place, w.partial = "away", None

    def leave_batch(self, w: Worker, r: Request) -> None:
        w.batch.remove(r)
        w.give_back(r)
        r.place = "away"
        if not r.has_left:
            self.end(r, Outcome.FINISHED)

    def end_prompt(self, w: Worker, r: Request) -> None:
        r.token_s.append(self.now_s)
        r.in_kv = r.prompt + r.generated
        r.generated += 1
        if r.generated == r.answer:
            w.give_back(r)
            self.end(r, Outcome.FINISHED)
        else:
            r.place = "running"
            w.batch.append(r)

    def hand_over(self, p: Worker, r: Request) -> None:
        r.source = p
        p.held.append(r)
        worker = self.choose(r, "answer", origin=p)
        if worker is None:
            self.release_source(r)
            self.end(r, Outcome.FAILED)
            return
        r.decode_group, r.place = worker.group, "to pull"
        self.join_line(worker, r)

    def release_source(self, r: Request) -> None:
        p, r.source = r.source, None
        assert p is not None
        p.held.remove(r)
        p.give_back(r)
        self.wake(p)

    def join_batch(self, w: Worker) -> None:
        joining = [r for r in w.arrived if r.noticed_s < w.kv_until_s]
        w.arrived = [r for r in w.arrived if r not in joining]
        for r in joining:
            if r.has_left:
                w.give_back(r)
                r.place = "away"
            else:
                r.place, r.in_kv = "running", r.prompt
                w.batch.append(r)

    def preempt(self, w: Worker) -> bool:
        any_was = False
        while w.batch:
            growth = sum(r.in_kv % w.block_tokens == 0 for r in w.batch)
            if w.used + growth <= w.capacity:
                break
            those = [*w.batch, *([w.partial] if w.partial else [])]
            r = max(those, key=lambda r: r.admission)
            if r is w.partial:
                w.partial = None
            else:
                w.batch.remove(r)
            r.stuck_since_s = self.now_s
            w.give_back(r)
            r.preemptions += 1
            r.place, r.noticed_s = "in line", -NEVER
            r.expected_s = prompt_s(w.profile, r.prompt + r.generated, 0)
            w.line.insert(0, r)
            any_was = True
        return any_was

    def start_step(self, w: Worker, *, admits: bool) -> None:
        batch = len(w.batch)
        seconds = 0.0
        if batch:
            context = sum(r.prompt + r.generated for r in w.batch) / batch
            seconds = w.decode_s(batch, context)
        chunks_s, fixed_s = self.fill(w, admits=admits)
        if not batch and fixed_s is None:
            return
        if not batch:
            seconds = fixed_s or 0.0
        w.stepping = True
        w.begun_s.append(self.now_s)
        w.wakes_s = self.now_s + seconds + chunks_s

    def fill(self, w: Worker, *, admits: bool) -> tuple[float, float | None]:
        limits = w.profile.limits
        budget = max(limits.max_num_batched_tokens - len(w.batch), 1)
        chunks_s, fixed_s = 0.0, None
        while budget > 0:
            if w.partial is None:
                if not admits or not self.admit(w):
                    break
                continue
            r = w.partial
            whole = r.prompt + r.generated - r.cached
            if fixed_s is None:
                fixed_s = prompt_s(w.profile, 0, r.cached)
            chunk = min(whole - r.computed, budget)
            before_s = prompt_s(w.profile, r.computed, r.cached)
            r.computed += chunk
            budget -= chunk
            r.chunk_s = prompt_s(w.profile, r.computed, r.cached) - before_s
            chunks_s += r.chunk_s
            if r.computed == whole:
                w.partial = None
                w.completing.append(r)
        return chunks_s, fixed_s

    def admit(self, w: Worker) -> bool:
        """Let the first in line in; whether anybody was."""
        if not w.line or w.slots >= w.profile.limits.max_num_seqs:
            return False
        r = w.line[0]
        tokens = r.prompt + r.generated
        if r.noticed_s >= w.line_until_s:
            return False
        if not w.room_for(r, tokens):
            return False
        cached = w.hit_tokens(r, self.prefix is not None)
        self.look_at(r)
        w.line.pop(0)
        w.take(r, tokens)
        r.admission, w.admissions = w.admissions, w.admissions + 1
        if r.place == "to pull":
            r.place = "moving"
            w.coming.append(r)
            missing = r.prompt - (cached if self.prefix is not None else 0)
            self.pull(w, r, missing * w.profile.limits.kv_bytes_per_token)
        else:
            r.place, r.cached, r.computed = "computing", cached, 0
            whole_s = prompt_s(w.profile, tokens - cached, cached)
            r.left_s = whole_s - prompt_s(w.profile, 0, cached)
            w.partial = r
        return True

    def pull(self, w: Worker, r: Request, kv_bytes: float) -> None:
        if self.scenario.topology is None:
            self.push_moving(self.now_s + float(w.profile.transfer.seconds(kv_bytes)), r.number)
        else:
            assert r.source is not None
            self.network.begin(Flow(r.number, kv_bytes), r.source, w, self.now_s)

    def kv_arrives(self, r: Request) -> None:
        w, p = r.worker, r.source
        assert w is not None
        assert p is not None
        self.release_source(r)
        self.settle(p)
        w.coming.remove(r)
        if r.has_left:
            w.give_back(r)
            r.place = "away"
        else:
            r.place, r.noticed_s = "arrived", self.now_s
            w.arrived.append(r)
        self.wake(w)

    # Ends and accidents

    def end(self, r: Request, outcome: Outcome) -> None:
        r.outcome, r.place = outcome, "away"
        if outcome is Outcome.FINISHED:
            r.finished_s = self.now_s

    def client_leaves(self, r: Request) -> None:
        if r.outcome is not Outcome.IN_FLIGHT:
            return
        r.outcome, r.has_left, w = Outcome.ABORTED, True, r.worker
        assert w is not None
        if r.place in ("in line", "to pull"):
            w.line.remove(r)
            if r.place == "to pull":
                p = r.source
                assert p is not None
                self.release_source(r)
                self.settle(p)
            r.place = "away"
        self.wake(w)
        self.settle(w)

    def settle(self, w: Worker) -> None:
        if w.state != "draining" or w.present or w.held or w.stepping:
            return
        if w.flips_to is None:
            w.state = "absent"
            return
        before = (w.capacity, w.unit_blocks)
        w.group, w.flips_to = w.flips_to, None
        w.spec = self.scenario.groups[w.group]
        unit = self.prefix.block_tokens if self.prefix is not None else 0
        block = w.profile.limits.kv_block_tokens
        w.block_tokens = math.gcd(block, unit) if unit else block
        w.unit_blocks = unit // w.block_tokens
        w.state = "serving"
        w.ready_s = max(w.ready_s, self.now_s) + w.profile.lifecycle.flip_s
        if before != (w.capacity, w.unit_blocks):
            w.kept.clear()

    def happen(self, event: Event) -> None:
        first = sum(g.room for g in self.scenario.groups[: event.group])
        w = self.workers[first + event.replica]
        if event.incident is Incident.FAIL:
            if w.state != "absent" and self.ends_life.get(id(event), w.life) == w.life:
                self.fail(w, restarts=event.restarts)
            return
        if event.incident is Incident.RECLAIM and w.state != "absent":
            gone = Event(
                at_s=self.now_s + event.notice_s, incident=Incident.FAIL, group=event.group,
                replica=event.replica, restarts=False,
            )  # fmt: skip
            self.ends_life[id(gone)] = w.life
            self.kept_events.append(gone)
            heapq.heappush(self.agenda, (gone.at_s, len(self.kept_events) + 1000, gone))
        if w.state == "draining" and event.incident is not Incident.FLIP:
            w.flips_to = None
        if w.state == "serving":
            w.state = "draining"
            if event.incident is Incident.FLIP:
                w.flips_to = event.to_group
            self.settle(w)

    def fail(self, w: Worker, *, restarts: bool) -> None:
        lost = [r for r in self.requests if r.place != "away" and w in (r.worker, r.source)]
        for r in [r for r in lost if r.worker is w]:
            self.stop_moving(r)
            if r.source not in (None, w):
                p = r.source
                self.release_source(r)
                assert p is not None
                self.settle(p)
        for r in [r for r in lost if r.worker is not w]:
            other = r.worker
            assert other is not None
            self.stop_moving(r)
            if r.place == "moving":
                other.coming.remove(r)
                other.give_back(r)
            else:
                other.line.remove(r)
            self.wake(other)
            self.settle(other)
        group = w.group
        fresh = Worker(w.number, group, w.spec, w.block_tokens, w.unit_blocks, w.ready_s)
        w.__dict__.update(fresh.__dict__, state="absent", life=w.life)
        if restarts:
            w.state, w.ready_s = "serving", self.now_s + w.spec.order_to_ready_s
            w.life += 1
        for r in lost:
            r.place, r.source = "away", None
            if r.outcome is not Outcome.IN_FLIGHT:
                continue
            if r.token_s:
                self.end(r, Outcome.FAILED)
            else:
                r.generated = 0
                self.route(r)

    def stop_moving(self, r: Request) -> None:
        self.moving = [(t, i) for t, i in self.moving if i != r.number]
        heapq.heapify(self.moving)
        self.network.stop(r.number, self.now_s)


def replay_token_by_token(scenario: Scenario) -> Reference:
    """Run the reference."""
    return Reference(scenario).run()


def columns(reference: Reference) -> dict[str, np.ndarray]:
    """What happened, in the twin's columns; instants from the start."""
    requests = reference.requests
    return {
        "outcome": np.array([r.outcome for r in requests]),
        "first_token_s": np.array([r.token_s[0] if r.token_s else math.nan for r in requests]),
        "finished_s": np.array([r.finished_s for r in requests]),
        "preemptions": np.array([r.preemptions for r in requests]),
        "cached_tokens": np.array([r.cached for r in requests]),
        "prompt_group": np.array([r.prompt_group for r in requests]),
        "decode_group": np.array([r.decode_group for r in requests]),
    }

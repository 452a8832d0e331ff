"""Run the twin: lay the scenario out, let the machine run, steer it, read what happened."""

import heapq
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from planner.domain.fleet import Role
from planner.domain.wanted import can_be_given_up, go_on
from planner.domain.wording import agreed, counted
from planner.simulate.jitter import spread_gaps
from planner.simulate.layout import SAMPLES, lay_out, outside_answers, outside_prompts
from planner.simulate.observe import Onlooker, observe, series
from planner.simulate.policy import Targets
from planner.simulate.result import Outcome, SimulationResult, Stopped
from planner.simulate.scenario import Event, Incident, Scenario
from planner.simulate.state import (
    ABSENT,
    DRAIN,
    FAIL,
    FLIP,
    NOBODY,
    SERVING,
    START,
    UNDER_WAY,
    Twin,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def simulate(
    scenario: Scenario, *, progress: Callable[[int, int], None] | None = None
) -> SimulationResult:
    """Replay the workload until every request has ended; the rules are in `docs/twin.md`.

    Parameters
    ----------
    progress : function of (arrived, requests) or None
        Called now and then.

    Raises
    ------
    InputError
        When a request names the same prefix block twice.
    NotWantedError
        When whoever asked gave it up (`planner.domain.wanted`).

    References
    ----------
    Continuous batching: Yu et al., Orca (OSDI 2022); paged KV cache and preemption by
    recomputation: Kwon et al., vLLM (SOSP 2023); chunked prefill: Agrawal et al., Sarathi-Serve
    (OSDI 2024); split of prompt and answer: Zhong et al., DistServe (OSDI 2024).
    """
    steered = _Run(scenario)
    steered.to_the_end(progress)
    return steered.result()


class _Run:
    """A run in slices: the machine goes on by itself between ticks and events."""

    def __init__(self, scenario: Scenario) -> None:
        from planner.simulate.machine.loop import run  # numba takes a second to import

        self.scenario = scenario
        self.twin: Twin = lay_out(scenario)
        self.onlooker = Onlooker(self.twin)
        self._machine = run
        self._overhead_s = np.array([g.profile.first_token_s for g in scenario.groups])
        first = np.concatenate([[0], np.cumsum([g.room for g in scenario.groups])])
        self._first_worker: list[int] = [int(w) for w in first]
        self._agenda: list[tuple[float, int, int]] = []
        self._events: list[Event] = list(scenario.events)
        self._reclaimed: dict[int, int] = {}  # ends of notice: which life they end
        for i, event in enumerate(scenario.events):
            heapq.heappush(self._agenda, (event.at_s, 0, i))
        if scenario.policy is not None and scenario.policy.first_tick_s < math.inf:
            heapq.heappush(self._agenda, (max(scenario.policy.first_tick_s, 0.0), 1, 0))
        self._since_s = 0.0

    def to_the_end(self, progress: Callable[[int, int], None] | None) -> None:
        """Let everything happen."""
        clock = self.twin.clock
        looks = progress is not None or can_be_given_up()
        told_s, next_s = 0.0 if looks else math.inf, 0.0
        while next_s < math.inf:
            due_s = self._agenda[0][0] if self._agenda else math.inf
            next_s = self._machine(self.twin, min(due_s, told_s))
            if clock.stopped_by[0] != NOBODY:
                break
            if due_s <= told_s and next_s < math.inf:
                self._at(due_s)
                # Whether anything can still happen: events alone keep no finished run going.
                next_s = float(self._machine(self.twin, due_s))
            elif looks and next_s < math.inf:
                go_on()
                if progress is not None:
                    progress(int(clock.arrived[0]), len(self.scenario.workload))
                told_s = max(told_s + self.scenario.workload.duration_s / SAMPLES, next_s)

    def _at(self, t_s: float) -> None:
        """Events and ticks of one instant."""
        self.twin.clock.now_s[0] = t_s
        while self._agenda and self._agenda[0][0] <= t_s:
            _, kind, i = heapq.heappop(self._agenda)
            if kind == 0:
                self._happen(i, t_s)
            else:
                self._tick(t_s)

    def _command(self, command: int, w: int, extra: float = 0.0) -> None:
        from planner.simulate.machine.lifecycle import change  # compiled only when asked for

        change(self.twin, command, w, extra)

    def _happen(self, number: int, t_s: float) -> None:
        event = self._events[number]
        w = self._first_worker[event.group] + event.replica
        life = self._reclaimed.get(number)
        if life is not None and life != int(self.twin.workers.life[w]):
            return  # another replica has taken the place meanwhile
        if event.incident is Incident.FAIL:
            self._command(FAIL, w, float(event.restarts))
        elif event.incident is Incident.DRAIN:
            self._command(DRAIN, w)
        elif event.incident is Incident.FLIP:
            self._command(FLIP, w, float(event.to_group))
        elif self.twin.workers.state[w] != ABSENT:
            self._command(DRAIN, w)
            self._reclaimed[len(self._events)] = int(self.twin.workers.life[w])
            gone = Event(
                at_s=t_s + event.notice_s,
                incident=Incident.FAIL,
                group=event.group,
                replica=event.replica,
                restarts=False,
            )
            self._events.append(gone)
            heapq.heappush(self._agenda, (gone.at_s, 0, len(self._events) - 1))

    def _tick(self, t_s: float) -> None:
        policy = self.scenario.policy
        if policy is None:
            return
        seen = observe(self.twin, self.onlooker, t_s, self._since_s, self._overhead_s)
        targets = policy.on_tick(seen)
        self.scenario.check_targets(targets, t_s=t_s)
        self._since_s = t_s
        if t_s < targets.next_tick_s < math.inf:
            heapq.heappush(self._agenda, (targets.next_tick_s, 1, 0))
        self._steer(targets)

    def _steer(self, targets: Targets) -> None:
        for flip in targets.flips:
            for w in self._surplus(flip.from_group, flip.replicas, ready=True):
                self._command(FLIP, w, float(flip.to_group))
        if targets.replicas is None:
            return
        for g, wanted in enumerate(targets.replicas):
            workers = self.twin.workers
            there = int(((workers.group == g) & (workers.state == SERVING)).sum())
            there += int((workers.flips_to == g).sum())
            if wanted < there:
                for w in self._surplus(g, there - wanted):
                    self._command(DRAIN, w)
            rows = range(self._first_worker[g], self._first_worker[g + 1])
            absent = [w for w in rows if workers.state[w] == ABSENT]
            for w in absent[: max(wanted - there, 0)]:
                self._command(START, w, float(g))

    def _surplus(self, g: int, count: int, *, ready: bool = False) -> list[int]:
        """Serving replicas that go first: starting ones (not if `ready`), then the emptiest."""
        workers, now_s = self.twin.workers, self.twin.clock.now_s[0]
        there = (workers.group == g) & (workers.state == SERVING)
        those = np.flatnonzero(there & (workers.ready_s <= now_s) if ready else there)
        order = sorted(
            (int(w) for w in those),
            key=lambda w: (workers.ready_s[w] <= now_s, int(workers.present[w]), -w),
        )
        return order[:count]

    def result(self) -> SimulationResult:
        """What happened, as columns."""
        scenario, twin = self.scenario, self.twin
        workload, records = scenario.workload, twin.records
        arrived = int(twin.clock.arrived[0])
        first_token_s = np.array(records.first_token_s)
        first_token_s[first_token_s > float(twin.clock.now_s[0])] = np.nan
        outcome = records.end.astype(np.int8)
        outcome[arrived:] = Outcome.NOT_ARRIVED
        now_s = float(twin.clock.now_s[0])
        tpot_s = records.finished_s - first_token_s
        tpot_s /= np.maximum(workload.output_tokens - 1, 1)
        tpot_s[workload.output_tokens == 1] = np.nan
        ttft_s, e2e_s = first_token_s, np.array(records.finished_s)
        since_s = self._overhead_s[records.first_group]
        since_s -= workload.arrival_offset_s
        ttft_s += since_s
        e2e_s += since_s
        end_s = max(workload.duration_s, now_s) if self._stopped() is None else now_s
        return SimulationResult(
            arrival_s=workload.arrival_offset_s,
            ttft_s=ttft_s,
            tpot_s=tpot_s,
            e2e_s=e2e_s,
            prompt_started_s=records.prompt_started_s,
            prompt_done_s=records.prompt_done_s,
            decode_started_s=records.joined_s,
            outcome=outcome,
            prompt_group=records.first_group,
            decode_group=records.decode_group,
            cached_tokens=records.hit_tokens,
            preemptions=records.preemptions,
            input_tokens=workload.input_tokens,
            output_tokens=workload.output_tokens,
            request_class=workload.request_class,
            gap_counts=twin.gaps,
            itl_counts=spread_gaps(twin.gaps, self.scenario.groups, self._written()),
            utilization_ratio=self._utilization(end_s),
            series=series(twin, self.onlooker, now_s),
            end_s=end_s,
            accelerator_hours=self._accelerator_hours(end_s),
            usd=self._usd(end_s),
            kv_peak_ratio=self._kv_peak(),
            stopped=self._stopped(),
            extrapolated_requests=self._extrapolated(),
        )

    def _written(self) -> Floats:
        """(groups,) tokens of answers that each group was asked for."""
        group = self.twin.records.decode_group
        asked = group >= 0
        return np.bincount(
            group[asked],
            weights=self.scenario.workload.output_tokens[asked],
            minlength=len(self.scenario.groups),
        ).astype(np.float64)

    def _stopped(self) -> Stopped | None:
        w = int(self.twin.clock.stopped_by[0])
        if w == NOBODY:
            return None
        g = int(self.twin.workers.group[w])
        waiting = int(self.twin.workers.waiting[w])
        others = (
            f", {counted(waiting, 'request')} {agreed(waiting, 'waits', 'wait')} there"
            if waiting
            else ""
        )
        return Stopped(
            at_s=float(self.twin.clock.now_s[0]),
            group=g,
            role=self.scenario.groups[g].role,
            why="the first in the line of one replica has waited "
            f"{self.scenario.unstable_wait_s:g} s{others}: the load is "
            "beyond what the deployment can do",
        )

    def _by_group(self, of_the_past: Floats, per_worker: Floats) -> Floats:
        """(groups,) what is over, and what those who are there have had since they joined."""
        sums = np.bincount(
            self.twin.workers.group, weights=per_worker, minlength=len(self.scenario.groups)
        )
        return np.asarray(of_the_past + sums, dtype=np.float64)

    def _paid_s(self, end_s: float) -> Floats:
        ordered_s = self.twin.workers.ordered_s
        paid_s = np.where(np.isnan(ordered_s), 0.0, end_s - ordered_s)
        return self._by_group(self.twin.groups.paid_s, paid_s)

    def _ready_s(self, end_s: float) -> Floats:
        workers = self.twin.workers
        there = ~np.isnan(workers.ordered_s)
        until_s = np.clip(workers.ready_s, workers.ordered_s, end_s)
        starting_s = np.where(there, until_s - workers.ordered_s, 0.0)
        return self._paid_s(end_s) - self._by_group(self.twin.groups.starting_s, starting_s)

    def _accelerator_hours(self, end_s: float) -> tuple[float, ...]:
        sizes = [g.profile.tp * g.profile.pp * g.profile.dp for g in self.scenario.groups]
        hours = self._paid_s(end_s) / 3600 * sizes
        return tuple(float(h) for h in hours)

    def _usd(self, end_s: float) -> float:
        hours = self._accelerator_hours(end_s)
        prices = (g.usd_per_gpu_hour for g in self.scenario.groups)
        return float(sum(h * p for h, p in zip(hours, prices, strict=True)))

    def _utilization(self, end_s: float) -> tuple[float, ...]:
        busy_s = self._by_group(self.twin.groups.busy_s, self.twin.workers.busy_s)
        return tuple(
            float(busy) / ready if ready > 0 else 0.0
            for busy, ready in zip(busy_s, self._ready_s(end_s), strict=True)
        )

    def _kv_peak(self) -> tuple[float, ...]:
        """Highest share of KV blocks in use on any replica, per group."""
        workers, groups = self.twin.workers, self.twin.groups
        most = [
            workers.most_kv[workers.group == g].max(initial=groups.most_kv[g])
            for g in range(len(self.scenario.groups))
        ]
        return tuple((np.array(most) / groups.kv_blocks).tolist())

    def _extrapolated(self) -> int:
        scenario, records = self.scenario, self.twin.records
        workload = scenario.workload
        flagged = records.extrapolated > 0
        for g, group in enumerate(scenario.groups):
            if group.role is not Role.DECODE or scenario.local_prefill_tokens > 0:
                flagged |= (records.first_group == g) & outside_prompts(
                    group.profile, workload.input_tokens, records.hit_tokens
                )
            if group.role is not Role.PREFILL:
                flagged |= (records.decode_group == g) & outside_answers(group.profile, workload)
        return int((flagged & (records.end != UNDER_WAY)).sum())

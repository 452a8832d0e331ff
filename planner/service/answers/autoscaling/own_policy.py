"""Poolwise's own policy: what `poolwise serve` does at its slow and fast ticks, on simulated time.

Forecast, plan with proof, guards and the fast reaction are the functions that the service calls
(`expected_demand`, `decide`, `react`, `guarded`), with the conditions that it would have kept in
its store. What is written here instead of `planner.service.loop` and `fleet.rollouts` is only the
waiting: a rollout takes one group of steps after the other, and while it is under way ticks observe
and decide but begin nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np

from forecaster.memory import Memory
from forecaster.shapes import shape_of_lengths
from forecaster.windows import observe_windows
from planner import rollout
from planner.autoscale import Backlog, Reaction, decide, keeping_what_waits, react
from planner.autoscale.backlog import Line
from planner.autoscale.backtest import ROLES, PoolPair
from planner.autoscale.slow import guarded
from planner.domain.fleet import Fleet, Pool, Role, version_of
from planner.domain.forecast import Forecast
from planner.domain.output_length import OutputLengths
from planner.domain.plan import Plan, PlanStatus
from planner.domain.rollout import Diff, Step, StepKind
from planner.domain.spec import Spec
from planner.domain.workload import Integers, ObservedWindow, Workload
from planner.rollout import GuardConditions
from planner.service.answers.planning import expected_demand
from planner.service.deployment import recommended_lately
from planner.service.fleet.held import forbidden
from planner.service.fleet.lifecycle import FAST_PREFIX
from planner.service.loop.adjusted_plan import pools_of, with_replicas
from planner.service.store import DecisionRecord
from planner.simulate.policy import Observation, Targets

RATE_OVER_S = 30.0
"""The fast loop's rate of arrivals is that of so long."""


@dataclass(slots=True)
class History:
    """What was observed, cut into windows, as a gate's log of requests tells it.

    `windows` may begin with those of the time before the run.

    Requests and prompts count when they arrive. Answers are known when they end: those of a window
    are taken to be as long as those that ended in it.
    """

    window_s: float
    start_at: datetime
    windows: list[ObservedWindow] = field(default_factory=list)
    _closed: int = 0
    _prompts: list[Integers] = field(default_factory=list)
    _ended: list[tuple[Integers, Integers]] = field(default_factory=list)

    def take(self, seen: Observation) -> None:
        """One observation more; ticks fall on the ends of windows."""
        self._prompts.append(seen.arrived_input_tokens)
        self._ended.append((seen.finished_input_tokens, seen.finished_output_tokens))
        if seen.t_s >= (self._closed + 1) * self.window_s:
            begun_s = self._closed * self.window_s
            self.windows.append(self._window(self.start_at + timedelta(seconds=begun_s)))
            self._prompts, self._ended, self._closed = [], [], self._closed + 1

    def _window(self, start_at: datetime) -> ObservedWindow:
        prompts = np.concatenate(self._prompts)
        asked, answered = (np.concatenate(column) for column in zip(*self._ended, strict=True))
        lengths, osl = None, self._last_osl()
        if len(answered):
            lengths, osl = OutputLengths.of(answered), float(answered.mean())
        none = np.zeros(len(asked), dtype=np.int64)
        return ObservedWindow(
            start_at=start_at,
            window_s=self.window_s,
            requests=len(prompts),
            input_tokens=int(prompts.sum()),
            output_tokens=round(osl * len(prompts)),
            cached_tokens=0,
            shape=shape_of_lengths(asked, answered, none) if len(asked) else None,
            output_lengths=lengths,
        )

    def _last_osl(self) -> float:
        known = (w for w in reversed(self.windows) if w.requests and w.shape is not None)
        last = next(known, None)
        return last.output_tokens / last.requests if last is not None else 1.0


@dataclass(slots=True)
class Rollout:
    """A diff on its way: a group of steps begins when the one before has taken effect."""

    plan: Plan
    groups: list[tuple[Step, ...]]
    _begun: bool = False

    def advance(self, seen: Observation, wanted: dict[Role, int]) -> None:
        """Begin what may begin; `wanted` is changed by it."""
        while self.groups:
            group = self.groups[0]
            if not self._begun:
                self._begun = True
                for step in group:
                    _begin(step, wanted)
                if any(step.kind in (StepKind.START, StepKind.DRAIN) for step in group):
                    return
            if any(_under_way(step, seen) for step in group):
                return
            self.groups.pop(0)
            self._begun = False

    @property
    def over(self) -> bool:
        """Whether every step has taken effect."""
        return not self.groups


def _begin(step: Step, wanted: dict[Role, int]) -> None:
    if step.kind is StepKind.START:
        wanted[step.shape.role] += 1
    elif step.kind is StepKind.DRAIN:
        wanted[step.shape.role] -= 1
    elif step.kind is StepKind.FLIP:
        raise ValueError("roles are not flipped here")


def _under_way(step: Step, seen: Observation) -> bool:
    group = seen.groups[ROLES.index(step.shape.role)]
    if step.kind is StepKind.START:
        return group.starting > 0
    return step.kind is StepKind.DRAIN and group.draining > 0


class OwnPolicy:
    """The policy.

    Parameters
    ----------
    spec : Spec
        Whose forecast, loop and guard settings count.
    pair : PoolPair
        What it steers.
    start_at : datetime
        When the run begins.
    warm_s : float
        Until then it only observes.
    before : Workload or None
        What arrived before the run, up to its beginning.
    """

    def __init__(
        self,
        spec: Spec,
        pair: PoolPair,
        *,
        start_at: datetime,
        warm_s: float,
        before: Workload | None = None,
    ) -> None:
        self._spec, self._pair, self._start_at, self._warm_s = spec, pair, start_at, warm_s
        self._model = pair.model
        window_s = spec.forecast.window_s
        known = [] if before is None else list(observe_windows(before, window_s))
        self._history = History(window_s, start_at, known)
        self._next_slow_s = warm_s
        self._memory = Memory()
        self._arrivals: list[tuple[float, float, Integers]] = []
        self._line = Line()
        self._sequences_before: int | None = None
        self._decisions: list[DecisionRecord] = []
        self._forecast: Forecast | None = None
        self._made: Plan | None = None
        self._applied: Plan | None = None
        self._rollout: Rollout | None = None
        self._wanted: dict[Role, int] = {}

    @property
    def first_tick_s(self) -> float:
        """After one interval."""
        return self._step_s

    @property
    def _step_s(self) -> float:
        """Between ticks: that of the fast loop, of the slow one where there is none, seconds."""
        loop = self._spec.loop
        return min(loop.fast_interval_s or loop.slow_interval_s, self._spec.forecast.window_s)

    def on_tick(self, seen: Observation) -> Targets:
        """Observe; advance what is under way; a slow tick when one is due, else a fast one."""
        loop = self._spec.loop
        self._history.take(seen)
        self._arrivals.append((seen.since_s, seen.t_s, seen.arrived_input_tokens))
        self._arrivals = [a for a in self._arrivals if a[1] > seen.t_s - RATE_OVER_S]
        self._sequences_before = self._line.take(self._at(seen.t_s), _decoding(seen))
        next_s = seen.t_s + self._step_s
        if not self._wanted:
            there = [g.ready + g.starting for g in seen.groups]
            self._wanted = dict(zip(ROLES, there, strict=True))
        if seen.t_s < self._warm_s:
            return Targets(replicas=None, next_tick_s=next_s)
        self._advance(seen)
        if seen.t_s >= self._next_slow_s:
            self._next_slow_s = (seen.t_s // loop.slow_interval_s + 1) * loop.slow_interval_s
            self._slow(seen)
        elif loop.fast_interval_s > 0:
            self._fast(seen)
        return Targets(replicas=tuple(self._wanted[r] for r in ROLES), next_tick_s=next_s)

    def _advance(self, seen: Observation) -> None:
        if self._rollout is None:
            return
        self._rollout.advance(seen, self._wanted)
        if self._rollout.over:
            self._applied, self._rollout = self._rollout.plan, None

    def _slow(self, seen: Observation) -> None:
        if not self._history.windows:
            return
        now = self._at(seen.t_s)
        self._forecast = expected_demand(
            self._spec,
            self._history.windows,
            model=self._model,
            made_at=now,
            memory=self._memory,
        )
        fleet = self._fleet(seen)
        conditions = keeping_what_waits(
            self._conditions(now), self._spec, fleet, self._backlog(seen)
        )
        decision = decide(
            self._spec,
            self._forecast,
            fleet,
            now=now,
            conditions=conditions,
            compare_unchanged=False,
        )
        self._made = decision.plan
        self._remember(decision.plan, now)
        if decision.plan.status is not PlanStatus.INFEASIBLE:
            self._begin(decision.plan, decision.diff, conditions, seen)

    def _fast(self, seen: Observation) -> None:
        now = self._at(seen.t_s)
        fleet = self._fleet(seen)
        conditions = replace(self._conditions(now), last_plan=None)
        reaction = react(
            self._spec,
            fleet,
            self._backlog(seen),
            now=now,
            forecast=self._forecast,
            can_flip=False,
        )
        if not reaction.starts or self._made is None:
            return
        made = self._adjusted(self._made, fleet, reaction, now=now)
        steps, _ = guarded(fleet, made, self._spec, conditions)
        if self._begin(made, steps, conditions, seen):
            self._remember(made, now)

    def _remember(self, plan: Plan, now: datetime) -> None:
        """What the service keeps of a tick that decided, as far as guards look at it."""
        self._decisions.append(
            DecisionRecord(
                deployment=self._spec.name,
                decided_at=now,
                plan_id=plan.plan_id,
                outcome="",
                reason="",
                wanted=plan.windows[0].by_label,
            )
        )

    def _adjusted(self, made: Plan, fleet: Fleet, reaction: Reaction, *, now: datetime) -> Plan:
        pools = pools_of(fleet, self._model)
        for start in reaction.starts:
            pools[start.shape, start.purchase_option] += start.replicas
        return with_replicas(made, fleet, pools, prefix=FAST_PREFIX, now=now)

    def _begin(
        self, plan: Plan, diff: Diff, conditions: GuardConditions, seen: Observation
    ) -> bool:
        """Whether a rollout of these steps was begun."""
        if not diff.steps or self._rollout is not None:
            return False
        judged = rollout.guard(diff, self._spec, conditions, plan=plan, automatic=True)
        if forbidden(judged):
            return False
        self._rollout = Rollout(plan=plan, groups=list(diff.groups))
        self._rollout.advance(seen, self._wanted)
        return True

    def _conditions(self, now: datetime) -> GuardConditions:
        lately = recommended_lately(
            tuple(reversed(self._decisions)),
            now=now,
            within_s=self._spec.guards.scale_down_stabilization_s,
        )
        windows = self._history.windows
        busy = [w.end_at for w in windows if w.requests > 0]
        return GuardConditions(
            now=now,
            observed_at=windows[-1].end_at if windows else None,
            recommended=lately,
            recommended_since=lately[-1].at if lately else None,
            idle_since=busy[-1] if busy else None,
            last_plan=None if self._rollout is not None else self._applied,
            can_flip=False,
        )

    def _at(self, t_s: float) -> datetime:
        return self._start_at + timedelta(seconds=t_s)

    def _fleet(self, seen: Observation) -> Fleet:
        pools = tuple(
            Pool(
                shape=shape,
                ready=group.ready,
                starting=group.starting,
                draining=group.draining,
            )
            for shape, group in zip(self._pair.shapes, seen.groups, strict=True)
        )
        return Fleet(pools=pools, read_at=self._at(seen.t_s), version=version_of(pools))

    def _backlog(self, seen: Observation) -> Backlog:
        prefill, decode = seen.groups
        held = decode.kv_usage_ratio * decode.ready * self._pair.kv_capacity_tokens
        lasting_s = seen.t_s - self._arrivals[0][0]
        return Backlog(
            model=self._model,
            observed_at=self._at(seen.t_s),
            waiting_prompt_tokens=prefill.queued_prompt_tokens,
            decoding_sequences=_decoding(seen),
            sequences_before=self._sequences_before,
            context_tokens=held / max(decode.running_requests, 1),
            request_rate_rps=sum(len(a) for *_, a in self._arrivals) / lasting_s,
            input_tokens_per_s=_total(a for *_, a in self._arrivals) / lasting_s,
        )


def _decoding(seen: Observation) -> int:
    """Sequences being decoded or waiting for it."""
    _, decode = seen.groups
    return decode.running_requests + decode.waiting_requests


def _total(columns: Iterable[Integers]) -> float:
    return float(sum(int(column.sum()) for column in columns))

"""What requests would see: by the twin, or by its rules written once more with a remedy.

The remedy is vLLM's asynchronous scheduling (the default since 0.14): while a step runs, the next
one has been composed already, so that who comes during a step is let in one step later than by
the twin's rules, which compose a step when it begins. Without the remedy both must agree.
"""

import heapq
from collections.abc import Callable

import numpy as np

from benchmarks.gpu_logs.logs import Deployment, Floats, Seen
from benchmarks.gpu_logs.steps import StepTimes, profile_of
from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.workload import Workload
from planner.simulate import ReplicaGroup, RouterPolicy, Scenario, simulate

Replay = Callable[[Deployment, StepTimes, Workload], Seen]


def by_twin(deployment: Deployment, steps: StepTimes, workload: Workload) -> Seen:
    """Ask the twin.

    Raises
    ------
    InputError
        When a request was not answered to the end.
    """
    group = ReplicaGroup(
        profile=profile_of(steps, deployment), role=Role.AGGREGATED, replicas=deployment.engines
    )
    result = simulate(Scenario(groups=(group,), workload=workload, router=RouterPolicy.ROUND_ROBIN))
    if np.isnan(result.e2e_s).any():
        raise InputError(f"the twin did not finish every request of {deployment.model}")
    return Seen(
        ttft_s=result.ttft_s,
        tpot_s=result.tpot_s,
        end_s=result.arrival_s + result.e2e_s,
    )


def composed_ahead(deployment: Deployment, steps: StepTimes, workload: Workload) -> Seen:
    """Replay with steps that are composed when the one before begins."""
    return _replay(deployment, steps, workload, ahead=True)


def composed_in_time(deployment: Deployment, steps: StepTimes, workload: Workload) -> Seen:
    """Replay by the twin's own rules."""
    return _replay(deployment, steps, workload, ahead=False)


def _replay(deployment: Deployment, steps: StepTimes, workload: Workload, *, ahead: bool) -> Seen:
    count = len(workload)
    first_s, last_s = np.zeros(count), np.zeros(count)
    for e in range(deployment.engines):
        mine = np.arange(e, count, deployment.engines)
        engine = _Engine(deployment, steps, workload, mine, ahead=ahead)
        engine.run(first_s, last_s)
    arrival_s = workload.arrival_offset_s
    return Seen(
        ttft_s=first_s - arrival_s + steps.first_token_s,
        tpot_s=(last_s - first_s) / np.maximum(workload.output_tokens - 1, 1),
        end_s=last_s + steps.first_token_s,
    )


class _Engine:
    """One engine with room for every KV cache."""

    def __init__(
        self,
        deployment: Deployment,
        steps: StepTimes,
        workload: Workload,
        mine: "np.ndarray[tuple[int], np.dtype[np.int64]]",
        *,
        ahead: bool,
    ) -> None:
        self.limits, self.share, self.steps = deployment.limits, deployment.expert_share, steps
        self.ahead = ahead
        self.line = [int(r) for r in reversed(mine)]
        self.arrival_s = workload.arrival_offset_s.tolist()
        self.prompt = workload.input_tokens.tolist()
        self.answer = workload.output_tokens.tolist()
        self.partial, self.computed = -1, 0
        self.batch: list[tuple[int, int]] = []  # heap: step at which who ends
        self.context_sum = 0
        self.completing: list[int] = []

    def run(self, first_s: Floats, last_s: Floats) -> None:
        """Until nobody is left; writes the instants of first and last tokens."""
        t, began_s, step = 0.0, 0.0, 0
        while self.line or self.batch or self.partial >= 0:
            visible_s = began_s if self.ahead else t
            if not self.batch and self.partial < 0:
                t = visible_s = max(t, self.arrival_s[self.line[-1]])
            began_s = t
            t += self._step_s(visible_s)
            step += 1
            self.context_sum += len(self.batch)
            while self.batch and self.batch[0][0] <= step:
                _, r = heapq.heappop(self.batch)
                last_s[r] = t
                self.context_sum -= self.prompt[r] + self.answer[r]
            for r in self.completing:
                first_s[r] = last_s[r] = t
                if self.answer[r] > 1:
                    heapq.heappush(self.batch, (step + self.answer[r] - 1, r))
                    self.context_sum += self.prompt[r] + 1

    def _step_s(self, visible_s: float) -> float:
        """Compose a step of the batch and of prompts that had come by `visible_s`."""
        size = len(self.batch)
        chunks_s = self._fill(visible_s)
        if size == 0:
            return float(self.steps.prefill_s(0.0)) + chunks_s
        return float(self.steps.decode_s(size, self.context_sum / size, self.share)) + chunks_s

    def _fill(self, visible_s: float) -> float:
        self.completing = []
        budget, chunks_s = max(self.limits.max_num_batched_tokens - len(self.batch), 1), 0.0
        while budget > 0:
            if self.partial < 0 and not self._admit(visible_s):
                break
            before, r = self.computed, self.partial
            self.computed = min(self.prompt[r], before + budget)
            budget -= self.computed - before
            chunks_s += float(self.steps.prefill_s(self.computed) - self.steps.prefill_s(before))
            if self.computed == self.prompt[r]:
                self.completing.append(r)
                self.partial = -1
        return chunks_s

    def _admit(self, visible_s: float) -> bool:
        slots = len(self.batch) + len(self.completing)
        if not self.line or slots >= self.limits.max_num_seqs:
            return False
        if self.arrival_s[self.line[-1]] > visible_s:
            return False
        self.partial, self.computed = self.line.pop(), 0
        return True

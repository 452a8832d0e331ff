"""Run the twin: lay the scenario out, let the compiled loop run, read what happened."""

import numpy as np
from numpy.typing import NDArray

from planner.domain.workload import Workload
from planner.simulate.result import QueueSeries, SimulationResult
from planner.simulate.scenario import RouterPolicy, Scenario
from planner.simulate.state import (
    NOBODY,
    Records,
    Twin,
    lay_out,
    outside_answers,
    outside_prompts,
)

Floats = NDArray[np.float64]

_SERIES_POINTS = 241


def simulate(scenario: Scenario) -> SimulationResult:
    """Replay the workload on the deployment until every request is answered or rejected.

    The model, after vLLM:

    - A prefill replica computes prompts first come first served, each in `profile.prefill` time.
    - The answer goes to a decode replica when the prompt is done. It waits for a slot
      (`max_num_seqs`) and KV room for prompt and answer together, which is reserved whole (no
      preemption); then the KV cache moves, then it joins the batch at the next step. The first
      token comes with its first step.
    - A decode step takes `profile.decode_step` at the batch and its mean context.
    - An aggregated replica spends up to `max_num_batched_tokens` less the batch of each step on
      prompts, first come first served; the step takes decode time plus the chunks' share of the
      prompts' time. The first token comes with the last chunk.
    - `first_token_s` of the replica that gets the prompt is added to every TTFT.
    - Requests that no replica can hold are rejected on arrival.

    References
    ----------
    Continuous batching: Yu et al., Orca (OSDI 2022); chunked prefill: Agrawal et al.,
    Sarathi-Serve (OSDI 2024); split of prompt and answer: Zhong et al., DistServe (OSDI 2024).
    """
    from planner.simulate.engine import run  # numba takes a second to import

    twin = lay_out(scenario)
    run(twin, scenario.router is RouterPolicy.ROUND_ROBIN)
    return _result(scenario, twin)


def _result(scenario: Scenario, twin: Twin) -> SimulationResult:
    workload, records = scenario.workload, twin.records
    first = records.first_group
    overhead_s = np.array([g.profile.first_token_s for g in scenario.groups])[first]
    arrival_s = workload.arrival_offset_s
    e2e_s = records.finished_s - arrival_s + overhead_s
    ttft_s = records.first_token_s - arrival_s + overhead_s
    gaps = np.where(workload.output_tokens > 1, workload.output_tokens - 1, np.nan)
    answered_s = records.finished_s[np.isfinite(records.finished_s)]
    end_s = max(workload.duration_s, float(answered_s.max(initial=0.0)))
    return SimulationResult(
        arrival_s=arrival_s,
        ttft_s=ttft_s,
        tpot_s=(records.finished_s - records.first_token_s) / gaps,
        e2e_s=e2e_s,
        request_class=workload.request_class,
        gap_counts=twin.gaps,
        utilization_ratio=_utilization(scenario, twin, end_s),
        queues=_queues(workload, records, end_s),
        end_s=end_s,
        extrapolated_requests=_extrapolated(scenario, records),
    )


def _utilization(scenario: Scenario, twin: Twin, end_s: float) -> tuple[float, ...]:
    busy_s = np.bincount(
        twin.workers.group, weights=twin.workers.busy_s, minlength=len(scenario.groups)
    )
    there_s = [g.replicas * (end_s - g.start_delay_s) for g in scenario.groups]
    return tuple(
        float(busy) / there if there > 0 else 0.0
        for busy, there in zip(busy_s, there_s, strict=True)
    )


def _queues(workload: Workload, records: Records, end_s: float) -> QueueSeries:
    t_s = np.linspace(0.0, end_s, _SERIES_POINTS)
    accepted = records.first_group != NOBODY

    def happened(instants: Floats) -> NDArray[np.int64]:
        return np.searchsorted(np.sort(instants[accepted]), t_s, side="right").astype(np.int64)

    return QueueSeries(
        t_s=t_s,
        prefill_queue=happened(workload.arrival_offset_s) - happened(records.prompt_started_s),
        decode_running=happened(records.joined_s) - happened(records.finished_s),
    )


def _extrapolated(scenario: Scenario, records: Records) -> int:
    flagged = records.extrapolated > 0
    for g, group in enumerate(scenario.groups):
        prompts, answers = records.first_group == g, records.decode_group == g
        flagged |= prompts & outside_prompts(group.profile, scenario.workload)
        flagged |= answers & outside_answers(group.profile, scenario.workload)
    return int(flagged.sum())

"""What a better forecast is worth: accelerator-hours at equal attainment, in the twin.

Real requests are replayed by aggregated replicas (Llama-2-70B on 8 H100, step times measured by
Splitwise; none of these figures was measured on a GPU by us). After each window every forecaster
says what the next one brings, and the fleet becomes ceil(h x work / replica); new replicas take a
start-up time. The headroom h is the least (in steps of 2 %) that keeps the target for these very
requests: no operator could know it, but all are at equal attainment.

The hours of Azure and Mooncake are replayed in their second half, and a day of ServeGen's m-mid,
drawn from steady clients, after two days to learn from; requests of Azure and ServeGen are
made four times as long, so that the fleet is more than one or two replicas.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.bench_sizing import read_profiles
from forecaster.backtest import last_seen, run_panel
from forecaster.client_traces import synthesize_clients
from forecaster.readers import read_trace
from forecaster.readers.client_tables import read_client_table
from forecaster.rescale import rescale
from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.domain.slo import Slo
from planner.domain.workload import Floats, Workload
from planner.simulate import ReplicaGroup, Scenario, simulate
from planner.simulate.policy import Observation, Targets

DAY_S = 86_400.0
MOST_RATE_RPS = 6.0
LARGEST_SHARE = 0.3
"""Of one client, so that the day is not one client's."""
STEADY_RATIO = 0.9
"""Share of windows in which a client must send something."""
TARGET_RATIO = 0.95
SLO = Slo(model="m", ttft_s=2.0, tpot_s=0.1, attainment_ratio=TARGET_RATIO)
MOST_REPLICAS = 200
LONGEST_PROMPT, LONGEST_ANSWER = 8_000, 1_500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Case:
    """Requests, and the part of them that is replayed."""

    name: str
    workload: Workload
    replayed_from_s: float
    window_s: float
    start_s: float


@dataclass(frozen=True, slots=True)
class _Schedule:
    """A policy that was written down beforehand: arrivals do not depend on the fleet."""

    replicas: tuple[int, ...]
    window_s: float
    first_tick_s: float = 0.0

    def on_tick(self, seen: Observation) -> Targets:
        index = min(round(seen.t_s / self.window_s), len(self.replicas) - 1)
        return Targets(replicas=(self.replicas[index],), next_tick_s=seen.t_s + self.window_s)


def show(traces: Path) -> None:
    """Print hours and attainment of each forecaster, per case."""
    print(f"\nDecision value: accelerator-hours at {TARGET_RATIO:.0%} attainment")
    profile = read_profiles(traces.parent)[0]
    for case in _cases(traces):
        ways = _ways(case)
        replayed = case.workload.between(case.replayed_from_s, case.workload.duration_s)
        first = round(case.replayed_from_s / case.window_s)
        print(
            f"  {case.name}: {len(replayed)} requests, windows of {case.window_s:.0f} s, start-up "
            f"{case.start_s:.0f} s"
        )
        base = None
        for way, expected in ways.items():
            hours, headroom, attained = _least_hours(
                profile, case, replayed, expected[first - 1 : -1]
            )
            if math.isnan(hours):
                print(f"    {way:20s} no headroom keeps the target", flush=True)
                continue
            base = base or hours
            print(
                f"    {way:20s} {hours:7.1f} accelerator-hours ({hours / base - 1:+.1%}), headroom "
                f"{headroom:.2f}, attainment {attained:.4f}",
                flush=True,
            )


def _cases(traces: Path) -> Iterator[_Case]:
    for file, name, length_ratio in (
        ("AzureLLMInferenceTrace_conv.csv", "Azure 2023 conv", 4.0),
        ("AzureLLMInferenceTrace_code.csv", "Azure 2023 code", 4.0),
        ("mooncake_conversation_trace.jsonl", "Mooncake", 1.0),
    ):
        workload = _bounded(read_trace(traces / file).workload, length_ratio)
        middle = 60.0 * (workload.duration_s // 120.0)
        yield _Case(
            name=name, workload=workload, replayed_from_s=middle, window_s=60.0, start_s=60.0
        )
    workload = _servegen(traces)
    yield _Case(
        name="ServeGen mmid, a day",
        workload=workload,
        replayed_from_s=2 * DAY_S,
        window_s=300.0,
        start_s=120.0,
    )


def _bounded(workload: Workload, length_ratio: float) -> Workload:
    return rescale(
        workload,
        length_ratio=length_ratio,
        rate_ratio=1.0,
        max_input_tokens=LONGEST_PROMPT,
        max_output_tokens=LONGEST_ANSWER,
    )


def _servegen(traces: Path) -> Workload:
    table = read_client_table(traces / "servegen_mmid_clients_10min.parquet")
    rng = np.random.default_rng(1)
    # The first three of fourteen days have no missing data.
    span = (0.0, 3 * DAY_S)
    first, last = table.windows_of(span)
    chosen, rate = [], 0.0
    for index in rng.permutation(len(table.clients)):
        client = table.clients[index]
        rates = np.nan_to_num(client.rate_rps[first:last])
        mean = float(rates.mean())
        steady = np.mean(rates > 0) >= STEADY_RATIO
        if steady and mean <= LARGEST_SHARE * MOST_RATE_RPS and rate + mean <= MOST_RATE_RPS:
            chosen.append(client)
            rate += mean
    trace = synthesize_clients(
        table, chosen, span_s=span, start_at=datetime(2026, 1, 1, tzinfo=UTC), rng=rng
    )
    return _bounded(trace.workload, 4.0)


def _ways(case: _Case) -> dict[str, Floats]:
    """(windows,) the work that each forecaster expects after each window.

    The larger of the next two windows: what is ordered now serves in the second of them, and what
    is let go now is missing in the first.
    """
    workload = case.workload
    edges = np.arange(int(workload.duration_s // case.window_s) + 1) * case.window_s
    rows = np.searchsorted(workload.arrival_offset_s, edges)
    # A prompt token costs about a tenth of an answer token on these replicas at a full batch.
    tokens = 0.1 * workload.input_tokens + workload.output_tokens
    work = np.diff(np.concatenate([[0.0], np.cumsum(tokens)])[rows]) / case.window_s
    ((track,),) = run_panel(work[:, None], (1,), step_s=case.window_s, first_end_s=case.window_s)
    return {
        "last value": last_seen(work),
        "ours, median": track.at(0.5),
        "ours, 0.9 quantile": track.at(0.9),
        "perfect knowledge": np.append(work[1:], work[-1]),
    }


def _least_hours(
    profile: Profile, case: _Case, replayed: Workload, expected: Floats
) -> tuple[float, float, float]:
    """Hours, headroom and attainment at the least headroom that keeps the target."""
    low, high = 0, 320
    best = None
    while low < high:
        middle = (low + high) // 2
        found = _replay(profile, case, replayed, expected * SMALLEST_HEADROOM * 1.02**middle)
        if found[1] >= TARGET_RATIO:
            best, high = (middle, found), middle
        else:
            low = middle + 1
    if best is None:
        return math.nan, math.nan, math.nan
    steps, (hours, attained) = best
    return hours, SMALLEST_HEADROOM * 1.02**steps, attained


SMALLEST_HEADROOM = 0.1
REPLICA_WORK = 300.0
"""Work (answer tokens/s, prompt tokens a tenth) that headroom 1 gives to a replica."""


def _replay(
    profile: Profile, case: _Case, replayed: Workload, expected: Floats
) -> tuple[float, float]:
    wanted = np.clip(np.ceil(expected / REPLICA_WORK), 1, MOST_REPLICAS).astype(int)
    scenario = Scenario(
        groups=(
            ReplicaGroup(
                profile=profile,
                role=Role.AGGREGATED,
                replicas=int(wanted[0]),
                most_replicas=MOST_REPLICAS,
                start_s=case.start_s,
            ),
        ),
        workload=replayed,
        policy=_Schedule(tuple(wanted.tolist()), case.window_s),
    )
    result = simulate(scenario)
    return sum(result.accelerator_hours), float(result.met([SLO]).mean())

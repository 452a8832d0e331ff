"""What a better forecast is worth: accelerator-hours at equal attainment, in the twin.

Three days of requests drawn from ServeGen clients; the third is replayed in the twin by aggregated
replicas (Llama-2-70B on 8 H100, step times measured by Splitwise) that take two minutes to start.
Every five minutes each forecaster says what the next window brings, and the fleet becomes
ceil(h x work / replica). The headroom h is the least (in steps of 2 %) that keeps the target for
these very requests: no operator could know it, but all are at equal attainment.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from forecaster.client_traces import synthesize_clients
from forecaster.readers.client_tables import read_client_table

from benchmarks.bench_sizing import read_profiles
from forecaster.backtest import last_seen, run_panel
from forecaster.rescale import rescale
from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.domain.slo import Slo
from planner.domain.workload import Floats, Workload
from planner.simulate import ReplicaGroup, Scenario, simulate
from planner.simulate.policy import Observation, Targets

WINDOW_S = 300.0
START_S = 120.0
DAY_S = 86_400.0
DAYS = {"mlarge": (7, 10), "mmid": (0, 3)}
"""Of each table's fourteen days: two to learn from, one to replay; none with missing data."""
MOST_RATE_RPS = 6.0
LARGEST_SHARE = 0.15
"""Of one client, so that the day is not one client's."""
TARGET_RATIO = 0.95
SLO = Slo(model="m", ttft_s=2.0, tpot_s=0.1, attainment_ratio=TARGET_RATIO)
MOST_REPLICAS = 200
LONGEST_PROMPT, LONGEST_ANSWER = 8_000, 1_500


@dataclass(frozen=True, slots=True)
class _Schedule:
    """A policy that was written down beforehand: arrivals do not depend on the fleet."""

    replicas: tuple[int, ...]
    first_tick_s: float = 0.0

    def on_tick(self, seen: Observation) -> Targets:
        index = min(round(seen.t_s / WINDOW_S), len(self.replicas) - 1)
        return Targets(replicas=(self.replicas[index],), next_tick_s=seen.t_s + WINDOW_S)


def show(traces: Path) -> None:
    """Print hours and attainment of each forecaster, per service."""
    print(
        f"\nDecision value: accelerator-hours of a day at {TARGET_RATIO:.0%} attainment, windows "
        f"of {WINDOW_S:.0f} s, start-up {START_S:.0f} s"
    )
    profile = read_profiles(traces.parent)[0]
    for name in ("mlarge", "mmid"):
        workload = _requests(traces, name)
        work, ways = _ways(workload)
        day = workload.between(workload.duration_s - DAY_S, workload.duration_s)
        first = len(work) - round(DAY_S / WINDOW_S)
        print(f"  ServeGen {name}, {len(day)} requests of the day")
        base = None
        for way, expected in ways.items():
            hours, headroom, attained = _least_hours(profile, day, expected[first - 1 : -1])
            base = base or hours
            print(
                f"    {way:22s} {hours:7.0f} accelerator-hours ({hours / base - 1:+.1%}), headroom "
                f"{headroom:.2f}, attainment {attained:.4f}",
                flush=True,
            )


def _requests(traces: Path, name: str) -> Workload:
    table = read_client_table(traces / f"servegen_{name}_clients_10min.parquet")
    rng = np.random.default_rng(1)
    span = (DAYS[name][0] * DAY_S, DAYS[name][1] * DAY_S)
    first, last = table.windows_of(span)
    chosen, rate = [], 0.0
    for index in rng.permutation(len(table.clients)):
        client = table.clients[index]
        mean = float(np.nanmean(client.rate_rps[first:last]))
        if mean > 0 and rate + mean <= MOST_RATE_RPS:
            chosen.append(client)
            rate += mean
    trace = synthesize_clients(
        table, chosen, span_s=span, start_at=datetime(2026, 1, 1, tzinfo=UTC), rng=rng
    )
    return rescale(
        trace.workload,
        length_ratio=1.0,
        rate_ratio=1.0,
        max_input_tokens=LONGEST_PROMPT,
        max_output_tokens=LONGEST_ANSWER,
    )


def _ways(workload: Workload) -> tuple[Floats, dict[str, Floats]]:
    """(windows,) work per window, and what each forecaster expects of the next one."""
    edges = np.arange(round(workload.duration_s / WINDOW_S) + 1) * WINDOW_S
    rows = np.searchsorted(workload.arrival_offset_s, edges)
    # A prompt token costs about a tenth of an answer token on these replicas at a full batch.
    tokens = np.stack([0.1 * workload.input_tokens, 1.0 * workload.output_tokens], axis=1)
    values = np.diff(np.concatenate([np.zeros((1, 2)), np.cumsum(tokens, axis=0)])[rows], axis=0)
    work = values.sum(axis=1, keepdims=True) / WINDOW_S
    ((track,),) = run_panel(work, (1,), step_s=WINDOW_S, first_end_s=WINDOW_S)
    coming = np.append(work[1:, 0], work[-1, 0])
    return work, {
        "last value": last_seen(work[:, 0]),
        "ours, median": track.at(0.5),
        "ours, 0.9 quantile": track.at(0.9),
        "perfect knowledge": coming,
    }


def _least_hours(profile: Profile, day: Workload, expected: Floats) -> tuple[float, float, float]:
    """Hours, headroom and attainment at the least headroom that keeps the target."""
    low, high = 0, 200
    best = None
    while low < high:
        middle = (low + high) // 2
        found = _replay(profile, day, expected * SMALLEST_HEADROOM * 1.02**middle)
        if found[1] >= TARGET_RATIO:
            best, high = (middle, found), middle
        else:
            low = middle + 1
    if best is None:
        return math.nan, math.nan, math.nan
    headroom, (hours, attained) = best
    return hours, SMALLEST_HEADROOM * 1.02**headroom, attained


SMALLEST_HEADROOM = 0.5
REPLICA_WORK = 300.0
"""Work (answer tokens/s, prompt tokens a tenth) that headroom 1 gives to a replica."""


def _replay(profile: Profile, day: Workload, expected: Floats) -> tuple[float, float]:
    wanted = np.clip(np.ceil(expected / REPLICA_WORK), 1, MOST_REPLICAS).astype(int)
    scenario = Scenario(
        groups=(
            ReplicaGroup(
                profile=profile,
                role=Role.AGGREGATED,
                replicas=int(wanted[0]),
                most_replicas=MOST_REPLICAS,
                start_s=START_S,
            ),
        ),
        workload=day,
        policy=_Schedule(tuple(wanted.tolist())),
    )
    result = simulate(scenario)
    return sum(result.accelerator_hours), float(result.met([SLO]).mean())

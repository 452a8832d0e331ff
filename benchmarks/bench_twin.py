"""Speed of the twin on one core: requests a second, compile time, memory, flatness.

    python -m benchmarks.bench_twin [--quick]

Requests/s are best of three after a warm-up; the ratio is to the token-by-token reference of the
tests (plain Python, the same rules) on the same requests in the same run. The ratio to NVIDIA's
simulator is in `benchmarks/dynamo`. Fleets run at about 75 % load. Each length of run has a process
of its own, so that its peak of memory is its own; the peak counts the requests themselves and the
result, less what the process had before it drew them. Seconds are CPU seconds: the twin has one
thread, and neighbours would count into any others. Still, run it on a quiet machine, on one core
(`taskset -c 0`): neighbours take caches, too.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from planner.domain.fleet import Role
from planner.domain.workload import PrefixBlocks, Workload
from planner.simulate import ReplicaGroup, RouterPolicy, Scenario, simulate
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import poisson_workload

PROFILE = linear_profile(max_num_seqs=256)
FLEETS = {
    "20 prefill + 10 decode": (
        140.0,
        (
            ReplicaGroup(profile=PROFILE, role=Role.PREFILL, replicas=20),
            ReplicaGroup(profile=PROFILE, role=Role.DECODE, replicas=10),
        ),
    ),
    "20 aggregated": (
        100.0,
        (ReplicaGroup(profile=PROFILE, role=Role.AGGREGATED, replicas=20),),
    ),
    "1 prefill + 1 decode": (
        7.0,
        (
            ReplicaGroup(profile=PROFILE, role=Role.PREFILL, replicas=1),
            ReplicaGroup(profile=PROFILE, role=Role.DECODE, replicas=1),
        ),
    ),
}
COLD = (
    "import time\n"
    "from dataclasses import replace\n"
    "from benchmarks.bench_twin import scenario_of\n"
    "from planner.simulate import Event, Incident, simulate\n"
    "first = scenario_of('1 prefill + 1 decode', 10)\n"
    "event = Event(at_s=0.1, incident=Incident.FAIL, group=1, replica=0)\n"
    "started = time.process_time()\n"
    "simulate(first)\n"
    "print(time.process_time() - started)\n"
    "started = time.process_time()\n"
    "simulate(replace(first, events=(event,)))\n"
    "print(time.process_time() - started)\n"
)
LENGTH = (
    "import sys\n"
    "from benchmarks.bench_twin import one_length\n"
    "print(*one_length(int(sys.argv[1])))\n"
)
FLEET = "20 prefill + 10 decode"


def seconds_of(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def scenario_of(fleet: str, requests: int) -> Scenario:
    rate_rps, groups = FLEETS[fleet]
    workload = poisson_workload(requests=requests, rate_rps=rate_rps, isl=1000, osl=200)
    short = replace(workload, input_tokens=np.minimum(workload.input_tokens, 8_000))
    return Scenario(groups=groups, workload=short)  # short enough that nothing is rejected


def with_prefixes(workload: Workload, block_tokens: int, *, seed: int = 1) -> Workload:
    """Conversations: each request repeats the prompt of an earlier one and adds to it.

    Half of the requests open a conversation, the others go on with one of the last 1,000; the ids
    of the blocks are those of the conversation.
    """
    rng = np.random.default_rng(seed)
    count = len(workload)
    talk = np.arange(count)
    for r in np.flatnonzero(rng.random(count) < 0.5):
        talk[r] = talk[max(r - int(rng.integers(1, 1_001)), 0)]
    full = workload.input_tokens // block_tokens
    offsets = np.concatenate([[0], np.cumsum(full)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], full)
    ids = np.repeat(talk, full) * (int(full.max()) + 1) + within
    blocks = PrefixBlocks(block_tokens=block_tokens, offsets=offsets, block_ids=ids)
    return replace(workload, prefix=blocks)


def cases(requests: int) -> dict[str, Scenario]:
    plain = {fleet: scenario_of(fleet, requests) for fleet in FLEETS}
    core = plain[FLEET]
    return plain | {
        f"20P + 10D, {size}-token prefix cache": replace(
            core,
            workload=with_prefixes(core.workload, size),
            router=RouterPolicy.PREFIX_AWARE,
        )
        for size in (512, 16)
    }


def compile_seconds() -> list[tuple[float, float]]:
    """First call, and first call with events: with an empty cache, and in a new process."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        runs = [
            subprocess.run(
                [sys.executable, "-c", COLD],
                env=environment, check=True, capture_output=True, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
    cold, warm = ([float(s) for s in run.stdout.split()] for run in runs)
    return list(zip(cold, warm, strict=True))


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def print_speeds(requests: int) -> None:
    from tests.planner.simulate.reference import replay_token_by_token

    print(f"\n{'case':38s} {'requests/s':>12s} {'reference':>10s} {'ratio':>7s}")
    for (name, small), large in zip(cases(300).items(), cases(requests).values(), strict=True):
        reference = 300 / seconds_of(lambda s=small: replay_token_by_token(s))
        twin = requests / min(seconds_of(lambda s=large: simulate(s)) for _ in range(3))
        print(f"{name:38s} {twin:12,.0f} {reference:10,.0f} {twin / reference:6,.0f}x")


def one_length(requests: int) -> tuple[float, float]:
    """Microseconds a request, and bytes by which the process grows for each."""
    simulate(scenario_of(FLEET, 100))
    before = peak_bytes()
    scenario = scenario_of(FLEET, requests)
    repeats = 1 if requests > 10**6 else 3
    seconds = min(seconds_of(lambda: simulate(scenario)) for _ in range(repeats))
    return 1e6 * seconds / requests, (peak_bytes() - before) / requests


def print_flatness(exponents: range) -> None:
    """Microseconds and peak bytes a request by the length of the run."""
    print(f"\n{'requests':>12s} {'us/request':>11s} {'bytes/request':>14s}")
    for exponent in exponents:
        requests = 10**exponent
        command = [sys.executable, "-c", LENGTH, str(requests)]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        microseconds, grown = (float(x) for x in run.stdout.split())
        bytes_text = f"{grown:14,.0f}" if exponent > 5 else "             -"
        print(f"{requests:12,d} {microseconds:11.2f} {bytes_text}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the twin on one core.")
    parser.add_argument("--quick", action="store_true", help="fewer requests; less exact")
    quick = parser.parse_args().quick
    for what, (cold, warm) in zip(("run", "run with events"), compile_seconds(), strict=True):
        print(f"first {what}: {cold:.1f} s with an empty cache, {warm:.2f} s in the next process")
    simulate(scenario_of(FLEET, 100))
    print_flatness(range(4, 6 if quick else 8))
    print_speeds(20_000 if quick else 200_000)


if __name__ == "__main__":
    main()

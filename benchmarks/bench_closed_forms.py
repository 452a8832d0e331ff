"""The twin against queueing theory: closed forms within its own confidence intervals.

    python -m benchmarks.bench_closed_forms [--quick] [--seed 0]

The twin is set up so that it is a queue of the textbooks (`tests/planner/simulate/textbook.py`);
20 independent replications of 24,000 requests each at load 0.5, 40,000 at 0.8 and 80,000 at 0.9,
the first fifth left out (M/M/1 at 0.9 forgets its start in 380 mean works, M/G/1 in some 600). A
row's 95 % interval is Student's over the replications, each so long that its figures are about
normal; with runs of a tenth of this length they are not, and the intervals fail. Of many rows one
in twenty lies outside its own interval by chance, so the verdict is on the family: all rows within
intervals that hold together with 95 % (Bonferroni). Seeds are fixed; `--seed` gives another
family. Rows of one queue come from the same runs, so they miss together.

Little's law compares two paths: the numbers present that the twin samples 240 times a run, and
the instants that it records for each request. Their difference has an interval, too; "equal" is
the share of samples at which the count of requests present by the records is the sampled number.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom
from scipy.stats import t as student

from planner.domain.fleet import Role
from planner.simulate import ReplicaGroup, Scenario, SimulationResult, simulate
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import poisson_workload
from tests.planner.simulate.textbook import (
    Counter,
    Queue,
    Work,
    counted,
    decode_slots,
    little,
    one_prefill,
    prefill_in_turn,
    prefill_pool,
    run,
    shared,
    stays,
    student_interval,
    unlimited,
)

Floats = NDArray[np.float64]

LOADS = (0.5, 0.8, 0.9)
REQUESTS_RATIO = {0.5: 0.6, 0.9: 2.0}  # long queues forget slowly
LITTLE_LOADS = (0.8, 30.0)
FLEET_RPS = 42.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is simulated: requests a replication, the first fifth left out."""

    replications: int
    requests: int
    first_seed: int

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.replications)

    def at(self, load: float) -> tuple[int, int]:
        """Requests, and how many of them are left out."""
        requests = round(self.requests * REQUESTS_RATIO.get(load, 1.0))
        return requests, requests // 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One figure: its closed form, and what each replication says."""

    queue: str
    load: float
    figure: str
    closed_form: float
    values: Floats

    @property
    def distance(self) -> float:
        """Of the mean from the closed form, in standard errors."""
        error = float(self.values.std(ddof=1)) / len(self.values) ** 0.5
        return (float(self.values.mean()) - self.closed_form) / error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LittleRow:
    """Numbers present by two paths, (replications,) each."""

    queue: str
    counter: Counter
    sampled: Floats
    by_times: Floats
    equal_ratio: float


def queues(loads: tuple[float, ...]) -> Iterator[Queue]:
    for load in loads:
        yield from (one_prefill(work, load) for work in Work)
    for servers in (4, 16):
        for load in loads:
            yield decode_slots(Work.EXPONENTIAL, servers, load)
            yield prefill_pool(servers, load)
            yield decode_slots(Work.CONSTANT, servers, load)
            yield prefill_in_turn(Work.CONSTANT, servers, load)
    yield prefill_in_turn(Work.EXPONENTIAL, 4, 0.8)
    for load in loads:
        yield shared(Work.EXPONENTIAL, load, Role.DECODE)
        yield shared(Work.TWO_POINT, load, Role.AGGREGATED)
    yield unlimited(Work.EXPONENTIAL, 30.0, Role.DECODE)
    yield unlimited(Work.TWO_POINT, 30.0, Role.AGGREGATED)


def measure(queue: Queue, effort: Effort) -> tuple[list[Row], list[LittleRow]]:
    figures: list[list[float]] = []
    looks = []
    requests, warm = effort.at(queue.load)
    for replication in effort.seeds:
        seen = run(queue, requests=requests, warm=warm, replication=replication)
        figures.append([figure.of(seen) for figure in queue.figures])
        if queue.load in LITTLE_LOADS:
            looks.append(look(seen.result, queue.counter, warm))
    rows = [
        Row(
            queue=queue.name,
            load=queue.load,
            figure=figure.name,
            closed_form=figure.closed_form,
            values=values,
        )
        for figure, values in zip(queue.figures, np.array(figures).T, strict=True)
    ]
    return rows, [little_row(queue.name, queue.counter, looks)] if looks else []


def look(result: SimulationResult, counter: Counter, warm: int) -> tuple[float, float, float]:
    """L by the samples, lambda W by the times, and the share of samples that agree exactly."""
    came_s, went_s = (np.sort(instants) for instants in stays(result, counter))
    t_s = result.series.t_s
    there = np.searchsorted(came_s, t_s, "right") - np.searchsorted(went_s, t_s, "right")
    return *little(result, counter, warm), float((there == counted(result, counter)).mean())


def little_row(name: str, counter: Counter, looks: list[tuple[float, float, float]]) -> LittleRow:
    sampled, by_times, equal = np.array(looks).T
    return LittleRow(
        queue=name,
        counter=counter,
        sampled=sampled,
        by_times=by_times,
        equal_ratio=float(equal.mean()),
    )


def fleet_rows(effort: Effort) -> list[LittleRow]:
    """Little's law in an ordinary deployment, about three quarters loaded."""
    groups = (
        ReplicaGroup(profile=linear_profile(), role=Role.PREFILL, replicas=3),
        ReplicaGroup(profile=linear_profile(), role=Role.DECODE, replicas=2),
    )
    looks: dict[Counter, list[tuple[float, float, float]]] = {
        Counter.PROMPT_LINE: [],
        Counter.BATCH: [],
    }
    requests, warm = effort.at(0.75)
    for seed in effort.seeds:
        workload = poisson_workload(
            requests=requests, rate_rps=FLEET_RPS, isl=500, osl=100, seed=seed
        )
        result = simulate(Scenario(groups=groups, workload=workload))
        for counter, seen in looks.items():
            seen.append(look(result, counter, warm))
    name = "3 prefill + 2 decode replicas, 75 %"
    return [little_row(name, counter, seen) for counter, seen in looks.items()]


def print_rows(rows: list[Row]) -> None:
    print("| queue | load | figure | closed form | twin | 95 % ± | error | t | inside |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        mean, half = student_interval(row.values)
        inside = "yes" if abs(mean - row.closed_form) <= half else "no"
        print(
            f"| {row.queue} | {row.load:g} | {row.figure} | {row.closed_form:.5g} | {mean:.5g} "
            f"| {half:.2g} | {mean / row.closed_form - 1:+.2%} | {row.distance:+.2f} | {inside} |"
        )


def print_verdict(rows: list[Row]) -> bool:
    """Whether the family of closed forms lies within its 95 % intervals."""
    count, replications = len(rows), len(rows[0].values)
    distances = np.abs([row.distance for row in rows])
    own = float(student.ppf(0.975, replications - 1))
    family = float(student.ppf(1 - 0.025 / count, replications - 1))
    errors = np.abs([row.values.mean() / row.closed_form - 1 for row in rows])
    by_chance = int(binom.ppf(0.975, count, 0.05))
    verdict = "all within" if distances.max() <= family else "NOT all within"
    print(
        f"\n{count} rows, {replications} replications: {int((distances > own).sum())} outside "
        f"their own 95 % interval (by chance {0.05 * count:.1f}, seldom more than {by_chance}). "
        f"Largest |t| {distances.max():.2f}; the family-wise 95 % limit (Bonferroni) is "
        f"{family:.2f}: {verdict}. Relative error: median {np.median(errors):.2%}, largest "
        f"{errors.max():.2%}."
    )
    return bool(distances.max() <= family)


def print_little(rows: list[LittleRow]) -> bool:
    """Whether both paths tell the same number everywhere."""
    print("\n| queue | counted | L sampled | lambda W | difference | family 95 % ± | equal |")
    print("|---|---|---|---|---|---|---|")
    holds = True
    for row in rows:
        gap, half = student_interval(row.sampled - row.by_times, confidence=1 - 0.05 / len(rows))
        holds &= abs(gap) <= half
        print(
            f"| {row.queue} | {row.counter} | {row.sampled.mean():.4g} "
            f"| {row.by_times.mean():.4g} | {gap:+.2g} | {half:.2g} | {row.equal_ratio:.2%} |"
        )
    print(f"\nLittle's law: {'holds' if holds else 'DOES NOT HOLD'} in all {len(rows)} rows.")
    return holds


def main() -> None:
    parser = argparse.ArgumentParser(description="The twin against queueing theory.")
    parser.add_argument(
        "--quick", action="store_true", help="a fifth of the requests, without the highest load"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first replication")
    asked = parser.parse_args()
    effort = Effort(
        replications=10 if asked.quick else 20,
        requests=20_000 if asked.quick else 40_000,
        first_seed=asked.seed,
    )
    started = time.process_time()
    measured = [measure(queue, effort) for queue in queues(LOADS[:2] if asked.quick else LOADS)]
    rows = [row for some, _ in measured for row in some]
    littles = [row for _, some in measured for row in some] + fleet_rows(effort)
    print_rows(rows)
    holds = print_verdict(rows)
    holds &= print_little(littles)
    print(f"\n{time.process_time() - started:.0f} s of CPU time.")
    if not holds:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

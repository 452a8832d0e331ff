"""The closed form against the twin: the rate that a deployment sustains, and how long each takes.

    python -m benchmarks.bench_capacity [--cases 240] [--worst 12]

Cases are drawn at random (fixed seed) from a grid of profiles, pools, lengths, objectives and
burstiness. Both answer the same question: at which rate does the target share of requests still
meet its objectives? The closed form sees the lengths through 40 buckets only. A case that the
closed form doubts (`planner.capacity.validity`) is counted apart.
"""

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.capacity.deployment import predict
from planner.capacity.split import PoolLoad
from planner.capacity.validity import Doubt
from planner.domain.fleet import Role
from planner.domain.slo import Slo
from planner.domain.workload import Shape, Workload
from planner.simulate import ReplicaGroup, Scenario, simulate
from tests.fakes.profiles import linear_profile, with_limits
from tests.fakes.workloads import poisson_workload, shape_of_workload

FEWEST, MOST = 6_000, 200_000
OBJECTIVES_LONG = 40
"""A run lasts so many TTFT objectives at saturation: an overload must have the time to show."""
BISECTIONS = 11
BOUND = 0.10

PROFILES = {
    "plain": linear_profile(),
    "long contexts": linear_profile(decode_context_token_s=4e-7, prefill_token_s=6e-5),
    "few slots": linear_profile(max_num_seqs=12),
    "small cache": linear_profile(kv_capacity_tokens=20_000),
    "slow link": linear_profile(transfer_base_s=0.02, transfer_bandwidth_bytes_per_s=4e7),
    "small chunks": linear_profile(max_num_batched_tokens=512),
    "costly steps": linear_profile(prefill_base_s=0.03, decode_base_s=0.02),
    "composed ahead": with_limits(
        linear_profile(decode_base_s=0.02), async_scheduling=True, late_kv_notice=True
    ),
}
POOLS = {
    "1P1D": (1, 1, 0),
    "2P1D": (2, 1, 0),
    "1P3D": (1, 3, 0),
    "4P8D": (4, 8, 0),
    "12P12D": (12, 12, 0),
    "1A": (0, 0, 1),
    "4A": (0, 0, 4),
    "16A": (0, 0, 16),
}
LENGTHS = ((100, 20), (300, 200), (1500, 60), (500, 400), (3000, 150))
OBJECTIVES = ((2.0, 0.03), (0.8, 0.03), (4.0, 0.06))
TARGETS = (0.9, 0.95, 0.99)
BURSTINESS = (1.0, 1.0, 4.0)
CACHED = (0.0, 0.0, 0.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One point of the grid."""

    profile: str
    pools: str
    lengths: tuple[int, int]
    objective: tuple[float, float]
    target: float
    arrival_cv2: float
    cached: float

    @property
    def label(self) -> str:
        isl, osl = self.lengths
        ttft_s, tpot_s = self.objective
        return (
            f"{self.pools} {self.profile}, {isl}+{osl} tokens, {self.cached:.0%} cached, "
            f"{ttft_s:g} s {1e3 * tpot_s:.0f} ms {self.target:.0%}, ca2 {self.arrival_cv2:g}"
        )

    @property
    def slo(self) -> Slo:
        ttft_s, tpot_s = self.objective
        return Slo(model="tiny", ttft_s=ttft_s, tpot_s=tpot_s, attainment_ratio=self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Both answers to a case.

    Parameters
    ----------
    formula_rps, twin_rps : float
    doubts : tuple of Doubt
        Of the closed form, at the rate it names.
    formula_s, twin_s : float
        Seconds of one evaluation at one rate.
    """

    case: Case
    formula_rps: float
    twin_rps: float
    doubts: tuple[Doubt, ...]
    formula_s: float
    twin_s: float

    @property
    def error_ratio(self) -> float:
        """Closed form over twin, less 1."""
        return self.formula_rps / self.twin_rps - 1


def drawn(count: int) -> list[Case]:
    """So many different cases."""
    grid = list(
        itertools.product(PROFILES, POOLS, LENGTHS, OBJECTIVES, TARGETS, BURSTINESS, CACHED)
    )
    order = np.random.default_rng(11).permutation(len(grid))[:count]
    return [
        Case(
            profile=profile, pools=pools, lengths=lengths, objective=objective,
            target=target, arrival_cv2=cv2, cached=cached,
        )
        for profile, pools, lengths, objective, target, cv2, cached in (grid[i] for i in order)
    ]  # fmt: skip


def requests_of(case: Case, count: int = FEWEST) -> Workload:
    """So many requests at one a second: gamma gaps, exponential lengths."""
    isl, osl = case.lengths
    base = poisson_workload(
        requests=count, rate_rps=1.0, isl=isl, osl=osl, cached_ratio=case.cached, seed=3
    )
    gaps = np.random.default_rng(5).gamma(1 / case.arrival_cv2, case.arrival_cv2, count)
    at_s = np.cumsum(gaps / gaps.mean())
    short = np.minimum(base.input_tokens, 12_000)
    cached = np.minimum(base.cached_tokens, short - 1)
    return replace(
        base, arrival_offset_s=at_s, duration_s=float(at_s[-1]), input_tokens=short,
        cached_tokens=np.maximum(cached, 0),
    )  # fmt: skip


def groups_of(case: Case) -> tuple[ReplicaGroup, ...]:
    profile = PROFILES[case.profile]
    roles = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)
    return tuple(
        ReplicaGroup(profile=profile, role=role, replicas=count)
        for role, count in zip(roles, POOLS[case.pools], strict=True)
        if count
    )


def highest_rate(attained: Callable[[float], float], target: float, high: float) -> float:
    low = 0.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if attained(middle) >= target else (low, middle)
    return low


def answer(case: Case) -> Answer:
    """Ask both."""
    groups, slo = groups_of(case), case.slo
    shape = shape_of_workload(requests_of(case))
    pools = [PoolLoad(profile=g.profile, role=g.role, replicas=g.replicas) for g in groups]
    full_rps = 1 / max(_utilizations(pools, shape, slo))
    base = requests_of(case, int(np.clip(OBJECTIVES_LONG * slo.ttft_s * full_rps, FEWEST, MOST)))
    spent = {"formula": [], "twin": []}

    def by_formula(rate_rps: float) -> float:
        began = time.process_time()
        said = predict(
            pools, shape, slo, request_rate_rps=rate_rps, arrival_cv2=case.arrival_cv2,
            window_s=len(base) / rate_rps,
        )  # fmt: skip
        spent["formula"].append(time.process_time() - began)
        return said.prediction.attainment_ratio or 0.0

    def by_twin(rate_rps: float) -> float:
        faster = replace(
            base,
            arrival_offset_s=base.arrival_offset_s / rate_rps,
            duration_s=base.duration_s / rate_rps,
        )
        began = time.process_time()
        result = simulate(Scenario(groups=groups, workload=faster))
        spent["twin"].append(time.process_time() - began)
        return float(result.met([slo]).mean())

    formula_rps = highest_rate(by_formula, slo.attainment_ratio, full_rps)
    twin_rps = highest_rate(by_twin, slo.attainment_ratio, 2.0 * full_rps)
    said = predict(
        pools, shape, slo, request_rate_rps=max(formula_rps, 1e-3 * full_rps),
        arrival_cv2=case.arrival_cv2,
    )  # fmt: skip
    return Answer(
        case=case,
        formula_rps=formula_rps,
        twin_rps=twin_rps,
        doubts=said.doubts,
        formula_s=float(np.median(spent["formula"])),
        twin_s=float(np.median(spent["twin"])),
    )


def _utilizations(pools: Sequence[PoolLoad], shape: Shape, slo: Slo) -> tuple[float, ...]:
    return predict(pools, shape, slo, request_rate_rps=1.0).utilization_ratio


def print_errors(answers: Sequence[Answer], worst: int) -> None:
    servable = [a for a in answers if a.twin_rps > 0 and a.formula_rps > 0]
    both_none = sum(a.twin_rps == 0 and a.formula_rps == 0 for a in answers)
    one_none = [a for a in answers if (a.twin_rps > 0) != (a.formula_rps > 0)]
    print(f"{len(answers)} cases; in {both_none} both say that no rate holds")
    for a in one_none:
        print(f"  one says none: {a.case.label}: {a.formula_rps:.3g} | twin {a.twin_rps:.3g} rps")
    print("\n| cases | count | median error | p90 | within 10 % | too high by > 10 % |")
    print("|---|---|---|---|---|---|")
    sure = [a for a in servable if not a.doubts]
    doubted = [a for a in servable if a.doubts]
    for name, those in (("all", servable), ("not doubted", sure), ("doubted", doubted)):
        if those:
            errors = np.array([a.error_ratio for a in those])
            print(
                f"| {name} | {len(those)} | {np.median(np.abs(errors)):.1%} "
                f"| {np.quantile(np.abs(errors), 0.9):.1%} "
                f"| {np.mean(np.abs(errors) <= BOUND):.0%} | {np.mean(errors > BOUND):.0%} |"
            )
    wrong = [a for a in servable if abs(a.error_ratio) > BOUND]
    known = sum(bool(a.doubts) for a in wrong)
    print(f"\nof {len(wrong)} cases beyond {BOUND:.0%}, {known} were doubted")
    print("doubts:", dict(Counter(d.value for a in answers for d in a.doubts)))
    for a in wrong:
        if not a.doubts:
            print(f"  not doubted: {a.error_ratio:+.0%} {a.case.label}")
    for a in sorted(servable, key=lambda a: -abs(a.error_ratio))[:worst]:
        print(
            f"  {a.error_ratio:+.0%} ({a.formula_rps:.3g} | twin {a.twin_rps:.3g} rps) "
            f"{a.case.label} {[d.value for d in a.doubts]}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=240)
    parser.add_argument("--worst", type=int, default=8)
    arguments = parser.parse_args()
    answer(drawn(1)[0])  # compiles
    answers = [answer(case) for case in drawn(arguments.cases)]
    print_errors(answers, arguments.worst)
    formula_s = float(np.median([a.formula_s for a in answers]))
    twin_s = float(np.median([a.twin_s for a in answers]))
    print(
        f"\none evaluation: closed form {1e3 * formula_s:.2f} ms, twin "
        f"{1e3 * twin_s:.1f} ms: {twin_s / formula_s:.0f}x"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

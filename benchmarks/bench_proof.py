"""Whether what the proof loop says is true, and whether a cheaper fleet would have been proven.

    python -m benchmarks.bench_proof coverage [--plans 75] [--first 0] [--futures 300]
    python -m benchmarks.bench_proof cost [--plans 12] [--first 0]

* coverage: plans for one minute of very uneven arrivals (squared variation of the gaps 4 to 12,
  five rates, several seeds; one prefill and one decode pool whose times are formulas). The fleet of
  every proven plan is then replayed on many futures that the proof loop never saw, as long as its
  own: their mean is taken for the truth. Counted are stated low ends above it (2.5 % may be: the
  interval is two-sided, 95 %) and plans that keep less than they promise.
* cost: plans for five minutes of arrivals that come evenly (variation 1) or in bursts, and the same
  without the search for cheaper fleets (`planner.optimize.savings`): USD/h and processor seconds.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import sqrt
from time import process_time

import numpy as np

from planner.domain.forecast import Forecast, ForecastWindow
from planner.domain.plan import Plan, PlanStatus
from planner.domain.spec import Spec
from planner.optimize import plan, prove, savings
from planner.optimize.proposal import Round
from planner.simulate import ReplicaGroup, Scenario, sample_workload, simulate
from tests.planner.optimize.scenarios import NOW, forecast, spec

VARIATIONS = (4.0, 6.0, 8.0, 10.0, 12.0)
RATES_RPS = (6.0, 10.0, 15.0, 22.0, 30.0)
SHORT_S, LONG_S = 60.0, 300.0
ISL, TTFT_S, TPOT_S = 1500.0, 0.5, 0.03
TRUTH_SEED = 987_654_321
LEAST_REQUESTS = 1_168
"""That the proof loop wanted at least of three futures, for a target of 95 %."""


def bursty(rate_rps: float, arrival_cv2: float, window_s: float) -> Forecast:
    """One window of arrivals that come in bursts."""
    even = forecast([rate_rps], isl=ISL, window_s=window_s)
    (window,) = even.windows
    demands = tuple(replace(d, arrival_cv2=arrival_cv2) for d in window.demands)
    return replace(even, windows=(replace(window, demands=demands),))


def spec_for(seed: int) -> Spec:
    """Prefill and decode on one accelerator."""
    given = spec(inventory=200, ttft_s=TTFT_S, tpot_s=TPOT_S)
    return replace(given, loop=replace(given.loop, seed=seed))


def instances(
    window_s: float, variations: Sequence[float], *, first: int, plans: int
) -> list[tuple[Spec, Forecast, str]]:
    """So many instances from a fixed list, seed after seed."""
    seeds = range(1, 2 + (first + plans) // (len(variations) * len(RATES_RPS)))
    grid = list(product(seeds, variations, RATES_RPS))[first : first + plans]
    return [
        (spec_for(seed), bursty(rate, cv2, window_s), f"{rate:g}/s, variation {cv2:g}, seed {seed}")
        for seed, cv2, rate in grid
    ]


def true_attainment(
    of: Spec, made: Plan, window: ForecastWindow, *, futures: int
) -> tuple[float, float]:
    """Mean attainment of a plan's fleet over fresh futures, and its standard error."""
    groups = []
    for pool in made.windows[0].pools:
        profile = of.profile_of(pool.shape)
        if profile is not None:
            groups.append(
                ReplicaGroup(profile=profile, role=pool.shape.role, replicas=pool.replicas)
            )
    rate = window.request_rate_rps(of.forecast.demand_level)
    duration_s = max(window.window_s, LEAST_REQUESTS / 3 / rate)
    met, came = [], []
    for future in range(futures):
        workload = sample_workload(
            window,
            level=of.forecast.demand_level,
            duration_s=duration_s,
            rng=np.random.default_rng([TRUTH_SEED, future]),
        )
        seen = simulate(Scenario(groups=tuple(groups), workload=workload))
        met.append(float(seen.met(of.slos).sum()))
        came.append(float(seen.requests))
    mean = sum(met) / sum(came)
    apart = np.array(met) - mean * np.array(came)
    return mean, sqrt(float(apart @ apart)) / sum(came)


def coverage(first: int, plans: int, futures: int) -> None:
    """How often a stated low end lies above the truth."""
    proven = above = below = clearly = 0
    for of, load, name in instances(SHORT_S, VARIATIONS, first=first, plans=plans):
        made = plan(of, load, None, made_at=NOW)
        seen = made.windows[0].predicted
        low = seen.attainment_low_ratio
        if made.status is PlanStatus.INFEASIBLE or made.unproven or low is None:
            print(f"{name}: not proven", flush=True)
            continue
        truth, error = true_attainment(of, made, load.windows[0], futures=futures)
        target = of.slos[0].attainment_ratio
        proven += 1
        above += low > truth
        below += truth < target
        clearly += truth + 2 * error < target
        print(
            f"{name}: {fleet_text(made)}, {seen.attainment_ratio:.4f} (at least {low:.4f}), "
            f"truth {truth:.4f} +- {error:.4f}",
            flush=True,
        )
    print(
        f"{proven} proven plans of {plans}: {above} low ends above the truth, {below} keep less "
        f"than promised ({clearly} by more than two standard errors)"
    )


def cost(first: int, plans: int) -> None:
    """What the search for cheaper fleets saves, and what it takes."""
    print("| arrivals | without | with | USD/h | processor s |")
    print("|---|---|---|---|---|")
    for of, load, name in instances(LONG_S, (1.0, 8.0), first=first, plans=plans):
        fleets, usd, seconds = [], [], []
        for search in (no_savings, savings.win_back):
            prove.win_back = search
            started = process_time()
            made = plan(of, load, None, made_at=NOW)
            seconds.append(process_time() - started)
            usd.append(made.usd_per_hour)
            fleets.append(fleet_text(made))
        print(
            f"| {name} | {' | '.join(fleets)} | {usd[1] / usd[0] - 1:+.1%} "
            f"| {seconds[0]:.1f}, {seconds[1]:.1f} |",
            flush=True,
        )


def no_savings(*_: object) -> list[tuple[Round, savings.Factors]]:
    """In the place of the search: it finds nothing."""
    return []


def fleet_text(made: Plan) -> str:
    """Replicas of the first window."""
    return " + ".join(f"{p.replicas} {p.shape.role}" for p in made.windows[0].pools)


def main() -> None:
    """Ask what the command line says."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("what", choices=["coverage", "cost"])
    asked.add_argument("--plans", type=int, default=75)
    asked.add_argument("--first", type=int, default=0)
    asked.add_argument("--futures", type=int, default=300)
    given = asked.parse_args()
    if given.what == "coverage":
        coverage(given.first, given.plans, given.futures)
    else:
        cost(given.first, given.plans)


if __name__ == "__main__":
    main()

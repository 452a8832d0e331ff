"""How fast the optimizer answers: `python benchmarks/bench_optimizer.py`.

The tick-size problem (one window, one model, 6 shapes) against full enumeration of the same fleets
in the same run, and horizons of 12 windows. Prices and rates are made so that many fleets cost
nearly the same, which is the hard case.
"""

from itertools import product
from statistics import median
from time import perf_counter

import numpy as np

from planner.domain.fleet import Role
from planner.optimize import Problem, check, optimize
from tests.planner.optimize.cases import option, problem

REPEATS = 7
ROLE_RATES = ((Role.PREFILL, 10.0), (Role.DECODE, 12.0), (Role.AGGREGATED, 5.0))
ACCELERATORS = (("h100", 4.0, 1.0), ("a100", 2.2, 0.5), ("l40s", 1.1, 0.22))


def near_ties(windows: int, *, load_rps: float, accelerators: int, inventory: int = 16) -> Problem:
    """A fleet of two replicas each, a wave of load, pools with a pooling effect."""
    counts = np.arange(1, 13)
    options, rates = [], []
    for name, usd, speed in ACCELERATORS[:accelerators]:
        for role, rate in ROLE_RATES:
            options.append(option(role, name, usd, initial_replicas=2, start_s=90.0))
            rates.append(list(rate * speed * counts * (1 - 0.15 / np.sqrt(counts))))
    wave = load_rps * (1 + 0.5 * np.sin(np.arange(windows) / 3))
    return problem(options, rates, list(wave), inventory=inventory, window_s=300.0, has_fleet=True)


def enumerate_usd_per_hour(case: Problem, most: int) -> float:
    """The cheapest fleet of one window among all of up to `most` replicas a pool."""
    prices = np.array([o.usd_per_hour for o in case.options])
    tables = [
        np.array([case.capacity[o, 0].at(n) for n in range(most + 1)]) for o in case.option_indices
    ]
    fleets = np.array(list(product(range(most + 1), repeat=len(case.options))))
    rate = {
        role: sum(tables[o][fleets[:, o]] for o in case.in_role(role)) for role, _ in ROLE_RATES
    }
    served = np.minimum(rate[Role.PREFILL], rate[Role.DECODE]) + rate[Role.AGGREGATED]
    enough = served >= case.load_rps(0)
    return float((fleets[enough] @ prices).min())


def seconds(case: Problem) -> float:
    """Median wall time of a whole solve, model building and check included."""
    times = []
    for _ in range(REPEATS):
        started = perf_counter()
        optimize(case)
        times.append(perf_counter() - started)
    return median(times)


def main() -> None:
    tick = near_ties(1, load_rps=20.0, accelerators=2)
    optimize(tick)  # the first call loads the solver
    tick_s = seconds(tick)
    started = perf_counter()
    enumerate_usd_per_hour(tick, most=7)
    enumeration_s = perf_counter() - started
    print(f"tick, 6 shapes, 1 window: {1e3 * tick_s:.1f} ms")
    print(f"full enumeration (8^6 fleets): {1e3 * enumeration_s:.0f} ms")
    print(f"ratio solve / enumeration: {tick_s / enumeration_s:.4f}")
    for shapes, load_rps in ((6, 20.0), (9, 20.0), (9, 60.0)):
        case = near_ties(12, load_rps=load_rps, accelerators=shapes // 3)
        started = perf_counter()
        solution = optimize(case)
        took_s = perf_counter() - started
        faults = check(case, solution)
        print(
            f"{shapes} shapes, 12 windows, {load_rps:g} requests/s: {took_s:.2f} s, "
            f"gap {100 * solution.gap_ratio:.1f} %, {len(faults)} faults"
        )


if __name__ == "__main__":
    main()

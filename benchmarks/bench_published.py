"""The optimizer on published instances: `python -m benchmarks.bench_published`.

llm-inferno's instances, DistServe's fits, Splitwise's measurements and Azure's traces are read
below POOLWISE_DATA; Melange's and DeepSeek's figures are in the text of their publications.
"""

import os
import sys
import time
from pathlib import Path

from benchmarks.published import deepseek, distserve, inferno, splitwise, taichi
from planner.domain.fleet import Role
from planner.optimize import check, optimize
from planner.optimize.solution import mean_usd_per_hour
from tests.planner.optimize.cases import option, problem

INFERNO = {
    ("small", True): 35_767.0,
    ("small", False): 35_386.5,
    ("large", True): 26_888.0,
    ("large", False): 26_151.5,
}
"""Cost of an exact solver on their instances: one accelerator type per server, and mixed. Their
greedy solver publishes 39,743 and 27,007."""

MELANGE_USD_PER_HOUR = 8.35


def main() -> int:
    data = os.environ.get("POOLWISE_DATA")
    print("| instance | published | found | gap | solver | seconds |\n|---|---|---|---|---|---|")
    for (name, one), published in INFERNO.items() if data else ():
        folder = Path(data or "") / "profiles" / "llm-inferno" / name
        case = inferno.read_instance(folder, one_shape_per_role=one)
        started = time.perf_counter()
        found = optimize(case)
        took_s = time.perf_counter() - started
        assert check(case, found) == ()
        kind = "one type per server" if one else "mixed types"
        print(
            f"| inferno {name}, {kind} | {published:,.1f} | {found.terms[0].usd:,.1f} "
            f"| {found.gap_ratio:.1%} | {found.solver_name} | {took_s:.2f} |"
        )
    pair = [option(Role.AGGREGATED, "a100", 3.67), option(Role.AGGREGATED, "a10g", 1.01)]
    case = problem(pair, [2.0, 0.37], [4.2], inventory=16)
    found = optimize(case)
    usd = mean_usd_per_hour(case, found.replicas)
    print(f"| Melange, 4.2 requests/s | {MELANGE_USD_PER_HOUR} | {usd:.2f} | 0.0% | | |")
    prefill, decode = deepseek.nodes()
    day = optimize(deepseek.read_instance())
    whole = day.replicas[:, 0].tolist()
    print(
        f"| DeepSeek, nodes | {deepseek.NODES_RUN} ran on average | {prefill + decode:.1f} "
        f"({prefill:.1f} + {decode:.1f}, ratio {prefill / decode:.3f}); whole nodes "
        f"{whole[0]} + {whole[1]} | {day.gap_ratio:.1%} | {day.solver_name} | |"
    )
    if not data:
        print("POOLWISE_DATA is not set: DeepSeek and Melange only", file=sys.stderr)
        return 0
    for name, table in (
        ("DistServe", distserve.table),
        ("TaiChi", taichi.table),
        ("Splitwise", splitwise.table),
    ):
        started = time.perf_counter()
        print(f"\n{name}:\n")
        for line in table(Path(data)):
            print(line, flush=True)
        print(f"\n({time.perf_counter() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""How large a problem may be: `python -m benchmarks.bench_size [--seeds N] [--quick]`.

Problems of `benchmarks/large_fleets.py`: 12 accelerators x 3 roles x 3 tensor parallel sizes,
36 classes, 48 windows; 50 models on one inventory; and growth in each direction. The gap is to a
proven bound of the full model. The alternative in the same run is the full model, given to SCIP as
it is. Seconds are of the wall and, beside them, of all processors: the machine may be shared.
"""

import argparse
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter, process_time

from benchmarks.large_fleets import Size, large_problem
from planner.optimize import Problem, check, guide, optimize, rounding, scip
from planner.optimize.build import build

LARGE = Size(replicas=420)
SMALL = Size(replicas=130)
MODELS = Size(accelerators=6, tps=(1, 2), windows=6, classes=4, models=50, replicas=6000)
GROWTH: dict[str, tuple[Size, ...]] = {
    "windows": tuple(replace(LARGE, windows=n) for n in (6, 12, 24, 48, 96)),
    "classes": tuple(replace(LARGE, classes=n) for n in (4, 9, 18, 36)),
    "accelerators": tuple(replace(LARGE, accelerators=n) for n in (3, 6, 12)),
    "models": tuple(replace(MODELS, models=n, replicas=120 * n) for n in (1, 5, 10, 25, 50)),
}
ALONE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One solve: seconds, gap, replicas a window, and what `check` found."""

    wall_s: float
    processor_s: float
    gap_ratio: float
    replicas: float
    faults: int
    solver: str


def run(problem: Problem) -> Run:
    """Solve a problem, everything included."""
    wall, processor = perf_counter(), process_time()
    solution = optimize(problem)
    return Run(
        wall_s=perf_counter() - wall,
        processor_s=process_time() - processor,
        gap_ratio=solution.gap_ratio,
        replicas=float(solution.replicas.sum() / len(problem.windows)),
        faults=len(check(problem, solution)),
        solver=solution.solver_name,
    )


def row(name: str, of: Run) -> str:
    """One line of a table."""
    return (
        f"| {name} | {of.replicas:.0f} | {100 * of.gap_ratio:.2f} % | {of.wall_s:.1f} "
        f"| {of.processor_s:.1f} | {of.faults} |"
    )


def table(title: str) -> None:
    print(f"\n{title}\n\n| | replicas | gap | wall s | processor s | faults |")
    print("|---|---|---|---|---|---|")


def seeds(size: Size, count: int) -> None:
    """A row per seed, and the worst of all."""
    runs = []
    for seed in range(count):
        runs.append(run(large_problem(size, seed)))
        print(row(f"seed {seed}", runs[-1]), flush=True)
    gaps, seconds = [100 * r.gap_ratio for r in runs], [r.wall_s for r in runs]
    print(
        f"\nworst gap {max(gaps):.2f} %, median {median(gaps):.2f} %; "
        f"slowest {max(seconds):.1f} s, median {median(seconds):.1f} s"
    )


VARIANTS: dict[str, tuple[tuple[object, str, object], ...]] = {
    "as it is": (),
    "guide half as close": ((guide, "_CLOSE_RATIOS", (2e-3, 4e-3)),),
    "guide with two passes": ((guide, "_PASSES", 2),),
    "windows' fleets twice as far": ((rounding, "_GAP_RATIOS", (4e-3, 1e-2)),),
}


def ablation(size: Size, count: int) -> None:
    """Time against gap: what each part's closeness costs, on the same seeds, one after the other.

    Processor seconds, which a shared machine does not change much.
    """
    print("\n| variant | worst gap | median gap | processor s, median | slowest |")
    print("|---|---|---|---|---|")
    for name, changes in VARIANTS.items():
        kept = [(module, field, getattr(module, field)) for module, field, _ in changes]
        for module, field, value in changes:
            setattr(module, field, value)
        try:
            runs = [run(large_problem(size, seed)) for seed in range(count)]
        finally:
            for module, field, value in kept:
                setattr(module, field, value)
        gaps, seconds = [100 * r.gap_ratio for r in runs], [r.processor_s for r in runs]
        print(
            f"| {name} | {max(gaps):.2f} % | {median(gaps):.2f} % | {median(seconds):.1f} | "
            f"{max(seconds):.1f} |",
            flush=True,
        )


def whole(problem: Problem) -> None:
    """The full model as it is."""
    built = build(problem)
    print(
        f"\nfull model: {built.model.column_count} columns, {built.model.row_count} rows, "
        f"{built.model.matrix.nnz} coefficients, built in {_build_s(problem, flows=True):.2f} "
        f"processor s; without flows in {_build_s(problem, flows=False):.2f} (best of five)"
    )
    settings = replace(problem.solver, time_limit_s=ALONE_S)
    found = scip.solve(built.model, built.cost, settings=settings, work=1e3)
    gap = (
        "nothing found"
        if found.values is None
        else f"gap {100 * (1 - found.bound / found.cost):.1f} %"
    )
    print(f"SCIP on the full model, {ALONE_S:g} s: {gap}")


def _build_s(problem: Problem, *, flows: bool) -> float:
    """Processor seconds of the fastest of five: others use the machine, too."""
    times = []
    for _ in range(5):
        started = process_time()
        build(problem, flows=flows)
        times.append(process_time() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="no growth curves, no full model")
    parser.add_argument("--ablation", action="store_true", help="only: time against closeness")
    asked = parser.parse_args()
    optimize(large_problem(replace(SMALL, windows=4, classes=4), 0))  # loads the solvers
    if asked.ablation:
        ablation(LARGE, asked.seeds)
        return
    table("12 accelerators x 3 roles x 3 tp x 48 windows x 36 classes")
    seeds(LARGE, asked.seeds)
    table("the same, about 80 replicas")
    seeds(SMALL, asked.seeds)
    table("50 models on one inventory, 36 shapes and 4 classes each, 6 windows")
    print(row("seed 0", run(large_problem(MODELS, 0))))
    if asked.quick:
        return
    whole(large_problem(LARGE, 0))
    for name, sizes in GROWTH.items():
        table(f"growth in {name}")
        for size in sizes:
            print(row(str(getattr(size, name)), run(large_problem(size, 0))), flush=True)


if __name__ == "__main__":
    main()

"""How long the command line takes before it does anything, beside a bare interpreter.

    python -m benchmarks.bench_start_up [--runs 15]

Each command runs in a process of its own, in turn with `python -c pass`, so that a busy machine
slows both; the table has medians and their ratio. `poolwise --help` should take less than 0.5 s.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

BARE = ("-c", "pass")
POOLWISE = ("-m", "planner.service.cli.main")
COMMANDS = {
    "poolwise --help": ("--help",),
    "poolwise --version": ("--version",),
    "poolwise plan --help": ("plan", "--help"),
    "poolwise explain TTFT": ("explain", "TTFT"),
    "poolwise plan of a missing file": (
        "plan",
        "--spec",
        "docs/examples/small.yaml",
        "--forecast",
        "missing",
    ),
}
"""What they print does not matter here; the last one ends at a file that is missing, when all that
a plan needs is imported."""
MOST_HELP_S = 0.5


@dataclass
class Times:
    """Of one command, seconds, a run each."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def run(self, arguments: tuple[str, ...]) -> None:
        """Once more."""
        before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        self.wall_s.append(time.perf_counter() - began_s)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu_s.append(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        )


def main() -> int:
    """Print the table; exit status 1 where the help takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    bare, found = Times(), {name: Times() for name in COMMANDS}
    for _ in range(runs):
        for name, arguments in COMMANDS.items():
            bare.run(BARE)
            found[name].run((*POOLWISE, *arguments))
    bare_cpu_s = statistics.median(bare.cpu_s)
    lines = [
        f"Medians of {runs} runs; `python -c pass`: {statistics.median(bare.wall_s):.3f} s, "
        f"processor {bare_cpu_s:.3f} s.",
        "",
        "| command | wall, s | processor, s | processor, times `python -c pass` |",
        "|---|---|---|---|",
    ]
    for name, times in found.items():
        wall_s, cpu_s = statistics.median(times.wall_s), statistics.median(times.cpu_s)
        lines.append(f"| `{name}` | {wall_s:.2f} | {cpu_s:.2f} | {cpu_s / bare_cpu_s:.0f} |")
    sys.stdout.write("\n".join(lines) + "\n")
    return int(statistics.median(found["poolwise --help"].cpu_s) >= MOST_HELP_S)


if __name__ == "__main__":
    raise SystemExit(main())

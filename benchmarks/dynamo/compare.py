"""The table: fleet by measure, ours, theirs, the difference, and how much faster ours is.

    python -m benchmarks.dynamo.compare [--trace conversation|azure] [--quick] [--features]

A measure agrees within 5 % (attainment: within one point). Where a fleet differs, its features are
turned off one at a time until it agrees; that feature is then the explanation. `--features` turns
every feature off in turn, also where nothing differs. Seconds are processor seconds on one
processor; ours after one call that compiles. `same TTFT` is the share of requests whose TTFT is the
same within 1 %. Exit code 1: an unexplained difference.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from benchmarks.dynamo import ours, theirs
from benchmarks.dynamo.cases import SLOS, SWITCHES, Case, TraceName, cases_of
from benchmarks.dynamo.outcome import Outcome
from benchmarks.dynamo.traces import public_trace, write_mooncake
from planner.domain.errors import PoolwiseError
from planner.domain.workload import Workload

WITHIN_RATIO = 0.05
WITHIN_POINTS = 0.01
ATTAINMENT = "attainment"
QUICK_REQUESTS = 1_500


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One case in both simulators."""

    case: Case
    ours: Outcome
    theirs: Outcome

    def lines(self) -> Iterator[tuple[str, float, float, float, bool]]:
        """Measure, ours, theirs, difference (a ratio; attainment in points), whether it agrees."""
        slo = SLOS[self.case.trace]
        mine, other = self.ours.figures(slo), self.theirs.figures(slo)
        for name, value in mine.items():
            if name == ATTAINMENT:
                gap, bound = value - other[name], WITHIN_POINTS
            else:
                gap, bound = value / other[name] - 1, WITHIN_RATIO
            yield name, value, other[name], gap, abs(gap) <= bound

    @property
    def agrees(self) -> bool:
        """Whether every measure does."""
        return all(line[-1] for line in self.lines())

    @property
    def speed_ratio(self) -> float:
        """How many times faster ours is."""
        return self.theirs.simulated_s / self.ours.simulated_s


class Traces:
    """The trace as it is and with distinct arrivals, each read and written once."""

    def __init__(self, name: TraceName, requests: int | None, folder: Path) -> None:
        self._read = partial(public_trace, name, requests=requests)
        self._folder = folder

    @cached_property
    def _plain(self) -> tuple[Workload, Path]:
        return self._written(self._read(), "plain")

    @cached_property
    def _distinct(self) -> tuple[Workload, Path]:
        return self._written(self._read(distinct_arrivals=True), "distinct")

    def of(self, case: Case) -> tuple[Workload, Path]:
        """The requests of a case, and the file that holds them."""
        return self._distinct if case.distinct_arrivals else self._plain

    def _written(self, workload: Workload, name: str) -> tuple[Workload, Path]:
        path = self._folder / f"{name}.jsonl"
        write_mooncake(workload, path)
        return workload, path


@contextmanager
def one_processor() -> Iterator[None]:
    """This process and its children on one processor, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def compared(case: Case, traces: Traces) -> Pair:
    """Both simulators on one case."""
    workload, path = traces.of(case)
    return Pair(
        case=case,
        theirs=theirs.run(case, path, records=True),
        ours=ours.run(case, workload),
    )


def explanation(pair: Pair, traces: Traces, say: Callable[[str], None]) -> str | None:
    """The feature without which a differing case agrees; None when there is no such one."""
    for switch in SWITCHES:
        without = switch.off(pair.case)
        if without != pair.case and show(
            compared(without, traces), f"  without {switch.name}", say
        ):
            return switch.name
    return None


def show(pair: Pair, title: str, say: Callable[[str], None]) -> bool:
    """Print the rows of a case; whether it agrees."""
    for name, mine, other, gap, agrees in pair.lines():
        digits = ".2%" if name == ATTAINMENT else ".5f"
        unit = " points" if name == ATTAINMENT else " %"
        difference = f"{100 * gap:+.2f}{unit}"
        verdict = "agrees" if agrees else "DIFFERS"
        say(row(title, name, f"{mine:{digits}}", f"{other:{digits}}", difference, verdict))
        title = ""
    mine_s, other_s = pair.ours.simulated_s, pair.theirs.simulated_s
    say(row("", "processor s", f"{mine_s:.3f}", f"{other_s:.2f}", f"{pair.speed_ratio:,.0f}x", ""))
    say(row("", "same TTFT", f"{pair.ours.same_ttft_ratio(pair.theirs):.1%}", "", "", ""))
    return pair.agrees


def row(fleet: str, *cells: str) -> str:
    """One row of the table: measure, ours, theirs, difference, verdict."""
    measure, mine, other, difference, verdict = cells
    return f"{fleet:44s} {measure:11s} {mine:>9s} {other:>9s} {difference:>14s}  {verdict}".rstrip()


def compare(name: TraceName, *, requests: int | None, features: bool, folder: Path) -> int:
    """Print the comparison on one trace; how many differences have no explanation."""
    say = partial(print, flush=True)
    traces = Traces(name, requests, folder)
    cases = cases_of(name)
    workload, path = traces.of(cases[0])
    started = time.perf_counter()
    ours.run(cases[0], workload.head(20, duration_s=workload.duration_s), repeats=1)
    compiled_s = time.perf_counter() - started
    say(f"{name}: {len(workload):,} requests; the twin's first call took {compiled_s:.0f} s")
    say(row("fleet", "measure", "ours", "theirs", "difference", "verdict"))
    unexplained, pairs = 0, []
    for case in cases:
        pair = compared(case, traces)
        pairs.append(pair)
        if not show(pair, case.name, say):
            found = explanation(pair, traces, say)
            unexplained += found is None
            verdict = "NOT EXPLAINED" if found is None else f"explained by {found}"
            say(f"  {case.name} is {verdict}")
    if features:
        for case in (cases[1], next(c for c in cases if c.aggregated)):
            for switch in SWITCHES:
                if (without := switch.off(case)) != case:
                    show(compared(without, traces), f"{case.name} without {switch.name}", say)
    spare = theirs.run(cases[1], path, records=False)
    mine = sum(p.ours.simulated_s for p in pairs)
    their = sum(p.theirs.simulated_s for p in pairs)
    say(
        f"{name}: all fleets together {their / mine:,.0f}x faster, at least "
        f"{min(p.speed_ratio for p in pairs):,.0f}x; {cases[1].name} "
        f"{spare.simulated_s / pairs[1].ours.simulated_s:,.0f}x when theirs keeps no records"
    )
    return unexplained


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trace", choices=list(TraceName), type=TraceName, default=None)
    parser.add_argument(
        "--quick", action="store_true", help=f"first {QUICK_REQUESTS} requests only"
    )
    parser.add_argument("--features", action="store_true", help="turn every feature off in turn")
    arguments = parser.parse_args()
    names = list(TraceName) if arguments.trace is None else [arguments.trace]
    requests = QUICK_REQUESTS if arguments.quick else None
    unexplained = 0
    try:
        with one_processor(), tempfile.TemporaryDirectory(prefix="poolwise-dynamo-") as folder:
            for name in names:
                unexplained += compare(
                    name, requests=requests, features=arguments.features, folder=Path(folder)
                )
    except PoolwiseError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return min(unexplained, 1)


if __name__ == "__main__":
    sys.exit(main())

"""Run policies over workloads and make the tables of `docs/closed-loop.md`.

    python -m benchmarks.closed_loop.compare [--quick] [--setting qwen-60] [--case azure-conv]
        [--policy Poolwise] [--simulator mocker|twin] [--kept] [--write docs/closed-loop.md]

What was run before, with the same code, is not run again; with `--kept` nothing is run, and the
tables are of what was. Without `--write` they are printed.
"""

import argparse
import math
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.closed_loop import in_twin, mocker, table
from benchmarks.closed_loop.judging import figures
from benchmarks.closed_loop.kept import Results, key_of
from benchmarks.closed_loop.mocker import DynamoPlanner
from benchmarks.closed_loop.policies import DYNAMO, Candidate, candidates
from benchmarks.closed_loop.settings import SETTINGS, Setting
from benchmarks.closed_loop.workloads import CASES, Case, workload_of
from planner.autoscale.backtest import Figures, Run, first_fleet
from planner.domain.errors import PoolwiseError
from planner.simulate.policy import Policy

QUICK_CASES, QUICK_SETTINGS = ("step",), ("qwen-60",)
SIMULATORS = ("mocker", "twin")
BEFORE = {True: "nothing known before", False: "its past known"}
NOT_RUN = Figures(
    requests=0,
    attainment_ratio=0.0,
    attainable_ratio=0.0,
    accelerator_hours=math.inf,
    by_role=(math.inf, math.inf),
)
"""Of a run that is not to be made: nobody takes it for the best of anything."""
say = partial(print, flush=True)


def setting_of(setting: Setting, case: Case) -> Setting:
    """The setting with the case's own objective, if it has one."""
    return setting if case.ttft_s is None else replace(setting, ttft_s=case.ttft_s)


def run_in(simulator: str, setting: Setting, case: Case, policy: Policy | DynamoPlanner) -> Run:
    """One run; Dynamo's planner runs in Dynamo's simulator only."""
    workload = workload_of(case.name)
    first = first_fleet(setting.pair, workload, warm_s=case.warm_s)
    if simulator == "mocker" or isinstance(policy, DynamoPlanner):
        return mocker.replay(setting, workload, policy, first=first)
    return in_twin.replay(setting, workload, policy, first=first)


def judged(
    candidate: Candidate,
    setting: Setting,
    case: Case,
    *,
    simulator: str,
    results: Results,
    kept: bool = False,
) -> Figures:
    """The figures of one run, from what is kept where it was run before; `kept`: only from that."""
    workload = workload_of(case.name)
    past = BEFORE[case.before is None]
    what = f"{candidate.family}, {candidate.text}, warm-up {case.warm_s:g} s, {past}"
    key = key_of(setting, workload, what, simulator=simulator, code=candidate.code)
    found = results.find(key)
    if found is None and kept:
        return NOT_RUN
    if found is None:
        run = run_in(simulator, setting, case, candidate.make())
        found = figures(run, setting, workload, warm_s=case.warm_s)
        results.keep(key, f"{setting.name}; {case.name}; {simulator}; {what}", found)
    return found


def points_of(
    setting: Setting,
    case: Case,
    *,
    families: list[str],
    simulator: str,
    results: Results,
    kept: bool = False,
) -> list[table.Point]:
    """Every candidate's figures on one workload."""
    found = []
    in_our_twin = partial(
        judged, setting=setting, case=case, simulator="twin", results=results, kept=kept
    )
    for candidate in candidates(setting, case, judge=in_our_twin, families=families):
        if candidate.family == DYNAMO and simulator != "mocker":
            continue
        began = time.perf_counter()
        got = judged(candidate, setting, case, simulator=simulator, results=results, kept=kept)
        if got is NOT_RUN:
            continue
        found.append(table.Point(family=candidate.family, text=candidate.text, figures=got))
        say(
            f"{simulator:6s} {case.name:10s} {setting.start_s:4.0f} s  {candidate.family:16s} "
            f"{candidate.text:28s} {got.attainment_ratio:7.2%} {got.attainable_ratio:7.2%} "
            f"{got.accelerator_hours:7.2f} h  decided {got.mean_decided_s:.2f} s at the most "
            f"{got.most_decided_s:.2f} s ({time.perf_counter() - began:.0f} s)"
        )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one workload, one setting")
    parser.add_argument("--setting", action="append", choices=list(SETTINGS))
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--policy", action="append", default=[], help="one family; may repeat")
    parser.add_argument("--simulator", action="append", choices=SIMULATORS)
    parser.add_argument("--kept", action="store_true", help="run nothing, show what was run")
    parser.add_argument("--write", type=Path, help="put the tables into this document")
    asked = parser.parse_args()
    names = asked.case or (QUICK_CASES if asked.quick else CASES)
    settings = asked.setting or (QUICK_SETTINGS if asked.quick else SETTINGS)
    results, sections = Results.default(), []
    try:
        for of in (SETTINGS[name] for name in settings):
            for case in (CASES[name] for name in names):
                setting = setting_of(of, case)
                for simulator in asked.simulator or SIMULATORS:
                    points = points_of(
                        setting,
                        case,
                        families=asked.policy,
                        simulator=simulator,
                        results=results,
                        kept=asked.kept,
                    )
                    if points:
                        sections.append(
                            table.Section(
                                setting=setting,
                                case=case,
                                simulator=simulator,
                                points=tuple(points),
                            )
                        )
        text = table.document(sections)
        if asked.write is None:
            say(text)
        else:
            table.write(asked.write, text)
    except PoolwiseError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Try every sampled mutant: `python -m benchmarks.mutation.run --package rollout`.

A process is forked for each, after the libraries were imported, so that a mutant costs its tests
and not the start. Properties are tried on the same examples every time and are not made smaller.
"""

import argparse
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

import numba
import ortools.sat.python.cp_model
import pytest
import scipy.stats
from hypothesis import HealthCheck, Phase, settings

from benchmarks.mutation.cases import CASES, Case
from benchmarks.mutation.mutants import Mutant, sample

PRELOADED = (numba, ortools.sat.python.cp_model, scipy.stats)
settings.register_profile(
    "mutation",
    database=None,
    derandomize=True,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutation")


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads one module from altered source, past every cache."""

    altered = ""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        return compile(self.altered, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        parts = Path(mutant.path).with_suffix("").parts
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        loader = _Loader(fullname, str(Path(self.mutant.path).resolve()))
        loader.altered = self.mutant.source
        return importlib.util.spec_from_file_location(fullname, loader.path, loader=loader)


def _tests(case: Case, mutant: Mutant | None) -> int:
    """The tests' status under a mutant, or without one."""
    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))
        if Path(mutant.path).name == "kernels.py":  # else the machine code of before is loaded
            numba.config.DISABLE_JIT = True
    flags = ["-x", "-q", "-p", "no:cacheprovider", "--no-header"]
    flags += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis was imported above
    flags += [f"--deselect={test}" for test in case.left_out]
    return int(pytest.main([*flags, *case.tests]))


def _verdict(case: Case, mutant: Mutant | None, limit_s: float) -> str:
    """In a process of its own: survived, killed or out of time (which counts as killed)."""
    child = os.fork()
    if child == 0:
        os.setsid()
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        status = 1
        with contextlib.suppress(BaseException):
            status = _tests(case, mutant)
        os._exit(status)
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "out of time"


def run(name: str, mutants: int | None, seed: int, budget_s: float, at: list[str] | None) -> None:
    """Try the mutants of one package and print each survivor and the totals."""
    case = CASES[name]
    began_s = time.monotonic()
    if _verdict(case, None, 1800.0) != "survived":
        sys.exit(f"{name}: its tests fail without any mutant")
    unaltered_s = time.monotonic() - began_s
    limit_s = max(60.0, 10 * unaltered_s)
    print(f"== {case.package}: {unaltered_s:.0f} s unaltered, {limit_s:.0f} s a mutant", flush=True)
    totals: Counter[str] = Counter()
    for mutant in sample(Path(case.package), mutants or case.mutants, seed):
        if time.monotonic() - began_s > budget_s:
            break
        if at and f"{mutant.path}:{mutant.line}" not in at:
            continue
        verdict = _verdict(case, mutant, limit_s)
        totals[verdict] += 1
        if verdict == "survived":
            print(f"{mutant.path}:{mutant.line} {mutant.operator}", flush=True)
            print(f"  - {mutant.before}\n  + {mutant.after}", flush=True)
    told = ", ".join(f"{count} {verdict}" for verdict, count in totals.items())
    print(f"{name}: {totals.total()} mutants of seed {seed}: {told}", flush=True)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", choices=CASES, action="append", help="default: all")
    parser.add_argument("--mutants", type=int, help="of each package; default: see cases.py")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at", action="append", help="FILE:LINE: these mutants of the sample only")
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="of each package")
    arguments = parser.parse_args()
    for name in arguments.package or CASES:
        run(name, arguments.mutants, arguments.seed, arguments.budget_s, arguments.at)


if __name__ == "__main__":
    main()

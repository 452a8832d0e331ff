"""Record real engines and score the twin against them.

    python -m benchmarks.real_engines record     # three quarters of an hour; goes on if stopped
    python -m benchmarks.real_engines score      # reads the recordings only

    python -m benchmarks.real_engines all --hold all --cases 1p1d --folder FOLDER   # ablations
    python -m benchmarks.real_engines all --rate 2.5 --cases 2p1d --folder FOLDER

Recordings go to `benchmarks/real_engines` below POOLWISE_STATE_DIR. Needs `make engine`, the
public trace below POOLWISE_DATA, and control groups (root) for the quotas.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from benchmarks.real_engines.cases import CASES, Held
from planner.domain.errors import PoolwiseError


def say(line: str) -> None:
    sys.stdout.write(f"[{time.strftime('%H:%M:%S')}] {line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("record", "score", "all"))
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--hold",
        type=Held,
        choices=list(Held),
        default=Held.COMPUTE,
        help="what the quota of a worker holds: the process that computes steps, or all",
    )
    parser.add_argument(
        "--rate", type=float, default=None, help="requests/s, instead of half of saturation"
    )
    parser.add_argument("--again", action="store_true", help="record disturbed runs anew")
    arguments = parser.parse_args()
    state = Path(os.environ.get("POOLWISE_STATE_DIR", ".poolwise")).resolve()
    folder = arguments.folder or state / "benchmarks" / "real_engines"
    try:
        if arguments.what != "score":
            from benchmarks.real_engines.record import record

            record(
                folder,
                names=arguments.cases,
                repeats=arguments.repeats,
                held=arguments.hold,
                rate_rps=arguments.rate,
                say=say,
                again=arguments.again,
            )
        if arguments.what != "record":
            from benchmarks.real_engines.score import main as score

            score(folder)
    except PoolwiseError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

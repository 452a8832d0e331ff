"""Record real engines and score the twin against them.

    python -m benchmarks.real_engines record     # about an hour; continues where it stopped
    python -m benchmarks.real_engines score      # reads the recordings only

Recordings go to `benchmarks/real_engines` below POOLWISE_STATE_DIR. Needs `make engine`, the
public trace below POOLWISE_DATA, and control groups (root) for the quotas.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from planner.domain.errors import PoolwiseError


def say(line: str) -> None:
    sys.stdout.write(f"[{time.strftime('%H:%M:%S')}] {line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("record", "score", "all"))
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="record disturbed runs anew")
    arguments = parser.parse_args()
    state = Path(os.environ.get("POOLWISE_STATE_DIR", ".poolwise")).resolve()
    folder = arguments.folder or state / "benchmarks" / "real_engines"
    try:
        if arguments.what != "score":
            from benchmarks.real_engines.record import record

            record(folder, repeats=arguments.repeats, say=say, again=arguments.again)
        if arguments.what != "record":
            from benchmarks.real_engines.score import main as score

            score(folder)
    except PoolwiseError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

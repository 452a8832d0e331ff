"""The service, measured: `python -m benchmarks.bench_service [--only PART ...]`.

Each part is a module of `benchmarks/service` with `run(folder, say, **given) -> Result`: Markdown
with the asked bound beside each figure, and whether all of them hold. On a machine with other work
only ratios say something, and parts measure what they compare in turns.
"""

import argparse
import importlib
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

PARTS = ("load", "month", "crashes", "many")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS, metavar="PART")
    parser.add_argument("--out", type=Path, default=None, help="keep logs and results here")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load")
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--writers", type=int, default=20)
    parser.add_argument("--kills", type=int, default=200, help="on both databases together")
    parser.add_argument("--days", type=float, default=6, help="of the part month")
    parser.add_argument("--deployments", type=int, default=3, help="of the part month")
    parser.add_argument("--many", type=int, default=100, help="deployments of the part many")
    parser.add_argument("--interval-s", type=float, default=60.0, help="between their ticks")
    parser.add_argument("--rounds", type=float, default=3.0, help="intervals that are measured")
    asked = parser.parse_args()
    given = {
        "load": {"seconds": asked.seconds, "readers": asked.readers, "writers": asked.writers},
        "month": {"days": asked.days, "deployments": asked.deployments},
        "crashes": {"kills": asked.kills},
        "many": {
            "deployments": asked.many,
            "interval_s": asked.interval_s,
            "rounds": asked.rounds,
        },
    }
    hold = True
    with TemporaryDirectory(prefix="poolwise-bench-") as scratch:
        for part in asked.only:
            hold &= _run(part, (asked.out or Path(scratch)) / part, given[part])
    return 0 if hold else 1


def _run(part: str, folder: Path, given: dict[str, float]) -> bool:
    print(f"== {part}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"  {time.monotonic() - began:6.1f} s  {line}", file=sys.stderr, flush=True)

    result = importlib.import_module(f"benchmarks.service.{part}").run(folder, say, **given)
    (folder / "result.md").write_text(result.text + "\n")
    print(result.text, flush=True)
    return bool(result.holds)


if __name__ == "__main__":
    sys.exit(main())

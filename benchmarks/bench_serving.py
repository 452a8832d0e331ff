"""The running deployment, measured: `python -m benchmarks.bench_serving [--only PART ...]`.

Needs the CPU engine (`make engine`) and POOLWISE_DATA. Each part is a module of
`benchmarks/serving` with `run(folder, say) -> str`, Markdown with the asked bound beside each
figure; it is printed and kept in the folder. A part that this version does not have is skipped
and said so.
"""

import argparse
import importlib
import importlib.util
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from planner.domain.errors import PoolwiseError

PARTS = (
    "changes",
    "kills",
    "answers",
    "gate",
    "admission",
    "observed",
    "kv",
    "tiers",
    "diagnosis",
    "soak",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=PARTS, metavar="PART")
    parser.add_argument("--out", type=Path, default=None, help="keep logs and results here")
    parser.add_argument("--changes", type=int, default=20, help="of the part changes")
    parser.add_argument("--requests", type=int, default=500, help="of the part answers")
    parser.add_argument("--soak-s", type=float, default=600.0, help="of the part soak; 3600 asked")
    asked = parser.parse_args()
    given: dict[str, dict[str, float]] = {
        "changes": {"changes": asked.changes},
        "answers": {"requests": asked.requests},
        "soak": {"seconds": asked.soak_s},
    }
    failed = 0
    with TemporaryDirectory(prefix="poolwise-bench-") as scratch:
        out = asked.out or Path(scratch)
        for part in asked.only:
            failed += not _run(part, out, given.get(part, {}))
    return 1 if failed else 0


def _run(part: str, out: Path, given: dict[str, float]) -> bool:
    name = f"benchmarks.serving.{part}"
    if importlib.util.find_spec(name) is None:
        print(f"== {part}: this version has no such part", flush=True)
        return True
    print(f"== {part}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", flush=True)
    folder = out / part
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"  {time.monotonic() - began:6.1f} s  {line}", file=sys.stderr, flush=True)

    try:
        text = importlib.import_module(name).run(folder, say, **given)
    except PoolwiseError as error:
        print(f"failed: {error}", flush=True)
        return False
    (folder / "result.md").write_text(text + "\n")
    print(text, flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())

"""Results by what they depend on: a run that was done is not done again."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from benchmarks.closed_loop.settings import Setting
from planner.autoscale.backtest import Figures
from planner.domain.workload import Workload

ROOT = Path(__file__).parents[2]
HERE, DYNAMO = "benchmarks/closed_loop", "benchmarks/dynamo"
ALL_OURS = (
    *(f"planner/{part}" for part in ("autoscale", "capacity", "domain", "optimize", "rollout")),
    "planner/simulate",
    "planner/service/answers/planning.py",
    "forecaster",
    "planner/service/answers/autoscaling",
    f"{HERE}/production.py",
)
"""What Poolwise's own decisions depend on."""
THE_TWIN = ("planner/simulate", f"{HERE}/in_twin.py", "planner/autoscale/backtest")
THEIRS = (f"{HERE}/mocker.py", f"{HERE}/run_mocker.py", f"{DYNAMO}/requirements.txt")
HARNESS = (
    *(f"planner/autoscale/backtest/{part}.py" for part in ("judging", "pair", "running")),
    f"{HERE}/judging.py",
    f"{DYNAMO}/timing.py",
    f"{DYNAMO}/traces.py",
)


@dataclass(frozen=True, slots=True)
class Results:
    """A folder of them, one file each."""

    folder: Path

    @classmethod
    def default(cls) -> "Results":
        """In Poolwise's state directory."""
        state = Path(os.environ.get("POOLWISE_STATE_DIR", ROOT / ".poolwise"))
        return cls(state / "closed-loop")

    def find(self, key: str) -> Figures | None:
        """The figures that were kept under a key."""
        path = self._path(key)
        if not path.exists():
            return None
        found = json.loads(path.read_text())["figures"]
        return Figures(**found | {"by_role": tuple(found["by_role"])})

    def keep(self, key: str, what: str, figures: Figures) -> None:
        """Write them at once, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._path(key).with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps({"what": what, "figures": asdict(figures)}, indent=1))
        unfinished.replace(self._path(key))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def key_of(
    setting: Setting, workload: Workload, candidate: str, *, simulator: str, code: Iterable[str]
) -> str:
    """A digest of all that a result depends on.

    Parameters
    ----------
    candidate : str
        Policy and parameters.
    code : iterable of str
        Files, and folders whose Python sources it depends on.
    """
    digest = hashlib.sha256()
    code = sorted({*code, *HARNESS, *(THE_TWIN if simulator == "twin" else THEIRS)})
    for part in (repr(setting), candidate, simulator, *(code_digest(c) for c in code)):
        digest.update(part.encode() + b"\0")
    digest.update(workload_digest(workload).encode())
    return digest.hexdigest()[:24]


def workload_digest(workload: Workload) -> str:
    """A digest of its requests."""
    digest = hashlib.sha256()
    for column in (workload.arrival_offset_s, workload.input_tokens, workload.output_tokens):
        digest.update(column.tobytes())
    digest.update(repr(workload.duration_s).encode())
    return digest.hexdigest()


@cache
def code_digest(place: str) -> str:
    """A digest of a file of the project, or of all Python sources below a folder."""
    digest, found = hashlib.sha256(), ROOT / place
    for path in sorted(found.rglob("*.py")) if found.is_dir() else [found]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()

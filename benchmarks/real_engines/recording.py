"""One recorded run as a gzipped JSON file: what was sent, every token's instant, the conditions.

Schema `poolwise/real-engine-run/v2`. A file appears whole or not at all.
"""

import gzip
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_engines.cases import MACHINE_CORES, Held
from benchmarks.real_engines.machine import MachineLoad, WorkerCpu
from planner.domain.errors import InputError
from planner.service.whole_file import whole_file

SCHEMA = "poolwise/real-engine-run/v2"
MARGIN_CORES = 0.1
"""With less than this left of the machine beside workers, client and all others, a worker may not
have got its quota: the run counts as disturbed and is repeated."""
LATE_LIMIT_S = 0.1
"""A client that sends later than this was too slow itself."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request as its client saw it; seconds since it was sent unless said otherwise.

    Parameters
    ----------
    planned_s, sent_s : float
        Since the run's beginning.
    token_at_s : tuple of float
        When each chunk of the stream came.
    tokens : tuple of int
        Tokens received up to and including it.
    """

    planned_s: float
    sent_s: float
    input_tokens: int
    output_tokens: int
    token_at_s: tuple[float, ...]
    tokens: tuple[int, ...]
    error: str

    @property
    def gaps_s(self) -> Floats:
        """Gaps between its tokens; a chunk of n tokens counts as n gaps, n - 1 of them 0."""
        counts = np.diff(np.array([0, *self.tokens], dtype=np.int64))
        return np.diff(np.repeat(np.array(self.token_at_s, dtype=np.float64), counts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One repeat of one case under one arrival pattern.

    Parameters
    ----------
    recorded_at : str
        ISO 8601, with a time zone.
    held : Held
        What the quota holds.
    computed_by_decode, transfers : int
        Prompt tokens that decode workers computed (0 proves that the KV cache moved), and KV
        transfers, by the engines' own counters.
    """

    case: str
    arrivals: str
    repeat: int
    recorded_at: str
    quota_cores: float
    sent: tuple[Sent, ...]
    late_s: float
    computed_by_decode: int
    transfers: int
    machine: MachineLoad
    held: Held

    @property
    def disturbed(self) -> bool:
        """Whether neighbours or the client itself were in the way."""
        machine = self.machine
        others = machine.neighbour_cores + machine.steal_cores + machine.client_cores
        taken = sum(max(self.quota_cores, worker.cores) for worker in machine.workers)
        left = MACHINE_CORES - taken - others
        return left < MARGIN_CORES or self.late_s > LATE_LIMIT_S

    @property
    def answered(self) -> tuple[Sent, ...]:
        """Requests with a complete answer."""
        return tuple(s for s in self.sent if not s.error)

    def ttft_s(self) -> Floats:
        """(answered,) time to first token, seconds."""
        return np.array([s.token_at_s[0] for s in self.answered])

    def gaps_s(self) -> Floats:
        """All gaps between tokens, seconds."""
        return np.concatenate([s.gaps_s for s in self.answered])

    def throughput_tokens_per_s(self) -> float:
        """Tokens of complete answers over the time from the first request to the last token."""
        begin = min(s.sent_s for s in self.sent)
        end = max(s.sent_s + s.token_at_s[-1] for s in self.answered)
        return sum(s.output_tokens for s in self.answered) / (end - begin)


def run_path(folder: Path, case: str, arrivals: str, repeat: int) -> Path:
    """Where a run is kept."""
    return folder / f"{case}-{arrivals}-{repeat}.json.gz"


def write_run(folder: Path, run: Run) -> Path:
    """Write a run, all of it or nothing."""
    path = run_path(folder, run.case, run.arrivals, run.repeat)
    write_atomically(path, gzip.compress(json.dumps({"schema": SCHEMA, **asdict(run)}).encode()))
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_run(path: Path) -> Run:
    """Read a run.

    Raises
    ------
    InputError
        When the file is not one.
    """
    try:
        data = json.loads(gzip.decompress(path.read_bytes()))
        if data.pop("schema") != SCHEMA:
            raise InputError(f"{path}: not of schema {SCHEMA}: record it again")
        machine = machine_load(data.pop("machine"))
        sent = tuple(
            Sent(**(s | {"token_at_s": tuple(s["token_at_s"]), "tokens": tuple(s["tokens"])}))
            for s in data.pop("sent")
        )
        held = Held(data.pop("held"))
        return Run(**data, sent=sent, machine=machine, held=held)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a recording ({error}): delete it, record again") from error


def machine_load(data: dict[str, object]) -> MachineLoad:
    """The machine's load as it was written."""
    workers = tuple(WorkerCpu(**w) for w in data.pop("workers"))
    return MachineLoad(**(data | {"workers": workers, "gauge_s": tuple(data["gauge_s"])}))


def read_runs(folder: Path) -> tuple[Run, ...]:
    """All runs of a folder, in order of their names."""
    return tuple(read_run(path) for path in sorted(folder.glob("*-*-?.json.gz")))

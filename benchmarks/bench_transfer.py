"""KV transfers between processes of this machine: seconds over bytes, alone and together.

    python -m benchmarks.bench_transfer [--out FILE]

NIXL reads over UCX, TCP on loopback and shared memory, as the CPU engines are configured (one
thread, progress every 2 ms). Writes link classes for `poolwise simulate --topology`. Needs the
engine's environment (`make engine`); run it on a quiet machine.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.real_engines.recording import write_atomically
from planner.domain.errors import EngineError, PoolwiseError
from planner.service.demo.site import find_engine
from planner.service.settings import read_settings
from planner.simulate import Distance, LinkClass

PIECE_BYTES = 64 * 1024
"""Keys or values of one block of 128 tokens in one layer of the tiny model, float32."""
SIZES = tuple(PIECE_BYTES * n for n in (4, 16, 64, 128, 256, 512))
REPEATS = 12
FLOWS = (1, 2, 3)
PEER = Path(__file__).parent / "real_engines" / "nixl_peer.py"
PATHS = {
    "UCX TCP": {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "lo"},
    # TCP connects the ends; data goes through shared memory, which UCX ranks first.
    "UCX shm": {"UCX_TLS": "shm,tcp,self", "UCX_NET_DEVICES": "lo"},
}
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Transfers of one size while `flows` run at the same time.

    Parameters
    ----------
    seconds : tuple of tuple of float
        Per flow, one value a transfer; without the first one, which connects.
    """

    path: str
    flows: int
    size_bytes: int
    seconds: tuple[tuple[float, ...], ...]

    @property
    def median_s(self) -> float:
        """Median over all transfers."""
        return float(np.median(self.seconds))

    @property
    def total_bytes_per_s(self) -> float:
        """What all flows moved together, by their mean times."""
        return sum(self.size_bytes / float(np.mean(s)) for s in self.seconds)


@contextmanager
def peer(python: Path, path: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Start one end; it ends with its standard input."""
    environment = {k: os.environ[k] for k in KEPT if k in os.environ} | PATHS[path]
    process = subprocess.Popen(
        [str(python), str(PEER), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment | {"OMP_NUM_THREADS": "1", "NIXL_LOG_LEVEL": "ERROR"},
        text=True,
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(process: "subprocess.Popen[str]", line: str) -> None:
    """Send one line."""
    if process.stdin is None:
        raise EngineError("a peer has no standard input")
    process.stdin.write(line + "\n")
    process.stdin.flush()


def answer(process: "subprocess.Popen[str]") -> str:
    """Read one JSON line; what libraries print besides is passed over.

    Raises
    ------
    EngineError
        When the peer has ended.
    """
    if process.stdout is None:
        raise EngineError("a peer has no standard output")
    for line in process.stdout:
        if line.startswith(("{", "[")) and not line.startswith("[["):
            return line
    raise EngineError(f"a NIXL process ended (exit {process.wait()}): is `make engine` complete?")


def measure(python: Path, path: str, flows: int) -> list[Measured]:
    """Measure every size with so many transfers at the same time, each between its own ends."""
    largest = str(max(SIZES))
    with ExitStack() as stack:
        holders = [
            stack.enter_context(peer(python, path, "hold", f"holder-{i}", largest))
            for i in range(flows)
        ]
        readers = [
            stack.enter_context(
                peer(python, path, "read", f"reader-{i}", largest, str(PIECE_BYTES))
            )
            for i in range(flows)
        ]
        for holder, reader in zip(holders, readers, strict=True):
            answer(reader)
            ask(reader, answer(holder).strip())
        found = []
        for size in (SIZES[0], *SIZES):  # the first round connects
            for reader in readers:
                ask(reader, f"{size} {REPEATS}")
            seconds = tuple(tuple(json.loads(answer(r))) for r in readers)
            found.append(Measured(path=path, flows=flows, size_bytes=size, seconds=seconds))
        return found[1:]


def link_class(measured: list[Measured], machine: str) -> LinkClass:
    """Line through the medians of lone transfers; the most that several got together.

    Together they may get less than one alone, where cores are what they share: the twin gives a
    lone one no more than that either.
    """
    alone = [m for m in measured if m.flows == 1]
    sizes = np.array([m.size_bytes for m in alone], dtype=np.float64)
    took = np.array([m.median_s for m in alone])
    per_byte, base_s = np.polyfit(sizes, took, 1, w=1 / took)
    per_byte = max(float(per_byte), 1e-13)
    base_s = max(float(base_s), 0.0)
    largest = [m for m in measured if m.size_bytes == max(SIZES)]
    # Each flow spends base_s of every transfer without moving bytes.
    total = max(
        sum(m.size_bytes / max(float(np.mean(s)) - base_s, 1e-6) for s in m.seconds)
        for m in largest
        if m.flows > 1
    )
    return LinkClass(
        base_s=base_s,
        flow_bytes_per_s=1 / per_byte,
        link_bytes_per_s=total,
        source=f"measured on CPU, {measured[0].path} ({machine}, {datetime.now(UTC):%Y-%m-%d})",
    )


def by_distance(links: Mapping[str, LinkClass]) -> dict[str, LinkClass]:
    """Link classes as `poolwise simulate --topology` takes them.

    Shared memory within a node; TCP on loopback stands for what lies beyond, where there is no
    second machine to measure.
    """
    beyond = links["UCX TCP"]
    return {
        Distance.SAME_NODE: links["UCX shm"],
        Distance.SAME_RACK: beyond,
        Distance.CROSS_RACK: beyond,
    }


def processor() -> str:
    """The processor's name and how many there are."""
    named = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{os.cpu_count()} cores of {named[0] if named else 'an unnamed processor'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    state = Path(os.environ.get("POOLWISE_STATE_DIR", ".poolwise")).resolve()
    out = arguments.out or state / "benchmarks" / "links.json"
    try:
        engine = find_engine(read_settings(os.environ))
        links = {}
        points = []
        print("| path | flows | size | median | p95 | total |\n|---|---|---|---|---|---|")
        for path in PATHS:
            measured = [m for flows in FLOWS for m in measure(engine.python, path, flows)]
            for m in measured:
                p95_s = float(np.quantile(m.seconds, 0.95))
                print(
                    f"| {path} | {m.flows} | {m.size_bytes / 2**20:.2f} MiB | "
                    f"{1e3 * m.median_s:.2f} ms | {1e3 * p95_s:.2f} ms | "
                    f"{m.total_bytes_per_s / 1e6:,.0f} MB/s |"
                )
            links[path] = link_class(measured, processor())
            points += measured
    except PoolwiseError as error:
        print(f"no transfer measured: {error}", file=sys.stderr)
        return 1
    for link in links.values():
        print(
            f"{link.source}: base {1e3 * link.base_s:.2f} ms, one flow "
            f"{link.flow_bytes_per_s / 1e6:,.0f} MB/s, all {link.link_bytes_per_s / 1e6:,.0f} MB/s"
        )
    topology = {"links": {name: asdict(link) for name, link in by_distance(links).items()}}
    write_atomically(out, (json.dumps(topology, indent=1) + "\n").encode())
    every = out.with_suffix(".points.json")
    write_atomically(every, (json.dumps([asdict(m) for m in points]) + "\n").encode())
    print(f"written to {out} (for `poolwise simulate --topology`) and {every}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

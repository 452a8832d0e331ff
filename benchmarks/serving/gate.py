"""What the gate costs: beside a bare ASGI pass-through, in turns, on the same stub workers.

Every part is a process of its own. The gate runs with all it has: a key, a profile, admission,
a direct way, records into SQLite. The stub computes nothing, so that what is measured is what
stands before it. The router alone (smg) is measured in front of the same stubs.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil

from planner.domain.errors import OperationError
from planner.domain.fleet import Role
from serving.fleet.endpoints import Endpoints, RouterEndpoint, WorkerEndpoint, write_endpoints
from serving.workers.processes import free_ports

ROUNDS, SECONDS = 5, 1.5
SETTLE_S = 3.0
"""The gate looks at its workers every two seconds."""
THROUGHPUT_BOUND, ADDED_BOUND = 0.7, 2.0
PEERS = "benchmarks.serving.gate_peers"
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A closed loop.

    Parameters
    ----------
    streams : int
        Requests under way at once.
    tokens : int
        Streamed pieces of each answer.
    """

    streams: int
    tokens: int


LOADS = (
    Load(streams=1, tokens=1),
    Load(streams=1, tokens=64),
    Load(streams=16, tokens=1),
    Load(streams=16, tokens=64),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server under load."""

    port: int
    pid: int


@dataclass(slots=True, kw_only=True)
class Taken:
    """All rounds of one target under one load."""

    rps: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    cpu_share: list[float] = field(default_factory=list)
    target_s: list[float] = field(default_factory=list)
    """Processor time of the target for each request, seconds."""

    @property
    def p50_s(self) -> float:
        """Median time to first token over the medians of rounds, seconds."""
        return float(np.median(self.first_s))


def run(folder: Path, say: Callable[[str], None]) -> str:
    """Measure; the report as Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    with targets(folder) as there:
        taken = {(name, load): Taken() for load in LOADS for name in there}
        for load in LOADS:
            for number in range(ROUNDS):
                names = list(there) if number % 2 == 0 else list(reversed(there))
                for name in names:
                    _measure(there[name], load, taken[name, load])
            say(f"{load.streams} streams of {load.tokens} tokens measured")
    return report(taken, list(there))


LESS = {"gate, no records": ("--no-record",), "gate, only passing and counting": ("--no-record",)}
"""The gate with parts of its work taken away; the last one knows of no workers either, so that it
neither estimates nor decides."""


@contextmanager
def targets(folder: Path) -> Iterator[dict[str, Target]]:
    """The stub, the bare pass-throughs, the gate whole and in part, the router where it starts."""
    with ExitStack() as stack:
        worker, second, bare, bare_httpx, router, metrics = free_ports(6)

        def start(line: Sequence[str], port: int) -> Target:
            return Target(port=port, pid=stack.enter_context(_process(line, port)))

        upstream = f"http://127.0.0.1:{worker}"
        there = {"stub alone": start([PEERS, "stub", str(worker), "0"], worker)}
        start([PEERS, "stub", str(second), "0"], second)
        there["bare aiohttp"] = start([PEERS, "bare", str(bare), upstream, "aiohttp"], bare)
        whole = gate_process(folder, spec_for(folder), _stub_endpoints(worker))
        there["gate"] = stack.enter_context(whole)
        for name, options in LESS.items():
            part = folder / name.replace(" ", "-").replace(",", "")
            part.mkdir(exist_ok=True)
            known = _stub_endpoints(worker)
            if name == list(LESS)[-1]:
                known = replace(known, workers=())
            less = gate_process(part, spec_for(part), known, *options)
            there[name] = stack.enter_context(less)
        line = [PEERS, "bare", str(bare_httpx), upstream, "httpx"]
        there["bare httpx"] = start(line, bare_httpx)
        line = ["smg", "launch", "--worker-urls", upstream, f"http://127.0.0.1:{second}"]
        line += ["--host", "127.0.0.1", "--port", str(router), "--prometheus-port", str(metrics)]
        line += ["--prometheus-host", "127.0.0.1", "--log-level", "error"]
        line += ["--policy", "round_robin"]
        try:
            started = start(line, router)
            _await_answers(router)
            there["router alone (smg)"] = started
        except OperationError:
            pass  # the report says that it is missing
        yield there


def _stub_endpoints(worker: int) -> Endpoints:
    """The stub as router and as both workers."""
    url = f"http://127.0.0.1:{worker}"
    workers = (
        WorkerEndpoint(name="p0", role=Role.PREFILL, cell="a", url=url),
        WorkerEndpoint(name="d0", role=Role.DECODE, cell="a", url=url),
    )
    routers = (RouterEndpoint(cell="a", url=url, metrics_url=f"{url}/metrics"),)
    return Endpoints(pid=os.getpid(), model="tiny", routers=routers, workers=workers)


@contextmanager
def gate_process(folder: Path, spec: Path, endpoints: Endpoints, *options: str) -> Iterator[Target]:
    """A gate in front of a deployment, its records in a database under `folder`."""
    state = folder / "gate-state"
    state.mkdir(parents=True, exist_ok=True)
    write_endpoints(state, endpoints)
    (port,) = free_ports(1)
    line = ["planner.service.cli.main", "gate", "run", "--spec", str(spec)]
    line += ["--port", str(port), "--anonymous", *options]
    environment = {**os.environ, "POOLWISE_STATE_DIR": str(state)}
    environment.pop("POOLWISE_DATABASE_URL", None)
    with _process(line, port, environment=environment) as pid:
        time.sleep(SETTLE_S)
        yield Target(port=port, pid=pid)


def spec_for(folder: Path) -> Path:
    """A spec of one model `tiny`, with the example profile renamed to it."""
    profile = json.loads((EXAMPLES / "profile.json").read_text())
    profile["model"] = "tiny"
    (folder / "profile.json").write_text(json.dumps(profile))
    config = (
        "{num_hidden_layers: 8, hidden_size: 512, num_attention_heads: 8, num_key_value_heads: 2, "
        "intermediate_size: 1408, vocab_size: 8192, max_position_embeddings: 32768, "
        "torch_dtype: bfloat16, model_type: llama}"
    )
    text = f"""apiVersion: poolwise/v1
name: gate-bench
models: [{{name: tiny, config: {config}}}]
slos: [{{model: tiny, ttft_s: 60, tpot_s: 5}}]
accelerators: [{{name: {profile["accelerator"]}, per_node: 8, inventory: 8,
  usd_per_gpu_hour: {{on_demand: 2.0}}, memory_bytes: 8e10}}]
profiles: [profile.json]
pools:
- {{model: tiny, role: prefill, accelerator: {profile["accelerator"]}}}
- {{model: tiny, role: decode, accelerator: {profile["accelerator"]}}}
target: {{kind: dry_run}}
"""
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


@contextmanager
def _process(
    module: Sequence[str], port: int, *, environment: dict[str, str] | None = None
) -> Iterator[int]:
    """A process that listens on a port, ended in the end; its id."""
    log = subprocess.DEVNULL if "POOLWISE_BENCH_LOG" not in os.environ else None
    line = [sys.executable, "-m", *module]
    running = subprocess.Popen(line, stdout=log, stderr=log, env=environment)
    try:
        _await_port(running, port, " ".join(module))
        yield running.pid
    finally:
        running.terminate()
        try:
            running.wait(timeout=15)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _await_port(running: "subprocess.Popen[bytes]", port: int, name: str) -> None:
    import socket

    until_s = time.monotonic() + 60
    while time.monotonic() < until_s and running.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise OperationError(f"{name} does not listen on port {port}")


def _await_answers(port: int) -> None:
    """Until a completion is answered; a router first looks at its workers."""
    body = json.dumps({"model": "tiny", "prompt": "x", "max_tokens": 1, "stream": True}).encode()
    headers = {"content-type": "application/json"}
    url = f"http://127.0.0.1:{port}/v1/completions"
    until_s = time.monotonic() + 40
    while time.monotonic() < until_s:
        try:
            asked = urllib.request.Request(url, data=body, headers=headers)
            with urllib.request.urlopen(asked, timeout=5) as answer:
                if b'"text"' in answer.read():
                    return
        except OSError:
            time.sleep(0.5)
    raise OperationError("the router does not answer")


def _measure(target: Target, load: Load, taken: Taken) -> None:
    line = [sys.executable, "-m", PEERS, "load"]
    line += [str(target.port), str(load.streams), str(load.tokens), str(SECONDS)]
    before_s = _processor_s(target.pid)
    done = subprocess.run(line, capture_output=True, check=True)
    used_s = _processor_s(target.pid) - before_s
    found = json.loads(done.stdout)
    if found["failed"]:
        raise OperationError(f"{found['failed']} requests failed")
    taken.rps.append(found["requests"] / found["span_s"])
    taken.first_s.append(float(np.median(found["first_s"])))
    taken.cpu_share.append(found["cpu_share"])
    taken.target_s.append(used_s / found["requests"])


def _processor_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def report(taken: dict[tuple[str, Load], Taken], names: Sequence[str]) -> str:
    """Tables: each load, each target."""
    cores = os.cpu_count()
    lines = [
        f"{cores} cores; {ROUNDS} rounds of {SECONDS:g} s of each, in turns; medians over rounds. "
        "TTFT as the generator sees it; added: over the stub alone.",
        "",
        "| load | target | requests/s | TTFT p50 | added | its processor time a request "
        "| generator's CPU |",
        "|---|---|---|---|---|---|---|",
    ]
    for load in LOADS:
        alone = taken[names[0], load]
        for name in names:
            one = taken[name, load]
            lines.append(
                f"| {load.streams} x {load.tokens} tokens | {name} | {np.median(one.rps):,.0f} "
                f"| {1e3 * one.p50_s:.2f} ms | {1e3 * (one.p50_s - alone.p50_s):.2f} ms "
                f"| {1e6 * np.median(one.target_s):.0f} us | {np.median(one.cpu_share):.2f} cores |"
            )
    lines += [
        "",
        "| load | gate / bare throughput | asked | gate / bare added p50 | asked | met |",
        "|---|---|---|---|---|---|",
    ]
    for load in LOADS:
        alone, bare, gate = (taken[n, load] for n in ("stub alone", "bare aiohttp", "gate"))
        speed = float(np.median(np.array(gate.rps) / np.array(bare.rps)))
        added = (gate.p50_s - alone.p50_s) / max(bare.p50_s - alone.p50_s, 1e-9)
        met = "yes" if speed >= THROUGHPUT_BOUND and added <= ADDED_BOUND else "NO"
        lines.append(
            f"| {load.streams} x {load.tokens} tokens | {speed:.2f} | >= {THROUGHPUT_BOUND} "
            f"| {added:.2f} | <= {ADDED_BOUND:g} | {met} |"
        )
    if "router alone (smg)" not in names:
        lines += ["", "The router alone was not measured: it did not start here."]
    return "\n".join(lines)

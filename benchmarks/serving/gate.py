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
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

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


@dataclass(slots=True, kw_only=True)
class Taken:
    """All rounds of one target under one load."""

    rps: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    cpu_share: list[float] = field(default_factory=list)

    @property
    def p50_s(self) -> float:
        """Median time to first token over the medians of rounds, seconds."""
        return float(np.median(self.first_s))


def run(folder: Path, say: Callable[[str], None]) -> str:
    """Measure; the report as Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    with targets(folder) as ports:
        taken = {(name, load): Taken() for load in LOADS for name in ports}
        for load in LOADS:
            for number in range(ROUNDS):
                names = list(ports) if number % 2 == 0 else list(reversed(ports))
                for name in names:
                    _measure(ports[name], load, taken[name, load])
            say(f"{load.streams} streams of {load.tokens} tokens measured")
    return report(taken, list(ports))


@contextmanager
def targets(folder: Path) -> Iterator[dict[str, int]]:
    """Ports of the stub, the bare pass-throughs, the gate, and the router where it starts."""
    with ExitStack() as stack:
        worker, second, bare, bare_httpx, router, metrics = free_ports(6)
        for port in (worker, second):
            stack.enter_context(_process([PEERS, "stub", str(port), "0"], port))
        upstream = f"http://127.0.0.1:{worker}"
        stack.enter_context(_process([PEERS, "bare", str(bare), upstream, "aiohttp"], bare))
        line = [PEERS, "bare", str(bare_httpx), upstream, "httpx"]
        stack.enter_context(_process(line, bare_httpx))
        gate = stack.enter_context(gate_process(folder, spec_for(folder), _stub_endpoints(worker)))
        ports = {"stub alone": worker, "bare aiohttp": bare, "gate": gate, "bare httpx": bare_httpx}
        line = ["smg", "launch", "--worker-urls", upstream, f"http://127.0.0.1:{second}"]
        line += ["--host", "127.0.0.1", "--port", str(router), "--prometheus-port", str(metrics)]
        line += ["--prometheus-host", "127.0.0.1", "--log-level", "error"]
        line += ["--policy", "round_robin"]
        try:
            stack.enter_context(_process(line, router))
            _await_answers(router)
            ports["router alone (smg)"] = router
        except OperationError:
            pass  # the report says that it is missing
        yield ports


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
def gate_process(folder: Path, spec: Path, endpoints: Endpoints, *options: str) -> Iterator[int]:
    """A gate in front of a deployment, its records in a database under `folder`; its port."""
    state = folder / "gate-state"
    state.mkdir(parents=True, exist_ok=True)
    write_endpoints(state, endpoints)
    (port,) = free_ports(1)
    line = ["planner.service.cli.main", "gate", "run", "--spec", str(spec)]
    line += ["--port", str(port), "--anonymous", *options]
    environment = {**os.environ, "POOLWISE_STATE_DIR": str(state)}
    environment.pop("POOLWISE_DATABASE_URL", None)
    with _process(line, port, environment=environment):
        time.sleep(SETTLE_S)
        yield port


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
) -> Iterator[None]:
    """A process that listens on a port; ended in the end."""
    log = subprocess.DEVNULL if "POOLWISE_BENCH_LOG" not in os.environ else None
    line = [sys.executable, "-m", *module]
    running = subprocess.Popen(line, stdout=log, stderr=log, env=environment)
    try:
        _await_port(running, port, " ".join(module))
        yield
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


def _measure(port: int, load: Load, taken: Taken) -> None:
    line = [sys.executable, "-m", PEERS, "load"]
    line += [str(port), str(load.streams), str(load.tokens), str(SECONDS)]
    done = subprocess.run(line, capture_output=True, check=True)
    found = json.loads(done.stdout)
    if found["failed"]:
        raise OperationError(f"{found['failed']} requests failed")
    taken.rps.append(found["requests"] / found["span_s"])
    taken.first_s.append(float(np.median(found["first_s"])))
    taken.cpu_share.append(found["cpu_share"])


def report(taken: dict[tuple[str, Load], Taken], names: Sequence[str]) -> str:
    """Tables: each load, each target."""
    cores = os.cpu_count()
    lines = [
        f"{cores} cores; {ROUNDS} rounds of {SECONDS:g} s of each, in turns; medians over rounds. "
        "TTFT as the generator sees it; added: over the stub alone.",
        "",
        "| load | target | requests/s | TTFT p50 | added | generator's CPU |",
        "|---|---|---|---|---|---|",
    ]
    for load in LOADS:
        alone = taken[names[0], load]
        for name in names:
            one = taken[name, load]
            lines.append(
                f"| {load.streams} x {load.tokens} tokens | {name} | {np.median(one.rps):,.0f} "
                f"| {1e3 * one.p50_s:.2f} ms | {1e3 * (one.p50_s - alone.p50_s):.2f} ms "
                f"| {np.median(one.cpu_share):.2f} cores |"
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

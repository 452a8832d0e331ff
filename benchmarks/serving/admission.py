"""Admission on real engines: 150 % of capacity with the gate's admission, and without.

One prefill and one decode worker of half a core each. Capacity is measured first: the largest
Poisson rate at which enough requests of a replay without admission meet every objective. Then the
same arrivals at 1.5 times that rate go through the gate twice.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.profiling.engines import LARGEST_BATCH, MODEL, QUOTA_CORES, Engines
from benchmarks.serving.gate import gate_process
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.slo import Slo
from planner.domain.workload import Workload
from planner.service.answers.profiling import run_profile
from planner.service.answers.profiling_request import Asked, Coverage
from planner.service.demo.site import DemoModel, find_engine, prepare_model
from planner.service.settings import read_settings
from serving.fleet.deployment import LocalDeployment
from serving.fleet.endpoints import Endpoints, RouterEndpoint, WorkerEndpoint
from serving.traffic.load import LoadClient, Replay, replay
from serving.traffic.prompts import PromptWriter
from serving.workers.engine import EngineFlags
from serving.workers.launcher import LocalSite

SLO = Slo(model=MODEL, ttft_s=4.0, tpot_s=0.16, attainment_ratio=0.95)
OVERLOAD = 1.5
PROBE_S, REPLAY_S = 30.0, 150.0
PROBES = 5
HIGHEST_RPS = 3.0
WARM_UP = 25
ROLES = (Role.PREFILL, Role.DECODE)
ANSWERS = (16, 33)
LENGTHS = (64, 128, 256, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One replay through the gate."""

    sent: int
    shed: int
    failed: int
    met: int
    ttft_p50_s: float
    ttft_p95_s: float
    tpot_p95_s: float
    span_s: float

    @property
    def attainment_ratio(self) -> float:
        """Of those that were let in."""
        return self.met / max(self.sent - self.shed, 1)


def profiling(out: Path) -> Asked:
    """What `poolwise profile run --quick` is asked for."""
    covers = Coverage(768, None, LARGEST_BATCH, 1024)
    return Asked(out=out, model=MODEL, cores=QUOTA_CORES, quick=True, budget_s=150, covers=covers)


def run(folder: Path, say: Callable[[str], None]) -> str:
    """Measure; the report as Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    profile = folder / "profile.json"
    if not profile.exists():
        say("profiling a prefill and a decode worker (some minutes)")
        run_profile(profiling(profile), os.environ)
    with _pair(folder, say) as now:
        spec, endpoints = _spec(folder, now), _endpoints(now)
        with gate_process(folder, spec, endpoints, "--no-admission", "--no-direct") as gate:
            capacity_rps = _capacity(now, gate.port, say)
            without = _outcome(now, gate.port, OVERLOAD * capacity_rps, say, "without admission")
        with gate_process(folder, spec, endpoints) as gate:
            _replayed(now, gate.port, _workload(1.0, WARM_UP, seed=7))
            with_it = _outcome(now, gate.port, OVERLOAD * capacity_rps, say, "with admission")
    return report(capacity_rps, without, with_it)


@contextmanager
def _pair(folder: Path, say: Callable[[str], None]) -> Iterator[Engines]:
    """The pair under the same quota and limits as when it was profiled."""
    limits = json.loads((folder / "profile.json").read_text())["limits"]
    engine = find_engine(read_settings(os.environ))
    site = LocalSite(
        engine=engine,
        model=prepare_model(engine, DemoModel(MODEL), folder / "models", progress=say),
        flags=EngineFlags(
            max_model_len=limits["max_model_len"],
            max_num_batched_tokens=limits["max_num_batched_tokens"],
            max_num_seqs=limits["max_num_seqs"],
        ),
        state_dir=folder / "local",
        cores_per_replica=QUOTA_CORES,
    )
    with LocalDeployment(site, progress=say) as deployment:
        shapes = [ReplicaShape(role=r, model=MODEL, accelerator="cpu-slot") for r in ROLES]
        workers = tuple(deployment.start(shape) for shape in shapes)
        starts_s = {}
        for worker in workers:
            starts_s[worker.name] = deployment.await_ready(worker)
            deployment.route(worker)
        yield Engines(deployment=deployment, workers=workers, starts_s=starts_s)


def _capacity(now: Engines, port: int, say: Callable[[str], None]) -> float:
    """The largest rate that keeps the promise, requests/s, by bisection over replays."""
    low, high = 0.0, HIGHEST_RPS
    _replayed(now, port, _workload(1.0, 10, seed=3))
    for probe in range(PROBES):
        rate_rps = (low + high) / 2
        done = _replayed(now, port, _workload(rate_rps, PROBE_S, seed=100 + probe))
        kept = float(done.met(SLO).mean())
        say(f"{rate_rps:.2f} requests/s: {kept:.0%} within their objectives")
        low, high = (rate_rps, high) if kept >= SLO.attainment_ratio else (low, rate_rps)
    return low


def _workload(rate_rps: float, seconds: float, *, seed: int) -> Workload:
    """Poisson arrivals of mixed lengths."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / rate_rps, int(3 * rate_rps * seconds) + 10)
    at_s = np.cumsum(gaps)
    at_s = at_s[at_s < seconds]
    n = len(at_s)
    return Workload(
        start_at=datetime(2026, 1, 1, tzinfo=UTC),
        arrival_offset_s=at_s,
        input_tokens=rng.choice(LENGTHS, n).astype(np.int64),
        output_tokens=rng.integers(*ANSWERS, n),
        cached_tokens=np.zeros(n, dtype=np.int64),
        request_class=np.full(n, "default"),
        duration_s=seconds,
    )


def _replayed(now: Engines, port: int, workload: Workload) -> Replay:
    async def go() -> Replay:
        client = LoadClient(url=f"http://127.0.0.1:{port}", model=MODEL, timeout_s=300.0)
        writer: PromptWriter = now.writer()
        try:
            return await replay(client, workload, writer)
        finally:
            await client.close()

    return asyncio.run(go())


def _outcome(
    now: Engines, port: int, rate_rps: float, say: Callable[[str], None], name: str
) -> Outcome:
    done = _replayed(now, port, _workload(rate_rps, REPLAY_S, seed=1))
    shed = sum(1 for t in done.timings if t.status == 503)
    first = done.column("ttft_s")
    token = done.column("tpot_s")
    found = Outcome(
        sent=len(done.timings),
        shed=shed,
        failed=len(done.failures) - shed,
        met=int(done.met(SLO).sum()),
        ttft_p50_s=float(np.nanquantile(first, 0.5)),
        ttft_p95_s=float(np.nanquantile(first, 0.95)),
        tpot_p95_s=float(np.nanquantile(token, 0.95)),
        span_s=REPLAY_S,
    )
    say(f"{name}: {found.attainment_ratio:.1%} of those let in, {shed} of {found.sent} shed")
    return found


def _endpoints(now: Engines) -> Endpoints:
    router = now.deployment.router.url
    return Endpoints(
        pid=os.getpid(),
        model=MODEL,
        routers=(RouterEndpoint(cell="a", url=router, metrics_url=f"{router}/metrics"),),
        workers=tuple(
            WorkerEndpoint(name=w.name, role=role, cell="a", url=w.url)
            for w, role in zip(now.workers, ROLES, strict=True)
        ),
    )


def _spec(folder: Path, now: Engines) -> Path:
    """A spec of the engines as they run."""
    config = now.deployment.site.model.directory / "config.json"
    accelerator = json.loads((folder / "profile.json").read_text())["accelerator"]
    text = f"""apiVersion: poolwise/v1
name: admission-bench
models: [{{name: {MODEL}, config: {config}}}]
slos: [{{model: {MODEL}, ttft_s: {SLO.ttft_s}, tpot_s: {SLO.tpot_s},
  attainment_ratio: {SLO.attainment_ratio}}}]
accelerators: [{{name: {accelerator}, per_node: 2, inventory: 2, memory_bytes: 4e9,
  usd_per_gpu_hour: {{on_demand: 0.05}}}}]
profiles: [profile.json]
pools:
- {{model: {MODEL}, role: prefill, accelerator: {accelerator}}}
- {{model: {MODEL}, role: decode, accelerator: {accelerator}}}
target: {{kind: dry_run}}
"""
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


def report(capacity_rps: float, without: Outcome, with_it: Outcome) -> str:
    """The two replays beside each other."""
    lines = [
        f"Prompts of {', '.join(map(str, LENGTHS))} tokens, answers of {ANSWERS[0]} to "
        f"{ANSWERS[1] - 1}; promise: TTFT {SLO.ttft_s:g} s, TPOT {1e3 * SLO.tpot_s:g} ms for "
        f"{SLO.attainment_ratio:.0%}. Capacity, measured over replays of {PROBE_S:g} s: "
        f"{capacity_rps:.2f} requests/s. Replayed: {OVERLOAD * capacity_rps:.2f} requests/s for "
        f"{REPLAY_S:g} s; workers of {QUOTA_CORES:g} core.",
        "",
        "| | sent | shed | failed | attainment of those let in | asked | in time, requests/s "
        "| TTFT p50 / p95 | TPOT p95 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one, bound in (
        ("without admission", without, "collapse"),
        ("with admission", with_it, ">= 95 %"),
    ):
        lines.append(
            f"| {name} | {one.sent} | {one.shed} ({one.shed / one.sent:.0%}) | {one.failed} "
            f"| {one.attainment_ratio:.1%} | {bound} | {one.met / one.span_s:.2f} "
            f"| {one.ttft_p50_s:.2f} / {one.ttft_p95_s:.2f} s | {1e3 * one.tpot_p95_s:.0f} ms |"
        )
    return "\n".join(lines)

"""What the parts share: a deployment of CPU engines under quotas, a trace, and what streams saw."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil

from forecaster.readers import read_trace
from forecaster.rescale import rescale
from planner.domain.errors import InputError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.workload import Workload
from planner.service.demo.describe import shape_in
from planner.service.demo.site import DemoModel, find_engine, prepare_model
from planner.service.settings import read_settings
from serving.fleet.changes import Changes
from serving.fleet.deployment import LocalDeployment, RouterSettings
from serving.traffic.background import BackgroundReplay
from serving.traffic.load import Replay, Timing
from serving.traffic.prompts import PromptWriter, read_words
from serving.workers.engine import EngineFlags
from serving.workers.launcher import LocalSite

Say = Callable[[str], None]

MODEL = DemoModel.TINY
MAX_MODEL_LEN = 2048
CORES = 0.5
RATE_RPS = 0.8
LENGTH_RATIO, MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS = 0.3, 768, 160
"""Azure's conversation trace made short enough for half a core: about 306 and 39 tokens."""
TRACE = "AzureLLMInferenceTrace_conv.csv"
SLICE_FROM_S = 600.0


def shape(role: Role = Role.PREFILL) -> ReplicaShape:
    """One slot in a role."""
    return shape_in(role, MODEL.value)


def site(folder: Path, *, cores: float | None = CORES, extra: tuple[str, ...] = ()) -> LocalSite:
    """Eager engines of the tiny model; state lies in the folder."""
    settings = read_settings(os.environ)
    engine = find_engine(settings)
    return LocalSite(
        engine=engine,
        model=prepare_model(engine, MODEL, settings.storage.state_dir / "models", progress=print),
        flags=EngineFlags(
            max_model_len=MAX_MODEL_LEN, max_num_batched_tokens=MAX_MODEL_LEN, extra=extra
        ),
        state_dir=folder / "state",
        cores_per_replica=cores,
    )


@contextmanager
def deployed(
    at: LocalSite, roles: tuple[Role, ...], say: Say, routing: RouterSettings | None = None
) -> Iterator[tuple[LocalDeployment, Changes]]:
    """A deployment whose workers take traffic."""
    with LocalDeployment(at, progress=say, routing=routing or RouterSettings()) as deployment:
        workers = [deployment.start(shape(role)) for role in roles]
        for worker in workers:
            say(f"{worker.name} ready after {deployment.await_ready(worker):.0f} s")
            deployment.route(worker)
        yield deployment, Changes(deployment, shape())


def workload(duration_s: float, rate_rps: float = RATE_RPS) -> Workload:
    """So many seconds of the trace, shorter and slowed down."""
    data = os.environ.get("POOLWISE_DATA")
    if not data:
        raise InputError("POOLWISE_DATA is not set: it names the folder with traces/")
    trace = read_trace(Path(data) / "traces" / TRACE).workload
    whole = trace.between(SLICE_FROM_S, trace.duration_s)
    count = min(int(duration_s * rate_rps), len(whole) - 1)
    cut = whole.head(count, duration_s=float(whole.arrival_offset_s[count]))
    return rescale(
        cut,
        length_ratio=LENGTH_RATIO,
        rate_ratio=rate_rps / cut.request_rate_rps,
        max_input_tokens=MAX_INPUT_TOKENS,
        max_output_tokens=MAX_OUTPUT_TOKENS,
    )


@contextmanager
def load(url: str, at: LocalSite, requests: Workload, seed: int) -> Iterator[BackgroundReplay]:
    """Replay in the background; at the end nothing more is sent and the last answers come."""
    running = BackgroundReplay(
        url=url,
        model=MODEL.value,
        workload=requests,
        writer=PromptWriter(words=read_words(at.model.directory), seed=seed),
        timeout_s=90.0,
    )
    running.start()
    try:
        yield running
    finally:
        running.stop_sending()
        running.result()


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that was done while requests were under way; perf_counter seconds."""

    what: str
    began_s: float
    ended_s: float

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s


def timed(what: str, act: Callable[[], object]) -> Span:
    """Do something and note when."""
    began = time.perf_counter()
    act()
    return Span(what=what, began_s=began, ended_s=time.perf_counter())


def gaps_within(replay: Replay, spans: list[Span]) -> np.ndarray:
    """Gaps between tokens, seconds, that ended inside one of the spans."""
    found = []
    for timing in replay.timings:
        at = np.asarray(timing.token_at_s)
        for gap, end in zip(np.diff(at), at[1:], strict=True):
            if any(s.began_s <= end <= s.ended_s for s in spans):
                found.append(gap)
    return np.asarray(found)


def ended_s(timing: Timing) -> float:
    """When its last token came; when it was sent, without any."""
    return timing.token_at_s[-1] if timing.token_at_s else timing.sent_at_s


def p95_ms(gaps: np.ndarray) -> float:
    return float(np.quantile(gaps, 0.95)) * 1000 if len(gaps) else float("nan")


def kill_below(pid: int) -> None:
    """SIGKILL everything below a supervisor."""
    for process in psutil.Process(pid).children(recursive=True):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def kinds_of(errors: list[str]) -> str:
    """Error texts, shortened, with their counts."""
    short = [e.split(":")[0][:60] for e in errors]
    return "; ".join(f"{short.count(k)} x {k}" for k in sorted(set(short))) or "none"


def without_prefix_cache(at: LocalSite) -> LocalSite:
    """The same site, computing every prompt."""
    flags = replace(at.flags, extra=(*at.flags.extra, "--no-enable-prefix-caching"))
    return replace(at, flags=flags)

"""The engines that are profiled: a prefill and a decode worker, and an aggregated one."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.real_engines.machine import free_host_side, leave_group, weigh_own_processes
from planner.domain.errors import EngineError
from planner.domain.fleet import ReplicaShape, Role
from planner.service.demo.site import DemoModel, find_engine, prepare_model
from planner.service.settings import read_settings
from profiler.measure.where import Range
from serving.fleet.deployment import LocalDeployment
from serving.traffic.load import LoadClient
from serving.traffic.prompts import PromptWriter, read_words
from serving.workers.engine import EngineFlags
from serving.workers.launcher import LocalSite, Worker

MODEL = "tiny"
QUOTA_CORES = 0.5
LONGEST, LARGEST_BATCH = 2048, 16
AREA = Range(
    new_tokens=(32, 768),
    cached_tokens=(0, 640),
    sequences=(1, LARGEST_BATCH),
    context_tokens=(64, 800),
    longest_tokens=LONGEST,
    block_tokens=128,
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """Workers under quotas: a routed pair, or a single one asked directly."""

    deployment: LocalDeployment
    workers: tuple[Worker, ...]
    starts_s: dict[str, float]

    @property
    def url(self) -> str:
        """The router's, or the only worker's."""
        return self.deployment.router.url if len(self.workers) > 1 else self.workers[0].url

    @property
    def site(self) -> LocalSite:
        """Their engine, model and flags."""
        return self.deployment.site

    def client(self, url: str | None = None) -> LoadClient:
        """A client of one of them."""
        return LoadClient(url=url or self.url, model=MODEL, timeout_s=300.0)

    def writer(self) -> PromptWriter:
        """Writes prompts that nobody wrote before."""
        words = read_words(self.deployment.site.model.directory)
        return PromptWriter(words=words, seed=time.time_ns() % 2**31)


def site_in(
    folder: Path, say: Say, *, sequences: int = LARGEST_BATCH, longest: int = LONGEST
) -> LocalSite:
    """The engine of this machine, and a model for it below the folder."""
    engine = find_engine(read_settings(os.environ))
    return LocalSite(
        engine=engine,
        model=prepare_model(engine, DemoModel(MODEL), folder / "models", progress=say),
        flags=EngineFlags(
            max_model_len=longest, max_num_batched_tokens=LONGEST, max_num_seqs=sequences
        ),
        state_dir=folder / "local",
        cores_per_replica=QUOTA_CORES,
    )


@contextmanager
def engines(
    roles: tuple[Role, ...],
    folder: Path,
    say: Say,
    *,
    sequences: int = LARGEST_BATCH,
    longest: int = LONGEST,
) -> Iterator[Engines]:
    """Start workers in these roles, each under its quota, and end them.

    Quotas hold the process that computes steps: the kernel hands a quota out in slices, and two
    processes on two processors that fight for them make every time scatter.
    """
    site = site_in(folder, say, sequences=sequences, longest=longest)
    with LocalDeployment(site, progress=say) as deployment:
        shapes = [ReplicaShape(role=r, model=MODEL, accelerator="cpu-slot") for r in roles]
        workers = tuple(deployment.start(shape) for shape in shapes)
        starts_s = {}
        for worker in workers:
            starts_s[worker.name] = deployment.await_ready(worker)
            if len(workers) > 1:
                deployment.route(worker)
        if not deployment.launcher.quota_is_enforced:
            raise EngineError("no control group can be made here: run as root, with cgroups")
        own = weigh_own_processes(1.0)
        if own is None:
            raise EngineError("no control group can be made here: run as root, with cgroups")
        try:
            for worker in workers:
                free_host_side(deployment.launcher.process_of(worker)[0], own)
            say(f"{len(workers)} workers ready, what computes held to {QUOTA_CORES:g} cores each")
            yield Engines(deployment=deployment, workers=workers, starts_s=starts_s)
        finally:
            leave_group(own)

"""Replay windows of traffic against the deployment and read the engines' own counters."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from planner.domain.fleet import Role
from planner.domain.slo import Slo
from planner.domain.workload import Workload
from planner.service.demo.outcome import MeasuredWindow, Throughput
from serving.fleet.deployment import LocalDeployment
from serving.telemetry import EngineReading
from serving.traffic.background import BackgroundReplay
from serving.traffic.load import Completion, LoadClient, Replay, Timing
from serving.traffic.prompts import PromptWriter

POLL_S = 0.25

Progress = Callable[[BackgroundReplay], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Sends workloads to one deployment; prompts of equal trace blocks are equal text."""

    deployment: LocalDeployment
    writer: PromptWriter

    def begin(self, workload: Workload) -> BackgroundReplay:
        """Start sending in the background."""
        running = BackgroundReplay(
            url=self.deployment.router.url,
            model=self.deployment.site.model.name,
            workload=workload,
            writer=self.writer,
        )
        running.start()
        return running

    def measure(self, workload: Workload, slo: Slo, *, progress: Progress) -> MeasuredWindow:
        """Replay a window to its last answer, with what the engines counted meanwhile."""
        before = _readings(self.deployment)
        running = self.begin(workload)
        while not running.finished:
            self.deployment.launcher.check_alive()
            progress(running)
            time.sleep(POLL_S)
        replay = running.result()
        after = _readings(self.deployment)
        return MeasuredWindow(
            replay=replay,
            fleet=self.deployment.fleet(),
            latency=replay.summary(slo),
            throughput=_throughput(before, after, replay),
        )


def answer_to(deployment: LocalDeployment, prompt: str, *, output_tokens: int) -> Timing:
    """Ask the deployment one question through the router, greedily."""

    async def ask() -> Timing:
        client = LoadClient(url=deployment.router.url, model=deployment.site.model.name)
        try:
            return await client.send(Completion(prompt=prompt, output_tokens=output_tokens))
        finally:
            await client.close()

    return asyncio.run(ask())


_Readings = dict[str, tuple[Role, EngineReading]]


def _readings(deployment: LocalDeployment) -> _Readings:
    return {w.name: (shape.role, r) for w, shape, r in deployment.readings()}


def _throughput(before: _Readings, after: _Readings, replay: Replay) -> Throughput:
    """Difference of the counters, over the time from the first arrival to the last answer."""
    ends = [t.token_at_s[-1] for t in replay.timings if t.token_at_s]
    span_s = max(ends) - replay.began_at_s if ends else replay.workload.duration_s
    span_s = max(span_s, 1e-9)
    moved = {
        name: (role, reading.counters - before[name][1].counters)
        for name, (role, reading) in after.items()
        if name in before
    }
    prefill = [c for role, c in moved.values() if role is Role.PREFILL]
    decode = [c for role, c in moved.values() if role is Role.DECODE]
    computed = sum(c.prompt_tokens_computed for c in prefill)
    return Throughput(
        prefill_tokens_per_s=computed / span_s,
        decode_tokens_per_s=sum(c.generation_tokens for c in decode) / span_s,
        computed_tokens=int(computed),
        cached_tokens=int(sum(c.prompt_tokens_cached for c in prefill)),
        transferred_tokens=int(sum(c.prompt_tokens_transferred for c in decode)),
        decode_computed_tokens=int(sum(c.prompt_tokens_computed for c in decode)),
        transfers=int(sum(c.transfers for c in decode)),
        transfer_bytes=int(sum(c.transfer_bytes for c in decode)),
    )

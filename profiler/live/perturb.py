"""Which resource a live deployment is short of: load of one kind at a time, and what it moves.

A queue answers a little more load by waits that grow with how busy it is: at utilization rho a
tenth more of it costs a queue at 30 % next to nothing and one at 90 % many times its wait. So the
kind of load that moves the latencies of an unchanged short request most names what is short:

* `prefill`: prompts with one output token, computed and forgotten;
* `decode`: short prompts with long answers;
* `requests`: the shortest requests there are, for what HTTP, routing and scheduling cost.

Each is turned on and off several times, so that traffic that drifts meanwhile falls on both.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from planner.domain.errors import MeasurementError
from planner.domain.profile import Profile
from profiler.fitting.forms import Floats
from profiler.measure.requests import Sender
from serving.traffic.load import Timing
from serving.traffic.prompts import PromptWriter

SENTINEL_PROMPT, SENTINEL_ANSWER = 64, 8
PROMPT_TOKENS, ANSWER_TOKENS = 256, 128
BOOTSTRAPS = 2000
LEAST_READINGS = 6

KINDS = ("prefill", "decode", "requests")


@dataclass(frozen=True, slots=True, kw_only=True)
class PerturbPlan:
    """How hard, how long, and when to stop.

    Parameters
    ----------
    extra_ratio : float
        Load that is added, as a share of what a replica does at saturation by its profile.
    phase_s : float
        One phase on or off, seconds.
    phases : int
        Pairs of phases for each kind.
    most_ttft_s : float
        When the short request waits longer for its first token, all added load ends at once.
    settle_s : float
        After load is turned on or off, before readings count, seconds.
    every_s : float
        From the answer to one short request to the next, seconds.
    """

    extra_ratio: float = 0.1
    phase_s: float = 6.0
    phases: int = 3
    most_ttft_s: float = 5.0
    settle_s: float = 1.0
    every_s: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What one kind of load did to a short request.

    Parameters
    ----------
    ttft_ratio, itl_ratio : float
        With the load over without, minus 1.
    ttft_interval, itl_interval : (float, float)
        95 %, by bootstrap over the readings.
    readings : int
    """

    kind: str
    ttft_ratio: float
    ttft_interval: tuple[float, float]
    itl_ratio: float
    itl_interval: tuple[float, float]
    readings: int

    @property
    def is_seen(self) -> bool:
        """Whether a latency moved beyond chance."""
        return self.ttft_interval[0] > 0 or self.itl_interval[0] > 0

    @property
    def largest_ratio(self) -> float:
        """The larger of both that is beyond chance; 0 where none is."""
        moved = [0.0]
        if self.ttft_interval[0] > 0:
            moved.append(self.ttft_ratio)
        if self.itl_interval[0] > 0:
            moved.append(self.itl_ratio)
        return max(moved)


def bottleneck_of(responses: Sequence[Response]) -> str | None:
    """The kind of load that moved most; None: there is room for each."""
    seen = [r for r in responses if r.is_seen]
    return max(seen, key=lambda r: r.largest_ratio).kind if seen else None


@dataclass(slots=True, kw_only=True)
class Perturbation:
    """Adds load to a live deployment, one kind at a time.

    Parameters
    ----------
    profile : Profile
        Of one of its replicas: what a tenth of it is.
    say : callable
        Takes what happens.
    """

    sender: Sender
    writer: PromptWriter
    profile: Profile
    plan: PerturbPlan
    say: Callable[[str], None] = lambda _text: None
    _number: int = field(default=0, init=False)

    async def run(self) -> list[Response]:
        """Every kind in turn.

        Raises
        ------
        MeasurementError
            When the deployment slows down beyond the stated limit, or fails requests.
        """
        await self._read(3 * self.plan.every_s)
        return [await self._respond(kind) for kind in KINDS]

    async def _respond(self, kind: str) -> Response:
        off: list[tuple[float, float]] = []
        on: list[tuple[float, float]] = []
        for phase in range(self.plan.phases):
            self.say(f"{kind}: pair {phase + 1} of {self.plan.phases}")
            off += await self._settled()
            on += await self._under(kind)
        without, with_load = np.array(off), np.array(on)
        if min(len(without), len(with_load)) < LEAST_READINGS:
            raise MeasurementError(
                f"{kind}: only {min(len(without), len(with_load))} short requests were answered in "
                f"a phase's time: give longer phases (--phase-s)"
            )
        ttft, ttft_interval = _ratio(without[:, 0], with_load[:, 0])
        itl, itl_interval = _ratio(without[:, 1], with_load[:, 1])
        return Response(
            kind=kind,
            ttft_ratio=ttft,
            ttft_interval=ttft_interval,
            itl_ratio=itl,
            itl_interval=itl_interval,
            readings=len(without) + len(with_load),
        )

    async def _under(self, kind: str) -> list[tuple[float, float]]:
        """Readings while a kind of load is added; whichever of both ends first ends the other."""
        load = asyncio.create_task(self._load(kind))
        readings = asyncio.create_task(self._settled())
        tasks = (load, readings)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not readings.cancelled():
            return readings.result()
        failed = load.exception()
        while isinstance(failed, ExceptionGroup):
            failed = failed.exceptions[0]
        raise failed or MeasurementError(f"{kind}: the added load ended by itself")

    async def _settled(self) -> list[tuple[float, float]]:
        await asyncio.sleep(self.plan.settle_s)
        return await self._read(self.plan.phase_s)

    async def _read(self, seconds: float) -> list[tuple[float, float]]:
        """Short requests, one after the other: TTFT and mean gap of each, seconds."""
        readings = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            answer = await self._short_request()
            readings.append((answer.ttft_s, answer.tpot_s))
            await asyncio.sleep(self.plan.every_s)
        return readings

    async def _short_request(self) -> Timing:
        """Send one; do not wait for its first token longer than was allowed."""
        first = asyncio.Event()
        request = asyncio.create_task(
            self.sender.one(
                partial(self._fresh, SENTINEL_PROMPT), SENTINEL_ANSWER, on_first=first.set
            )
        )
        came = asyncio.create_task(first.wait())
        try:
            done, _ = await asyncio.wait(
                (request, came),
                timeout=self.plan.most_ttft_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not done:
                raise MeasurementError(
                    "stopped: a short request waited for its first token longer than "
                    f"--most-ttft-s {self.plan.most_ttft_s:g}; all added load has ended"
                )
            return await request
        finally:
            for task in (request, came):
                task.cancel()
            await asyncio.gather(request, came, return_exceptions=True)

    async def _load(self, kind: str) -> None:
        """Requests at a steady rate until cancelled; answers are not waited for in between."""
        prompt, answer, rate = self._shape_of(kind)
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self.sender.one(partial(self._fresh, prompt), answer))
                await asyncio.sleep(1 / rate)

    def _shape_of(self, kind: str) -> tuple[int, int, float]:
        """Prompt and answer tokens, and requests/s that are the stated share of a replica."""
        profile, extra = self.profile, self.plan.extra_ratio
        prompt = min(PROMPT_TOKENS, int(profile.prefill.x[-1]))
        if kind == "prefill":
            return prompt, 1, extra / float(profile.prefill.at(prompt, 0.0))
        if kind == "decode":
            batch = float(profile.decode_step.x[-1])
            step_s = float(profile.decode_step.extended_at(batch, float(ANSWER_TOKENS)))
            return 16, ANSWER_TOKENS, extra * batch / step_s / ANSWER_TOKENS
        return 1, 1, extra / max(profile.first_token_s, 1e-3)

    def _fresh(self, tokens: int) -> str:
        self._number += 1
        return self.writer.unique(tokens, number=self._number)


def _ratio(without: Floats, with_load: Floats) -> tuple[float, tuple[float, float]]:
    """Medians with over without, minus 1, and its 95 % interval."""
    rng = np.random.default_rng(0)

    def medians(values: Floats) -> Floats:
        drawn = rng.choice(values, size=(BOOTSTRAPS, len(values)))
        return np.asarray(np.median(drawn, axis=1), dtype=np.float64)

    drawn = medians(with_load) / medians(without) - 1
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.median(with_load) / np.median(without) - 1), (float(low), float(high))

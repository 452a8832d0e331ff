"""Why OPT-13B is placed otherwise on 8 GPUs: `python -m benchmarks.published.distserve_stages`.

Neither DistServe's fits nor `distserve_fits` charge a pipeline anything: n stages work on n batches
at once, each for an n-th of the time. Here that is taken back, one thing at a time: no pipelines at
all; stages simulated batch by batch, where a short one waits behind a long one (bubbles); smaller
nodes; and the published instances, as many as the node holds, behind one router. Each role has to
keep the root of 90 %, as in the closed form, and a pair serves what the weaker one does.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.published.distserve import Case, Found, Placement, cases
from benchmarks.published.distserve_fits import (
    PROMPT_BATCH_TOKENS,
    Fits,
    Load,
    Parallel,
    read_fits,
)
from planner.capacity.deployment import role_target
from planner.domain.fleet import Role
from profiler.imports.distserve import Times

Floats = NDArray[np.float64]
Rate = Callable[[Role, Parallel], float]
"""Requests/s that one instance sustains."""

ROW = 2
"""Of `cases`: OPT-13B, TTFT 0.25 s, on a node of 8."""
REQUESTS = 6_000
HALVINGS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Poisson arrivals of one request/s; seconds and tokens."""

    arrival_s: Floats
    prompts: Floats
    answers: Floats

    @classmethod
    def of(cls, load: Load) -> "Requests":
        """The load's lengths in random order, from a fixed seed."""
        rng = np.random.default_rng(13)
        rows = rng.choice(len(load.shape.weight), size=REQUESTS, p=load.shape.weight)
        return cls(
            arrival_s=np.cumsum(rng.exponential(size=REQUESTS)),
            prompts=load.shape.input_tokens[rows],
            answers=load.shape.output_tokens[rows],
        )


def through(free_s: list[float], start_s: float, stage_s: float, *, bubbles: bool) -> float:
    """When a batch leaves the last stage; `free_s`, when each stage is free, is moved on.

    Parameters
    ----------
    bubbles : bool
        False: a batch waits for the first stage only, which is all that the closed form knows.
    """
    done_s = start_s
    for s in range(len(free_s)):
        done_s = free_s[s] = (max(done_s, free_s[s]) if bubbles or s == 0 else done_s) + stage_s
    return done_s


def prefill_s(came: Requests, rps: float, times: Times, *, stages: int, bubbles: bool) -> Floats:
    """(requests,) time to first token: batches in order of arrival through every stage."""
    a, b, c = times.prefill
    arrival_s, free_s = came.arrival_s / rps, [0.0] * stages
    waited = np.empty(REQUESTS)
    i = 0
    while i < REQUESTS:
        start_s = max(arrival_s[i], free_s[0])
        j, total = i + 1, came.prompts[i]
        while j < REQUESTS and arrival_s[j] <= start_s and total < PROMPT_BATCH_TOKENS:
            total, j = total + came.prompts[j], j + 1
        lengths = came.prompts[i:j]
        stage_s = (a + b * lengths.sum() + c * (lengths**2).sum()) / stages / 1e3
        done_s = through(free_s, start_s, stage_s, bubbles=bubbles)
        waited[i:j] = done_s - arrival_s[i:j]
        i = j
    return waited


def decode_s(
    came: Requests, rps: float, times: Times, *, stages: int, bubbles: bool, kv_tokens: int
) -> Floats:
    """(requests,) time per output token: as many batches as stages, each token through all."""
    arrival_s, waiting = came.arrival_s / rps, deque(range(REQUESTS))
    held = np.zeros(stages)
    batches: list[list[int]] = [[] for _ in range(stages)]
    left, free_s, ready_s = came.answers - 1, [0.0] * stages, [0.0] * stages
    end_s = np.array(arrival_s)
    kv = came.prompts + came.answers
    idle = 0
    while waiting or any(batches):
        g = int(np.argmin(ready_s))
        start_s = max(ready_s[g], free_s[0])
        if idle >= stages and waiting:
            start_s = max(start_s, arrival_s[waiting[0]])
        even = -(-(sum(map(len, batches)) + 1) // stages)
        while (
            waiting
            and arrival_s[waiting[0]] <= start_s
            and len(batches[g]) < even
            and held.sum() + kv[waiting[0]] <= kv_tokens
        ):
            batches[g].append(waiting.popleft())
            held[g] += kv[batches[g][-1]]
            even = -(-(sum(map(len, batches)) + 1) // stages)
        if not batches[g]:
            busy = [r for r, batch in zip(ready_s, batches, strict=True) if batch]
            ready_s[g] = np.nextafter(min(busy), np.inf) if busy else start_s
            idle = 0 if busy else idle + stages
            continue
        idle, at = 0, np.array(batches[g])
        context = (kv[at] - left[at]).mean()
        stage_s = float(times.decode_ms(len(at), context)) / stages / 1e3
        done_s = through(free_s, start_s, stage_s, bubbles=bubbles)
        ready_s[g] = done_s
        left[at] -= 1
        end_s[at] = done_s
        batches[g] = at[left[at] > 0].tolist()
        held[g] = kv[batches[g]].sum() if batches[g] else 0.0
    return np.asarray((end_s - arrival_s) / np.maximum(came.answers - 1, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Instances whose stages are simulated, with bubbles or without; `known` already were."""

    fits: Fits
    load: Load
    came: Requests
    bubbles: bool
    known: dict[tuple[Role, Parallel], float] = field(default_factory=dict)

    def rps(self, role: Role, instance: Parallel) -> float:
        """The highest rate at which enough requests are in time, by halving."""
        if (role, instance) not in self.known:
            low, high = 0.0, 1.6 * self.fits.rps(role, instance, 1, self.load)
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                low, high = (
                    (middle, high) if self._in_time(role, instance, middle) else (low, middle)
                )
            self.known[role, instance] = low
        return self.known[role, instance]

    def _in_time(self, role: Role, instance: Parallel, rps: float) -> bool:
        slo, times, stages = self.load.slo, self.fits.times[instance.tp], instance.pp
        target = role_target(slo.attainment_ratio, disaggregated=True)
        if role is Role.PREFILL:
            took_s = prefill_s(self.came, rps, times, stages=stages, bubbles=self.bubbles)
            return bool((took_s <= slo.ttft_s).mean() >= target)
        kv_tokens = self.fits.kv_tokens[instance.tp, stages]
        took_s = decode_s(
            self.came, rps, times, stages=stages, bubbles=self.bubbles, kv_tokens=kv_tokens
        )
        return bool((took_s <= slo.tpot_s).mean() >= target)


def best(case: Case, fits: Fits, rate: Rate, *, pipelines: bool = True) -> Found:
    """The pair of most requests/s per GPU within the node."""
    instances = [i for i in fits.instances() if pipelines or i.pp == 1]
    by_role = {(r, i): rate(r, i) for r in (Role.PREFILL, Role.DECODE) for i in instances}
    pairs = [
        Found(
            placement=Placement(prefill=p, decode=d),
            rps=min(by_role[Role.PREFILL, p], by_role[Role.DECODE, d]),
        )
        for p, d in product(instances, instances)
        if p.gpus + d.gpus <= case.gpus
    ]
    return max(pairs, key=lambda found: found.rps_per_gpu)


def table(data: Path) -> Iterator[str]:
    """Lines for people: the best pair, and the published one, by each way to rate instances."""
    case = cases(data)[ROW]
    fits, load = read_fits(data, case.model), case.load

    def closed(role: Role, instance: Parallel) -> float:
        return fits.rps(role, instance, 1, load)

    came = Requests.of(load)
    rows = [
        *_closed_rows(case, fits, closed),
        ("closed form, no pipelines", best(case, fits, closed, pipelines=False), closed),
        (_pooled_name(case), _pooled(case, fits), closed),
    ]
    yield "| rated by | best | requests/s per GPU | published pair | difference |"
    yield "|---|---|---|---|---|"
    for name, found, rate in rows:
        yield _row(case, name, found, rate)
    for bubbles in (False, True):
        rate = Stages(fits=fits, load=load, came=came, bubbles=bubbles).rps
        name = f"simulated, {'with' if bubbles else 'without'} bubbles"
        yield _row(case, name, best(case, fits, rate), rate)
    yield _row(case, "simulated, no pipelines", best(case, fits, rate, pipelines=False), rate)


def _closed_rows(case: Case, fits: Fits, rate: Rate) -> Iterator[tuple[str, Found, Rate]]:
    """The closed form on nodes from the published pair's size up."""
    for gpus in range(case.published.gpus, case.gpus + 1):
        found = best(replace(case, gpus=gpus), fits, rate)
        yield f"closed form, node of {gpus}", found, rate


def _pooled_name(case: Case) -> str:
    return f"closed form, published instances behind one router on {case.gpus} GPUs"


def _pooled(case: Case, fits: Fits) -> Found:
    """As many prefill and decode instances of the published degrees as serve most on the node."""
    pair = case.published
    found = []
    for prefills in range(1, case.gpus // pair.prefill.gpus + 1):
        decodes = (case.gpus - prefills * pair.prefill.gpus) // pair.decode.gpus
        if decodes:
            rates = (
                fits.rps(Role.PREFILL, pair.prefill, prefills, case.load),
                fits.rps(Role.DECODE, pair.decode, decodes, case.load),
            )
            found.append((min(rates), prefills, decodes))
    rps, _, _ = max(found)
    return Found(placement=pair, rps=rps * pair.gpus / case.gpus)


def _row(case: Case, name: str, found: Found, rate: Rate) -> str:
    pair = case.published
    given = min(rate(Role.PREFILL, pair.prefill), rate(Role.DECODE, pair.decode)) / pair.gpus
    return (
        f"| {name} | {found.placement.label} | {found.rps_per_gpu:.2f} | {given:.2f} "
        f"| {found.rps_per_gpu - given:+.2f} |"
    )


if __name__ == "__main__":
    if not (folder := os.environ.get("POOLWISE_DATA")):
        sys.exit("set POOLWISE_DATA to the folder with profiles/distserve")
    for line in table(Path(folder)):
        print(line, flush=True)

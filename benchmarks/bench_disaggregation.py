"""When prefill and decode on pools of their own pay, and when they do not.

    python -m benchmarks.bench_disaggregation [--only AXIS ...]

One service (`BASE`), and what changes when one thing about it changes: per row the least cost with
aggregated replicas only and with prefill and decode replicas only, as `planner.optimize.plan` finds
them and its twin proves them, and what the plan is that may have both. Replicas have 8 H100, times
measured by Splitwise (below POOLWISE_DATA); lengths and arrivals are drawn. None of it was measured
on a GPU by us.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.bench_sizing import (
    NOW,
    PERF_MODEL,
    SLO,
    USD_PER_GPU_HOUR,
    WINDOW_S,
    fleet_text,
    known,
    measured_profile,
    spec_of,
)
from benchmarks.published.taichi import ACCELERATOR, ATTAINMENT_RATIO, WAYS, gpus
from planner.domain.errors import PoolwiseError
from planner.domain.plan import Plan
from planner.domain.profile import Profile, TransferTime
from planner.domain.workload import Workload
from planner.optimize import plan
from profiler.imports.splitwise import read_table

LONGEST_PROMPT, LONGEST_ANSWER = 8_000, 3_000
GIGABYTE = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A workload, its objectives, and what carries the KV cache.

    Parameters
    ----------
    prompt_tokens, answer_tokens : float
        Means of lognormal lengths.
    answer_cv : float
        Standard deviation of the answers' lengths over their mean; 0: all alike.
    reuse_ratio : float
        Share of each prompt that the replica's prefix cache holds.
    link_gbytes_per_s : float
        Between a prefill and a decode replica, GB/s.
    """

    rate_rps: float = 20.0
    prompt_tokens: float = 1_500.0
    prompt_cv: float = 0.7
    answer_tokens: float = 200.0
    answer_cv: float = 1.0
    reuse_ratio: float = 0.0
    link_gbytes_per_s: float = 20.0
    ttft_s: float = 1.5
    tpot_s: float = 0.055
    accelerators: tuple[str, ...] = (ACCELERATOR,)


BASE = Service()
AXES: dict[str, tuple[str, tuple[tuple[str, Service], ...]]] = {
    "pace": (
        "TPOT objective",
        tuple(
            (f"{1e3 * s:g} ms", replace(BASE, tpot_s=s))
            for s in (0.045, 0.05, 0.055, 0.06, 0.08, 0.2)
        ),
    ),
    "ttft": (
        "TTFT objective",
        tuple((f"{s:g} s", replace(BASE, ttft_s=s)) for s in (0.3, 0.6, 1.5, 4.0)),
    ),
    "prompts": (
        "prompt length (mean; as many prompt tokens/s in all)",
        tuple(
            (f"{n:,} tokens", replace(BASE, prompt_tokens=float(n), rate_rps=30_000 / n))
            for n in (300, 750, 1_500, 3_000, 4_500)
        ),
    ),
    "answers": (
        "answer length (mean)",
        tuple((f"{n:,} tokens", replace(BASE, answer_tokens=float(n))) for n in (20, 60, 200, 600)),
    ),
    "variance": (
        "spread of answers (standard deviation over mean)",
        tuple((f"{cv:g}", replace(BASE, answer_cv=cv)) for cv in (0.0, 1.0, 2.0)),
    ),
    "concurrency": (
        "requests/s",
        tuple((f"{r:g}", replace(BASE, rate_rps=r)) for r in (1.0, 5.0, 20.0, 80.0)),
    ),
    "reuse": (
        "share of prompts in the prefix cache",
        tuple((f"{100 * r:g} %", replace(BASE, reuse_ratio=r)) for r in (0.0, 0.5, 0.9)),
    ),
    "link": (
        "link between the pools",
        tuple(
            (f"{g:g} GB/s", replace(BASE, link_gbytes_per_s=g)) for g in (0.3, 0.6, 1.25, 5.0, 50.0)
        ),
    ),
    "hardware": (
        "accelerators that may be had",
        (("H100", BASE), ("H100 and A100", replace(BASE, accelerators=tuple(USD_PER_GPU_HOUR)))),
    ),
}
"""Axis -> its name in words, and the services along it."""


def workload_of(service: Service) -> Workload:
    """Five minutes of it: Poisson arrivals, lognormal lengths."""
    rng = np.random.default_rng(5)
    count = max(round(service.rate_rps * WINDOW_S), 200)
    prompts = _lengths(rng, count, service.prompt_tokens, service.prompt_cv, LONGEST_PROMPT)
    answers = _lengths(rng, count, service.answer_tokens, service.answer_cv, LONGEST_ANSWER)
    return Workload(
        start_at=NOW,
        arrival_offset_s=np.sort(rng.uniform(0.0, count / service.rate_rps, count)),
        input_tokens=prompts,
        output_tokens=answers,
        cached_tokens=np.floor(service.reuse_ratio * prompts).astype(np.int64),
        request_class=np.full(count, "default"),
        duration_s=count / service.rate_rps,
    )


def _lengths(
    rng: np.random.Generator, count: int, mean: float, cv: float, longest: int
) -> np.ndarray:
    variance = np.log1p(cv**2)
    drawn = rng.lognormal(np.log(mean) - variance / 2, np.sqrt(variance), count)
    return np.clip(np.round(drawn), 1, longest).astype(np.int64)


@cache
def profile_on(accelerator: str, data: Path) -> Profile:
    """Llama-2-70B on 8 of them."""
    return measured_profile(accelerator, read_table(data / PERF_MODEL))


def asked(service: Service, way: str, *, data: Path) -> Plan:
    """The cheapest fleet of the pools of a way."""
    link = TransferTime(base_s=0.005, bandwidth_bytes_per_s=GIGABYTE * service.link_gbytes_per_s)
    profiles = [replace(profile_on(name, data), transfer=link) for name in service.accelerators]
    slo = replace(
        SLO, ttft_s=service.ttft_s, tpot_s=service.tpot_s, attainment_ratio=ATTAINMENT_RATIO
    )
    spec = spec_of(profiles, WAYS[way], service.accelerators, slo=slo)
    return plan(spec, known(workload_of(service)), None, made_at=NOW)


def table(axis: str, *, data: Path) -> Iterator[str]:
    """Lines of one axis."""
    words, services = AXES[axis]
    yield f"| {words} | aggregated | disaggregated | disaggregated / aggregated | the plan |"
    yield "|---|---|---|---|---|"
    for label, service in services:
        made = {way: asked(service, way, data=data) for way in WAYS}
        ratio = "-"
        if gpus(made["aggregated"]) and gpus(made["disaggregated"]):
            ratio = f"{made['disaggregated'].usd_per_hour / made['aggregated'].usd_per_hour:.2f}"
        cells = [label, *(_cell(made[way]) for way in ("aggregated", "disaggregated"))]
        yield f"| {' | '.join([*cells, ratio, _cell(made['plan'])])} |"


def _cell(made: Plan) -> str:
    count = gpus(made)
    if count is None:
        return "none"
    fleet = fleet_text(made)
    if "a100" not in fleet:
        fleet = fleet.replace(" h100", "")
    return f"{count} GPUs, {made.usd_per_hour:,.0f} USD/h: {fleet}"


def main(given: Sequence[str]) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Aggregated or disaggregated, one thing at a time")
    parser.add_argument("--only", nargs="+", choices=AXES, default=list(AXES), metavar="AXIS")
    wanted = parser.parse_args(given)
    if "POOLWISE_DATA" not in os.environ:
        print("set POOLWISE_DATA to the folder of measured profiles", file=sys.stderr)
        return 2
    try:
        for axis in wanted.only:
            for line in table(axis, data=Path(os.environ["POOLWISE_DATA"])):
                print(line, flush=True)
            print()
    except PoolwiseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Unseen (input, output, concurrency) points: what engines do there, and what a profile says.

At a point so many requests are sent at the same time; the digital twin replays them with the
profile. Points lie anywhere in the profile's range, evenly in logarithms, on no line of its grid.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from benchmarks.profiling.engines import AREA, Engines
from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.domain.workload import Workload
from planner.simulate import ReplicaGroup, Scenario, simulate
from serving.traffic.load import Completion

POINTS, REPEATS = 50, 3
SPREADS = 1.5
MEDIAN_BOUND, P90_BOUND = 0.05, 0.15
OUTPUTS = (8, 96)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many requests at once."""

    input_tokens: int
    output_tokens: int
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Median TTFT and mean gap between tokens over the requests of a point, seconds."""

    ttft_s: float
    itl_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One point: every repeat, and the prediction."""

    load: Load
    real: tuple[Figures, ...]
    predicted: Figures

    def value(self, name: str) -> float:
        """Median of the repeats."""
        return float(np.median([getattr(r, name) for r in self.real]))

    def error(self, name: str) -> float:
        """Predicted over real, minus 1."""
        return float(getattr(self.predicted, name) / self.value(name) - 1)

    def spread(self, name: str) -> float:
        """Largest less smallest repeat, over their median."""
        values = [getattr(r, name) for r in self.real]
        return (max(values) - min(values)) / self.value(name)


def drawn(count: int = POINTS, *, seed: int = 20) -> list[Load]:
    """Points at random, evenly in logarithms."""
    rng = np.random.default_rng(seed)

    def between(low: int, high: int) -> int:
        return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))

    found = []
    while len(found) < count:
        load = Load(
            input_tokens=between(*AREA.new_tokens),
            output_tokens=between(*OUTPUTS),
            concurrency=between(1, 12),
        )
        # A minute of prompts at once says nothing new about the profile.
        if load.input_tokens * load.concurrency <= 3000:
            found.append(load)
    return found


async def measured(now: Engines, loads: Sequence[Load], *, repeats: int) -> list[list[Figures]]:
    """Every point so often, in turns, so that a machine that drifts changes all of them."""
    client, writer, number = now.client(), now.writer(), 0
    found: list[list[Figures]] = [[] for _ in loads]
    try:
        for _ in range(repeats):
            for figures, load in zip(found, loads, strict=True):
                prompts = []
                for _ in range(load.concurrency):
                    number += 1
                    prompts.append(writer.unique(load.input_tokens, number=number))
                answers = await asyncio.gather(
                    *(
                        client.send(Completion(prompt=p, output_tokens=load.output_tokens))
                        for p in prompts
                    )
                )
                if failed := next((a.error for a in answers if a.error), ""):
                    raise RuntimeError(failed)
                gaps = np.concatenate([a.gaps_s() for a in answers])
                figures.append(
                    Figures(
                        ttft_s=float(np.median([a.ttft_s for a in answers])),
                        itl_s=float(gaps.mean()),
                    )
                )
    finally:
        await client.close()
    return found


def predicted(profile: Profile, load: Load, roles: tuple[Role, ...]) -> Figures:
    """What the twin says with this profile."""
    count = load.concurrency
    workload = Workload(
        start_at=datetime(2026, 1, 1, tzinfo=UTC),
        arrival_offset_s=np.zeros(count),
        input_tokens=np.full(count, load.input_tokens),
        output_tokens=np.full(count, load.output_tokens),
        cached_tokens=np.zeros(count, dtype=np.int64),
        request_class=np.full(count, "default"),
        duration_s=1.0,
    )
    groups = tuple(ReplicaGroup(profile=profile, role=role, replicas=1) for role in roles)
    result = simulate(Scenario(groups=groups, workload=workload))
    tokens = np.maximum(workload.output_tokens - 1, 1)
    spent = np.nansum(result.tpot_s * tokens)
    return Figures(
        ttft_s=float(np.nanmedian(result.ttft_s)),
        itl_s=float(spent / tokens[np.isfinite(result.tpot_s)].sum()),
    )


def judged(
    profile: Profile,
    loads: Sequence[Load],
    real: Sequence[Sequence[Figures]],
    roles: tuple[Role, ...],
) -> list[Judged]:
    """All points with their predictions."""
    return [
        Judged(load=load, real=tuple(r), predicted=predicted(profile, load, roles))
        for load, r in zip(loads, real, strict=True)
    ]


def table(found: Sequence[Judged]) -> str:
    """Errors over all points beside the spread between repeats, Markdown."""
    lines = [
        "| measure | median error | asked | 90th percentile | asked | median spread "
        "| points within 5 % or 1.5 x their spread | bias | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, title in (("ttft_s", "TTFT"), ("itl_s", "ITL")):
        errors = np.array([p.error(name) for p in found])
        spreads = np.array([p.spread(name) for p in found])
        median, p90 = np.quantile(np.abs(errors), [0.5, 0.9])
        median_bound = max(MEDIAN_BOUND, SPREADS * float(np.median(spreads)))
        p90_bound = max(P90_BOUND, SPREADS * float(np.quantile(spreads, 0.9)))
        inside = np.abs(errors) <= np.maximum(MEDIAN_BOUND, SPREADS * spreads)
        verdict = "met" if median <= MEDIAN_BOUND and p90 <= P90_BOUND else "within spread"
        if median > median_bound or p90 > p90_bound:
            verdict = "MISSED"
        lines.append(
            f"| {title} | {median:.1%} | {MEDIAN_BOUND:.0%} or {median_bound:.1%} | {p90:.1%} "
            f"| {P90_BOUND:.0%} or {p90_bound:.1%} | {np.median(spreads):.1%} "
            f"| {inside.sum()} of {len(found)} | {np.median(errors):+.1%} | {verdict} |"
        )
    return "\n".join(lines)


def worst(found: Sequence[Judged], *, count: int = 6) -> str:
    """The points that are furthest off, Markdown."""
    lines = [
        "| input | output | at once | TTFT real | twin | error | ITL real | twin | error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    by_error = sorted(found, key=lambda p: -max(abs(p.error("ttft_s")), abs(p.error("itl_s"))))
    for p in by_error[:count]:
        cells = []
        for name in ("ttft_s", "itl_s"):
            cells += [
                f"{1e3 * p.value(name):,.0f} ms",
                f"{1e3 * getattr(p.predicted, name):,.0f} ms",
                f"{p.error(name):+.0%}",
            ]
        load = p.load
        lines.append(
            f"| {load.input_tokens} | {load.output_tokens} | {load.concurrency} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines)

"""The same engine profiled twice: how far the two tables are apart.

And how far when what each sentinel said of the machine at its profile's beginning is divided out.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planner.domain.profile import Profile, TimeTable

MEDIAN_BOUND = 0.05

Baseline = tuple[float, float]
EVEN: Baseline = (1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Relative differences of two profiles over the range that both cover.

    Parameters
    ----------
    median, p90 : float
    like_for_like : float
        The median with each profile over its own sentinel: TTFT for prefill, gap for decode.
    """

    median: float
    p90: float
    like_for_like: float


def agreement(
    first: Profile, second: Profile, *, baselines: tuple[Baseline, Baseline] = (EVEN, EVEN)
) -> dict[str, Agreement]:
    """By table, over a grid of both tables' range, evenly in logarithms."""
    slower = [float(np.log(a / b)) for a, b in zip(*baselines, strict=True)]
    return {
        "prefill": _of(first.prefill, second.prefill, slower[0]),
        "decode step": _of(first.decode_step, second.decode_step, slower[1]),
    }


def baseline_of(journal: Path) -> Baseline:
    """TTFT and gap of the sentinel at the beginning of a run, seconds."""
    lines = (json.loads(line) for line in journal.read_text().splitlines())
    ttft_s, gap_s = next(line["baseline"] for line in lines if "baseline" in line)
    return ttft_s, gap_s


def _of(first: TimeTable, second: TimeTable, slower: float) -> Agreement:
    x = _shared(first.x, second.x, 12)
    y = _shared(first.y, second.y, 5)
    at = np.meshgrid(x, y, indexing="ij")
    off = np.log(first.at(*at) / second.at(*at))
    return Agreement(
        median=float(np.median(np.abs(off))),
        p90=float(np.quantile(np.abs(off), 0.9)),
        like_for_like=float(np.median(np.abs(off - slower))),
    )


def _shared(
    first: NDArray[np.float64], second: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    low, high = max(first[0], second[0]), min(first[-1], second[-1])
    return np.clip(np.expm1(np.linspace(np.log1p(low), np.log1p(high), count)), low, high)


def table(found: dict[str, Agreement]) -> str:
    """Markdown."""
    lines = [
        "| table | median difference | asked | 90th percentile | median over each one's sentinel |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {a.median:.1%} | {MEDIAN_BOUND:.0%} | {a.p90:.1%} | {a.like_for_like:.1%} |"
        for name, a in found.items()
    ]
    return "\n".join(lines)

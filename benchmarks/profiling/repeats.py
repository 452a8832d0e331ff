"""The same engine profiled twice: how far the two tables are apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.domain.profile import Profile, TimeTable

MEDIAN_BOUND = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Relative differences of two profiles over the range that both cover."""

    median: float
    p90: float


def agreement(first: Profile, second: Profile) -> dict[str, Agreement]:
    """By table, over a grid of both tables' range, evenly in logarithms."""
    return {
        "prefill": _of(first.prefill, second.prefill),
        "decode step": _of(first.decode_step, second.decode_step),
    }


def _of(first: TimeTable, second: TimeTable) -> Agreement:
    x = _shared(first.x, second.x, 12)
    y = _shared(first.y, second.y, 5)
    at = np.meshgrid(x, y, indexing="ij")
    apart = np.abs(np.log(first.at(*at) / second.at(*at)))
    return Agreement(median=float(np.median(apart)), p90=float(np.quantile(apart, 0.9)))


def _shared(
    first: NDArray[np.float64], second: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    low, high = max(first[0], second[0]), min(first[-1], second[-1])
    return np.clip(np.expm1(np.linspace(np.log1p(low), np.log1p(high), count)), low, high)


def table(found: dict[str, Agreement]) -> str:
    """Markdown."""
    lines = ["| table | median difference | asked | 90th percentile |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {a.median:.1%} | {MEDIAN_BOUND:.0%} | {a.p90:.1%} |"
        for name, a in found.items()
    ]
    return "\n".join(lines)

"""Workloads drawn from simple distributions."""

from datetime import UTC, datetime

import numpy as np

from planner.domain.workload import Shape, Workload

START_AT = datetime(2026, 1, 1, tzinfo=UTC)


def poisson_workload(
    *,
    requests: int,
    rate_rps: float,
    isl: float = 500.0,
    osl: float = 50.0,
    lengths: str = "exponential",
    cached_ratio: float = 0.0,
    seed: int = 0,
) -> Workload:
    """Poisson arrivals; lengths `constant` or `exponential` (at least 1 token)."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1 / rate_rps, requests))

    def drawn(mean: float) -> np.ndarray:
        if lengths == "constant":
            return np.full(requests, int(mean), dtype=np.int64)
        return np.maximum(np.rint(rng.exponential(mean, requests)), 1).astype(np.int64)

    input_tokens, output_tokens = drawn(isl), drawn(osl)
    return Workload(
        start_at=START_AT,
        arrival_offset_s=arrival_s,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=(input_tokens * cached_ratio).astype(np.int64),
        request_class=np.full(requests, "default"),
        duration_s=float(arrival_s[-1]) if requests else 1.0,
    )


def point_shape(*, isl: float, osl: float, cached: float = 0.0) -> Shape:
    """Every request alike."""
    return Shape(
        input_tokens=np.array([isl]),
        output_tokens=np.array([osl]),
        cached_tokens=np.array([cached]),
        weight=np.ones(1),
    )


def shape_of_workload(
    workload: Workload, *, input_buckets: int = 8, output_buckets: int = 5
) -> Shape:
    """Buckets of equal counts, inputs first and outputs within them; means kept."""
    rows = []
    by_input = np.array_split(np.argsort(workload.input_tokens, kind="stable"), input_buckets)
    for part in by_input:
        by_output = part[np.argsort(workload.output_tokens[part], kind="stable")]
        rows += [b for b in np.array_split(by_output, output_buckets) if len(b)]

    def means(column: np.ndarray) -> np.ndarray:
        return np.array([float(column[b].mean()) for b in rows])

    return Shape(
        input_tokens=means(workload.input_tokens),
        output_tokens=means(workload.output_tokens),
        cached_tokens=means(workload.cached_tokens),
        weight=np.array([len(b) for b in rows]) / len(workload),
    )

"""The public series below POOLWISE_DATA that are long enough to score."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from forecaster.readers import read_trace
from planner.domain.workload import Floats

FEWEST_ORIGINS = 50


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesGroup:
    """Series of one service that share their steps.

    Parameters
    ----------
    names : tuple of str
    values : (steps, series) float, per second
        NaN: not observed.
    """

    service: str
    names: tuple[str, ...]
    values: Floats
    step_s: float


def groups(traces: Path) -> Iterator[SeriesGroup]:
    """All of them: requests, input and output tokens where a source has them."""
    for name in ("mlarge", "mmid", "r1", "mmimage"):
        yield _servegen(traces, name)
    yield from _azure_2024(traces)
    yield _azure_2025(traces)
    for name in ("conv", "code"):
        path = traces / f"AzureLLMInferenceTrace_{name}.csv"
        yield _binned(path, f"Azure 2023 {name}", 10.0)
    yield _binned(traces / "mooncake_conversation_trace.jsonl", "Mooncake", 30.0)


def _servegen(traces: Path, name: str) -> SeriesGroup:
    table = pd.read_parquet(traces / f"servegen_{name}_agg_10min.parquet").sort_values("t")
    values = table[["rate", "tok_in_per_s", "tok_out_per_s"]].to_numpy(np.float64)
    # Windows of nothing at all are missing data (data/README.md).
    values[table["rate"].to_numpy() <= 0] = np.nan
    return SeriesGroup(
        service=f"ServeGen {name}",
        names=("requests", "token-in", "token-out"),
        values=values,
        step_s=600.0,
    )


def _azure_2024(traces: Path) -> Iterator[SeriesGroup]:
    requests = pd.read_parquet(traces / "azure2024_conv_digitised_10min.parquet")
    yield SeriesGroup(
        service="Azure 2024 conv",
        names=("requests",),
        values=_coarser(requests[["req_per_min"]].to_numpy(np.float64) / 60.0, 3),
        step_s=1800.0,
    )
    tokens = pd.read_parquet(traces / "azure2024_conv_digitised_tokens_20min.parquet")
    columns = tokens[["tok_in_per_min", "tok_out_per_min"]].to_numpy(np.float64) / 60.0
    yield SeriesGroup(
        service="Azure 2024 conv",
        names=("token-in", "token-out"),
        values=_coarser(columns, 2),
        step_s=2400.0,
    )


def _azure_2025(traces: Path) -> SeriesGroup:
    table = pd.read_parquet(traces / "azure2025_lmm_text_digitised_10min.parquet")
    return SeriesGroup(
        service="Azure 2025 text",
        names=("requests",),
        values=table[["text_req_per_min"]].to_numpy(np.float64) / 60.0,
        step_s=600.0,
    )


def _coarser(values: Floats, steps: int) -> Floats:
    whole = len(values) // steps * steps
    mean: Floats = values[:whole].reshape(-1, steps, values.shape[1]).mean(axis=1)
    return mean


def _binned(path: Path, service: str, step_s: float) -> SeriesGroup:
    workload = read_trace(path).workload
    steps = int(workload.arrival_offset_s[-1] // step_s)
    edges = np.searchsorted(workload.arrival_offset_s, np.arange(steps + 1) * step_s)
    ones = np.ones(len(workload), dtype=np.int64)
    columns = [
        np.diff(np.concatenate([[0], np.cumsum(tokens)])[edges]) / step_s
        for tokens in (ones, workload.input_tokens, workload.output_tokens)
    ]
    return SeriesGroup(
        service=service,
        names=("requests", "token-in", "token-out"),
        values=np.stack(columns, axis=1),
        step_s=step_s,
    )

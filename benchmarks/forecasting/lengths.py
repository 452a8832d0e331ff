"""The forecast of request lengths against yesterday's lengths, and against other memories."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from forecaster.length_distance import energy_distance
from forecaster.readers import read_trace
from forecaster.recent_lengths import expected_lengths, recent_lengths
from forecaster.shapes import mix_shapes, shape_of_lengths
from forecaster.windows import observe_windows
from planner.domain.workload import ObservedWindow, Shape

WINDOW_S = 3600.0
REQUESTS_A_WINDOW = 2000
"""Drawn from the clients' published histograms; far above what the distance can tell apart."""


def distances(traces: Path) -> list[dict]:
    """Mean energy distance between forecast and actual lengths of the next window, per service."""
    rows = []
    for name in ("mlarge", "mmid"):
        windows = _servegen_windows(traces, name)
        rows.append(_row(f"ServeGen {name}, 1 h", windows, per_day=24))
    for file, label in (
        ("AzureLLMInferenceTrace_conv.csv", "Azure 2023 conv, 60 s"),
        ("AzureLLMInferenceTrace_code.csv", "Azure 2023 code, 60 s"),
        ("mooncake_conversation_trace.jsonl", "Mooncake, 60 s"),
    ):
        windows = observe_windows(read_trace(traces / file).workload, 60.0)
        rows.append(_row(label, windows, per_day=None))
    return rows


def _row(label: str, windows: Sequence[ObservedWindow], *, per_day: int | None) -> dict:
    busy = [w for w in windows if w.shape is not None]
    asked = range(max(len(busy) // 2, (per_day or 0)), len(busy))
    ways: dict[str, Callable[[int], Shape | None]] = {
        "ours": lambda k: _ours(busy[:k]),
        "last window": lambda k: busy[k - 1].shape,
        "all so far": lambda k: _all(busy[:k]),
    }
    if per_day is not None:
        ways["yesterday"] = lambda k: busy[k - per_day].shape
    row: dict = {"series": label, "windows": len(asked)}
    for way, shape_at in ways.items():
        found = [(shape_at(k), busy[k].shape) for k in asked]
        row[way] = float(np.mean([energy_distance(a, b) for a, b in found if a and b]))
    return row


def _ours(windows: Sequence[ObservedWindow]) -> Shape | None:
    recent = recent_lengths(windows, at=windows[-1].end_at)
    return None if recent is None else expected_lengths(recent)[0]


def _all(windows: Sequence[ObservedWindow]) -> Shape:
    shapes = [w.shape for w in windows if w.shape is not None]
    return mix_shapes(shapes, [w.requests for w in windows if w.shape is not None])


def _servegen_windows(traces: Path, name: str) -> list[ObservedWindow]:
    """Hours of one service: requests drawn by client and hour, lengths from the histograms."""
    rng = np.random.default_rng(0)
    rates = pd.read_parquet(traces / f"servegen_{name}_clients_10min.parquet")
    rates["hour"] = rates["t"] // 3600
    share = rates.groupby(["hour", "client"])["rate"].mean()
    lengths = pd.read_parquet(traces / f"servegen_{name}_lengths_6h.parquet")
    tables = {
        key: (part["length"].to_numpy(), part["prob"].to_numpy() / part["prob"].sum())
        for key, part in lengths.groupby(["client", "window", "kind"], observed=True)
    }
    start = datetime(2026, 1, 1, tzinfo=UTC)
    windows = []
    for hour in sorted({int(h) for h, _ in share.index}):
        clients = share[hour]
        known = [
            c for c in clients.index if (c, hour * 3600 // 21600 * 21600, "input_tokens") in tables
        ]
        weight = clients[known].to_numpy(np.float64)
        if not known or weight.sum() <= 0:
            continue
        counts = rng.multinomial(REQUESTS_A_WINDOW, weight / weight.sum())
        drawn = [
            [
                rng.choice(values, size=count, p=odds)
                for kind in ("input_tokens", "output_tokens")
                for values, odds in [tables[client, hour * 3600 // 21600 * 21600, kind]]
            ]
            for client, count in zip(known, counts, strict=True)
            if count
        ]
        inputs, outputs = (
            np.maximum(np.concatenate(x), 1).astype(np.int64) for x in zip(*drawn, strict=True)
        )
        windows.append(
            ObservedWindow(
                start_at=start + timedelta(hours=hour),
                window_s=WINDOW_S,
                requests=len(inputs),
                input_tokens=int(inputs.sum()),
                output_tokens=int(outputs.sum()),
                cached_tokens=0,
                shape=shape_of_lengths(inputs, outputs, np.zeros_like(inputs)),
            )
        )
    return windows

"""Bottom-up: does forecasting each client and adding up beat forecasting their sum?"""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.forecasting.accuracy import HORIZONS
from forecaster.backtest import run_panel, scored_origins
from planner.domain.workload import Floats

LARGEST_CLIENTS = 25


def bottom_up(traces: Path) -> list[dict]:
    """MAE of the sum of the clients' medians over that of the sum's median, per service."""
    rows = []
    for name in ("mlarge", "mmid", "r1", "mmimage"):
        clients = _client_rates(traces / f"servegen_{name}_clients_10min.parquet")
        total = clients.sum(axis=1, keepdims=True)
        clients[total[:, 0] <= 0] = np.nan
        total = np.where(total > 0, total, np.nan)
        single = run_panel(clients, HORIZONS, step_s=600.0)
        (whole,) = run_panel(total, HORIZONS, step_s=600.0)
        for index, horizon in enumerate(HORIZONS):
            track = whole[index]
            scored = scored_origins(track)
            added = np.sum([tracks[index].point for tracks in single], axis=0)
            actual = track.actual[scored]
            rows.append(
                {
                    "service": f"ServeGen {name}",
                    "horizon": horizon,
                    "bottom_up": _mae(added[scored], actual) / _mae(track.last[scored], actual),
                    "total": _mae(track.point[scored], actual) / _mae(track.last[scored], actual),
                }
            )
    return rows


def _client_rates(path: Path) -> Floats:
    """(steps, clients) requests/s: the largest of the first half one by one, the others added."""
    table = pd.read_parquet(path)
    steps = int(table["t"].max()) // 600 + 1
    first = table[table["t"] < steps * 300].groupby("client")["rate"].sum()
    order = list(first.sort_values(ascending=False).index)
    order += [client for client in table["client"].unique() if client not in set(order)]
    column = {client: min(i, LARGEST_CLIENTS) for i, client in enumerate(order)}
    rates = np.zeros((steps, min(len(order), LARGEST_CLIENTS + 1)))
    np.add.at(
        rates,
        (table["t"].to_numpy() // 600, table["client"].map(column).to_numpy()),
        table["rate"].to_numpy(np.float64),
    )
    return rates


def _mae(points: Floats, actual: Floats) -> float:
    return float(np.abs(points - actual).mean())

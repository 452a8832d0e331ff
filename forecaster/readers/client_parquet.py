"""ServeGen's tables as a pair of Parquet files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from forecaster.readers.client_rows import KINDS, ClientRows
from planner.domain.errors import TraceError

RATES, LENGTHS = "_clients_10min.parquet", "_lengths_6h.parquet"
WINDOW_S, LENGTHS_WINDOW_S = 600.0, 21_600.0
_RATE_COLUMNS = ("t", "rate", "cv", "client")
_LENGTH_COLUMNS = ("client", "window", "kind", "length", "prob")


def read_pair(path: Path, rows: ClientRows) -> None:
    """Collect the rates of `X_clients_10min.parquet` and the histograms that lie beside it.

    Raises
    ------
    TraceError
        When one is missing, damaged or lacks a column, or pyarrow is not installed.
    """
    if not path.name.endswith(RATES):
        raise TraceError(
            f"{path}: client tables are a file *{RATES} with its *{LENGTHS} beside it, or a "
            "folder with chunk-N-trace.csv and chunk-N-dataset.json"
        )
    rows.window_s, rows.lengths_window_s = WINDOW_S, LENGTHS_WINDOW_S
    _add_rates(path, _table(path, _RATE_COLUMNS), rows)
    beside = path.with_name(path.name.removesuffix(RATES) + LENGTHS)
    _add_lengths(beside, _table(beside, _LENGTH_COLUMNS), rows)


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The columns of a Parquet file; rows are numbered from 1."""
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError as error:
        raise TraceError(f"{path}: there is no such file; check the path") from error
    except ImportError as error:
        raise TraceError(
            f"{path}: Parquet files need pyarrow: pip install 'poolwise[parquet]'"
        ) from error
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        first = (str(error).splitlines() or ["no message"])[0]
        raise TraceError(f"{path}: not a readable Parquet file: {first}") from error
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise TraceError(
            f"{path}: lacks the columns {', '.join(absent)}; it must hold {', '.join(columns)}"
        )
    numbers = [column for column in columns if column != "kind"]
    for column in numbers:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise TraceError(f"{path}: the column {column} must hold numbers")
    return table[list(columns)]


def _add_rates(path: Path, table: pd.DataFrame, rows: ClientRows) -> None:
    cells = [table[column].to_numpy(dtype=np.float64).tolist() for column in _RATE_COLUMNS]
    for number, (start_s, rate_rps, cv, client) in enumerate(zip(*cells, strict=True), start=1):
        place = f"{path.name}, row {number}"
        if client != client // 1:  # NaN too
            rows.refuse(place, f"client must be a whole number, got {client:g}")
            continue
        rows.add_rate(place, f"{client:.0f}", (start_s, rate_rps, cv))


def _add_lengths(path: Path, table: pd.DataFrame, rows: ClientRows) -> None:
    kinds = table["kind"].astype(str).to_numpy()
    whole = np.stack([table[name].to_numpy(dtype=np.float64) for name in ("client", "window")])
    good = np.all(np.isfinite(whole) & (whole >= 0) & (whole == np.floor(whole)), axis=0)
    for number in np.flatnonzero(~good).tolist():
        rows.refuse(f"{path.name}, row {number + 1}", "client and window must be whole numbers")
    tokens = table["length"].to_numpy(dtype=np.float64)
    share = table["prob"].to_numpy(dtype=np.float64)
    rows_of = np.flatnonzero(good)
    order = rows_of[np.lexsort((rows_of, kinds[good], whole[1][good], whole[0][good]))]
    keys = np.rec.fromarrays([whole[0][order], whole[1][order], kinds[order]])
    new = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    for at in np.split(order, new) if len(order) else []:
        kind = str(kinds[at[0]])
        if kind in KINDS:
            place = f"{path.name}, rows {at[0] + 1} to {at[-1] + 1}"
            key = (f"{whole[0][at[0]]:.0f}", float(whole[1][at[0]]))
            rows.add_lengths(place, key, kind, (tokens[at], share[at]))

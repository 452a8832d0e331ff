"""ServeGen's client tables: what each client of a service was like in every window.

Two forms are read. The published one is a folder with, for each client N, `chunk-N-trace.csv`
(no header; start of the window in seconds, requests/s, CV of the gaps, name and two parameters of
a fitted distribution; no name: silent) and `chunk-N-dataset.json` (start of a window: kind of
length: `{tokens: share}` as text). The other is a pair of Parquet files: `X_clients_10min.parquet`
(columns t, rate, cv, client) and `X_lengths_6h.parquet` (client, window, kind, length, prob).

The fitted distributions are not used: their scale is not that of the window's rate, while a gamma
distribution of the published rate and CV is.

References
----------
https://github.com/alibaba/ServeGen (README, `servegen/clientpool.py`); arXiv 2505.09999.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from forecaster.clients import (
    Client,
    ClientLengths,
    ClientReport,
    ClientTable,
    LengthHistogram,
    LengthPart,
)
from forecaster.readers import client_chunks, client_parquet
from forecaster.readers.client_rows import ClientRows
from planner.domain.errors import TraceError

LARGEST_REFUSED_SHARE = 0.01
"""Tables with a larger share of refused rows are not read at all."""
MOST_WINDOWS = 100_000
_USUAL_WINDOW_S = 600.0
_USUAL_LENGTHS_WINDOW_S = 21_600.0
_PIECES = ("image", "audio", "video")


def read_client_table(path: Path) -> ClientTable:
    """Read the clients of one service.

    Parameters
    ----------
    path : Path
        The folder of chunks, or the Parquet file of rates (`*_clients_10min.parquet`).

    Raises
    ------
    TraceError
        When files are missing or of another form, or when more than `LARGEST_REFUSED_SHARE` of
        the rows are not usable.
    """
    rows = ClientRows()
    if path.is_dir():
        client_chunks.read_folder(path, rows)
    else:
        client_parquet.read_pair(path, rows)
    _refuse_bad_table(path, rows)
    window_s = _window_s(rows)
    clients = _clients(path, rows, window_s)
    missing = np.sum([client.rate_rps for client in clients], axis=0) == 0
    return ClientTable(
        path=path,
        window_s=window_s,
        lengths_window_s=_lengths_window_s(rows),
        missing=missing,
        clients=clients,
        report=ClientReport(
            rows_read=rows.read, rows_refused=rows.refused, reasons=rows.all_reasons
        ),
    )


def _refuse_bad_table(path: Path, rows: ClientRows) -> None:
    if rows.refused > LARGEST_REFUSED_SHARE * rows.read:
        listed = "\n".join(f"  {reason}" for reason in rows.reasons[:3])
        raise TraceError(
            f"{path}: {rows.refused} of {rows.read} rows are not usable, more than "
            f"{LARGEST_REFUSED_SHARE:.0%}; mend or remove them, first:\n{listed}"
        )
    if not any(rate > 0 for found in rows.rates.values() for _, rate, _ in found):
        raise TraceError(f"{path}: no client has any request")


def _window_s(rows: ClientRows) -> float:
    if rows.window_s is not None:
        return rows.window_s
    starts = np.unique([start_s for found in rows.rates.values() for start_s, _, _ in found])
    return float(np.diff(starts).min()) if len(starts) > 1 else _USUAL_WINDOW_S


def _lengths_window_s(rows: ClientRows) -> float:
    if rows.lengths_window_s is not None:
        return rows.lengths_window_s
    starts = np.unique([start_s for _, start_s in rows.lengths])
    return float(np.diff(starts).min()) if len(starts) > 1 else _USUAL_LENGTHS_WINDOW_S


def _clients(path: Path, rows: ClientRows, window_s: float) -> tuple[Client, ...]:
    last_s = max(start_s for found in rows.rates.values() for start_s, _, _ in found)
    if last_s / window_s >= MOST_WINDOWS:
        raise TraceError(
            f"{path}: windows of {window_s:g} s up to {last_s:g} s are more than {MOST_WINDOWS}: "
            "is a time stamp wrong?"
        )
    count = round(last_s / window_s) + 1
    lengths = _lengths_of(rows)
    clients = []
    for name in sorted(rows.rates, key=_by_number):
        rate, cv = np.zeros(count), np.ones(count)
        for start_s, rate_rps, arrival_cv in rows.rates[name]:
            index = round(start_s / window_s)
            if abs(index * window_s - start_s) > 1e-6 * window_s:
                raise TraceError(
                    f"{path}: client {name} has a window at {start_s:g} s, which is no multiple "
                    f"of the {window_s:g} s between the others"
                )
            rate[index], cv[index] = rate_rps, arrival_cv
        clients.append(
            Client(name=name, rate_rps=rate, arrival_cv=cv, lengths=tuple(lengths[name]))
        )
    return tuple(clients)


def _by_number(name: str) -> tuple[int, str]:
    return (int(name) if name.isdigit() else 2**62, name)


def _lengths_of(rows: ClientRows) -> dict[str, list[ClientLengths]]:
    found: dict[str, list[ClientLengths]] = defaultdict(list)
    for (name, start_s), kinds in sorted(rows.lengths.items(), key=lambda item: item[0][1]):
        prompt = _prompt(kinds)
        if prompt and "output_tokens" in kinds:
            found[name].append(
                ClientLengths(start_s=start_s, prompt=prompt, answer=kinds["output_tokens"])
            )
    return found


def _prompt(kinds: Mapping[str, LengthHistogram]) -> tuple[LengthPart, ...]:
    """The parts of the prompt: all of it, or text and pieces of images, audio and video."""
    whole = kinds.get("input_tokens") or kinds.get("text_tokens")
    if whole is None:
        return ()
    pieces = [
        LengthPart(tokens=kinds[f"{piece}_tokens"], count=kinds.get(f"{piece}_count"))
        for piece in _PIECES
        if f"{piece}_tokens" in kinds
    ]
    return (LengthPart(tokens=whole), *pieces)

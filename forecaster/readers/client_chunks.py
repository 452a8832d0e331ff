"""The published form of ServeGen's tables: two files for each client in a folder."""

import json
import re
from pathlib import Path

from forecaster.readers.client_rows import KINDS, ClientRows, bins_of
from forecaster.readers.lines import open_trace, read_lines
from forecaster.readers.rows import shown
from planner.domain.errors import TraceError

LARGEST_BYTES = 512 * 1024 * 1024
_TRACE = re.compile(r"chunk-(\w+)-trace\.csv")


def read_folder(folder: Path, rows: ClientRows) -> None:
    """Collect the rates and histograms of every `chunk-N` in a folder.

    Raises
    ------
    TraceError
        When there is none, or one of its files is missing or not of this form.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise TraceError(f"{folder}: cannot be read: {error.strerror}") from error
    found = [(match[1], folder / name) for name in names if (match := _TRACE.fullmatch(name))]
    if not found:
        raise TraceError(
            f"{folder}: holds no chunk-N-trace.csv; name a folder of ServeGen's data such as "
            "data/language/m-large, or a *_clients_10min.parquet file"
        )
    for client, trace in found:
        _read_rates(client, trace, rows)
        _read_lengths(client, folder / f"chunk-{client}-dataset.json", rows)


def _read_rates(client: str, path: Path, rows: ClientRows) -> None:
    with open_trace(path) as file:
        for line in read_lines(file, path):
            place = f"{path.name}:{line.number}"
            try:
                rows.add_rate(place, client, _window(line.text, line.problem))
            except ValueError as error:
                rows.refuse(place, str(error))


def _window(text: str | None, problem: str) -> tuple[float, float, float]:
    if text is None:
        raise ValueError(problem)
    cells = [cell.strip() for cell in text.split(",")]
    if len(cells) not in (4, 6):
        raise ValueError(f"{len(cells)} columns instead of 6")
    if not cells[3]:  # no fitted distribution: the client was silent
        cells[1:3] = ["0", "1"]
    try:
        start_s, rate_rps, arrival_cv = (float(cell) for cell in cells[:3])
    except ValueError as error:
        raise ValueError(f"start, rate and CV must be numbers, got {shown(text)}") from error
    return start_s, rate_rps, arrival_cv


def _read_lengths(client: str, path: Path, rows: ClientRows) -> None:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise TraceError(f"{path}: too large for length histograms")
        data: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TraceError(f"{path}: missing, but its chunk-{client}-trace.csv is there") from error
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path}: not JSON (is it cut off?): {error}") from error
    if not isinstance(data, dict):
        raise TraceError(f"{path}: expected an object of windows, got {shown(data)}")
    for start, kinds in data.items():
        _read_window(client, path, start, kinds, rows)


def _read_window(client: str, path: Path, start: str, kinds: object, rows: ClientRows) -> None:
    place = f"{path.name}, window {shown(start)}"
    if not start.isdecimal() or len(start) > 12 or not isinstance(kinds, dict):
        rows.refuse(place, "expected a start in seconds with an object of histograms")
        return
    used = {kind: kinds[kind] for kind in KINDS if kind in kinds}
    if any(_is_empty(value) for value in used.values()):
        return  # published for windows without a request
    for kind, value in used.items():
        try:
            bins = bins_of(_pairs(value))
        except ValueError as error:
            rows.refuse(f"{place}, {kind}", str(error))
            continue
        rows.add_lengths(f"{place}, {kind}", (client, float(start)), kind, bins)


def _is_empty(value: object) -> bool:
    return not value or (isinstance(value, str) and value.strip() in ("", "{}"))


def _pairs(value: object) -> list[tuple[str, str]]:
    """Length and share as text, of `"{12: 0.5, 13: 0.5}"` or of a JSON object."""
    if isinstance(value, dict):
        return [(str(length), str(share)) for length, share in value.items()]
    text = value.strip() if isinstance(value, str) else ""
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError(f"a histogram looks like {{12: 0.5, 13: 0.5}}, got {shown(value)}")
    parts = [part.partition(":") for part in text[1:-1].split(",") if part.strip()]
    return [(length, share) for length, _, share in parts]

"""Traces written in the public formats, for other tools and for tests."""

import gzip
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, timedelta
from itertools import chain
from pathlib import Path

import numpy as np

from forecaster.readers import azure, burstgpt
from forecaster.readers.csv_cells import CLASS_COLUMN
from forecaster.readers.mooncake import BLOCK_TOKENS, CLASS_KEY
from forecaster.readers.trace_file import TraceFormat
from planner.domain.errors import TraceError
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.workload import Workload, class_names

_MODEL, _LOG_TYPE = "unknown", "API log"
"""What BurstGPT's columns say of requests whose model and way are not known."""

_A_YEAR_S = 366 * 86_400.0
"""A start before 1971 is that of a trace in relative time: no date."""


def write_trace(workload: Workload, path: Path, trace_format: TraceFormat) -> None:
    """Write the requests so that `read_trace` gives them back; gzipped where `path` ends in .gz.

    What the formats cannot hold is lost, see `losses`. Request classes go into a column (of
    Mooncake's JSON: a key) that the published traces do not have, unless all are `default`. An
    existing file is replaced in one step, or left as it was when writing fails.

    Raises
    ------
    TraceError
        When the workload has no request, has blocks of another size than Mooncake's, a class
        that a CSV cell cannot hold, or the file cannot be written.
    """
    _check(workload, trace_format)
    rows = {
        TraceFormat.MOONCAKE: _mooncake_rows,
        TraceFormat.AZURE: _azure_rows,
        TraceFormat.BURSTGPT: _burstgpt_rows,
    }[trace_format]
    try:
        _replace(path, rows(workload))
    except OSError as error:
        raise TraceError(f"{path}: the trace cannot be written: {error}") from error


def losses(workload: Workload, trace_format: TraceFormat) -> tuple[str, ...]:
    """What of this workload the format cannot hold, and what is not in its published form."""
    lost = []
    if workload.prefix is not None and trace_format is not TraceFormat.MOONCAKE:
        lost.append("prefix blocks and cached tokens are lost: prompts share nothing any more")
    if not trace_format.has_instants and workload.start_at.timestamp() >= _A_YEAR_S:
        lost.append(
            f"the date is lost: time counts from the start ({workload.start_at.isoformat()})"
        )
    milliseconds = workload.arrival_offset_s * 1e3
    rounded = bool(np.any(np.abs(milliseconds - np.rint(milliseconds)) > 1e-3))
    if trace_format is TraceFormat.MOONCAKE and rounded:
        lost.append("arrivals are rounded to 1 ms")
    last_s = float(workload.arrival_offset_s[-1]) if len(workload) else 0.0
    if workload.duration_s > 2 * last_s + 1.0:
        lost.append("the quiet time after the last request is lost")
    if class_names(workload.request_class) != [DEFAULT_CLASS]:
        key = CLASS_KEY if trace_format is TraceFormat.MOONCAKE else CLASS_COLUMN
        lost.append(f"request classes are kept in `{key}`, which other tools may not know")
    return tuple(lost)


def _check(workload: Workload, trace_format: TraceFormat) -> None:
    if len(workload) == 0:
        raise TraceError(f"a trace without requests cannot be written as {trace_format.label}")
    if trace_format is not TraceFormat.MOONCAKE:
        bad = [name for name in class_names(workload.request_class) if "," in name or "\n" in name]
        if bad:
            raise TraceError(f"the request class {bad[0]!r} cannot stand in a CSV cell")
    elif workload.prefix is not None and workload.prefix.block_tokens != BLOCK_TOKENS:
        raise TraceError(
            f"{trace_format.label} has prefix blocks of {BLOCK_TOKENS} tokens, the workload has "
            f"blocks of {workload.prefix.block_tokens}"
        )


def _classes(workload: Workload) -> list[str] | None:
    """The class of each request; None where all are the default."""
    if class_names(workload.request_class) == [DEFAULT_CLASS]:
        return None
    return [str(name) for name in workload.request_class]


def _mooncake_rows(workload: Workload) -> Iterator[str]:
    classes = _classes(workload)
    for index in range(len(workload)):
        record: dict[str, object] = {
            "timestamp": round(float(workload.arrival_offset_s[index]) * 1000.0),
            "input_length": int(workload.input_tokens[index]),
            "output_length": int(workload.output_tokens[index]),
        }
        if workload.prefix is not None:
            record["hash_ids"] = workload.prefix.of(index).tolist()
        if classes is not None:
            record[CLASS_KEY] = classes[index]
        yield json.dumps(record)


def _azure_rows(workload: Workload) -> Iterator[str]:
    start_at = workload.start_at.astimezone(UTC).replace(tzinfo=None)
    moments = (start_at + timedelta(seconds=at_s) for at_s in workload.arrival_offset_s.tolist())
    stamps = (f"{moment.isoformat(sep=' ', timespec='microseconds')}0" for moment in moments)
    lengths = zip(workload.input_tokens.tolist(), workload.output_tokens.tolist(), strict=True)
    rows = (f"{stamp},{i},{o}" for stamp, (i, o) in zip(stamps, lengths, strict=True))
    return _with_classes(azure.COLUMNS, rows, workload)


def _burstgpt_rows(workload: Workload) -> Iterator[str]:
    lengths = zip(workload.input_tokens.tolist(), workload.output_tokens.tolist(), strict=True)
    seconds = (f"{at_s:.6f}".rstrip("0").rstrip(".") for at_s in workload.arrival_offset_s.tolist())
    rows = (
        f"{at_s},{_MODEL},{i},{o},{i + o},{_LOG_TYPE}"
        for at_s, (i, o) in zip(seconds, lengths, strict=True)
    )
    return _with_classes(burstgpt.ALL_COLUMNS, rows, workload)


def _with_classes(columns: Iterable[str], rows: Iterator[str], workload: Workload) -> Iterator[str]:
    classes = _classes(workload)
    if classes is None:
        return chain([",".join(columns)], rows)
    header = ",".join([*columns, CLASS_COLUMN])
    return chain([header], (f"{row},{name}" for row, name in zip(rows, classes, strict=True)))


def _replace(path: Path, rows: Iterator[str]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            if path.suffix == ".gz":
                # No name and no time inside: the same requests give the same bytes.
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                    _write(io.TextIOWrapper(packed, encoding="utf-8", newline="\n"), rows)
            else:
                _write(io.TextIOWrapper(file, encoding="utf-8", newline="\n"), rows)
        # mkstemp makes files for their owner only; a trace is an ordinary file.
        draft.chmod(0o644)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _write(text: io.TextIOWrapper, rows: Iterator[str]) -> None:
    text.writelines(f"{row}\n" for row in rows)
    text.flush()
    text.detach()

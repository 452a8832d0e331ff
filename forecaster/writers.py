"""Traces written in the public formats, for other tools and for tests."""

import json
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path

from forecaster.readers.azure import COLUMNS
from forecaster.readers.mooncake import BLOCK_TOKENS
from forecaster.readers.trace_file import TraceFormat
from planner.domain.errors import TraceError
from planner.domain.workload import Workload


def write_trace(workload: Workload, path: Path, trace_format: TraceFormat) -> None:
    """Write the requests so that `read_trace` gives them back.

    What the formats cannot hold is lost: the class name, the interval's end, in Mooncake JSONL
    the date and what is finer than 1 ms, in Azure CSV prefix blocks and cached tokens. An
    existing file is replaced in one step, or left as it was when writing fails.

    Raises
    ------
    TraceError
        When the workload mixes classes, has no request, has blocks of another size than
        Mooncake's, or the file cannot be written.
    """
    _check(workload, trace_format)
    rows = _mooncake_rows if trace_format is TraceFormat.MOONCAKE else _azure_rows
    try:
        _replace(path, rows(workload))
    except OSError as error:
        raise TraceError(f"{path}: the trace cannot be written: {error}") from error


def _check(workload: Workload, trace_format: TraceFormat) -> None:
    if len(workload) == 0:
        raise TraceError(f"a trace without requests cannot be written as {trace_format.label}")
    classes = sorted({str(name) for name in workload.request_class})
    if len(classes) > 1:
        raise TraceError(
            f"{trace_format.label} has no column for request classes; write {', '.join(classes)} "
            "to files of their own"
        )
    if trace_format is TraceFormat.AZURE or workload.prefix is None:
        return
    if workload.prefix.block_tokens != BLOCK_TOKENS:
        raise TraceError(
            f"{trace_format.label} has prefix blocks of {BLOCK_TOKENS} tokens, the workload has "
            f"blocks of {workload.prefix.block_tokens}"
        )


def _mooncake_rows(workload: Workload) -> Iterator[str]:
    for index in range(len(workload)):
        record: dict[str, object] = {
            "timestamp": round(float(workload.arrival_offset_s[index]) * 1000.0),
            "input_length": int(workload.input_tokens[index]),
            "output_length": int(workload.output_tokens[index]),
        }
        if workload.prefix is not None:
            record["hash_ids"] = workload.prefix.of(index).tolist()
        yield json.dumps(record)


def _azure_rows(workload: Workload) -> Iterator[str]:
    yield ",".join(COLUMNS)
    start_at = workload.start_at.astimezone(UTC).replace(tzinfo=None)
    for index in range(len(workload)):
        moment = start_at + timedelta(seconds=float(workload.arrival_offset_s[index]))
        yield (
            f"{moment.isoformat(sep=' ', timespec='microseconds')}0,"
            f"{workload.input_tokens[index]},{workload.output_tokens[index]}"
        )


def _replace(path: Path, rows: Iterator[str]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(f"{row}\n" for row in rows)
        # mkstemp makes files for their owner only; a trace is an ordinary file.
        draft.chmod(0o644)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise

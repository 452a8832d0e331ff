"""Readers of public trace files, strict and line by line.

A row that is not usable is counted and reported with its line number; a file with more than
`LARGEST_REFUSED_SHARE` of such rows, or without any request, is refused as a whole.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from forecaster.readers.azure import COLUMNS, AzureRows
from forecaster.readers.columns import TraceColumns, shifted
from forecaster.readers.lines import Line, open_trace, read_lines
from forecaster.readers.mooncake import MooncakeRows
from forecaster.readers.rows import RowParser, shown
from forecaster.readers.trace_file import ReadReport, TraceFile, TraceFormat
from planner.domain.errors import TraceError

__all__ = ["LARGEST_REFUSED_SHARE", "ReadReport", "TraceFile", "TraceFormat", "read_trace"]

LARGEST_REFUSED_SHARE = 0.01
"""A file with a larger share of refused rows is not read at all."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_trace(
    path: Path, *, trace_format: TraceFormat | None = None, start_at: datetime | None = None
) -> TraceFile:
    """Read the requests of a trace file.

    Parameters
    ----------
    path : Path
    trace_format : TraceFormat or None
        None: told from the first line.
    start_at : datetime or None
        Of a trace in relative time (Mooncake) the instant of its time 0, by default
        1970-01-01T00:00Z. A trace with instants of its own (Azure) is moved so that its first
        request arrives then; by default it stays where it was.

    Returns
    -------
    TraceFile
        Offset 0 of the workload is the first request; its interval ends one mean gap (or clock
        tick) after the last one.

    Raises
    ------
    TraceError
        When the file is missing, not of this format, without requests, or when more than
        `LARGEST_REFUSED_SHARE` of its rows are not usable.
    """
    if start_at is not None and start_at.tzinfo is None:
        raise TraceError("start_at needs a time zone, as in 2026-01-31T12:00:00Z")
    columns = TraceColumns()
    with open_trace(path) as file:
        lines = read_lines(file, path)
        found = _read_rows(lines, path, trace_format, columns)
    _refuse_bad_file(path, found, columns)
    workload, tick_s = columns.workload(_start(path, found, columns, start_at))
    report = ReadReport(
        path=path,
        trace_format=found,
        rows_read=columns.rows_read,
        rows_refused=columns.rows_refused,
        reasons=columns.reasons,
        arrival_tick_s=tick_s,
    )
    return TraceFile(workload=workload, report=report)


def _read_rows(
    lines: Iterator[Line], path: Path, asked: TraceFormat | None, columns: TraceColumns
) -> TraceFormat:
    first = next(lines, None)
    if first is None:
        raise TraceError(f"{path}: the file is empty; a trace has one request per line")
    found = _format_of(first, path, asked)
    parser: RowParser
    if found is TraceFormat.AZURE:
        parser = _azure_parser(first, path)
    else:
        parser = MooncakeRows()
        _take(first, parser, columns)
    for line in lines:
        _take(line, parser, columns)
    return found


def _take(line: Line, parser: RowParser, columns: TraceColumns) -> None:
    if line.text is None:
        columns.refuse(line.number, line.problem)
        return
    try:
        row = parser.parse(line.text)
    except ValueError as error:
        ending = " (the file ends in this line: is it cut off?)" if line.cut_off else ""
        columns.refuse(line.number, f"{error}{ending}")
        return
    columns.add(line.number, row)


def _format_of(first: Line, path: Path, asked: TraceFormat | None) -> TraceFormat:
    found: TraceFormat | None = None
    if first.text is not None and first.text.startswith("{"):
        found = TraceFormat.MOONCAKE
    elif first.text is not None and any(column in first.text.split(",") for column in COLUMNS):
        found = TraceFormat.AZURE
    if found is not None and asked in (None, found):
        return found
    wanted = asked.label if asked is not None else "Mooncake JSONL nor Azure CSV"
    raise TraceError(
        f"{path}:{first.number}: the file is {'not' if asked is not None else 'neither'} {wanted}: "
        f"its first line is {shown(first.text) if first.text is not None else first.problem}"
        f"{f', which looks like {found.label}' if found is not None else ''}; expected one JSON "
        f'object per line with "timestamp", or a header line {",".join(COLUMNS)}'
    )


def _azure_parser(header: Line, path: Path) -> AzureRows:
    try:
        return AzureRows(header.text or "")
    except ValueError as error:
        raise TraceError(f"{path}:{header.number}: {error}") from error


def _refuse_bad_file(path: Path, found: TraceFormat, columns: TraceColumns) -> None:
    if columns.rows_read == 0:
        raise TraceError(f"{path}: the file holds a header but no request")
    if columns.rows_refused > LARGEST_REFUSED_SHARE * columns.rows_read:
        listed = "\n".join(f"  {path}:{line}: {why}" for line, why in columns.refusals[:3])
        raise TraceError(
            f"{path}: {columns.rows_refused} of {columns.rows_read} rows are not usable "
            f"{found.label}, more than {LARGEST_REFUSED_SHARE:.0%}; "
            f"mend or remove these rows, first:\n{listed}"
        )


def _start(
    path: Path, found: TraceFormat, columns: TraceColumns, start_at: datetime | None
) -> datetime:
    if found is TraceFormat.AZURE and start_at is not None:
        return start_at
    try:
        return shifted(start_at or _EPOCH, columns.first_arrival_s)
    except OverflowError as error:
        raise TraceError(f"{path}: start_at {start_at} is too late to count from") from error

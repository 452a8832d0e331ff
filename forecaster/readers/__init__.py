"""Readers of public trace files, strict and line by line.

A row that is not usable is counted and reported with its line number; a file with more than
`LARGEST_REFUSED_SHARE` of such rows, or without any request, is refused as a whole.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from forecaster.readers import azure, burstgpt
from forecaster.readers.azure import AzureRows
from forecaster.readers.burstgpt import BurstGptRows
from forecaster.readers.columns import TraceColumns, shifted
from forecaster.readers.lines import Line, open_trace, read_lines
from forecaster.readers.mooncake import MooncakeRows
from forecaster.readers.rows import FailedRequest, RowParser, shown
from forecaster.readers.trace_file import ReadReport, TraceFile, TraceFormat
from planner.domain.errors import EmptyTraceError, TraceError
from planner.domain.wording import counted

__all__ = ["LARGEST_REFUSED_SHARE", "ReadReport", "TraceFile", "TraceFormat", "read_trace"]

LARGEST_REFUSED_SHARE = 0.01
"""A file with a larger share of refused rows is not read at all."""

LARGEST_REPEATED_SHARE = 0.01
"""Above it, rows that repeat one of the same time stamp to the last figure are worth a remark."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_PARQUET = {
    False: "",
    True: " (ServeGen's client tables are for `poolwise trace synthesize --servegen`)",
}
_HEADERS = {TraceFormat.AZURE: azure.COLUMNS, TraceFormat.BURSTGPT: burstgpt.COLUMNS}


def read_trace(
    path: Path,
    *,
    trace_format: TraceFormat | None = None,
    start_at: datetime | None = None,
    class_column: str | None = None,
    accept_jump: bool = False,
    until: datetime | None = None,
) -> TraceFile:
    """Read the requests of a trace file, or of a gzip file with one in it.

    Parameters
    ----------
    path : Path
    trace_format : TraceFormat or None
        None: told from the first line.
    start_at : datetime or None
        Of a trace in relative time (Mooncake, BurstGPT) the instant of its time 0, by default
        1970-01-01T00:00Z. A trace with instants of its own (Azure) is moved so that its first
        request arrives then; by default it stays where it was.
    class_column : str or None
        Column (of Mooncake's JSON: key) that holds the request class. None: `RequestClass`
        (`request_class`) where the file has it, else all requests are of the default class.
    accept_jump : bool
        Whether one gap longer than all the rest of the trace is only remarked on. By default it
        is taken for a jump of the clock: the few rows beyond it are refused, or the file is.
    until : datetime or None
        Reading ends at the first row from this instant on (one that the next row confirms, by
        its time stamp, usable or not): nothing of what comes after counts or changes the answer.

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
    for name, instant in (("start_at", start_at), ("until", until)):
        if instant is not None and instant.tzinfo is None:
            raise TraceError(f"{name} needs a time zone, as in 2026-01-31T12:00:00Z")
    columns = TraceColumns()
    with open_trace(path) as file:
        lines = read_lines(file, path)
        found = _read_rows(
            lines,
            path,
            trace_format,
            columns,
            class_column=class_column,
            start_at=start_at,
            until=until,
        )
    columns.finish()
    if until is not None and columns.ended and len(columns) == 0:
        raise EmptyTraceError(
            where=str(path),
            what=f"no request arrives before {until.isoformat()}",
            remedy="give a later --at, or a trace that begins earlier",
        )
    _refuse_bad_file(path, found, columns)
    remarks = [*_repeats(columns), *_jump(path, columns, accepted=accept_jump)]
    _refuse_bad_file(path, found, columns)
    workload, tick_s = columns.workload(_start(path, found, columns, start_at))
    report = ReadReport(
        path=path,
        trace_format=found,
        rows_read=columns.rows_read,
        rows_refused=columns.rows_refused,
        reasons=columns.reasons,
        arrival_tick_s=tick_s,
        requests_failed=columns.requests_failed,
        remarks=tuple(remarks),
    )
    return TraceFile(workload=workload, report=report)


def _read_rows(
    lines: Iterator[Line],
    path: Path,
    asked: TraceFormat | None,
    columns: TraceColumns,
    *,
    class_column: str | None,
    start_at: datetime | None,
    until: datetime | None,
) -> TraceFormat:
    first = next(lines, None)
    if first is None:
        raise EmptyTraceError(
            where=str(path),
            what="the file is empty",
            remedy="a trace has one request per line: look at whatever writes it",
        )
    found = _format_of(first, path, asked)
    if until is not None:
        moved = found is TraceFormat.AZURE and start_at is not None
        zero = _EPOCH if found is TraceFormat.AZURE and not moved else start_at or _EPOCH
        columns.end_at((until - zero).total_seconds(), after_first=moved)
    parser: RowParser
    if found is TraceFormat.MOONCAKE:
        parser = MooncakeRows(class_column)
        _take(first, parser, columns)
    else:
        parser = _csv_parser(found, first, path, class_column)
    for line in lines:
        if columns.ended:
            break
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
        columns.refuse(line.number, f"{error}{ending}", arrival_s=_dated(parser, line.text))
        return
    if isinstance(row, FailedRequest):
        columns.fail(row.arrival_s)
    else:
        columns.add(line.number, row)


def _dated(parser: RowParser, text: str) -> float | None:
    """When a row that is not usable says that it arrived; None: not even that can be read."""
    try:
        return parser.arrival_s(text)
    except ValueError:
        return None


def _format_of(first: Line, path: Path, asked: TraceFormat | None) -> TraceFormat:
    found: TraceFormat | None = None
    if first.text is not None and first.text.startswith("{"):
        found = TraceFormat.MOONCAKE
    elif first.text is not None:
        names = {name.strip() for name in first.text.split(",")}
        found = next((kind for kind, known in _HEADERS.items() if names & set(known)), None)
    if found is not None and asked in (None, found):
        return found
    headers = " or ".join(",".join(columns) for columns in _HEADERS.values())
    wanted = (
        f"not {asked.label}"
        if asked is not None
        else f"none of {', '.join(kind.label for kind in TraceFormat)}"
    )
    is_parquet = first.text is None and path.suffix == ".parquet"
    raise TraceError(
        f"{path}:{first.number}: the file is {wanted}: "
        f"its first line is {shown(first.text) if first.text is not None else first.problem}"
        f"{f', which looks like {found.label}' if found is not None else ''}; expected one JSON "
        f'object per line with "timestamp", or a header line with {headers}{_PARQUET[is_parquet]}'
    )


def _csv_parser(
    found: TraceFormat, header: Line, path: Path, class_column: str | None
) -> AzureRows | BurstGptRows:
    kind = AzureRows if found is TraceFormat.AZURE else BurstGptRows
    try:
        return kind(header.text or "", class_column)
    except ValueError as error:
        raise TraceError(f"{path}:{header.number}: {error}") from error


def _refuse_bad_file(path: Path, found: TraceFormat, columns: TraceColumns) -> None:
    if columns.rows_read == 0:
        raise EmptyTraceError(
            where=str(path),
            what="the file holds a header but no request",
            remedy="look at whatever writes it",
        )
    if columns.rows_refused > LARGEST_REFUSED_SHARE * columns.rows_read:
        listed = "\n".join(f"  {path}:{line}: {why}" for line, why in columns.refusals[:3])
        raise TraceError(
            f"{path}: {columns.rows_refused} of {columns.rows_read} rows are not usable "
            f"{found.label}, more than {LARGEST_REFUSED_SHARE:.0%}; "
            f"mend or remove these rows, first:\n{listed}"
        )
    if len(columns) == 0:
        raise TraceError(
            f"{path}: all {counted(columns.rows_read, 'request')} failed; none was answered"
        )


def _repeats(columns: TraceColumns) -> Iterator[str]:
    if columns.repeated_rows > LARGEST_REPEATED_SHARE * columns.rows_read:
        yield (
            f"{columns.repeated_rows:,} of {columns.rows_read:,} rows repeat a row above to the "
            f"last figure (same time stamp; first: line {columns.first_repeated_line}) and are "
            "kept: was each request written twice?"
        )


def _jump(path: Path, columns: TraceColumns, *, accepted: bool) -> Iterator[str]:
    """Deal with a jump of the clock; see `TraceColumns.jump`."""
    found = columns.jump()
    if found is None:
        return
    after, gap_s = found
    above, below = columns.line_of(after - 1), columns.line_of(after)
    said = (
        f"no request for {gap_s:,.0f} s between lines {above} and {below}, longer than all the "
        "rest of the trace: a jump of the clock?"
    )
    if accepted:
        yield said
        return
    beyond = min(after, len(columns) - after)
    if columns.rows_refused + beyond > LARGEST_REFUSED_SHARE * columns.rows_read:
        raise TraceError(
            f"{path}:{below}: {said} Keep one part: `poolwise trace convert` with --until or "
            "--from cuts there"
        )
    first, last = (after, len(columns)) if beyond == after else (0, after)
    columns.cut(first, last, said)


def _start(
    path: Path, found: TraceFormat, columns: TraceColumns, start_at: datetime | None
) -> datetime:
    if found.has_instants and start_at is not None:
        return start_at
    try:
        return shifted(start_at or _EPOCH, columns.first_arrival_s)
    except OverflowError as error:
        raise TraceError(f"{path}: start_at {start_at} is too late to count from") from error

"""`poolwise trace show`: what a trace is like."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.wording import counted
from planner.service.cli import output
from planner.service.cli.options import JsonOption, StartOption, instant
from planner.service.cli.trace_options import ClassColumnOption, FileArgument, FormatOption

if TYPE_CHECKING:
    from planner.service.documents.trace import LengthsDocument, TraceDocument

EPILOG = (
    "Examples:\n\n"
    "poolwise trace show requests.jsonl\n\n"
    "poolwise trace show BurstGPT_1.csv.gz --class-column 'Log Type' --html trace.html\n\n"
    "poolwise trace show requests.csv --json"
)


def show(
    file: FileArgument,
    *,
    trace_format: FormatOption = None,
    class_column: ClassColumnOption = None,
    start_at: StartOption = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write plots as one HTML page, too.", metavar="OUT"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show rate, bursts, lengths, prefix reuse, silences and refused rows of a trace.

    What the clock of the trace is too coarse for is left out: nothing shorter than ten of its
    ticks is shown.
    """
    from forecaster.readers import read_trace
    from forecaster.trace_statistics import trace_statistics
    from planner.service.documents.trace import trace_document
    from planner.service.whole_file import check_writable, whole_file

    if html is not None:
        check_writable(html, option="--html", inputs=(file,))
    with output.working("reading"):
        trace = read_trace(
            file,
            trace_format=trace_format,
            start_at=instant(start_at, option="--start-at"),
            class_column=class_column,
            accept_jump=True,
        )
        found = trace_statistics(trace.workload, tick_s=trace.report.arrival_tick_s)
    document = trace_document(trace, found)
    if html is not None:
        from planner.service.reports.trace_report import trace_report

        with whole_file(html) as unfinished:
            unfinished.write_text(trace_report(trace, found), encoding="utf-8")
    if json:
        output.print_json(document)
        return
    _show(document)
    if html is not None:
        output.note(f"plots: {html}")


def _show(found: "TraceDocument") -> None:
    output.print_table(f"{found.file}: {_label(found)}", ("", ""), _facts(found), numbers_from=9)
    output.print_table(
        "", _LENGTH_COLUMNS, [_lengths("ISL", found.isl), _lengths("OSL", found.osl)]
    )
    joint = found.joint
    output.print_table(
        "Requests by prompt (rows) and answer (columns), tokens",
        ("", *_groups(joint.output_edges)),
        [
            [name, *(output.percent(share) if share else "-" for share in row)]
            for name, row in zip(_groups(joint.input_edges), joint.share, strict=True)
            if any(row)
        ],
    )
    if found.cache_reuse:
        output.print_table(
            "Prompt tokens that one LRU prefix cache saves",
            ("cache, tokens", *(f"{one.cache_tokens:,}" for one in found.cache_reuse)),
            [["saved", *(output.percent(one.reuse_ratio) for one in found.cache_reuse)]],
        )
    output.print_lines(
        "Silences that chance does not explain",
        [
            f"{gap.length_s:,.0f} s from {gap.start_at:%Y-%m-%d %H:%M:%S} ({gap.start_s:,.0f} s) "
            f"on, in which about {counted(gap.expected_requests, 'request')} would have come"
            for gap in found.gaps
        ],
    )
    output.print_lines("Remarks", found.remarks)
    output.print_lines("Refused", found.refusals)


_LENGTH_COLUMNS = (
    "tokens", "p5", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9", "mean", "max",
)  # fmt: skip


def _label(found: "TraceDocument") -> str:
    from forecaster.readers import TraceFormat

    return TraceFormat(found.format).label


def _facts(found: "TraceDocument") -> list[list[str]]:
    end = found.start_at.timestamp() + found.duration_s
    from datetime import UTC, datetime

    until = datetime.fromtimestamp(end, UTC)
    rows = [
        ["rows", f"{found.rows_read:,}, {found.rows_refused:,} refused"],
        ["span", f"{_time(found.duration_s)}, {found.start_at:%Y-%m-%d %H:%M:%S} to "
                 f"{until:%Y-%m-%d %H:%M:%S} UTC"],
        ["requests", f"{found.requests:,}; {found.request_rate_rps:,.3g} requests/s"],
        ["tokens", f"{found.input_tokens_per_s:,.0f}/s in, {found.output_tokens_per_s:,.0f}/s out"],
        ["clock", "fine" if found.clock_tick_s is None else f"ticks of {found.clock_tick_s:.3g} s"],
        *(
            [
                f"peak in {peak.window_s:g} s",
                f"{peak.peak_rps:,.3g} requests/s, {peak.peak_to_mean:,.3g} x the mean; counts "
                f"vary {peak.dispersion:,.3g} x as much as Poisson's",
            ]
            for peak in found.peaks
        ),
        ["arrival CV", _cv(found)],
        ["prompt with answer", f"rank correlation {found.length_correlation:.2f}"],
        ["prefix reuse", _reuse(found)],
        ["classes", ", ".join(f"{c.request_class} {c.requests:,}" for c in found.classes[:8])],
    ]  # fmt: skip
    if found.requests_failed:
        rows.insert(1, ["failed requests", f"{found.requests_failed:,} (no answer), left out"])
    if len(found.classes) > 8:
        rows[-1][1] += f" and {len(found.classes) - 8} more"
    return rows


def _cv(found: "TraceDocument") -> str:
    if found.arrival_cv is not None:
        return f"{found.arrival_cv:.2f} (1 is Poisson)"
    return "too few requests" if found.clock_tick_s is None else "the clock is too coarse for it"


def _reuse(found: "TraceDocument") -> str:
    if found.reuse_ratio is None:
        return "not known: the trace names no prefix blocks"
    return (
        f"{output.percent(found.reuse_ratio)} of prompt tokens with an unbounded cache, which "
        f"grows to {found.unique_tokens:,} tokens"
    )


def _lengths(name: str, found: "LengthsDocument") -> list[str]:
    values = (
        found.p5, found.p25, found.p50, found.p75, found.p90, found.p95, found.p99, found.p99_9,
        found.mean, found.max,
    )  # fmt: skip
    return [name, *(f"{value:,.0f}" for value in values)]


def _groups(edges: Sequence[int]) -> list[str]:
    """Names of the groups between lower edges: `<256`, `256+`, ... as powers of two."""
    names = [f"<{_short(edges[1])}"]
    names += [f"{_short(low)}-{_short(high)}" for low, high in pairwise(edges[1:])]
    return [*names, f"{_short(edges[-1])}+"]


def _short(tokens: int) -> str:
    return f"{tokens // 1024}K" if tokens % 1024 == 0 else str(tokens)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:,.1f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 172_800 else f"{seconds / 86_400:,.1f} d"

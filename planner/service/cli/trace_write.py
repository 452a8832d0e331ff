"""Where the commands on traces write to, and what they say about it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from planner.domain.errors import InputError
from planner.domain.wording import counted
from planner.service.cli import output

if TYPE_CHECKING:
    from forecaster.readers import TraceFormat
    from planner.domain.workload import Workload


def check_out(out: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuse a file that exists (without --force), is read as well, or cannot be written.

    Raises
    ------
    InputError
        With what to do.
    """
    from planner.service.whole_file import check_writable

    check_writable(out, option="OUT", inputs=inputs)
    if out.exists() and not force:
        raise InputError(f"{out} exists; give --force to replace it")


def format_of(out: Path, asked: "TraceFormat | None") -> "TraceFormat":
    """The format asked for, or the one that the file's ending tells.

    Raises
    ------
    InputError
        When neither tells.
    """
    from forecaster.readers import TraceFormat

    if asked is not None:
        return asked
    name = out.name.removesuffix(".gz")
    if name.endswith((".jsonl", ".json")):
        return TraceFormat.MOONCAKE
    if name.endswith(".csv"):
        return TraceFormat.AZURE
    kinds = ", ".join(kind.value for kind in TraceFormat)
    raise InputError(f"{out}: its ending tells no format; give --to, one of {kinds}")


def write(
    workload: "Workload",
    out: Path,
    trace_format: "TraceFormat",
    *,
    remarks: Sequence[str],
    json: bool,
) -> None:
    """Write a trace and print what was written, lost and assumed."""
    from forecaster.readers import TraceFormat
    from forecaster.writers import losses, write_trace
    from planner.service.documents.trace import WrittenTraceDocument

    with output.working("writing"):
        write_trace(workload, out, trace_format)
    keeps = workload.prefix is not None and trace_format is TraceFormat.MOONCAKE
    reused = int(workload.cached_tokens.sum()) / int(workload.input_tokens.sum())
    written = WrittenTraceDocument(
        file=str(out),
        format=trace_format.value,
        requests=len(workload),
        duration_s=workload.duration_s,
        request_rate_rps=workload.request_rate_rps,
        isl_mean=float(workload.input_tokens.mean()),
        osl_mean=float(workload.output_tokens.mean()),
        reuse_ratio=reused if keeps else None,
        notes=[*remarks, *losses(workload, trace_format)],
    )
    if json:
        output.print_json(written)
        return
    shared = f", {output.percent(reused)} of prompt tokens reused" if keeps else ""
    typer.echo(
        f"{out}: {trace_format.label}, {counted(written.requests, 'request')} in "
        f"{written.duration_s:,.0f} s, {written.request_rate_rps:,.3g} requests/s, mean ISL "
        f"{written.isl_mean:,.0f}, OSL {written.osl_mean:,.0f}{shared}"
    )
    for text in written.notes:
        output.note(f"note: {text}")

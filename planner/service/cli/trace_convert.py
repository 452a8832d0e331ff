"""`poolwise trace convert`: the same requests in another format, faster, shorter, or a part."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli import output
from planner.service.cli.options import LONGEST_S, JsonOption, StartOption, instant, seconds
from planner.service.cli.trace_options import (
    ClassColumnOption,
    FileArgument,
    ForceOption,
    FormatOption,
    OutArgument,
    ToOption,
)

if TYPE_CHECKING:
    from planner.domain.workload import Workload

EPILOG = (
    "Examples:\n\n"
    "poolwise trace convert requests.jsonl --to azure requests.csv\n\n"
    "poolwise trace convert week.csv.gz day.jsonl --from 86400 --until 172800\n\n"
    "poolwise trace convert requests.csv small.csv --rate-ratio 0.1 --length-ratio 0.05"
)
LARGEST_RATIO = 1e6
_LONGEST_TOKENS = 10_000_000


def _ratio(option: typer.CallbackParam, value: float) -> float:
    if not 1 / LARGEST_RATIO <= value <= LARGEST_RATIO:
        raise InputError(
            f"{option.opts[0]} {value:g}: give {1 / LARGEST_RATIO:g} to {LARGEST_RATIO:g}"
        )
    return value


def convert(
    file: FileArgument,
    out: OutArgument,
    *,
    to: ToOption = None,
    trace_format: FormatOption = None,
    class_column: ClassColumnOption = None,
    start_at: StartOption = None,
    from_s: Annotated[
        float, typer.Option("--from", help="Begin here, seconds from the start.", callback=seconds)
    ] = 0.0,
    until_s: Annotated[
        float | None,
        typer.Option("--until", help="End here, seconds from the start.", callback=seconds),
    ] = None,
    rate_ratio: Annotated[
        float,
        typer.Option(
            "--rate-ratio",
            help="New rate over old: time is stretched, no request is left out.",
            callback=_ratio,
        ),
    ] = 1.0,
    length_ratio: Annotated[
        float,
        typer.Option(
            "--length-ratio", help="New lengths over old, prefixes alike.", callback=_ratio
        ),
    ] = 1.0,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Write the requests of a trace in another format; say what that format cannot hold.

    The part between --from and --until is taken first, then rate and lengths are changed.
    """
    from forecaster.readers import read_trace
    from planner.service.cli.trace_write import check_out, format_of, write

    check_out(out, force=force, inputs=(file,))
    target = format_of(out, to)
    with output.working("reading"):
        trace = read_trace(
            file,
            trace_format=trace_format,
            start_at=instant(start_at, option="--start-at"),
            class_column=class_column,
            accept_jump=True,
        )
    output.note_skipped(file, trace.report.left_out)
    workload = _part(file, trace.workload, from_s, until_s)
    remarks = list(trace.report.remarks) if len(workload) == len(trace.workload) else []
    if rate_ratio != 1.0 or length_ratio != 1.0:
        workload, said = _changed(workload, rate_ratio, length_ratio)
        remarks += said
    write(workload, out, target, remarks=remarks, json=json)


def _part(file: Path, workload: "Workload", from_s: float, until_s: float | None) -> "Workload":
    from forecaster.prefixes import cached_tokens

    if from_s == 0 and until_s is None:
        return workload
    end_s = workload.duration_s if until_s is None else min(until_s, workload.duration_s)
    part = workload.between(from_s, end_s) if from_s < end_s else None
    if part is None or len(part) == 0:
        raise InputError(
            f"{file} has no request between {from_s:g} s and "
            f"{LONGEST_S if until_s is None else until_s:g} s; it lasts {workload.duration_s:g} s"
        )
    if part.prefix is None:
        return part
    # What was cut off fills no cache any more.
    return replace(part, cached_tokens=cached_tokens(part.prefix, part.input_tokens))


def _changed(
    workload: "Workload", rate_ratio: float, length_ratio: float
) -> tuple["Workload", list[str]]:
    """The workload at another rate and with other lengths, and what that did to its prefixes."""
    from forecaster.readers.mooncake import BLOCK_TOKENS
    from forecaster.rescale import reblock, rescale

    changed = reblock(
        rescale(
            workload,
            length_ratio=length_ratio,
            rate_ratio=rate_ratio,
            max_input_tokens=_LONGEST_TOKENS,
            max_output_tokens=_LONGEST_TOKENS,
        ),
        block_tokens=BLOCK_TOKENS,
    )
    before, after = (
        int(one.cached_tokens.sum()) / int(one.input_tokens.sum()) for one in (workload, changed)
    )
    if abs(before - after) < 0.005:
        return changed, []
    return changed, [
        f"prefix reuse goes from {output.percent(before)} to {output.percent(after)}: blocks have "
        f"{BLOCK_TOKENS} tokens, whatever the lengths"
    ]

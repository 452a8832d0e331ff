"""Options that the commands on traces share."""

from pathlib import Path
from typing import Annotated

import typer

from forecaster.trace_format import TraceFormat

FileArgument = Annotated[
    Path,
    typer.Argument(
        help="Requests: Mooncake JSONL, Azure CSV or BurstGPT CSV, also gzipped.",
        metavar="FILE",
        show_default=False,
    ),
]
FormatOption = Annotated[
    TraceFormat | None,
    typer.Option(
        "--format", help="Expect this format (default: told from the first line).", metavar="NAME"
    ),
]
ClassColumnOption = Annotated[
    str | None,
    typer.Option(
        "--class-column",
        help="Take the request class from this column, as in 'Log Type' "
        "(default: RequestClass where it is there).",
        metavar="NAME",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace OUT where it exists.")]
OutArgument = Annotated[
    Path,
    typer.Argument(
        help="File to write; gzipped where it ends in .gz.", metavar="OUT", show_default=False
    ),
]
ToOption = Annotated[
    TraceFormat | None,
    typer.Option(
        "--to",
        help="Format of OUT (default by its ending: .jsonl Mooncake, .csv Azure).",
        metavar="[mooncake|azure|burstgpt]",
    ),
]

"""Options that several commands share."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from planner.domain.errors import InputError

SpecOption = Annotated[
    Path, typer.Option("--spec", "-s", help="The spec (YAML).", metavar="FILE", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", help="Which of the spec's models; not needed when it has one.", metavar="NAME"
    ),
]
EstimatesOption = Annotated[
    bool,
    typer.Option(
        "--allow-estimates",
        help="Estimate missing profiles by roofline: rough, labelled, never applied by itself.",
    ),
]
TraceOption = Annotated[
    Path | None,
    typer.Option(
        "--trace", "-t", help="Requests: Mooncake JSONL, Azure or BurstGPT CSV.", metavar="FILE"
    ),
]
HistoryOption = Annotated[
    Path | None,
    typer.Option("--history", "-H", help="Observed windows (JSON; - for stdin).", metavar="FILE"),
]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--start-at",
        help="Instant of offset 0 of a trace in relative time, as 2026-11-01T08:00:00Z.",
        metavar="TIME",
    ),
]
AtOption = Annotated[
    str | None,
    typer.Option(
        "--at",
        help="Look at nothing after this instant (default: the trace's end).",
        metavar="TIME",
    ),
]
FleetOption = Annotated[
    Path | None,
    typer.Option("--fleet", help="The fleet that runs (JSON; - for stdin).", metavar="FILE"),
]


LONGEST_S = 1e9
"""Longer intervals (30 years) are refused."""


def seconds(option: typer.CallbackParam, value: float | None) -> float | None:
    """Check an interval that was given; for use as an option's callback.

    Raises
    ------
    InputError
        When it is not a number of seconds that a trace can have.
    """
    if value is not None and not 0 <= value <= LONGEST_S:
        raise InputError(
            f"{option.opts[0]} {value:g} is no interval in seconds: give 0 to {LONGEST_S:g}"
        )
    return value


def ratio(option: typer.CallbackParam, value: float | None) -> float | None:
    """Check a share that was given (Click takes NaN for any number); for use as a callback.

    Raises
    ------
    InputError
        When it is not a share.
    """
    if value is not None and not 0 <= value <= 1:
        raise InputError(f"{option.opts[0]} {value:g} is no share: give 0 to 1")
    return value


def instant(text: str | None, *, option: str) -> datetime | None:
    """An instant with a time zone, or None.

    Raises
    ------
    InputError
        When it is no ISO 8601 instant, or has no time zone.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"{option}: {text!r} is no instant; write it as 2026-11-01T08:00:00Z"
        ) from error
    if moment.tzinfo is None:
        raise InputError(f"{option}: {text!r} has no time zone; add Z for UTC, or an offset")
    if not 1970 <= moment.year <= 2200:
        raise InputError(f"{option}: {text!r}: the year must lie between 1970 and 2200")
    return moment

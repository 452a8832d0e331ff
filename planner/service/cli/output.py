"""What the terminal shows: JSON for machines, tables for people, progress on stderr."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from planner.domain import wording

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from forecaster.readers import ReadReport


def print_json(document: "BaseModel") -> None:
    """A document as JSON on standard output."""
    typer.echo(document.model_dump_json(indent=2, by_alias=True))


def console() -> "Console":
    """Standard output for people; wide enough for tables when it is piped."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show what goes on while it does; silent where nobody watches."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers_from: int = 1,
    unbroken: Sequence[str] = (),
) -> None:
    """A table; columns from `numbers_from` on are aligned right, `unbroken` ones not wrapped."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        header_style="bold",
        show_header=any(columns),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if index >= numbers_from else "left"
        table.add_column(column, justify=justify, no_wrap=column in unbroken)
    for row in rows:
        # Text, so that names with square brackets are not taken for markup.
        table.add_row(*(Text(cell) for cell in row))
    out = console()
    if title:  # on a line of its own, not broken to the table's width
        out.print(Text(title, style="italic"), soft_wrap=True)
    out.print(table)


def distrust(*, estimated: bool, incomplete: bool) -> str:
    """What a title adds where profiles are not to be trusted like whole measured ones."""
    return (", ESTIMATED profiles: rough" if estimated else "") + (
        ", INCOMPLETE profiles: measuring broke off" if incomplete else ""
    )


def print_lines(title: str, lines: Sequence[str]) -> None:
    """A heading and a list; nothing when the list is empty."""
    from rich.markup import escape

    if not lines:
        return
    out = console()
    out.print(f"[bold]{escape(title)}[/bold]")
    for line in lines:
        out.print(f"  - {escape(line)}")


def note(text: str) -> None:
    """A remark on standard error."""
    typer.echo(text, err=True)


def note_report(path: Path, report: "ReadReport") -> None:
    """Say which rows of a trace were left out, and what else looks wrong in it."""
    for text in report.notes:
        note(f"{path}: {text}")


def note_skipped(path: Path, reasons: Sequence[str]) -> None:
    """Say which rows of a trace were left out, and why."""
    for reason in reasons:
        note(f"{path}: skipped: {reason}")


def milliseconds(seconds: float | None) -> str:
    """Seconds as milliseconds for tables; from ten seconds on as seconds."""
    if seconds is None:
        return "-"
    if seconds >= 10:
        return f"{seconds:,.1f} s"
    value = seconds * 1000
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.2g} ms"


def percent(ratio: float | None) -> str:
    """A ratio as a percentage for tables."""
    return "-" if ratio is None else wording.percent(ratio)

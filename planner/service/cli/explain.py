"""`poolwise explain`: what a word of the field means here."""

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from planner.service.cli import output
from planner.service.cli.options import JsonOption

if TYPE_CHECKING:
    from planner.service.terms import Term

EPILOG = (
    "Examples:\n\npoolwise explain goodput\n\npoolwise explain time to first token\n\n"
    "poolwise explain --json | jq '.terms[].term'"
)
WIDTH = 100


def explain(
    *,
    term: Annotated[
        list[str] | None, typer.Argument(help="The word; left out: list all.", metavar="TERM")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say what a word means here: goodput, TTFT, headroom, cell, drain, ..."""
    from planner.service.terms import TermList, find_term, terms

    if term:
        found = find_term(" ".join(term))
        if json:
            output.print_json(found)
        else:
            _show(found)
        return
    if json:
        output.print_json(TermList(terms=list(terms())))
        return
    output.print_table("", ("term", "means"), [[t.term, t.means] for t in terms()], numbers_from=9)


def _show(term: "Term") -> None:
    also = f" ({', '.join(term.aliases)})" if term.aliases else ""
    typer.echo(f"{term.term}{also}{f', {term.unit}' if term.unit else ''}")
    typer.echo(textwrap.fill(term.means, WIDTH, initial_indent="  ", subsequent_indent="  "))
    if term.see:
        typer.echo(f"  See also: {', '.join(term.see)}")
    if term.page:
        typer.echo(f"  More: docs/{term.page}")

"""`poolwise audit`: who did what, and whether that was tampered with."""

from datetime import UTC
from typing import Annotated

import typer

from planner.domain.errors import AuditBrokenError
from planner.domain.wording import agreed, counted
from planner.service.cli import output
from planner.service.cli.options import JsonOption
from planner.service.cli.own_store import own_store

app = typer.Typer(no_args_is_help=True, help="The audit log: who did what; is it as written?")

EPILOG = (
    "Examples:\n\n"
    "poolwise audit verify\n\n"
    "poolwise audit verify --expect 5f2c9a...\n\n"
    "poolwise audit show --limit 20\n\n"
    "Works on the database of $POOLWISE_DATABASE_URL (default: SQLite in the state directory). "
    "Each line holds the hash of the one before. Keep the head that verify prints elsewhere: with "
    "it the next verify also notices when the whole log was written anew, or its end cut off."
)


@app.command(epilog=EPILOG)
def verify(
    *,
    expect: Annotated[
        str | None,
        typer.Option("--expect", help="A head that was noted earlier.", metavar="HASH"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Follow the chain from the first line to the last; exit status 1: it is broken, and where."""
    from planner.service.documents.audit import AuditCheckDocument

    with own_store() as store:
        check = store.verify_audit(expect=expect)
    if json:
        output.print_json(AuditCheckDocument.model_validate(check))
        if check.broken:
            raise typer.Exit(1)
        return
    if check.broken:
        raise AuditBrokenError(
            f"the audit log is broken: {check.broken}; the {counted(check.rows, 'line')} before "
            f"{agreed(check.rows, 'is', 'are')} in order"
        )
    typer.echo(f"{counted(check.rows, 'line')} in order; head {check.head}")


@app.command(epilog=EPILOG)
def show(
    *,
    limit: Annotated[int, typer.Option("--limit", help="How many.", min=1, max=100_000)] = 50,
    before: Annotated[
        int | None, typer.Option("--before", help="Only lines before this one.", min=1)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the newest lines, newest last."""
    from planner.service.documents.audit import AuditPage, audit_page

    with own_store() as store:
        page = audit_page(store, limit=limit, before=before)
    lines = list(reversed(page.lines))
    if json:
        output.print_json(AuditPage(lines=lines, before=page.before))
        return
    output.print_table(
        "" if lines else "nothing was ever done here",
        ["line", "at", "who", "did", "to", "detail"],
        [
            [
                str(line.seq),
                f"{line.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z",
                line.actor,
                line.action,
                line.subject,
                line.detail,
            ]
            for line in lines
        ],
        numbers_from=99,
    )

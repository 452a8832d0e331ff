"""`poolwise backup` and `poolwise restore`: the whole store as one file, and back."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.wording import counted
from planner.service.cli.options import JsonOption
from planner.service.cli.output import print_json

if TYPE_CHECKING:
    from planner.service.store.backup import Copied

BACKUP_EPILOG = (
    "Examples:\n\n"
    "poolwise backup poolwise-$(date +%F).backup\n\n"
    "POOLWISE_DATABASE_URL=postgresql://poolwise@db/poolwise poolwise backup a.backup\n\n"
    "Servers may run meanwhile. The file holds hashes of tokens: only its owner may read it."
)
RESTORE_EPILOG = (
    "Examples:\n\n"
    "poolwise restore a.backup\n\n"
    "POOLWISE_DATABASE_URL=postgresql://poolwise@db/poolwise poolwise restore a.backup\n\n"
    "Stop every `poolwise serve` on the database first. A backup of an earlier version is brought "
    "up to this one."
)


def backup(
    *,
    file: Annotated[Path, typer.Argument(help="File to write.", metavar="FILE")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file where it is there already.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write everything that the store holds to a file, of SQLite as of PostgreSQL."""
    from planner.domain.errors import InputError
    from planner.service.settings import read_settings
    from planner.service.store.backup import back_up
    from planner.service.whole_file import check_writable

    check_writable(file, option="FILE")
    if file.exists() and not force:
        raise InputError(f"{file} is there already: name another file, or replace it with --force")
    done = back_up(read_settings(os.environ).storage.database_url, file)
    count, size = sum(done.rows.values()), file.stat().st_size / 1e6
    told = f"{file}: {counted(count, 'row')}, {size:,.1f} MB, version {done.revision} of the tables"
    _tell(done, file, told, as_json=json)


def restore(
    *,
    file: Annotated[Path, typer.Argument(help="What `poolwise backup` wrote.", metavar="FILE")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace everything that the store holds.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Put a backup into an empty store: all of it, or nothing where something is wrong."""
    from planner.service.deployment import utc_now
    from planner.service.settings import read_settings
    from planner.service.store.backup import restore as put_back

    url = read_settings(os.environ).storage.database_url
    done = put_back(url, file, now=utc_now(), force=force)
    told = f"{counted(sum(done.rows.values()), 'row')} restored from {file}"
    _tell(done, file, told, as_json=json)


def _tell(done: "Copied", file: Path, told: str, *, as_json: bool) -> None:
    from planner.service.documents.backup import CopiedDocument

    if not as_json:
        typer.echo(told)
        return
    print_json(
        CopiedDocument(
            file=str(file),
            file_bytes=file.stat().st_size,
            schema_version=done.revision,
            rows=dict(done.rows),
        )
    )

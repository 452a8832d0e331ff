"""`poolwise token`: who may use the API of the server on this machine's database."""

import getpass
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from planner.service.cli import output
from planner.service.cli.durations import duration
from planner.service.cli.options import JsonOption
from planner.service.cli.own_store import own_store
from planner.service.security.access import AccessRole

if TYPE_CHECKING:
    from planner.service.documents.tokens import TokenDocument
    from planner.service.store.tokens import StoredToken

app = typer.Typer(no_args_is_help=True, help="Bearer tokens: who may use the API, and how.")

EPILOG = (
    "Examples:\n\n"
    "poolwise token create ann --role approver --expires 90d\n\n"
    "poolwise token rotate ann --overlap 1d\n\n"
    "poolwise token revoke ann\n\n"
    "Works on the database of $POOLWISE_DATABASE_URL (default: SQLite in the state directory); no "
    "token is asked for: whoever may write to the database may do everything. From elsewhere an "
    "admin's token does the same by `/v1/tokens`."
)
NameArgument = Annotated[
    str, typer.Argument(help="Whose token: one person's or program's name, as ann or ci-planner.")
]
ExpiresOption = Annotated[
    str | None, typer.Option("--expires", help="It ends after so long, as 30d.", metavar="DURATION")
]


@app.command(epilog=EPILOG)
def create(
    name: NameArgument,
    *,
    role: Annotated[
        AccessRole, typer.Option("--role", help="What it may do; each may all those before it may.")
    ],
    expires: ExpiresOption = None,
    json: JsonOption = False,
) -> None:
    """Make a token for a name that has none; it is printed once."""
    from planner.service.security.tokens import hash_of, new_token

    token, now = new_token(), datetime.now(UTC)
    expires_at = None if expires is None else now + duration(expires, option="--expires")
    with own_store() as store:
        made = store.tokens().create(
            hash_of(token), name=name, role=role, at=now, by=_actor(), expires_at=expires_at
        )
    _show_new(token, made, now, as_json=json)


@app.command(epilog=EPILOG)
def rotate(
    name: NameArgument,
    *,
    overlap: Annotated[
        str,
        typer.Option(
            "--overlap", help="The old one goes on for so long; 0s: no longer.", metavar="DURATION"
        ),
    ] = "1d",
    expires: ExpiresOption = None,
    json: JsonOption = False,
) -> None:
    """Make the next token of a name, of the same role; it is printed once.

    Without --expires it lasts as long as the one before was made to.
    """
    from planner.service.security.tokens import hash_of, new_token

    token, now = new_token(), datetime.now(UTC)
    expires_at = None if expires is None else now + duration(expires, option="--expires")
    with own_store() as store:
        made = store.tokens().rotate(
            hash_of(token),
            name=name,
            at=now,
            by=_actor(),
            overlap=duration(overlap, option="--overlap"),
            expires_at=expires_at,
        )
    _show_new(token, made, now, as_json=json)


@app.command(epilog=EPILOG)
def revoke(name: NameArgument, *, json: JsonOption = False) -> None:
    """End all tokens of a name at once (other processes notice within a second)."""
    import json as json_module

    with own_store() as store:
        count = store.tokens().revoke(name=name, at=datetime.now(UTC), by=_actor())
    if json:
        typer.echo(json_module.dumps({"tokens": count}))
    else:
        typer.echo(f"{name} has no token any more ({count} ended)")


@app.command("list", epilog=EPILOG)
def list_(
    *,
    all_: Annotated[
        bool, typer.Option("--all", help="Also those that have expired or were revoked.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show whose tokens there are, what they may do, until when, and their last use."""
    from planner.service.documents.tokens import TokensDocument, token_document

    now = datetime.now(UTC)
    with own_store() as store:
        known = [token_document(token, at=now) for token in store.tokens().all()]
    shown = [token for token in known if all_ or token.state == "live"]
    if json:
        output.print_json(TokensDocument(tokens=shown))
        return
    output.print_table(
        "" if shown else "no token is live: `poolwise serve --new-token` makes one",
        ["name", "role", "token", "state", "created", "expires", "last used"],
        [_row(token) for token in shown],
        numbers_from=99,
    )


def _actor() -> str:
    """For the audit log; no token has a name with a colon."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user may have no name
        return f"cli:{os.getuid()}"


def _show_new(token: str, made: "StoredToken", now: datetime, *, as_json: bool) -> None:
    from planner.service.documents.tokens import NewTokenDocument, token_document

    if as_json:
        document = token_document(made, at=now)
        output.print_json(NewTokenDocument(token=token, **dict(document)))
        return
    ends = "never expires" if made.expires_at is None else f"until {_time(made.expires_at)}"
    typer.echo(f"Bearer token of {made.name} ({made.role}, {ends}), shown only now: {token}")


def _row(token: "TokenDocument") -> list[str]:
    times = (token.created_at, token.expires_at, token.last_used_at)
    return [token.name, token.role, token.token_id, token.state, *(_time(at) for at in times)]


def _time(at: datetime | None) -> str:
    return "never" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M}Z"

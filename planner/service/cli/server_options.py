"""Options of the commands that talk to a server, and the talk itself."""

import json as json_text
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pydantic import JsonValue

    from planner.service.client import Client

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        help="The server's address (default $POOLWISE_SERVER, else http://127.0.0.1:8765).",
        metavar="URL",
    ),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="File with the bearer token (default $POOLWISE_TOKEN, else $POOLWISE_TOKEN_FILE).",
        metavar="FILE",
    ),
]
DeploymentOption = Annotated[
    str | None,
    typer.Option(
        "--deployment", help="Which one; not needed when the server has one.", metavar="NAME"
    ),
]
ReasonOption = Annotated[
    str, typer.Option("--reason", "-r", help="Why, for the audit log.", metavar="TEXT")
]
SERVER_EPILOG = (
    "Talks to the server at --server or $POOLWISE_SERVER; writes need the bearer token in "
    "$POOLWISE_TOKEN, or in a file named by --token-file or $POOLWISE_TOKEN_FILE. Over https a "
    "private authority is named by $POOLWISE_SERVER_CA, a certificate to show by "
    "$POOLWISE_CLIENT_CERT and $POOLWISE_CLIENT_KEY (PEM files). Exit status: 0 done, 1 the server "
    "cannot be reached or refuses for now (its reason is printed), 2 bad input."
)


@contextmanager
def talking(server: str | None, token_file: Path | None) -> "Iterator[Client]":
    """A client of the server that was named."""
    from planner.service.client import Client, server_of
    from planner.service.settings import read_settings

    settings = read_settings(os.environ).client
    with Client(server_of(settings, url=server, token_file=token_file)) as client:
        yield client


def print_answer(answer: "Mapping[str, JsonValue]") -> None:
    """The server's own JSON."""
    typer.echo(json_text.dumps(answer, indent=2, ensure_ascii=False))

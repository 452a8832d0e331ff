"""`poolwise decisions, replay-decision`: what the loop decided, and the same once more."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli import output
from planner.service.cli.options import JsonOption
from planner.service.cli.server_options import (
    SERVER_EPILOG,
    DeploymentOption,
    ServerOption,
    TokenFileOption,
    print_answer,
    talking,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

DECISIONS_EPILOG = SERVER_EPILOG
EPILOG = (
    "Examples:\n\npoolwise replay-decision 1207\n\n"
    "poolwise replay-decision 1207 --from-database --deployment shop\n\n"
    "What it was made from comes from the server (see `poolwise decisions`), or with "
    "--from-database from $POOLWISE_DATABASE_URL without one; it is decided here. Exit status: 0 "
    "the same answer in all but elapsed times, 1 another one, 2 bad input, or what it was made "
    "from is not kept any more (the newest 2,000 of a deployment are)."
)


def decisions(
    *,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=1000)] = 20,
    deployment: DeploymentOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show what the loop decided, newest first."""
    with talking(server, token_file) as client:
        name = client.deployment(deployment)
        answer = client.get("v1", "deployments", name, "decisions", limit=limit)
    if json:
        print_answer(answer)
        return
    found = answer.get("decisions")
    rows = [one for one in (found if isinstance(found, list) else []) if isinstance(one, dict)]
    output.print_table(
        "",
        ("id", "decided", "outcome", "plan", "why"),
        [
            (
                str(one.get("decision_id")),
                str(one.get("decided_at"))[:19],
                str(one.get("outcome")),
                str(one.get("plan_id") or "-"),
                str(one.get("reason")),
            )
            for one in rows
        ],
        numbers_from=5,
        unbroken=("id", "decided", "outcome", "plan"),
    )


def replay_decision(
    decision_id: Annotated[
        int, typer.Argument(help="As `poolwise decisions` lists it.", min=1, metavar="ID")
    ],
    *,
    from_database: Annotated[
        bool, typer.Option("--from-database", help="Read the database instead of a server.")
    ] = False,
    deployment: DeploymentOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    json: JsonOption = False,
) -> None:
    """Make a decision once more from all that it was made from, and compare the answers."""
    from planner.service.documents.decision import replay_document
    from planner.service.loop.replaying import replay

    if from_database and (server is not None or deployment is None):
        raise InputError("--from-database goes with --deployment, and without --server")
    if from_database and deployment is not None:
        parts = _stored(deployment, decision_id)
    else:
        parts = _served(deployment, decision_id, server, token_file)
    with output.working("deciding once more"):
        replayed = replay(parts)
    if json:
        output.print_json(replay_document(decision_id, replayed))
    else:
        told = "the same answer in all but elapsed times" if replayed.same else "another answer"
        typer.echo(f"decision {decision_id}: {told}")
        output.print_lines("Differences", replayed.differences)
        output.print_lines("Other versions", replayed.versions)
    if not replayed.same:
        raise typer.Exit(1)


def _stored(deployment: str, decision_id: int) -> dict[str, str]:
    from planner.service.live.status import stored_at
    from planner.service.settings import read_settings

    url = read_settings(os.environ).storage.database_url
    store = stored_at(url)
    if store is None:
        raise InputError(f"no database is at {url}: name it by POOLWISE_DATABASE_URL")
    try:
        return store.decision(deployment, decision_id)[1]
    finally:
        store.close()


def _served(
    deployment: str | None, decision_id: int, server: str | None, token_file: Path | None
) -> dict[str, str]:
    with talking(server, token_file) as client:
        name = client.deployment(deployment)
        where = ("v1", "deployments", name, "decisions", str(decision_id))
        parts: JsonValue = client.get(*where, parts="true").get("parts")
    return {k: str(v) for k, v in parts.items()} if isinstance(parts, dict) else {}

"""Options of commands that look at a running deployment."""

from typing import Annotated

import typer

WorkersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--worker",
        help="An engine; repeatable. Without: the deployment of the state directory.",
        metavar="ROLE=URL",
    ),
]
RoutersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--router",
        help="A router's metrics page; KIND: smg, vllm-router, dynamo, llm-d; repeatable.",
        metavar="KIND=URL",
    ),
]
EventsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--events",
        help="Where a worker's KV events come, as --worker in order.",
        metavar="ADDRESS",
    ),
]
GateOption = Annotated[str | None, typer.Option("--gate", help="Poolwise's gate.", metavar="URL")]

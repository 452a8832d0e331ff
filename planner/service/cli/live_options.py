"""Options of commands that look at a running deployment."""

from typing import Annotated

import typer

WorkersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--worker",
        "-w",
        help="A worker as ROLE=URL; repeat it. Without: the deployment of this state directory.",
        metavar="ROLE=URL",
    ),
]
RouterOption = Annotated[
    str | None,
    typer.Option("--router", help="The router's metrics page, beside --worker.", metavar="URL"),
]

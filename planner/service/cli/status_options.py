"""What `poolwise status` is told to ask, and through whom."""

from typing import Annotated

import typer

PrometheusOption = Annotated[
    str | None,
    typer.Option("--prometheus", help="Read through this server instead.", metavar="URL"),
]
SelectorOption = Annotated[
    str | None,
    typer.Option("--selector", help="Which series, as in PromQL.", metavar="MATCHERS"),
]
RoleLabelOption = Annotated[
    list[str] | None,
    typer.Option("--role-label", help="Label that carries a worker's role.", metavar="LABEL"),
]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option("--prometheus-header", help="Sent with queries.", metavar="NAME=VALUE"),
]
WindowOption = Annotated[
    float | None,
    typer.Option("--window", help="Seconds that rates from Prometheus are taken over (120)."),
]

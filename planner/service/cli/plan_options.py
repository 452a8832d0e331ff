"""The options of `poolwise plan`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

ObjectiveName = Literal["cost", "power", "accelerators", "goodput"]
"""The values of `Objective`, whose module takes too long to import for --help."""

ForecastOption = Annotated[
    Path | None,
    typer.Option(
        "--forecast",
        help="A forecast in JSON, as `poolwise forecast --json` prints it; instead of --trace.",
        metavar="FILE",
    ),
]
ModelTraceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model-trace",
        help="Requests of one of several models that share the spec's inventory and budget; "
        "once a model, instead of --trace. Models of higher priority are served first.",
        metavar="MODEL=FILE",
    ),
]
ObjectiveOption = Annotated[
    ObjectiveName | None,
    typer.Option(
        "--objective",
        help="What is best, instead of the spec's planning.objective: least USD, least energy, "
        "fewest accelerators, or most requests in time within the limits.",
        show_default=False,
    ),
]
WhatIfOption = Annotated[
    list[str] | None,
    typer.Option(
        "--what-if",
        help="Plan again with a changed spec and show it beside; KEY=VALUE, several separated "
        "by commas, may be repeated. rate=x1.5: that many times the requests; isl=, osl=: "
        "prompts and answers of that many times the length.",
        metavar="KEY=VALUE",
    ),
]
ExplainOption = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Also say what small changes would cost or save, and the equation of every row "
        "that binds.",
    ),
]
ParetoOption = Annotated[
    bool,
    typer.Option(
        "--pareto", help="Also show what a shorter TTFT or a higher attainment would cost."
    ),
]

"""The options of `poolwise forecast` and `poolwise backtest forecast`."""

from pathlib import Path
from typing import Annotated

import typer

from planner.service.cli.known_event_option import EXAMPLES
from planner.service.cli.options import seconds

MOST_PATHS = 10_000
"""More paths tell nothing that these do not."""

SpecOption = Annotated[
    Path | None,
    typer.Option(
        "--spec",
        "-s",
        help="Take window, horizon, events and model from this spec.",
        metavar="FILE",
    ),
]
WindowOption = Annotated[
    float | None,
    typer.Option("--window-s", help="Window, seconds (default 300).", min=0.001, callback=seconds),
]
HorizonOption = Annotated[
    int | None,
    typer.Option("--horizon-windows", help="Windows ahead (default 6).", min=1, max=1000),
]
EventOption = Annotated[
    list[str] | None,
    typer.Option(
        "--event",
        help="Something that you know and no history tells, past or coming, beside the spec's: "
        f"{EXAMPLES}. May be repeated.",
        metavar="EVENT",
    ),
]
PathsOption = Annotated[
    int,
    typer.Option(
        "--paths", help="Draw so many possible futures through all windows.", min=0, max=MOST_PATHS
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Draw other paths.", min=0, max=2**31 - 1)]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Name of the model that the forecast is for.")
]
CacheOption = Annotated[
    int | None,
    typer.Option(
        "--cache-tokens",
        help="Prefix caches that prompts will meet, all together (default: as in the newest "
        "window that tells its own).",
        min=1,
        metavar="TOKENS",
    ),
]
HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html", help="Write a plot of history and forecast (one HTML page).", metavar="FILE"
    ),
]
HorizonsOption = Annotated[
    list[int] | None,
    typer.Option(
        "--horizon",
        help="Score what was forecast so many windows ahead (default 1 and 5). May be repeated.",
        min=1,
        max=1000,
    ),
]
FirstOriginOption = Annotated[
    int | None,
    typer.Option(
        "--first-origin",
        help="So many windows only serve as history (default: the first half).",
        min=1,
    ),
]

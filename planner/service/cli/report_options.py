"""The options of `poolwise report`."""

from pathlib import Path
from typing import Annotated

import typer

OutOption = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        help="The page; the same name in .json and .csv holds its figures and the fleet by "
        "window, -scenarios.csv the other fleets.",
        metavar="FILE.html",
    ),
]
WorkloadOption = Annotated[
    Path | None,
    typer.Option(
        "--workload",
        "-w",
        help="A described workload (YAML, `poolwise trace synthesize --example`), instead of "
        "--trace.",
        metavar="FILE",
    ),
]
TemplateOption = Annotated[
    str | None,
    typer.Option(
        "--template",
        help="A workload that is described ready-made: legal-review, support-chat, "
        "coding-assistant, enterprise-rag or multi-agent.",
        metavar="NAME",
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--rate",
        help="Mean rate of a described workload, requests/s; left out: as it says.",
        metavar="REQUESTS/S",
    ),
]
StoreOption = Annotated[
    bool,
    typer.Option("--store", help="Take the windows that this machine's server has stored."),
]
GrowthOption = Annotated[
    float | None,
    typer.Option(
        "--growth-per-month",
        help="How fast requests grow, as a ratio: 0.1 is 10 % a month. Left out: examples.",
        metavar="RATIO",
    ),
]
QuickOption = Annotated[
    bool,
    typer.Option("--quick", help="Fewer questions, windows and futures: a first look."),
]
TimeLimitOption = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        help="Begin nothing more after so many seconds and say what was left out (default: "
        "1800, with --quick 300).",
        metavar="SECONDS",
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", help="Of a described workload's requests.", min=0, max=2**31 - 1)
]

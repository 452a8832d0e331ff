"""The options of `poolwise simulate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from planner.service.cli.event_option import EXAMPLES
from planner.service.cli.options import ratio, seconds

RouterName = Literal["round_robin", "least_loaded", "prefix_aware", "by_length"]
BackendName = Literal["loky", "ray"]
"""The values of `RouterPolicy` and `Backend`, whose modules take too long to import for --help."""

_REQUESTS, _ROUTING = "Requests", "Circumstances"
_SURE, _FILES = "How sure", "Files"

TraceOption = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        "-t",
        help="Replay these requests (Mooncake JSONL, Azure or BurstGPT CSV); with --futures, "
        "--precision or --until-clear draw futures like them.",
        metavar="FILE",
        rich_help_panel=_REQUESTS,
    ),
]
ForecastOption = Annotated[
    Path | None,
    typer.Option(
        "--forecast",
        help="Draw futures from a forecast, as `poolwise forecast --json` prints it.",
        metavar="FILE",
        rich_help_panel=_REQUESTS,
    ),
]
PlanOption = Annotated[
    Path | None,
    typer.Option(
        "--plan", help="A plan in JSON, as `poolwise plan --json` prints it.", metavar="FILE"
    ),
]
WindowOption = Annotated[
    int, typer.Option("--window", help="Which window of plan and forecast, from 0.", min=0)
]
AllWindowsOption = Annotated[
    bool,
    typer.Option(
        "--all-windows",
        help="Every future runs through all windows of --forecast, along a path that keeps them "
        "together as past errors were.",
        rich_help_panel=_REQUESTS,
    ),
]
FromOption = Annotated[
    float,
    typer.Option(
        "--from-s",
        help="Skip this much of the trace, s.",
        min=0,
        callback=seconds,
        rich_help_panel=_REQUESTS,
    ),
]
DurationOption = Annotated[
    float | None,
    typer.Option(
        "--duration-s",
        help="Replay so much of the trace (default: to its end); length of a future (default: "
        "the window's, or the trace's), s.",
        min=0.001,
        callback=seconds,
        rich_help_panel=_REQUESTS,
    ),
]
LevelOption = Annotated[
    float | None,
    typer.Option(
        "--demand-level",
        help="Quantile of the forecast rate in every future (default: drawn anew), 0..1.",
        min=0,
        max=1,
        callback=ratio,
        rich_help_panel=_REQUESTS,
    ),
]
RouterOption = Annotated[
    RouterName,
    typer.Option("--router", help="How a replica is chosen.", rich_help_panel=_ROUTING),
]
LongestPromptOption = Annotated[
    list[str] | None,
    typer.Option(
        "--longest-prompt",
        help="For --router by_length: the longest prompt sent to a pool. May be repeated.",
        metavar="POOL=TOKENS",
        rich_help_panel=_ROUTING,
    ),
]
LocalPrefillOption = Annotated[
    int,
    typer.Option(
        "--local-prefill-tokens",
        help="Prompts with fewer tokens to compute stay on the decode replica; 0 never.",
        min=0,
        max=10**9,
        rich_help_panel=_ROUTING,
    ),
]
NoPrefixCacheOption = Annotated[
    bool,
    typer.Option(
        "--no-prefix-cache",
        help="Replicas keep no prefix blocks; what the trace says is cached counts as cached.",
        rich_help_panel=_ROUTING,
    ),
]
EarlyRejectionOption = Annotated[
    float | None,
    typer.Option(
        "--early-rejection-s",
        help="Reject requests whose expected TTFT is longer, s: prompts before it on the chosen "
        "replica, its own, transfer and first step, and as long as the first in line at the "
        "decode replicas has waited.",
        min=1e-6,
        callback=seconds,
        rich_help_panel=_ROUTING,
    ),
]
PatienceOption = Annotated[
    float | None,
    typer.Option(
        "--patience-s",
        help="Clients go away so long after their request, s.",
        min=1e-6,
        callback=seconds,
        rich_help_panel=_ROUTING,
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed",
        help="Draw other futures; left out: the spec's `loop.seed`.",
        min=0,
        max=2**31 - 1,
        show_default=False,
        rich_help_panel=_SURE,
    ),
]
UnstableOption = Annotated[
    float,
    typer.Option(
        "--unstable-wait-s",
        help="Stop when the first in a line has waited so long, s.",
        min=1e-6,
        callback=seconds,
        rich_help_panel=_ROUTING,
    ),
]
TopologyOption = Annotated[
    Path | None,
    typer.Option(
        "--topology",
        help="Links by distance and where replicas stand (YAML).",
        metavar="FILE",
        rich_help_panel=_ROUTING,
    ),
]
EventOption = Annotated[
    list[str] | None,
    typer.Option(
        "--event",
        help=f"Something that happens to a replica: {EXAMPLES}. May be repeated.",
        metavar="EVENT",
        rich_help_panel=_ROUTING,
    ),
]
EventsOption = Annotated[
    Path | None,
    typer.Option(
        "--events", help="A list of events (YAML).", metavar="FILE", rich_help_panel=_ROUTING
    ),
]
FuturesOption = Annotated[
    int | None,
    typer.Option(
        "--futures",
        help="Draw so many futures; with --precision or --until-clear at the most so many "
        "(default: 256).",
        min=1,
        max=10_000,
        rich_help_panel=_SURE,
    ),
]
PrecisionOption = Annotated[
    float | None,
    typer.Option(
        "--precision",
        help="Draw futures until attainment is known to this much either way, as 0.01.",
        min=1e-6,
        max=0.5,
        callback=ratio,
        rich_help_panel=_SURE,
    ),
]
UntilClearOption = Annotated[
    bool,
    typer.Option(
        "--until-clear",
        help="Draw futures until it is clear whether the objectives hold; exit 1 when not.",
        rich_help_panel=_SURE,
    ),
]
JobsOption = Annotated[
    int,
    typer.Option(
        "--jobs",
        help="Processes for futures; 0: as many as processors. Changes no figure.",
        min=0,
        max=1_024,
        rich_help_panel=_SURE,
    ),
]
BackendOption = Annotated[
    BackendName,
    typer.Option(
        "--backend",
        help="Where futures are replayed: processes here, or the Ray cluster of RAY_ADDRESS.",
        rich_help_panel=_SURE,
    ),
]
RecordsOption = Annotated[
    Path | None,
    typer.Option(
        "--records",
        help="Write one row per request (Parquet); of futures all of them.",
        metavar="FILE",
        rich_help_panel=_FILES,
    ),
]
PlotOption = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        help="Write queues, batches, KV use and latencies over time (HTML); of futures the first.",
        metavar="FILE",
        rich_help_panel=_FILES,
    ),
]

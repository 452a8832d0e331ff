"""Options of `poolwise backtest autoscaler`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError

if TYPE_CHECKING:
    from planner.domain.workload import Workload

POLICIES = ("poolwise", "last_value", "static", "foresight")
TraceOption = Annotated[
    Path,
    typer.Option(
        "--trace",
        "-t",
        help="Requests: Mooncake JSONL, Azure or BurstGPT CSV.",
        metavar="FILE",
        show_default=False,
    ),
]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        help=f"{', '.join(POLICIES)}; may repeat. Default: all.",
        metavar="NAME",
        show_default=False,
    ),
]
WarmOption = Annotated[
    float,
    typer.Option(
        "--warm-s",
        min=0.0,
        help="All policies watch for so many seconds, with the same fleet; nothing is judged.",
        metavar="SECONDS",
    ),
]


def contenders(named: Sequence[str] | None) -> tuple[str, ...]:
    """The policies that are asked for, each once.

    Raises
    ------
    InputError
        When there is none of a name.
    """
    for name in named or ():
        if name not in POLICIES:
            raise InputError(f"--policy {name}: there are {', '.join(POLICIES)}")
    return tuple(dict.fromkeys(named or POLICIES))


def as_one_class(workload: "Workload") -> "Workload":
    """All requests as those of the default class: policies are compared on one promise."""
    import numpy as np

    from planner.domain.slo import DEFAULT_CLASS

    return replace(workload, request_class=np.full(len(workload), DEFAULT_CLASS))

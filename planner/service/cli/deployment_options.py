"""Options of `poolwise deployment up` and `render`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.domain.fleet import Role

if TYPE_CHECKING:
    from planner.service.fleet.gate import GateOptions
    from serving.routers.policies import Policies, RouterPolicy

POLICIES = "least_load, cache_aware"
"""smg takes power_of_two only where two workers are known at its start; here it starts empty."""
CellOption = Annotated[
    str | None, typer.Option("--cell", help="Topology cell (default: where it is needed most).")
]
EngineFlagOption = Annotated[
    list[str] | None,
    typer.Option("--engine-flag", help="A further option of vLLM, repeatable.", metavar="FLAG"),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="vLLM's option of the name.")]
RoleArgument = Annotated[Role, typer.Argument(help="prefill, decode or aggregated.")]
NameArgument = Annotated[str, typer.Argument(help="A worker, as `list` shows it.")]
ModelFolderOption = Annotated[
    str, typer.Option("--model", help="Folder with a config.json, tiny, or smollm2.")
]
RouterOption = Annotated[str, typer.Option("--router", help="smg or vllm-router.", metavar="NAME")]
PrefillPolicyOption = Annotated[
    str, typer.Option("--prefill-policy", help=f"smg's choice of workers: {POLICIES}.")
]
DecodePolicyOption = Annotated[
    str, typer.Option("--decode-policy", help="The same; `poolwise kv` says which suits.")
]
CellsOption = Annotated[
    int, typer.Option("--cells", min=1, max=100, help="Topology cells, a router each.")
]
CellsSpecOption = Annotated[
    Path | None, typer.Option("--spec", "-s", help="Spec that names cells.", metavar="FILE")
]
CoresOption = Annotated[
    float, typer.Option("--cores", min=0, help="Cores of a CPU worker; 0: no limit.")
]
RouterPortOption = Annotated[
    int | None, typer.Option("--port", min=1, max=65535, help="Of the first cell's router.")
]
ReadyTimeoutOption = Annotated[
    float, typer.Option("--ready-timeout", min=1, help="Seconds until a worker's first token.")
]
GatePortOption = Annotated[int, typer.Option("--gate-port", min=1, max=65535, help="Of the gate.")]
GateDrainOption = Annotated[
    float,
    typer.Option(
        "--gate-drain-s", min=0, max=3600, help="The gate's answers get so long to end at the end."
    ),
]
AnonymousOption = Annotated[
    bool,
    typer.Option("--anonymous", help="The gate takes requests of this machine without a key."),
]
KeepOption = Annotated[
    bool, typer.Option("--keep", help="Start it again when its manager is killed.")
]


def policies_of(prefill: str, decode: str) -> "Policies":
    """The router's policies by the names that were given."""
    from serving.routers.policies import Policies

    return Policies(
        prefill=_policy("--prefill-policy", prefill), decode=_policy("--decode-policy", decode)
    )


def _policy(option: str, name: str) -> "RouterPolicy":
    from serving.routers.policies import RouterPolicy

    if name not in POLICIES.split(", "):
        raise InputError(f"{option} {name}: take one of {POLICIES}")
    return RouterPolicy(name)


def gate_of(spec: Path | None, port: int, *, anonymous: bool, drain_s: float) -> "GateOptions":
    """The gate that was asked for."""
    from planner.service.fleet.gate import GateOptions

    if spec is None:
        raise InputError("--gate needs --spec: it admits by the spec's objectives and profiles")
    return GateOptions(spec=spec, port=port, anonymous=anonymous, drain_s=drain_s)

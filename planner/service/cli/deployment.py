"""`poolwise deployment`: run a local deployment and steer it while it runs."""

import os
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from planner.domain.errors import InputError
from planner.domain.wording import agreed, counted
from planner.service.cli.deployment_options import (
    AnonymousOption,
    CellOption,
    CellsOption,
    CellsSpecOption,
    CoresOption,
    DecodePolicyOption,
    EngineFlagOption,
    GateDrainOption,
    GatePortOption,
    KeepOption,
    LimitOption,
    ModelFolderOption,
    NameArgument,
    PrefillPolicyOption,
    ReadyTimeoutOption,
    RoleArgument,
    RouterOption,
    RouterPortOption,
    gate_of,
    policies_of,
)
from planner.service.cli.options import JsonOption

app = typer.Typer(
    name="deployment",
    help="Run prefill and decode workers behind a router, and steer them while they run.",
    no_args_is_help=True,
)

UP_EPILOG = (
    "Examples:\n\n"
    "poolwise deployment up --prefill 1 --decode 2\n\n"
    "poolwise deployment up --model ./Qwen3-8B --gpus 0,1,2,3 --prefill 2 --decode 2\n\n"
    "poolwise deployment up --keep --spec spec.yaml --gate    (back by itself after a kill -9)\n\n"
    "poolwise deployment flip decode-2 prefill    (in another terminal)\n\n"
    "Roles live in the router: a flip restarts nothing. State and logs are kept in "
    "$POOLWISE_STATE_DIR/local; what dies is started again."
)
RENDER_EPILOG = (
    "Example:\n\n"
    "poolwise deployment render --model Qwen/Qwen3-32B --tp 2 --prefill 2 --decode 4 --out deploy/"
)


@app.command(epilog=UP_EPILOG)
def up(
    *,
    model: ModelFolderOption = "tiny",
    name: Annotated[str | None, typer.Option("--name", help="Served model name.")] = None,
    prefill: Annotated[int, typer.Option("--prefill", min=0, help="Prefill workers.")] = 1,
    decode: Annotated[int, typer.Option("--decode", min=0, help="Decode workers.")] = 1,
    aggregated: Annotated[int, typer.Option("--aggregated", min=0, help="Workers of both.")] = 0,
    standby: Annotated[int, typer.Option("--standby", min=0, help="Warm spare workers.")] = 0,
    router: RouterOption = "smg",
    prefill_policy: PrefillPolicyOption = "least_load",
    decode_policy: DecodePolicyOption = "least_load",
    cells: CellsOption = 1,
    spec: CellsSpecOption = None,
    accelerator: Annotated[str, typer.Option(help="Its name in profiles.")] = "cpu-slot",
    tp: Annotated[int, typer.Option("--tp", min=1, help="Tensor parallel degree.")] = 1,
    gpus: Annotated[str, typer.Option("--gpus", help="GPU indices, as in 0,1.")] = "",
    cores: CoresOption = 0.5,
    max_model_len: LimitOption = None,
    max_num_seqs: LimitOption = None,
    max_num_batched_tokens: LimitOption = None,
    engine_flag: EngineFlagOption = None,
    kv_events: Annotated[bool, typer.Option("--kv-events", help="Publish KV events.")] = False,
    port: RouterPortOption = None,
    ready_timeout: ReadyTimeoutOption = 300.0,
    gate: Annotated[bool, typer.Option("--gate", help="Put the gate before it.")] = False,
    gate_port: GatePortOption = 8766,
    gate_drain_s: GateDrainOption = 5.0,
    anonymous: AnonymousOption = False,
    keep: KeepOption = False,
) -> None:
    """Start a deployment here and keep it up until Ctrl-C or `poolwise deployment down`."""
    if keep:
        _keep_up()
    from planner.service.cli import output
    from planner.service.fleet.deploying import Asked, bring_up
    from serving.routers import RouterKind
    from serving.workers.engine import EngineFlags

    if router not in list(RouterKind):
        raise InputError(f"--router {router}: take one of {', '.join(RouterKind)}")
    longest = max_model_len or (16_384 if gpus else 4096)
    asked = Asked(
        model=model,
        name=name,
        prefill=prefill,
        decode=decode,
        aggregated=aggregated,
        standby=standby,
        router=RouterKind(router),
        cells=cells,
        spec=spec,
        accelerator=accelerator,
        tp=tp,
        gpus=_indices(gpus),
        cores=cores,
        flags=EngineFlags(
            max_model_len=longest,
            max_num_seqs=max_num_seqs or (256 if gpus else 16),
            max_num_batched_tokens=max_num_batched_tokens or (8192 if gpus else longest),
            enforce_eager=not gpus,
            extra=tuple(engine_flag or ()),
        ),
        kv_events=kv_events,
        port=port,
        ready_timeout_s=ready_timeout,
        gate=gate_of(spec, gate_port, anonymous=anonymous, drain_s=gate_drain_s) if gate else None,
        policies=policies_of(prefill_policy, decode_policy),
    )
    bring_up(asked, os.environ, output.note)


def _keep_up() -> None:
    """Run this very command again without --keep, as often as its process is killed."""
    from planner.service.cli import output
    from serving.fleet.keeper import kept_up

    line = [sys.executable, "-m", "planner.service.cli.main", *sys.argv[1:]]
    line.remove("--keep")
    raise typer.Exit(kept_up(line, environment=os.environ, say=output.note))


@app.command("list")
def list_(*, json: JsonOption = False) -> None:
    """Show workers, cells and what they lack."""
    from planner.service.cli import output

    told = _ask("list")
    if _printed(told, as_json=json):
        return
    workers = cast("list[dict[str, object]]", told["workers"])
    output.print_table(
        f"{told['model']} behind {told['router']}",
        ("worker", "role", "cell", "state", "address", "up for"),
        [
            (
                *(str(w[k]) for k in ("name", "role", "cell", "state", "url")),
                f"{cast('float', w['age_s']):,.0f} s",
            )
            for w in workers
        ],
        numbers_from=5,
    )
    cells = cast("list[dict[str, object]]", told["cells"])
    output.print_lines("cells", [_cell_text(c) for c in cells])
    output.print_lines("given up", [str(x) for x in cast("list[str]", told["given_up"])])


@app.command()
def add(
    role: RoleArgument,
    *,
    cell: CellOption = None,
    standby: Annotated[bool, typer.Option("--standby", help="Keep it warm, unrouted.")] = False,
    json: JsonOption = False,
) -> None:
    """Start a worker and route it after its first token."""
    told = _ask("add", role=role.value, cell=cell, standby=standby)
    worker = cast("dict[str, object]", told["worker"])
    _report(told, f"{worker['name']} is {worker['state']} in cell {worker['cell']}", as_json=json)


@app.command()
def remove(name: NameArgument, *, json: JsonOption = False) -> None:
    """Drain a worker and end it."""
    told = _ask("remove", name=name)
    _report(told, f"{name} has left after {_seconds(told)}", as_json=json)


@app.command()
def flip(name: NameArgument, role: RoleArgument, *, json: JsonOption = False) -> None:
    """Give a worker another role without restarting it."""
    told = _ask("flip", name=name, role=role.value)
    _report(told, f"{name} is a {role} worker after {_seconds(told)}", as_json=json)


@app.command()
def promote(name: NameArgument, role: RoleArgument, *, json: JsonOption = False) -> None:
    """Let a standby worker take traffic."""
    told = _ask("promote", name=name, role=role.value)
    _report(told, f"{name} serves as {role} after {_seconds(told)}", as_json=json)


@app.command()
def replace(
    *,
    max_model_len: LimitOption = None,
    max_num_seqs: LimitOption = None,
    max_num_batched_tokens: LimitOption = None,
    engine_flag: EngineFlagOption = None,
    json: JsonOption = False,
) -> None:
    """Replace every worker by one with other flags, one at a time, without an outage."""
    told = _ask(
        "replace",
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        engine_flags=engine_flag,
    )
    count = int(str(told["replaced"]))
    said = f"{counted(count, 'worker')} {agreed(count, 'was', 'were')} replaced"
    _report(told, said, as_json=json)


@app.command()
def down() -> None:
    """End the deployment."""
    _report(_ask("down"), "the deployment is ending", as_json=False)


@app.command(epilog=RENDER_EPILOG)
def render(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.", metavar="DIR")],
    *,
    target: Annotated[str, typer.Option("--target", help="kubernetes.")] = "kubernetes",
    model: Annotated[str, typer.Option("--model", help="What vLLM loads, in the pod.")],
    name: Annotated[str | None, typer.Option("--name", help="Served model name.")] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="Of every object's name.")] = "poolwise",
    namespace: Annotated[str, typer.Option("--namespace", help="Where it runs.")] = "default",
    prefill: Annotated[int, typer.Option("--prefill", min=0, help="Workers a cell.")] = 1,
    decode: Annotated[int, typer.Option("--decode", min=0, help="Workers a cell.")] = 1,
    aggregated: Annotated[
        int, typer.Option("--aggregated", min=0, help="Workers of both a cell.")
    ] = 0,
    spec: CellsSpecOption = None,
    tp: Annotated[int, typer.Option("--tp", min=1, help="Tensor parallel degree.")] = 1,
    max_model_len: LimitOption = None,
    max_num_seqs: LimitOption = None,
    max_num_batched_tokens: LimitOption = None,
    engine_flag: EngineFlagOption = None,
    engine_image: Annotated[
        str, typer.Option("--engine-image", help="With vLLM and NIXL.")
    ] = "vllm/vllm-openai:v0.33.0",
    router_image: Annotated[
        str, typer.Option("--router-image", help="With smg.")
    ] = "lightseekorg/smg:1.13.0",
    claim: Annotated[
        str | None, typer.Option("--claim", help="Volume claim with models, seen at /models.")
    ] = None,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate",
            help="A gate before the routers: spec from ConfigMap PREFIX-spec, keys from "
            "Secret PREFIX-gate-keys.",
        ),
    ] = False,
    gate_image: Annotated[
        str, typer.Option("--gate-image", help="Poolwise's own image.")
    ] = "poolwise:latest",
) -> None:
    """Write the same deployment as manifests, for `kubectl apply -k`."""
    from planner.service.cli import output
    from planner.service.fleet.deploying import Rendered, write_manifests
    from serving.workers.engine import EngineFlags

    if target != "kubernetes":
        raise InputError(f"--target {target}: manifests are written for kubernetes only")
    written = write_manifests(
        Rendered(
            out=out,
            prefix=prefix,
            namespace=namespace,
            model=model,
            name=name,
            prefill=prefill,
            decode=decode,
            aggregated=aggregated,
            spec=spec,
            tp=tp,
            flags=EngineFlags(
                max_model_len=max_model_len or 16_384,
                max_num_seqs=max_num_seqs or 256,
                max_num_batched_tokens=max_num_batched_tokens or 8192,
                enforce_eager=False,
                extra=tuple(engine_flag or ()),
            ),
            engine_image=engine_image,
            router_image=router_image,
            claim=claim,
            gate_image=gate_image if gate else None,
        )
    )
    output.note(f"wrote {', '.join(written)} to {out}: look, then kubectl apply -k {out}")


def _ask(command: str, **arguments: object) -> dict[str, object]:
    from planner.service.cli import output
    from planner.service.fleet.deploying import client_of

    return client_of(os.environ, output.note).ask(command, **arguments)


def _report(told: dict[str, object], text: str, *, as_json: bool) -> None:
    if not _printed(told, as_json=as_json):
        typer.echo(text)


def _printed(told: dict[str, object], *, as_json: bool) -> bool:
    from json import dumps

    if as_json:
        typer.echo(dumps(told, indent=2))
    return as_json


def _seconds(told: dict[str, object]) -> str:
    return f"{cast('float', told['seconds']):.1f} s"


def _cell_text(cell: dict[str, object]) -> str:
    lacks = cast("list[str]", cell["lacks"])
    counts = ", ".join(
        f"{cell[k]} {k}" for k in ("prefill", "decode", "aggregated", "standby") if cell[k]
    )
    if not counts or counts == f"{cell['standby']} standby":
        return f"{cell['cell']} at {cell['url']}: {counts or 'empty'}; no worker serves in it"
    missing = f"; lacks {', '.join(lacks)}: its other workers answer nothing" if lacks else ""
    return f"{cell['cell']} at {cell['url']}: {counts or 'empty'}{missing}"


def _indices(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(x) for x in text.split(",") if x.strip())
    except ValueError:
        raise InputError(f"--gpus {text}: give indices as in 0,1,2") from None

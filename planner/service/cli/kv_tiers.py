"""`poolwise kv-tiers`: the engine configuration of a KV tier, or why it cannot run here."""

from pathlib import Path
from typing import Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli import output
from planner.service.cli.options import JsonOption

EPILOG = (
    "Example:\n\npoolwise kv-tiers host --host-gib 64 --gpu\n\n"
    "Tiers: host, disk, lmcache, lmcache_server, mooncake_store. Exit status 1 when this site "
    "cannot run it."
)


def kv_tiers(
    kind: Annotated[str, typer.Argument(help="Which tier.", metavar="TIER")],
    *,
    mover: Annotated[
        str,
        typer.Option("--mover", help="nixl, mooncake or none: what moves caches to decode."),
    ] = "nixl",
    host_gib: Annotated[
        float, typer.Option("--host-gib", help="Main memory of the tier per worker, GiB.")
    ] = 8.0,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="disk: where blocks are written.")
    ] = None,
    server: Annotated[
        str | None, typer.Option("--server", help="Its server or master.", metavar="HOST:PORT")
    ] = None,
    metadata_server: Annotated[
        str | None, typer.Option("--metadata-server", help="mooncake_store: URL of that server.")
    ] = None,
    tp: Annotated[int, typer.Option("--tp", min=1, help="Tensor-parallel degree.")] = 1,
    gpu: Annotated[
        bool, typer.Option("--gpu/--cpu", help="Whether workers have an accelerator.")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Print the flags, variables and files that give a vLLM worker a KV tier below its cache."""
    from planner.service.documents.kv_tiers import TierDocument
    from serving.kv.tiers import GIB, EngineSite, Mover, Tier, TierKind, tier_flags

    movers = {"nixl": Mover.NIXL, "mooncake": Mover.MOONCAKE, "none": None}
    if mover not in movers:
        raise InputError(f"--mover {mover}: use one of {', '.join(movers)}")
    if kind not in list(TierKind):
        raise InputError(f"no tier {kind!r}: use one of {', '.join(TierKind)}")
    if not 0 < host_gib <= 65_536:
        raise InputError(f"--host-gib {host_gib:g}: give GiB above 0 and up to 65536")
    tier = Tier(
        kind=TierKind(kind),
        host_bytes=max(int(host_gib * GIB), 1),
        folder=None if folder is None else str(folder),
        server=server,
        metadata_server=metadata_server,
    )
    made = tier_flags(EngineSite(has_accelerator=gpu, tp=tp), mover=movers[mover], tier=tier)
    if json:
        output.print_json(TierDocument.of(made))
        return
    # Plain lines, not wrapped: they are copied into command lines and files.
    typer.echo(f"--kv-transfer-config '{made.transfer_config}'")
    for flag in made.flags:
        typer.echo(flag)
    for name, value in made.environment.items():
        typer.echo(f"{name}={value}")
    for variable, text in made.files.items():
        typer.echo(f"{variable} names a file with:\n{text}")
    output.print_lines("Remarks", list(made.remarks))

"""`poolwise profile export`: a profile in the files of another program."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from planner.service.cli.options import JsonOption

EPILOG = "Example:\n\npoolwise profile export profile.json --to dynamo --out profiling_results"


class Target(StrEnum):
    """Programs that can read a profile."""

    DYNAMO = "dynamo"


def export(
    path: Annotated[Path, typer.Argument(help="A profile file (JSON).", metavar="FILE")],
    *,
    target: Annotated[
        Target,
        typer.Option(
            "--to", help="dynamo: raw_data.npz (ms, tokens/s/GPU), its planner's profiling results."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write to; made where missing.", metavar="DIR")
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a profile as another program reads it, and say what its format cannot hold.

    For Dynamo's planner: give the folder as profile_results_dir.
    """
    from planner.domain.errors import InputError
    from planner.service.cli import output
    from planner.service.documents.profile_export import ExportedProfileDocument
    from profiler.files import read_profile
    from profiler.imports import dynamo

    profile = read_profile(path)
    there = [name for name in (dynamo.PREFILL[0], dynamo.DECODE[0]) if (out / name).exists()]
    if there and not force:
        raise InputError(f"--out: {out / there[0]} exists; replace it with --force")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is no folder")
    written = dynamo.write(profile, out)
    if json:
        output.print_json(
            ExportedProfileDocument(
                profile_id=profile.profile_id,
                target=target,
                files=[str(file) for file in written.files],
                notes=list(written.notes),
            )
        )
        return
    for file in written.files:
        output.note(f"profile {profile.profile_id} for {target}: {file}")
    for line in written.notes:
        output.note(f"  - {line}")

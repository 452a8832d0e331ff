"""`poolwise profile import`: a profile from what another program knows."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli.options import JsonOption

EPILOG = (
    "Example:\n\npoolwise profile import --from aiconfigurator --model Qwen/Qwen3-32B "
    "--accelerator h100 --tp 2 --out qwen3-32b-h100-tp2.json\n\n"
    "An estimate, labelled so in every plan made with it: measure before you rely on it."
)


class Origin(StrEnum):
    """Programs whose figures can be imported."""

    AICONFIGURATOR = "aiconfigurator"


def import_(
    out: Annotated[
        Path, typer.Option("--out", help="Where the profile goes (JSON).", metavar="FILE")
    ],
    *,
    origin: Annotated[
        Origin,
        typer.Option("--from", help="aiconfigurator: NVIDIA's database of operations on GPUs."),
    ],
    model: Annotated[
        str, typer.Option("--model", help="As it names it, as in Qwen/Qwen3-32B-FP8.")
    ],
    accelerator: Annotated[str, typer.Option("--accelerator", help="Its name in specs.")],
    tp: Annotated[int, typer.Option("--tp", min=1, help="Tensor parallel degree.")] = 1,
    name: Annotated[
        str | None, typer.Option("--name", help="The model's name in specs, if another.")
    ] = None,
    system: Annotated[
        str | None,
        typer.Option("--system", help="Its name of the machine, as in h100_sxm, if unclear."),
    ] = None,
    max_num_seqs: Annotated[
        int, typer.Option("--max-num-seqs", min=1, help="Sequences at once, as vLLM's option.")
    ] = 512,
    max_num_batched_tokens: Annotated[
        int,
        typer.Option("--max-num-batched-tokens", min=1, help="Tokens a step, as vLLM's option."),
    ] = 8192,
    json: JsonOption = False,
) -> None:
    """Make a profile of what another program says of a replica.

    With aiconfigurator: prefill and decode times and the KV cache of vLLM; transfer, start-up
    and role flips are assumed, as it does not know them.
    """
    from datetime import UTC, datetime

    from planner.service.cli import output
    from profiler.imports.aiconfigurator import EstimateRequest, import_profile
    from profiler.files import profile_document, write_profile

    if not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.absolute().parent} does not exist")
    request = EstimateRequest(
        model_path=model,
        accelerator=accelerator,
        tp=tp,
        name=name,
        system=system,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
    )
    profile = import_profile(request, asked_at=datetime.now(UTC))
    write_profile(profile, out)
    if json:
        output.print_json(profile_document(profile))
        return
    output.note(
        f"profile {profile.profile_id} from {origin}: {out}, ESTIMATED {profile.provenance.source}"
    )

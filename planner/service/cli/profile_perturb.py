"""`poolwise profile perturb`: what a live deployment is short of."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli.options import JsonOption

if TYPE_CHECKING:
    from profiler.live.perturb import Response

EPILOG = (
    "Example:\n\npoolwise profile perturb profile.json --url http://router:8000\n\n"
    "Adds real load to a live deployment. It ends at once when a short request waits longer than "
    "--most-ttft-s."
)


def perturb(
    path: Annotated[Path, typer.Argument(help="A replica's profile (JSON).", metavar="FILE")],
    *,
    url: Annotated[str, typer.Option("--url", help="The router or server, without /v1.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Its served name, if not the profile's.")
    ] = None,
    extra: Annotated[
        float,
        typer.Option("--extra", help="Added load, as a share of one saturated replica, 0..1."),
    ] = 0.1,
    phase_s: Annotated[
        float, typer.Option("--phase-s", help="One phase with or without the load, seconds.")
    ] = 6.0,
    phases: Annotated[
        int, typer.Option("--phases", min=1, help="Pairs of phases for each kind of load.")
    ] = 3,
    most_ttft_s: Annotated[
        float,
        typer.Option("--most-ttft-s", help="Stop when a short request waits longer, seconds."),
    ] = 5.0,
    json: JsonOption = False,
) -> None:
    """Find what a live deployment is short of, by adding load of one kind at a time.

    Prompts only, answers only, and bare requests; each on and off several times. The kind that
    slows an unchanged short request most names the bottleneck; where none does there is room.
    """
    from planner.service.cli import output
    from planner.service.documents.perturbation import PerturbationDocument
    from planner.service.live.perturbing import perturb_server
    from profiler.live.perturb import PerturbPlan, bottleneck_of

    for option, value, most in (
        ("--extra", extra, 1.0),
        ("--phase-s", phase_s, 600.0),
        ("--most-ttft-s", most_ttft_s, 3600.0),
    ):
        if not 0 < value <= most:
            raise InputError(f"{option} {value:g} must lie above 0 and be at most {most:g}")
    plan = PerturbPlan(extra_ratio=extra, phase_s=phase_s, phases=phases, most_ttft_s=most_ttft_s)
    responses = perturb_server(path, url.rstrip("/").removesuffix("/v1"), model, plan)
    found = bottleneck_of(responses)
    if json:
        output.print_json(PerturbationDocument.of(responses))
        return
    output.print_table(
        f"A short request while {extra:.0%} of a replica's load is added",
        ("load", "TTFT", "95 %", "per token", "95 %", "readings"),
        [_row(r) for r in responses],
    )
    output.note(
        "no kind of load moved it beyond chance: there is room for each"
        if found is None
        else f"bottleneck: {found}, by what moved it most"
    )


def _row(response: "Response") -> list[str]:
    return [
        response.kind,
        f"{response.ttft_ratio:+.0%}",
        "{:+.0%} to {:+.0%}".format(*response.ttft_interval),
        f"{response.itl_ratio:+.0%}",
        "{:+.0%} to {:+.0%}".format(*response.itl_interval),
        f"{response.readings}",
    ]

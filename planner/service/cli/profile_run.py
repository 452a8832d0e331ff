"""`poolwise profile run`: start an engine here, measure it, write its profile."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli.options import JsonOption

if TYPE_CHECKING:
    from planner.domain.profile import Profile
    from planner.service.demo.display import Display
    from serving.deployment import LocalDeployment

EPILOG = (
    "Example:\n\npoolwise profile run --out profile.json\n\n"
    "Takes about two minutes and 5 GiB of memory; everything it starts it stops."
)


def run(
    out: Annotated[
        Path, typer.Option("--out", help="Where the profile goes (JSON).", metavar="FILE")
    ],
    *,
    model: Annotated[
        str, typer.Option("--model", help="Model to serve while measuring: tiny or smollm2.")
    ] = "tiny",
    accelerator: Annotated[
        str, typer.Option("--accelerator", help="Its name in specs; here a share of the processor.")
    ] = "cpu-slot",
    cores: Annotated[
        float, typer.Option("--cores", help="Processor share of one worker, cores.")
    ] = 0.5,
    json: JsonOption = False,
) -> None:
    """Start one prefill and one decode worker here, measure them through the router, and fit.

    Measures what the demo measures: prefill time over new and cached tokens, decode step time
    over batch and context, KV transfer, start-up and flip. On this machine's processor.
    """
    from rich.console import Console

    from planner.service.cli import output
    from planner.service.demo.display import Display
    from planner.service.demo.signals import ending_on_signals
    from planner.service.demo.site import demo_model, local_site
    from planner.service.settings import read_settings
    from profiler.files import profile_document, write_profile
    from serving.deployment import LocalDeployment

    most = os.cpu_count() or 1
    if not 0.1 <= cores <= most:
        raise InputError(f"--cores {cores:g} must lie between 0.1 and this machine's {most}")
    if not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.absolute().parent} does not exist")
    display = Display(console=Console(stderr=True))
    with ending_on_signals():
        site = local_site(
            read_settings(os.environ), demo_model(model), cores=cores, progress=display.say
        )
        with LocalDeployment(site, progress=display.say) as deployment:
            profile = _measure(deployment, accelerator, display)
        write_profile(profile, out)
    display.say(f"profile {profile.profile_id}: {out}")
    if json:
        output.print_json(profile_document(profile))


def _measure(deployment: "LocalDeployment", accelerator: str, display: "Display") -> "Profile":
    from planner.domain.fleet import ReplicaShape, Role
    from profiler.local import ProfiledPair, profile_deployment
    from profiler.sweep import SweepPlan

    name = deployment.site.model.name
    shapes = [
        ReplicaShape(role=role, model=name, accelerator=accelerator)
        for role in (Role.PREFILL, Role.DECODE)
    ]
    with display.stage("a", "start one prefill and one decode worker") as stage:
        workers = [deployment.start(shape) for shape in shapes]
        seconds = []
        for worker in workers:
            stage.at(0.5, f"waiting for {worker.name}'s first token")
            seconds.append(deployment.await_ready(worker))
            deployment.route(worker)
    pair = ProfiledPair(prefill=workers[0], decode=workers[1], start_s=max(seconds))
    with display.stage("b", "measure them through the router") as stage:
        return profile_deployment(
            deployment,
            pair,
            SweepPlan(),
            progress=lambda done, points, text: stage.at(done / points, text),
        )

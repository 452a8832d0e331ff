"""`poolwise demo`: the main job on this machine with a real engine, ending with a report."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from planner.service.demo.outcome import Outcome
    from planner.service.demo.run import Ask, DemoRequest, StartFleet

DEFAULT_OUT = Path("poolwise-demo")
SHORTEST_WINDOW_S = 5.0
LONGEST_WINDOW_S = 1800.0


TraceOption = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        help="Traffic to replay: Mooncake JSONL, Azure or BurstGPT CSV. Without it: a built-in "
        "trace, synthesized from published statistics.",
        show_default=False,
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Approve the change without asking.")]
OutOption = Annotated[
    Path, typer.Option("--out", help="Folder for report.html, summary.json and the rest.")
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="tiny: random weights, fast. smollm2: a real small LLM whose answers make sense.",
    ),
]
FleetOption = Annotated[
    str, typer.Option("--start-fleet", help="Workers to begin with, as in 1P1D, 2P1D or 1P2D.")
]
ProfileOption = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        help="A profile.json that an earlier run measured on this machine: skips the sweep.",
        show_default=False,
    ),
]
WindowOption = Annotated[
    float, typer.Option("--window-s", help="Length of the two measured windows, seconds.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="For everything random.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print summary.json to standard output at the end.")
]


def demo(
    trace: TraceOption = None,
    yes: YesOption = False,
    out: OutOption = DEFAULT_OUT,
    model: ModelOption = "tiny",
    start_fleet: FleetOption = "1P1D",
    profile: ProfileOption = None,
    window_s: WindowOption = 60.0,
    seed: SeedOption = 0,
    json_output: JsonOption = False,
) -> None:
    """Run the main job on this machine: real engines, real traffic, a plan, and its effect.

    Starts one prefill and one decode worker (vLLM on this machine's processor), profiles them,
    replays traffic, forecasts, plans, asks for approval, changes the running workers, and
    compares what was predicted with what came. Takes about five minutes and 8 GiB of memory.
    Everything it starts it stops, also on Ctrl-C.

    Example: poolwise demo --trace mooncake_conversation_trace.jsonl --yes
    """
    from rich.console import Console

    from planner.service.demo.display import Display
    from planner.service.demo.run import Demo, DemoRequest
    from planner.service.demo.signals import ending_on_signals
    from planner.service.demo.site import demo_model
    from planner.service.settings import read_settings

    console = Console(stderr=json_output)
    request = DemoRequest(
        trace=trace,
        profile=profile,
        model=demo_model(model),
        start_fleet=_start_fleet(start_fleet),
        window_s=_window_s(window_s),
        out=out,
        seed=seed,
    )
    settings = read_settings(os.environ)
    with ending_on_signals(), staged(out) as staging:
        console.print("[bold]Poolwise demo[/]: measure, forecast, plan, apply, compare")
        display = Display(console=console)
        running = Demo(
            request=_inside(request, staging),
            settings=settings,
            display=display,
            ask=_asker(console, yes=yes),
        )
        outcome = running.run()
        _write_results(outcome, staging)
        for sentence in outcome.verdict:
            console.print(f"[bold green]=>[/] {sentence}", highlight=False)
    console.print(f"report: {(out / 'report.html').resolve()}", soft_wrap=True, highlight=False)
    if json_output:
        sys.stdout.write((out / "summary.json").read_text() + "\n")


def _start_fleet(text: str) -> "StartFleet":
    from planner.domain.errors import InputError
    from planner.service.demo.run import StartFleet

    found = re.fullmatch(r"(\d{1,3})P(\d{1,3})D", text.strip(), flags=re.IGNORECASE)
    if found is None:
        raise InputError(f"--start-fleet {text!r} is not like 1P1D: prefill, then decode workers")
    return StartFleet(prefill=int(found.group(1)), decode=int(found.group(2)))


def _window_s(seconds: float) -> float:
    from planner.domain.errors import InputError

    if not SHORTEST_WINDOW_S <= seconds <= LONGEST_WINDOW_S:
        raise InputError(
            f"--window-s {seconds:g} must lie between {SHORTEST_WINDOW_S:g} and "
            f"{LONGEST_WINDOW_S:g} seconds"
        )
    return seconds


def _asker(console: "Console", *, yes: bool) -> "Ask":
    """Ask a person; without one, approve and say so."""
    if yes:
        return lambda _question: True
    asked = sys.stdin is not None and sys.stdin.isatty() and console.is_terminal
    if not asked:
        console.print("    no terminal: the change is approved without asking")
        return lambda _question: True

    def ask(question: str) -> bool:
        from rich.prompt import Confirm

        try:
            return Confirm.ask(f"    [bold]{question}[/]", console=console)
        except EOFError:
            return False

    return ask


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside the results; its files move over when all is done, or vanish.

    Raises
    ------
    InputError
        When `out` cannot be written.
    """
    from planner.domain.errors import InputError
    from planner.service.demo.site import remove_left_over

    staging = out / f".partial.{os.getpid()}"
    was_there = out.is_dir()
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove_left_over(out, ".partial.*")
        staging.mkdir()
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be written ({error.strerror}): name a folder of yours"
        ) from error
    try:
        yield staging
        for path in sorted(staging.iterdir()):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not was_there and not any(out.iterdir()):
            out.rmdir()


def _inside(request: "DemoRequest", folder: Path) -> "DemoRequest":
    from dataclasses import replace

    return replace(request, out=folder)


def _write_results(outcome: "Outcome", folder: Path) -> None:
    from planner.service.demo.summary import summary_document
    from planner.service.reports.demo_report import demo_report

    summary = summary_document(outcome)
    (folder / "summary.json").write_text(summary.model_dump_json(indent=2))
    (folder / "plan.json").write_text(summary.plan.model_dump_json(indent=2))
    (folder / "report.html").write_text(demo_report(outcome))

"""`poolwise diagnose`: what a running deployment is short of."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import EngineError, InputError
from planner.service.cli import output
from planner.service.cli.live_options import (
    EventsOption,
    GateOption,
    RoutersOption,
    WorkersOption,
)
from planner.service.cli.options import JsonOption
from planner.service.live.targets import Asked, targets_of

if TYPE_CHECKING:
    from planner.service.live.diagnosing import Diagnosed, Experiment
    from planner.service.live.kv_watching import KvSource

EPILOG = (
    "Example:\n\npoolwise diagnose --worker prefill=http://10.0.0.7:8000 "
    "--worker decode=http://10.0.0.8:8000 --spec spec.yaml\n\n"
    "Exit status: 0 whatever is found; 1 no worker answers, or the experiment stopped; 2 bad "
    "input."
)
LONGEST_S = 3600.0
LinkOption = Annotated[
    float | None,
    typer.Option("--link-bytes-per-s", help="What all KV transfers get together."),
]
YesOption = Annotated[
    bool, typer.Option("--yes", help="Agree to the experiment's added load without a question.")
]


def diagnose(
    *,
    worker: WorkersOption = None,
    router: RoutersOption = None,
    gate: GateOption = None,
    events: EventsOption = None,
    spec: Annotated[
        Path | None,
        typer.Option("--spec", "-s", help="Objectives and profiles (YAML).", metavar="FILE"),
    ] = None,
    profile: Annotated[
        list[Path] | None,
        typer.Option("--profile", "-p", help="A replica's profile; repeat it.", metavar="FILE"),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Which of the spec's models.", metavar="NAME")
    ] = None,
    duration: Annotated[float, typer.Option("--for", help="Seconds to watch for.")] = 20.0,
    interval: Annotated[float, typer.Option("--interval", help="Seconds between looks.")] = 0.5,
    max_num_seqs: Annotated[
        int | None,
        typer.Option("--max-num-seqs", min=1, help="Batch limit at decode, if no profile has it."),
    ] = None,
    link: LinkOption = None,
    experiment: Annotated[
        bool,
        typer.Option(
            "--experiment",
            help="Where telemetry cannot tell: add REAL LOAD, one kind at a time, and see.",
        ),
    ] = False,
    yes: YesOption = False,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Where the experiment's requests go in, without /v1."),
    ] = None,
    extra: Annotated[
        float,
        typer.Option("--extra", help="Its load as a share of a saturated replica, up to 0.3."),
    ] = 0.1,
    most_ttft_s: Annotated[
        float,
        typer.Option("--most-ttft-s", help="It stops when a short request waits longer, seconds."),
    ] = 5.0,
    json: JsonOption = False,
) -> None:
    """Name what a running deployment is short of, with the evidence and what to do.

    Prefill, decode, memory, cache transfer, network, batching or scheduling; or nothing; or that
    its metrics do not tell. Reads /metrics, and KV events where workers send them; adds load only
    with --experiment.
    """
    from planner.service.documents.diagnosis import DiagnosisDocument
    from planner.service.live.diagnosing import diagnose_live, yardsticks_of
    from serving.diagnosis.watching import WatchPlan

    if not 0.05 <= interval <= 60 or not 5 * interval <= duration <= LONGEST_S:
        raise InputError(
            f"--for {duration:g}: give seconds from five times --interval ({5 * interval:g}) to "
            f"{LONGEST_S:g}, and --interval from 0.05 to 60"
        )
    targets = targets_of(Asked(workers=worker or (), routers=router or (), gate=gate))
    yardsticks = yardsticks_of(
        spec, profile or [], model=model, max_num_seqs=max_num_seqs, link_bytes_per_s=link
    )
    trial = (
        _experiment(url, model, profile or [], extra, most_ttft_s, agreed=yes)
        if experiment
        else None
    )
    caches = _caches(worker or [], events or [])
    with output.working(f"watching for {duration:g} s"):
        plan = WatchPlan(for_s=duration, every_s=interval)
        found = diagnose_live(targets, plan, yardsticks, trial, caches)
    if json:
        output.print_json(DiagnosisDocument.of(found))
    else:
        _show(found)


def _caches(workers: list[str], events: list[str]) -> "KvSource | None":
    """Where KV events come from: as named, or of the deployment that runs here; None: nowhere."""
    from planner.service.live.kv_watching import deployed_source, named_source
    from planner.service.settings import read_settings
    from serving.fleet.endpoints import read_endpoints

    if events:
        return named_source(targets_of(Asked(workers=workers)) if workers else (), events)
    if workers:
        return None
    state_dir = read_settings(os.environ).storage.state_dir
    try:
        return deployed_source(read_endpoints(state_dir))
    except EngineError:
        return None  # none of its workers sends any


def _experiment(
    url: str | None,
    model: str | None,
    profiles: list[Path],
    extra: float,
    most_ttft_s: float,
    *,
    agreed: bool,
) -> "Experiment":
    from planner.service.live.diagnosing import Experiment
    from profiler.live.perturb import PerturbPlan

    if url is None or not profiles:
        raise InputError(
            "--experiment needs --url, where its requests go in, and --profile, which says how "
            "much a share of a replica is"
        )
    if not extra > 0 or not 0 < most_ttft_s <= 3600:
        raise InputError("--extra must lie above 0, and --most-ttft-s above 0 and up to 3600")
    plan = PerturbPlan(extra_ratio=extra, most_ttft_s=most_ttft_s)
    trial = Experiment(
        url=url.rstrip("/").removesuffix("/v1"), model=model, profile=profiles[0], plan=plan
    )
    warning = (
        f"The experiment adds {extra:.0%} of a saturated replica's load to {trial.url}, for about "
        f"{6 * plan.phases * (plan.phase_s + 1):.0f} s, if telemetry alone does not tell. It ends "
        f"at once when a short request waits more than {most_ttft_s:g} s."
    )
    output.note(warning)
    if not agreed and not typer.confirm("Add this load?", err=True):
        raise InputError("the experiment was not agreed to: nothing was done (--yes agrees)")
    return trial


def _show(found: "Diagnosed") -> None:
    finding = found.finding
    name = "cannot be told" if finding.bottleneck is None else finding.bottleneck.value
    output.print_lines(f"Bottleneck: {name} ({finding.confidence} confidence)", [finding.summary])
    output.print_lines("Evidence", [e.text for e in finding.evidence])
    output.print_lines("What to do", [finding.action])
    if finding.others:
        _show_others(found)
    output.print_lines(
        "Not judged",
        [f"{u.bottleneck}{f' ({u.role})' if u.role else ''}: {u.reason}" for u in finding.unjudged],
    )
    output.print_lines("Remarks", list(finding.remarks))
    if found.responses is not None:
        named = found.by_experiment
        output.print_lines(
            f"By experiment: {named}",
            [
                f"{r.kind}: TTFT {r.ttft_ratio:+.0%} "
                f"({r.ttft_interval[0]:+.0%} to {r.ttft_interval[1]:+.0%}), "
                f"per token {r.itl_ratio:+.0%} ({r.itl_interval[0]:+.0%} to "
                f"{r.itl_interval[1]:+.0%})"
                for r in found.responses
            ],
        )


def _show_others(found: "Diagnosed") -> None:
    output.print_table(
        "What else was judged",
        ("", "of", "short", "used", "held up", "by"),
        [
            [
                s.bottleneck.value,
                s.role.value if s.role else "-",
                "yes" if s.is_short else "no",
                f"{s.pressure_ratio:.0%}",
                f"{s.held_up_requests:.1f}" if s.is_short else "-",
                s.evidence[0].text if s.evidence else "",
            ]
            for s in found.finding.others
        ],
        numbers_from=9,
    )

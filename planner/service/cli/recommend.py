"""`poolwise recommend`: stateless advice for the next window."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli import output
from planner.service.cli.catalogue_option import known_accelerators
from planner.service.cli.options import (
    EstimatesOption,
    FleetOption,
    JsonOption,
    ModelOption,
    SpecOption,
    instant,
)

if TYPE_CHECKING:
    from planner.service.documents.recommendation import RecommendationDocument

EPILOG = (
    "The history is JSON: {history: [{start_at, window_s, requests, input_tokens, output_tokens, "
    "cached_tokens}, ...], fleet: {pools: [{model, role, accelerator, tp, purchase_option, ready, "
    "starting, draining}, ...]}}. Latencies that were observed (ttft_p95_s, itl_p95_s, ...) may "
    "stand in a window.\n\n"
    "Examples:\n\n"
    "poolwise recommend --spec spec.yaml --history windows.json --json\n\n"
    "cat windows.json | poolwise recommend --spec spec.yaml --history - --fleet fleet.json"
)


def recommend(
    *,
    spec: SpecOption,
    history: Annotated[
        Path,
        typer.Option(
            "--history", "-H", help="Observed windows (JSON; - for stdin).", metavar="FILE"
        ),
    ],
    fleet: FleetOption = None,
    now: Annotated[
        str | None,
        typer.Option(
            "--now",
            help="When to recommend for (default: the end of the last window).",
            metavar="TIME",
        ),
    ] = None,
    model: ModelOption = None,
    allow_estimates: EstimatesOption = False,
    json: JsonOption = False,
) -> None:
    """Recommend replicas per pool for the next window, with reasons. Remembers nothing.

    Takes observed windows and the fleet that runs; the fleet may stand in the history file.
    """
    from planner.service.answers.histories import notes_of
    from planner.service.answers.planning import recommend as recommend_replicas
    from planner.service.answers.planning import sole_model
    from planner.service.documents.fleet import fleet_of, read_fleet
    from planner.service.documents.history import history_end, read_history, windows_of
    from planner.service.documents.recommendation import recommendation_document
    from planner.service.spec.file import read_spec

    checked = read_spec(spec, allow_estimates=allow_estimates, catalogue=known_accelerators())
    model = sole_model(checked, model)
    asked = instant(now, option="--now")
    document = read_history(history, until=asked)
    windows = windows_of(document.history, where=str(history), until=asked)
    moment = asked or history_end(windows, where=str(history))
    if fleet is not None:
        running = read_fleet(fleet, spec=checked, read_at=moment)
    elif document.fleet is not None:
        running = fleet_of(document.fleet, spec=checked, read_at=moment, where=str(history))
    else:
        raise InputError(
            f"{history} has no fleet: add one to it, or give --fleet FILE (nothing runs: "
            '{"pools": []})'
        )
    with output.working("planning"):
        decision, expected = recommend_replicas(checked, windows, running, model=model, now=moment)
    notes = notes_of(windows)
    for note in notes:
        output.note(f"{history}: {note}")
    answer = recommendation_document(decision, expected, notes=notes)
    if json:
        output.print_json(answer)
    else:
        _show(answer)
    if decision.plan.status == "infeasible":
        raise typer.Exit(1)


def _show(answer: "RecommendationDocument") -> None:
    from planner.service.documents.replica_shape import label_of

    distrust = output.distrust(estimated=answer.estimated, incomplete=answer.incomplete)
    output.print_table(
        f"Recommended for the next window ({answer.status}, {answer.usd_per_hour:,.2f} "
        f"USD/h{distrust})",
        ("pool", "bought", "now", "replicas", "why"),
        [
            [
                label_of(p),
                str(p.purchase_option),
                str(p.replicas_now),
                str(p.replicas),
                p.reason,
            ]
            for p in answer.pools
        ],
        numbers_from=9,
    )
    objections = [f for f in answer.findings if f.verdict != "allow"]
    output.print_lines("Guards", [f"{f.guard} ({f.verdict}): {f.reason}" for f in objections])
    output.print_lines("Not proven in the twin", answer.unproven)
    output.print_lines("What to relax", answer.relaxations)

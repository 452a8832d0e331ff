"""`poolwise shapes`: which replica shapes a spec comes to, and why the others are left out."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli import output
from planner.service.cli.catalogue_option import known_accelerators
from planner.service.cli.options import (
    EstimatesOption,
    JsonOption,
    ModelOption,
    SpecOption,
    StartOption,
    TraceOption,
    instant,
)

if TYPE_CHECKING:
    from planner.domain.spec import Spec
    from planner.optimize import Problem
    from planner.service.documents.candidates import CandidateDocument, ShapesAnswer

EPILOG = (
    "Examples:\n\n"
    "poolwise shapes --spec spec.yaml --allow-estimates\n\n"
    "poolwise shapes --spec spec.yaml --context 131072 --json\n\n"
    "poolwise shapes --spec spec.yaml --trace requests.jsonl\n\n"
    "Exit status: 0 some shape is kept; 1 none is; 2 bad input."
)

CONTEXTS = (131_072, 1_048_576)
"""Lengths that are asked for by name: 128K and 1M tokens."""
LONGEST_CONTEXT = 10**9


def shapes(
    *,
    spec: SpecOption,
    trace: TraceOption = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            help="Prompt plus answer that every shape has to hold, tokens; default: as the spec "
            "says.",
            metavar="TOKENS",
            show_default=False,
        ),
    ] = None,
    start_at: StartOption = None,
    model: ModelOption = None,
    allow_estimates: EstimatesOption = False,
    json: JsonOption = False,
) -> None:
    """Show every replica shape that the spec lists or asks for: memory, contexts, and what is kept.

    With --trace also which of them never help that workload: another shape does all that they
    do on no more accelerators. `poolwise plan` plans with the kept ones. Changes nothing.
    """
    if context is not None and not 1 <= context <= LONGEST_CONTEXT:
        raise InputError(f"--context {context}: give 1 to {LONGEST_CONTEXT:,} tokens")
    from planner.service.answers.planning import sole_model
    from planner.service.documents.candidates import shapes_answer
    from planner.service.spec.file import read_spec
    from planner.service.spec.offered_shapes import every_candidate, without_those_that_never_help

    given = read_spec(spec, complete=False, catalogue=known_accelerators())
    model = sole_model(given, model)
    found = every_candidate(
        given, model=model, context_tokens=context, allow_estimates=allow_estimates
    )
    if trace is not None:
        checked = read_spec(spec, allow_estimates=allow_estimates, catalogue=known_accelerators())
        with output.working("comparing"):
            problem = _problem(checked, model, trace, instant(start_at, option="--start-at"))
        found = without_those_that_never_help(found, problem)
    counted = sorted({*CONTEXTS, *([] if context is None else [context])})
    answer = shapes_answer(given, model, found, contexts=counted)
    if json:
        output.print_json(answer)
    else:
        _show(answer, compared=trace is not None)
    if not any(one.is_kept for one in found):
        raise typer.Exit(1)


def _problem(spec: "Spec", model: str, trace: Path, start_at: datetime | None) -> "Problem":
    """What the spec's planner would decide about for the windows after the trace."""
    from planner.optimize import build_problem, with_demand_level
    from planner.service.answers.planning import expected_demand, trace_history

    history = trace_history(trace, window_s=spec.forecast.window_s, start_at=start_at)
    output.note_report(trace, history.report)
    expected = expected_demand(
        spec,
        history.windows,
        model=model,
        made_at=history.ended_at,
        arrival_cv2=history.arrival_cv2,
    )
    return build_problem(with_demand_level(spec, expected), expected, None)


def _show(answer: "ShapesAnswer", *, compared: bool) -> None:
    kept = sum(one.verdict == "kept" for one in answer.shapes)
    distrust = output.distrust(estimated=answer.estimated, incomplete=answer.incomplete)
    lengths = [c.context_tokens for c in answer.shapes[0].contexts] if answer.shapes else []
    columns = (
        "shape",
        "roles",
        "",
        "quality",
        "GPUs",
        "USD/h",
        "weights",
        "KV",
        "KV tokens",
        "longest",
        *(f"at {_short(tokens)}" for tokens in lengths),
    )
    output.print_table(
        f"{answer.model}: {kept} of {len(answer.shapes)} shapes are kept{distrust}",
        columns,
        _rows(answer.shapes),
        numbers_from=4,
        unbroken=columns,
    )
    output.console().print(
        "P prefill, D decode, A aggregated; weights, KV: GB on each accelerator; longest: tokens "
        "of the longest request that fits; at 128K: requests of that length whose KV cache one "
        "replica holds (-: the model takes none so long); *: ESTIMATED profile.",
        markup=False,
    )
    output.print_lines("Left out", _reasons(answer.shapes))
    if not compared:
        output.note("Give --trace FILE to see also which shapes never help that workload.")


def _rows(found: "Sequence[CandidateDocument]") -> list[list[str]]:
    """A row for each shape; roles that come to the same share one."""
    roles: dict[tuple[str, ...], list[str]] = {}
    for one in found:
        roles.setdefault(_cells(one), []).append(one.role.value)
    return [[shape, _roles(of), *rest] for (shape, *rest), of in roles.items()]


def _cells(one: "CandidateDocument") -> tuple[str, ...]:
    estimated = "*" if one.profile_kind == "estimated" else ""
    return (
        _without_role(one.label),
        str(one.verdict).replace("_", " ") + estimated,
        str(one.quality),
        str(one.accelerators),
        f"{one.usd_per_hour:,.2f}",
        _gigabytes(one.weight_bytes),
        _gigabytes(one.kv_bytes),
        _count(one.kv_tokens),
        _count(one.longest_context_tokens),
        *(_count(c.requests) for c in one.contexts),
    )


def _reasons(found: "Sequence[CandidateDocument]") -> list[str]:
    """Why shapes are not kept, those of one reason together."""
    reasons: dict[str, dict[str, None]] = {}
    for one in found:
        better = _without_role(one.dominated_by)
        reason = one.reason.replace(one.dominated_by, better) if better else one.reason
        if reason:
            reasons.setdefault(reason, {})[_without_role(one.label)] = None
    return [f"{', '.join(labels)}: {reason}" for reason, labels in reasons.items()]


def _without_role(label: str) -> str:
    return label.partition(":")[2]


def _roles(roles: "Sequence[str]") -> str:
    """P prefill, D decode, A aggregated."""
    return " ".join(role[0].upper() for role in roles)


def _gigabytes(size: float | None) -> str:
    return "-" if size is None else f"{size / 1e9:,.1f}"


def _count(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _short(tokens: int) -> str:
    """128K, 1M, or the number itself."""
    for unit, size in (("M", 2**20), ("K", 2**10)):
        if tokens % size == 0:
            return f"{tokens // size}{unit}"
    return f"{tokens:,}"

"""A what-if: the form as changes of a spec, and its answer as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.domain.errors import InputError
from planner.domain.plan import Plan
from planner.domain.slo import Slo
from planner.domain.spec import Spec
from planner.service.documents.answers import PlanAnswer, RefusedAnswer, WhatIfDocument
from planner.service.documents.plan import PlanDocument, plan_of
from planner.service.reports.quantities import (
    MISSING,
    duration,
    long_fleet,
    rate,
    sentence,
    share,
    usd_per_hour,
)
from planner.service.reports.table import Cell, Table, cells, number_columns, text_columns

FACTORS = ("rate", "isl", "osl")
MOST_FACTOR = 1_000.0
_CENT = 0.005
"""USD/h; what is less is not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One number of the form.

    Parameters
    ----------
    key : str
        Path in the spec that it changes.
    usual : str
        What the spec says now, as it stands in the field.
    """

    key: str
    label: str
    usual: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Fields that belong together."""

    legend: str
    fields: tuple[Field, ...]


def form_groups(spec: Spec, model: str) -> tuple[Group, ...]:
    """What may be changed by its own field: promises of the planned model, and inventories."""
    promises = tuple(
        field
        for number, slo in enumerate(spec.slos)
        if slo.model == model
        for field in _of_slo(number, slo)
    )
    inventory = tuple(
        Field(
            key=f"accelerators.{number}.inventory",
            label=accelerator.name,
            usual=f"{accelerator.inventory:g}",
            unit="accelerators",
        )
        for number, accelerator in enumerate(spec.accelerators)
    )
    return (
        Group(legend="Promises", fields=promises),
        Group(legend="Inventory", fields=inventory),
    )


def _of_slo(number: int, slo: Slo) -> tuple[Field, ...]:
    named = f"of {slo.request_class}"
    return (
        Field(
            key=f"slos.{number}.ttft_s",
            label=f"TTFT {named}",
            usual=f"{slo.ttft_s:g}",
            unit="seconds",
        ),
        Field(
            key=f"slos.{number}.tpot_s",
            label=f"TPOT {named}",
            usual=f"{slo.tpot_s:g}",
            unit="seconds per token",
        ),
        Field(
            key=f"slos.{number}.attainment_ratio",
            label=f"Share in time {named}",
            usual=f"{slo.attainment_ratio:g}",
            unit="0 to 1",
        ),
    )


def change_of(fields: Mapping[str, str], groups: Sequence[Group]) -> str:
    """What a form asks to change, as `--what-if` takes it; what stands as it was is left out.

    Raises
    ------
    InputError
        When a number is none, or nothing is changed.
    """
    changes = []
    for name in FACTORS:
        text = fields.get(name, "").strip().removeprefix("x").strip()
        if text and _number(name, text) != 1:
            changes.append(f"{name}=x{_plain(name, text)}")
    for field in (field for group in groups for field in group.fields):
        text = fields.get(field.key, "").strip()
        if text and _number(field.label, text) != float(field.usual):
            changes.append(f"{field.key}={text}")
    other = fields.get("other", "").strip()
    if other:
        changes.append(other)
    if not changes:
        raise InputError("nothing is changed: write another number into one of the fields")
    return ",".join(changes)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{name}: a number is wanted there, not {text[:40]}") from error


def _plain(name: str, text: str) -> str:
    """A factor without exponent, as `--what-if` reads it."""
    factor = _number(name, text)
    if not 0 < factor <= MOST_FACTOR:
        raise InputError(f"{name}: a factor above 0, up to {MOST_FACTOR:g}, not {text[:40]}")
    return f"{factor:.6f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a what-if came to.

    Parameters
    ----------
    headline : str
        The first change in one sentence.
    """

    headline: str
    table: Table
    notes: tuple[str, ...]


def answer_view(answer: PlanAnswer | RefusedAnswer) -> Answer:
    """The plans side by side: as things are, or that these are refused, and with each change."""
    base, notes = None, []
    if isinstance(answer, RefusedAnswer):
        rows = [_refused_row("as things are")]
        notes.append(f"As things are: {sentence(answer.refused)}")
    else:
        base = _plan(PlanDocument(**{n: getattr(answer, n) for n in PlanDocument.model_fields}))
        rows = [_row("as things are", base, None)]
    headlines = []
    for one in answer.what_if:
        if one.plan is None:
            rows.append(_refused_row(one.change, code=True))
            notes.append(f"{one.change}: {sentence(one.refused)}")
            headlines.append(f"With {one.change} it cannot be planned.")
            continue
        made = _plan(one.plan)
        rows.append(_row(one.change, made, one.more_usd_per_hour, code=True))
        notes += [f"{one.change}, what would help: {what}." for what in made.relaxations]
        notes += _unserved_notes(one)
        notes += [f"{one.change}, no pool keeps every promise: {what}." for what in made.not_kept]
        notes += [f"{one.change}: the twin did not confirm {what}." for what in made.unproven]
        headlines.append(_headline(base, made, one))
    return Answer(
        headline=next(iter(headlines), ""),
        table=Table(
            caption="Side by side, first window",
            columns=(
                *text_columns("What if", "Status", "Fleet"),
                *number_columns("Requests", "In time", "TTFT p95", "Mean cost", "More"),
            ),
            rows=tuple(rows),
        ),
        notes=tuple(notes),
    )


def _plan(document: PlanDocument) -> Plan:
    return plan_of(document, where="what-if")


def _unserved_notes(one: WhatIfDocument) -> list[str]:
    """What the bill does not show: the price of requests that are left unserved."""
    unserved, in_all = one.more_unserved_usd_per_hour, one.more_in_all_usd_per_hour
    if unserved is None or in_all is None or abs(unserved) < _CENT:
        return []
    return [
        f"{one.change}: what is left unserved costs {usd_per_hour(abs(unserved))} "
        f"{_more_or_less(unserved)}, all together {usd_per_hour(abs(in_all))} "
        f"{_more_or_less(in_all)}."
    ]


def _more_or_less(usd: float) -> str:
    return "more" if usd > 0 else "less"


def _headline(base: Plan | None, made: Plan, one: WhatIfDocument) -> str:
    if made.status.value == "infeasible":
        return "No fleet within the spec's limits would keep the promises."
    more = one.more_usd_per_hour
    if base is None or not base.windows or not made.windows or more is None:
        return f"It would cost {usd_per_hour(made.usd_per_hour)}."
    was, would = long_fleet(base.windows[0]), long_fleet(made.windows[0])
    fleet = f"The fleet would stay {was}" if was == would else f"{would} instead of {was}"
    cost = (
        "for the same cost"
        if abs(more) < _CENT
        else f"for {usd_per_hour(abs(more))} {_more_or_less(more)}"
    )
    unserved = one.more_unserved_usd_per_hour or 0.0
    if abs(unserved) >= _CENT:
        cost += (
            f", and {usd_per_hour(abs(unserved))} {_more_or_less(unserved)} for what is unserved"
        )
    return f"{fleet}, {cost}."


def _refused_row(text: str, *, code: bool = False) -> tuple[Cell, ...]:
    return (Cell(text=text, code=code), *cells("refused", *[MISSING] * 6))


def _row(text: str, plan: Plan, more: float | None, *, code: bool = False) -> tuple[Cell, ...]:
    first = plan.windows[0] if plan.windows else None
    doubt = ", unproven" if plan.unproven else ""
    return (
        Cell(text=text, code=code),
        *cells(
            f"{plan.status.value}{doubt}",
            MISSING if first is None else long_fleet(first),
            MISSING if first is None else rate(first.request_rate_rps, "requests"),
            MISSING if first is None else share(first.predicted.attainment_ratio),
            MISSING if first is None else duration(first.predicted.ttft_p95_s),
            usd_per_hour(plan.usd_per_hour),
            "" if more is None else f"{more:+,.2f} USD/h",
        ),
    )

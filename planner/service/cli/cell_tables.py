"""Where a plan's replicas stand, for people."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from planner.domain.wording import counted
from planner.service.cli import output

if TYPE_CHECKING:
    from planner.domain.placement import CellReplicas, Placement
    from planner.domain.plan import Plan

MOST_EMPTY = 3
"""So many empty cells are named; of more only their number is told."""


def show_cells(plan: "Plan") -> None:
    """Replicas by cell where that changes from window to window; nothing without cells."""
    rows, before = [], None
    for window, placement in zip(plan.windows, plan.placements, strict=False):
        if before is None or placement.replicas != before.replicas:
            lost = placement.capacity_loss_ratio
            rows.append(
                [
                    window.start_at.strftime("%m-%d %H:%M"),
                    "\n".join(cell_lines(placement)),
                    output.percent(placement.crossing_ratio),
                    f"-{output.percent(lost)}" if lost else "as planned",
                    _attainment_text(placement),
                    str(placement.moves or ""),
                ]
            )
        before = placement
    if not rows:
        return
    columns = ("from", "replicas by cell", "crosses", "capacity", "in time", "moves")
    output.print_table("Cells, one router in each", columns, rows, numbers_from=2)
    output.print_lines("What crosses", list(dict.fromkeys(_mending_lines(plan))))


def _attainment_text(placement: "Placement") -> str:
    """Of all cells beside one router, then cell by cell with the share of the traffic."""
    found = placement.attainment
    if found is None:
        return "as planned" if len(placement.used_cells) < 2 else "-"
    one_router = output.percent(found.one_router_ratio)
    lines = [f"{output.percent(found.attainment_ratio)} (one router {one_router})"]
    for one in found.cells:
        of = output.percent(one.traffic_ratio)
        lines.append(f"{one.cell}: {output.percent(one.attainment_ratio)} of {of} of the traffic")
    return "\n".join(lines)


def cell_lines(placement: "Placement") -> Iterator[str]:
    """One line a cell with replicas; those without are summed up."""
    for cell in placement.cells:
        here = [r for r in placement.replicas if r.cell == cell]
        if here:
            yield f"{cell}: {_replicas_text(here)}"
    empty = [c for c in placement.cells if not any(r.cell == c for r in placement.replicas)]
    if len(empty) > MOST_EMPTY:
        yield f"{counted(len(empty), 'cell')}: none"
    elif empty:
        yield f"{', '.join(empty)}: none"
    homeless = [r for r in placement.replicas if not r.cell]
    if homeless:
        yield f"no room for {_replicas_text(homeless)}"


def _mending_lines(plan: "Plan") -> Iterator[str]:
    for placement in plan.placements:
        if placement.mending:
            shares = f"{placement.crossing_ratio:.1%} of the traffic"
            yield (
                f"{shares}: {placement.mending}" if placement.crossing_ratio else placement.mending
            )
        if not placement.proven:
            yield "The search for a placement ended before it was known that no other is better."


def _replicas_text(replicas: "list[CellReplicas]") -> str:
    prefill_first = sorted(replicas, key=lambda r: r.shape.role != "prefill")
    return ", ".join(
        f"{r.replicas} x {r.shape.label}"
        + ("" if r.purchase_option == "on_demand" else f" {r.purchase_option}")
        for r in prefill_first
    )

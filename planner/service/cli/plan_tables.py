"""Plans as tables for people."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from planner.service.cli import output
from planner.service.cli.cell_tables import show_cells

if TYPE_CHECKING:
    from planner.domain.plan import BindingRow, CostTerm, Plan, PlannedPool, PlanWindow
    from planner.domain.spec import Spec
    from planner.optimize import ParetoPoint
    from planner.service.documents.answers import Beside

_CENT = 0.005
"""USD/h; what is less is not shown."""


def show_plan(plan: "Plan", *, explain: bool = False) -> None:
    """A plan for people: windows, what bound it, what was rejected, how it was solved.

    Parameters
    ----------
    explain : bool
        With the equation of every row, and what small changes would cost.
    """
    distrust = output.distrust(estimated=plan.estimated, incomplete=plan.incomplete)
    sought = "".join(f", {_term_text(term)}" for term in plan.objective if term.sought)
    price = f"{plan.usd_per_hour:,.2f} USD/h"
    doubt = ", UNPROVEN" if plan.unproven else ""
    title = f"Plan {plan.plan_id}: {plan.status}, {price}{sought}{doubt}{distrust}"
    rows = [
        [
            window.start_at.strftime("%m-%d %H:%M"),
            _rate_text(window),
            "\n".join(_pool_text(pool) for pool in window.pools if pool.replicas) or "none",
            _in_time_text(window),
            output.milliseconds(window.predicted.ttft_p95_s),
            output.milliseconds(window.predicted.tpot_p95_s),
            output.milliseconds(window.predicted.itl_p95_s),
            str(window.bottleneck),
            f"{window.usd_per_hour:,.2f}",
        ]
        for window in plan.windows
    ]
    columns = (
        "window (" + (plan.windows[0].start_at.tzname() or "UTC") + ")"
        if plan.windows
        else "window",
        "rate",
        "replicas (utilization)",
        "in SLO",
        "TTFT p95",
        "TPOT p95",
        "ITL p95",
        "bottleneck",
        "USD/h",
    )
    output.print_table(title, columns, rows, numbers_from=3, unbroken=columns[:3])
    output.print_lines("Not proven in the twin", plan.unproven)
    output.print_lines("Promises that no pool keeps, not even without load", plan.not_kept)
    output.print_lines("Predicted from when new replicas serve", plan.waits_for_starts)
    output.print_lines("Assumptions", plan.inputs.assumptions)
    show_cells(plan)
    _show_traffic(plan)
    output.print_lines("What bound it", [_bound(row, explain=explain) for row in plan.binding])
    output.print_lines(
        "Considered and not chosen", [_rejected(plan, i) for i in range(len(plan.rejected))]
    )
    short = plan.status == "infeasible" or any(w.shortfall_rps > 0 for w in plan.windows)
    held = [holding.sentence for holding in plan.held_by_others if short]
    output.print_lines("What other models take of what all share", held)
    output.print_lines("What to relax", plan.relaxations)
    prices = [f"{price.change}: {price.sentence}" for price in plan.shadow_prices]
    output.print_lines(
        "Solved again with a small change (by the model, the twin was not asked), it", prices
    )
    if explain:
        terms = [_term_text(term) for term in plan.objective if term.value]
        output.print_lines("What it comes to over the horizon", terms)
    solver = plan.solver
    ended = "" if solver.replayable else "; ended by the clock: not replayable"
    output.console().print(
        f"Solved by {solver.name} in {solver.wall_s:.2f} s, gap {solver.gap_ratio:.2%}{ended}.",
        markup=False,
    )


def _bound(row: "BindingRow", *, explain: bool) -> str:
    """A row in words; explained with its equation and the file of its function."""
    if not explain:
        return f"{row.sentence} [{row.row}]"
    from planner.optimize.equations import code_of

    return f"{row.sentence} [{row.row}]\n    {row.equation}\n    {code_of(row.row)}"


def _term_text(term: "CostTerm") -> str:
    return (
        f"{term.name}: {term.value:,.4g} {term.unit}"
        if term.unit != "USD"
        else (f"{term.name}: {term.usd:,.2f} USD")
    )


def _show_traffic(plan: "Plan") -> None:
    """Who is sent where in the window with most requests; nothing where all are balanced."""
    busiest = max(plan.windows, key=lambda w: w.request_rate_rps, default=None)
    if busiest is None or not busiest.traffic:
        return
    rows = [
        [
            part.request_class or "all",
            _lengths_text(part.above_tokens, part.most_tokens),
            f"{part.shape.label} {part.purchase_option}",
            f"{part.share_ratio:.1%}",
        ]
        for part in busiest.traffic
    ]
    title = f"Who is sent where at {busiest.start_at:%m-%d %H:%M}, {_rate_text(busiest)}"
    columns = ("class", "uncached tokens", "pool", "share")
    output.print_table(title, columns, rows, numbers_from=3)


def _lengths_text(above: int, most: int | None) -> str:
    if most is None:
        return f"above {above:,}" if above else "any"
    return f"{above + 1 if above else 0:,} to {most:,}"


def show_what_if(plan: "Plan | str", beside: "Sequence[Beside]") -> None:
    """Plans of changed specs beside the plan; nothing where none was asked for.

    Under them which were refused and why, and what would help those that no fleet keeps.

    Parameters
    ----------
    plan : Plan or str
        As it is; or why that is refused.
    """
    if not beside:
        return
    every = [("as it is", plan), *beside]
    base = None if isinstance(plan, str) else plan
    rows = [
        [text, "refused", *[""] * 5] if isinstance(other, str) else _beside_row(text, other, base)
        for text, other in every
    ]
    columns = ("what if", "", "first window", "in SLO", "TTFT p95", "USD/h", "more")
    output.print_table("", columns, rows, numbers_from=3)
    refused = [f"{text}: {other}" for text, other in every if isinstance(other, str)]
    output.print_lines("Refused", refused)
    short = [
        f"{text}: {what}"
        for text, other in beside
        if not isinstance(other, str)
        for what in other.relaxations
    ]
    output.print_lines("What to relax as well, one of", short)


def _beside_row(text: str, other: "Plan", plan: "Plan | None") -> list[str]:
    first = other.windows[0]
    return [
        text,
        _standing(other),
        "\n".join(_pool_text(pool) for pool in first.pools if pool.replicas) or "none",
        output.percent(first.predicted.attainment_ratio),
        output.milliseconds(first.predicted.ttft_p95_s),
        f"{other.usd_per_hour:,.2f}",
        "" if plan is None or plan is other else "\n".join(_more(plan, other)),
    ]


def _more(plan: "Plan", other: "Plan") -> list[str]:
    """What another plan comes to beyond a plan, each part on its line; nothing: as much."""
    from planner.domain.plan_difference import difference

    found = difference(plan, other)
    if found is None:
        return []
    parts = {
        "fleet": found.fleet_usd_per_hour,
        "unserved": found.unserved_usd_per_hour,
        "starts, switching, risk": found.other_usd_per_hour,
    }
    told = {name: usd for name, usd in parts.items() if abs(usd) >= _CENT}
    lines = []
    if found.unit != "USD/h" and found.more is not None and abs(found.more) >= _CENT:
        lines.append(f"{found.more:+,.3g} {found.unit}")
    if list(told) == ["fleet"]:
        return [*lines, f"{found.fleet_usd_per_hour:+,.2f} USD/h"]
    lines += [f"{name} {usd:+,.2f} USD/h" for name, usd in told.items()]
    return [*lines, *([f"in all {found.in_all_usd_per_hour:+,.2f} USD/h"] if len(told) > 1 else [])]


def _standing(plan: "Plan") -> str:
    """What its price is to be read with: its status, whether it is proven, and what it sheds."""
    doubt = ", UNPROVEN" if plan.unproven else ""
    worst = max(window.shortfall_rps for window in plan.windows)
    return f"{plan.status}{doubt}" + (f"\n{worst:.3g}/s unserved" if worst > 0 else "")


def show_shares(spec: "Spec", plans: "Sequence[Plan]") -> None:
    """How much of every accelerator type and of the budget each model takes at the most."""
    names = [a.name for a in spec.accelerators]
    priority = {m.name: m.priority for m in spec.models}
    rows = []
    for plan in plans:
        taken = [max(window.accelerators(name) for window in plan.windows) for name in names]
        most = max(window.usd_per_hour for window in plan.windows)
        counts = [f"{count:,}" for count in taken]
        rows.append(
            [plan.model, str(priority[plan.model]), str(plan.status), *counts, f"{most:,.2f}"]
        )
    limit = spec.budget.usd_per_hour
    columns = (
        "model",
        "priority",
        "",
        *(f"{a.name} of {a.inventory:,}" for a in spec.accelerators),
        "USD/h" if limit is None else f"USD/h of {limit:,.2f}",
    )
    output.print_table("What each takes at the most", columns, rows, numbers_from=3)


def show_frontier(points: "Sequence[ParetoPoint]") -> None:
    """Promises that nothing cheaper keeps as well; nothing where none was asked for."""
    kept = [p for p in points if p.efficient]
    if not points:
        return
    rows = [
        [
            output.milliseconds(point.ttft_s),
            output.percent(point.attainment_ratio),
            "\n".join(_pool_text(pool) for pool in made.windows[0].pools if pool.replicas),
            f"{made.usd_per_hour:,.2f}",
        ]
        for point in kept
        if (made := point.plan) is not None
    ]
    columns = ("promised TTFT", "for", "first window", "USD/h")
    title = f"What promises cost ({len(kept)} of {len(points)} that nothing cheaper keeps as well)"
    output.print_table(title, columns, rows, numbers_from=3)
    refused: dict[str, list[str]] = {}
    for point in points:
        if point.refused:
            promise = f"{point.ttft_s:g} s for {point.attainment_ratio:.4g}"
            refused.setdefault(point.refused, []).append(promise)
    output.print_lines(
        "Refused", [f"{', '.join(promises)}: {why}" for why, promises in refused.items()]
    )


def _rate_text(window: "PlanWindow") -> str:
    missing = f"\n{window.shortfall_rps:.3g}/s unserved" if window.shortfall_rps > 0 else ""
    return f"{window.request_rate_rps:.3g}/s{missing}"


def _in_time_text(window: "PlanWindow") -> str:
    """Of all requests; of several classes each beside its promise."""
    predicted = window.predicted
    if len(predicted.classes) < 2:
        return output.percent(predicted.attainment_ratio)
    return "\n".join(
        f"{c.request_class} {output.percent(c.attainment_ratio)} of {c.target_ratio:.4g}"
        for c in predicted.classes
    )


def _pool_text(pool: "PlannedPool") -> str:
    bought = "" if pool.purchase_option == "on_demand" else f" {pool.purchase_option}"
    return f"{pool.replicas} x {pool.shape.label}{bought} ({pool.utilization_ratio:.0%})"


def _rejected(plan: "Plan", index: int) -> str:
    other = plan.rejected[index]
    price = "" if other.usd_per_hour is None else f" ({other.usd_per_hour:,.2f} USD/h)"
    return f"{other.name}{price}: {other.reason}"

"""Rows that no fleet keeps together, where not even a fleet that serves nobody keeps them all.

A smallest set of such rows (an irreducible infeasible subset), by the deletion filter of Chinneck
and Dravnieks: every row is left out once, for good where the others still have no solution.

References
----------
Chinneck and Dravnieks, "Locating minimal infeasible constraint sets in linear programs", ORSA
Journal on Computing 3 (1991).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from planner.domain.plan import BindingRow
from planner.optimize import cp_sat, scip
from planner.optimize.build import Built, build
from planner.optimize.constraints import CONSTRAINTS
from planner.optimize.equations import equation_of
from planner.optimize.inputs import AcceleratorLimit, Integers, Mask, Option, ReplicaBounds
from planner.optimize.problem import Problem

_ANY_REPLICAS = 10_000
"""Columns may be so large here, so that inventory and bounds are seen as rows."""

Index = tuple[object, ...]


def conflicting_rows(problem: Problem) -> tuple[BindingRow, ...]:
    """Rows of which no fleet keeps all, each with what the spec says there; empty: some does.

    Of the first window that has no fleet by itself, else of all windows together.
    """
    for part, first in (
        *((problem.alone(t), t) for t in problem.window_indices),
        (problem, 0),
    ):
        built = _with_room(build(part))
        rows = np.arange(built.model.row_count)
        if _solvable(built, rows, part):
            continue
        for function in CONSTRAINTS:
            named = [built.row_names[r][0] == function.__name__ for r in rows]
            rows = _without(built, rows, np.array(named, dtype=bool), part)
        for row in list(rows):
            rows = _without(built, rows, rows == row, part)
        return _told(part, [built.row_names[r] for r in rows], first)
    return ()


_SWITCHED = ("scale_both_pools", "keep_one_shape", "keep_one_format")
"""Have rows `replicas <= most * switch`, in which `most` stands for inventory and bounds."""


def _with_room(built: Built) -> Built:
    """The model with inventory and bounds in their own rows only."""
    upper, high = np.array(built.model.upper), np.array(built.model.high)
    v = built.variables
    for columns in (v.replicas, v.usable, v.starts, v.stops):
        upper[columns.ravel()] = _ANY_REPLICAS
    matrix = built.model.matrix.copy()
    for r, (name, index) in enumerate(built.row_names):
        entries = slice(matrix.indptr[r], matrix.indptr[r + 1])
        switched = name in _SWITCHED and index[-1] != "there" and built.model.high[r] == 0
        if not switched:
            continue
        coefficients = matrix.data[entries]
        matrix.data[entries] = np.where(coefficients < 0, -_ANY_REPLICAS, coefficients)
        if not (coefficients < 0).any():  # `most` is 0: that nothing fits is said elsewhere
            high[r] = np.inf
    model = replace(built.model, upper=upper, matrix=matrix, high=high)
    return replace(built, model=model)


def _without(built: Built, rows: Integers, left_out: Mask, problem: Problem) -> Integers:
    """The rows but those left out, where the others still have no solution."""
    fewer = rows[~left_out]
    return rows if _solvable(built, fewer, problem) else fewer


def _solvable(built: Built, rows: Integers, problem: Problem) -> bool:
    model = built.model.part(np.arange(built.model.column_count), rows)
    solve = cp_sat.solve if built.variables.count else scip.solve
    nothing = np.zeros(model.column_count)
    found = solve(model, nothing, settings=problem.solver, work=problem.solver.exact_work)
    return not found.infeasible


def _told(
    problem: Problem, rows: Sequence[tuple[str, Index]], first: int
) -> tuple[BindingRow, ...]:
    """Each bound beside those that it contradicts, then what makes them contradict each other."""
    rows = sorted(rows, key=lambda row: row[0] in _CIRCUMSTANCES)
    said = {row: said_of(problem, *row) for row in rows}
    why = list(dict.fromkeys(said[row] for row in rows if row[0] in _CIRCUMSTANCES))
    found = []
    for name, index in rows:
        bounds = (said[r] for r in rows if r != (name, index) and r[0] not in _CIRCUMSTANCES)
        others = " and ".join(dict.fromkeys(bounds))
        if name in _CIRCUMSTANCES:
            sentence = f"part of the contradiction: {said[name, index]}"
        elif others:
            sentence = f"{said[name, index]} cannot be kept together with {others}"
        else:
            sentence = f"{said[name, index]} leaves room for no fleet"
        if name not in _CIRCUMSTANCES:
            sentence += f", as {' and '.join(why)}" if why else ""
            sentence += ": change one of them" if others else ": change it"
        row = f"{name}[{','.join(str(_moved(i, first)) for i in index)}]"
        found.append(BindingRow(row=row, equation=equation_of(row), sentence=sentence))
    return tuple(found)


def said_of(problem: Problem, name: str, index: Index) -> str:
    """What the spec or the fleet says in a row; of rows that neither sets, their equation."""
    said = _SAID.get(name)
    return equation_of(f"{name}[]") if said is None else said(problem, index)


def _moved(index: object, first: int) -> object:
    """Windows are counted from the first of the part."""
    return index + first if isinstance(index, int) else index


def _option(problem: Problem, index: Index) -> Option:
    return next(o for o in problem.options if o.label == index[0])


def _bounds(problem: Problem, index: Index) -> ReplicaBounds:
    return next(b for b in problem.bounds if b.shape.label == index[0])


def _limit(problem: Problem, index: Index) -> AcceleratorLimit:
    t, name = index[-1], str(index[0]).partition(" ")[0]
    limits = problem.limits_in(t) if isinstance(t, int) else problem.accelerators
    return next(a for a in limits if a.name == name)


def _in_window(limit: Callable[[int], float | None], index: Index) -> float:
    (t,) = index
    return (limit(t) if isinstance(t, int) else None) or 0.0


def _ratio(problem: Problem, index: Index) -> str:
    bounds = next(b for b in problem.ratios if b.model == index[0])
    ratio = bounds.min_ratio if index[1] == "min" else bounds.max_ratio
    return f"planning.{index[1]}_prefill_per_decode {ratio:g}"


def _at_most(name: str, value: int | None, index: Index) -> str:
    return f"{name} {value} of {index[0]}"


def _starting(problem: Problem, index: Index) -> str:
    option = _option(problem, index)
    return f"a new {option.label} takes {option.start_s:.0f} s ({option.start_field})"


def _from(problem: Problem, index: Index) -> str:
    """Where changes of an option begin."""
    label, t = index
    option = _option(problem, index)
    if t == 0:
        return f"{option.initial_replicas} x {label} run now"
    return f"replicas of {label} come and go from one window to the next"


_CIRCUMSTANCES = (
    "count_changes",
    "order_in_time",
    "use_what_is_there",
    "flip_what_is_ready",
    "scale_both_pools",
    "keep_a_path",
)
"""Rows that are so whatever the spec says."""

_SAID: Mapping[str, Callable[[Problem, Index], str]] = {
    "count_changes": _from,
    "order_in_time": lambda p, i: f"{_starting(p, i)} to be ready",
    "use_what_is_there": lambda p, i: f"{_starting(p, i)} to be ready",
    "flip_what_is_ready": lambda _, i: f"only {i[0]} that are ready change their role",
    "keep_min_replicas": lambda p, i: _at_most("min_replicas", _bounds(p, i).min_replicas, i),
    "keep_max_replicas": lambda p, i: _at_most("max_replicas", _bounds(p, i).max_replicas, i),
    "limit_starts": lambda p, i: _at_most("max_starts", _option(p, i).max_starts, i),
    "limit_stops": lambda p, i: _at_most("max_stops", _option(p, i).max_stops, i),
    "keep_up_time": lambda p, i: f"min_up_s {_option(p, i).min_up_s:,.0f} of {i[0]}",
    "keep_inventory": lambda p, i: f"{_limit(p, i).inventory} {i[0]} in the inventory",
    "keep_reserved": lambda p, i: f"reserved_count {_limit(p, i).reserved} of {i[0]}",
    "fit_nodes": lambda p, i: f"per_node {_limit(p, i).per_node} of {_limit(p, i).name}",
    "fill_nodes": lambda p, i: f"per_node {_limit(p, i).per_node} of {_limit(p, i).name}",
    "keep_budget": lambda p, i: (
        f"budget.usd_per_hour {_in_window(p.usd_per_hour_limit_in, i):,.2f}"
    ),
    "keep_power": lambda p, i: f"budget.power_w {_in_window(p.power_w_limit_in, i):,.0f}",
    "keep_ratio": _ratio,
    "limit_spot": lambda p, i: (
        f"planning.spot_share_limit {p.spot_share_limit or 0.0:g} of the {i[1]} replicas of {i[0]}"
    ),
    "keep_one_shape": lambda _, i: f"planning.one_shape_per_role, for {i[0]}",
    "keep_one_format": lambda _, i: f"one format of weights and KV cache, for {i[0]}",
    "scale_both_pools": lambda _, i: (
        f"{i[1]} replicas of {i[0]} are of use only beside the other half of the pair"
    ),
    "keep_a_path": lambda _, i: f"{i[0]} needs at least one way to answer a request",
    "keep_links": lambda _, i: f"planning.transfer_links, {i[0]}",
    "keep_transfers": lambda p, _: (
        f"planning.transfer_bytes_per_s {p.transfer_bytes_per_s_limit or 0.0:.4g}"
    ),
}
"""What the spec says in a row of each constraint; of the others their equation is told."""

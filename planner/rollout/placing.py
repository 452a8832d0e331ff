"""Which cell each replica stands in: an integer problem, its constraints, its goals in order.

Small: a variable for each pool and cell. Solved by CP-SAT with one worker and a limit in
deterministic time, one goal after the other, so that equal inputs end at equal placements. Where
the limit comes first (dozens of cells), what was found stands and is not called proven.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from ortools.sat.python import cp_model

from planner.domain.fleet import Role
from planner.rollout.effects import PoolKey

WORK = 0.2
"""Deterministic time (about seconds) for all goals together."""
_STEPS = 1000
"""Rates of one role count in steps so fine that the largest has so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Accelerators that some cells have together."""

    cells: tuple[str, ...]
    accelerators: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacingProblem:
    """What is to be placed.

    Parameters
    ----------
    cells : tuple of str
        At least one, different ones.
    wanted : mapping of PoolKey to int
        Replicas by whole pool.
    each_rps : mapping of PoolKey to float
        What one replica of a wanted pool can do, beside the others of its role; any unit.
    rooms : tuple of Room
        Limits; a cell in none of them holds anything.
    now : mapping of PoolKey to int
        Replicas by pool and cell as they stand; those that are not wanted any more too.
    stay : bool
        Nothing moves to another cell that could stay, whatever that costs.
    """

    cells: tuple[str, ...]
    wanted: Mapping[PoolKey, int]
    each_rps: Mapping[PoolKey, float]
    rooms: tuple[Room, ...]
    now: Mapping[PoolKey, int]
    stay: bool = False

    @property
    def weights(self) -> dict[PoolKey, int]:
        """The rates as whole numbers, each role by itself: 1 where its replicas are alike."""
        result: dict[PoolKey, int] = {}
        for role in Role:
            own = {k: self.each_rps[k] for k in self.wanted if k.shape.role is role}
            most, least = max(own.values(), default=0.0), min(own.values(), default=0.0)
            for key, rps in own.items():
                result[key] = 1 if most == least else max(1, round(_STEPS * rps / most))
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Replicas by pool and cell, where there are any; without a cell: those without room."""

    replicas: Mapping[PoolKey, int]
    proven: bool


@dataclass(frozen=True, slots=True)
class _Variables:
    """replicas[k] for every pool and cell; under a key without a cell those without room."""

    model: cp_model.CpModel
    replicas: dict[PoolKey, cp_model.IntVar]

    def sum(self, cell: str, weights: Mapping[PoolKey, int]) -> cp_model.LinearExprT:
        """Replicas of some pools in a cell, weighted."""
        own = [self.replicas[replace(key, cell=cell)] for key in weights]
        return cp_model.LinearExpr.weighted_sum(own, list(weights.values()))


def solve_placing(problem: PlacingProblem) -> Placed:
    """The best placement: each goal as far as those before it allow."""
    variables = _variables(problem)
    for constraint in CONSTRAINTS:
        constraint(problem, variables)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.catch_sigint_signal = False  # it would not give Ctrl-C back to the process
    found = {key: 0 if key.cell else problem.wanted[key] for key in variables.replicas}
    proven, left = True, WORK
    for goal in (_moved, *GOALS) if problem.stay else GOALS:
        cost = goal(problem, variables)
        variables.model.minimize(cost)
        _hint(variables, found)
        solver.parameters.max_deterministic_time = left
        status = solver.solve(variables.model)
        left -= solver.response_proto.deterministic_time
        proven = proven and status == cp_model.OPTIMAL
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            break
        found = {key: solver.value(variable) for key, variable in variables.replicas.items()}
        variables.model.add(cost <= round(solver.objective_value))
        if left <= 0:
            proven = proven and goal is GOALS[-1]
            break
    return Placed(replicas={key: count for key, count in found.items() if count}, proven=proven)


def _variables(problem: PlacingProblem) -> _Variables:
    model = cp_model.CpModel()
    replicas = {
        replace(key, cell=cell): model.new_int_var(0, count, f"{key.shape.label}[{cell}]")
        for cell in ("", *problem.cells)
        for key, count in problem.wanted.items()
    }
    return _Variables(model, replicas)


def _hint(variables: _Variables, found: Mapping[PoolKey, int]) -> None:
    variables.model.clear_hints()  # type: ignore[no-untyped-call]
    for key, count in found.items():
        variables.model.add_hint(variables.replicas[key], count)


def place_all(problem: PlacingProblem, variables: _Variables) -> None:
    """For every pool k:  sum_c replicas[c,k] + unplaced[k] == wanted[k]."""
    for key, count in problem.wanted.items():
        own = [variables.replicas[replace(key, cell=cell)] for cell in ("", *problem.cells)]
        variables.model.add(cp_model.LinearExpr.sum(own) == count)


def keep_to_rooms(problem: PlacingProblem, variables: _Variables) -> None:
    """For every room:  sum over its cells of accelerators[k] * replicas[c,k] <= accelerators."""
    for room in problem.rooms:
        used = sum(variables.sum(cell, _accelerators(problem)) for cell in room.cells)
        variables.model.add(used <= room.accelerators)


CONSTRAINTS = (place_all, keep_to_rooms)

Goal = Callable[[PlacingProblem, _Variables], cp_model.LinearExprT]


def _unplaced(problem: PlacingProblem, variables: _Variables) -> cp_model.LinearExprT:
    """Replicas without room."""
    return variables.sum("", dict.fromkeys(problem.wanted, 1))


def _crossing(problem: PlacingProblem, variables: _Variables) -> cp_model.LinearExprT:
    """- sum_c min(prefill share in c, decode share in c), times both totals to stay whole."""
    prefill, decode = (_of_role(problem, role) for role in (Role.PREFILL, Role.DECODE))
    totals = [sum(w * problem.wanted[k] for k, w in own.items()) for own in (prefill, decode)]
    served = []
    for cell in problem.cells:
        both = variables.model.new_int_var(0, totals[0] * totals[1], f"served[{cell}]")
        variables.model.add(both <= totals[1] * variables.sum(cell, prefill))
        variables.model.add(both <= totals[0] * variables.sum(cell, decode))
        served.append(both)
    return -cp_model.LinearExpr.sum(served)


def _alone(problem: PlacingProblem, variables: _Variables) -> cp_model.LinearExprT:
    """Cells with one half of a pair only."""
    alone = []
    for cell in problem.cells:
        there = []
        for role in (Role.PREFILL, Role.DECODE):
            own = dict.fromkeys(_of_role(problem, role), 1)
            some = variables.model.new_bool_var(f"some {role}[{cell}]")
            variables.model.add(variables.sum(cell, own) == 0).only_enforce_if(~some)
            variables.model.add(variables.sum(cell, own) >= 1).only_enforce_if(some)
            there.append(some)
        half = variables.model.new_bool_var(f"half[{cell}]")
        variables.model.add(half >= there[0] - there[1])
        variables.model.add(half >= there[1] - there[0])
        alone.append(half)
    return cp_model.LinearExpr.sum(alone)


def _moved(problem: PlacingProblem, variables: _Variables) -> cp_model.LinearExprT:
    """Replicas that leave their cell: sum over cells and engines of max(0, now - then)."""
    engines: dict[tuple[object, ...], dict[PoolKey, int]] = {}
    for key in problem.wanted:
        engines.setdefault(_engine(key), {})[key] = 1
    return _leaving(problem, variables, engines.items(), _engine)


def _flipped(problem: PlacingProblem, variables: _Variables) -> cp_model.LinearExprT:
    """Replicas that leave their pool in a cell: sum over cells and pools of max(0, now - then)."""
    pools = [(key, {key: 1}) for key in problem.wanted]
    return _leaving(problem, variables, pools, lambda key: key.anywhere)


def _largest(problem: PlacingProblem, variables: _Variables) -> cp_model.LinearExprT:
    """Accelerators in the fullest cell: what is lost with it."""
    each = _accelerators(problem)
    total = sum(count * each[key] for key, count in problem.wanted.items())
    largest = variables.model.new_int_var(0, total, "largest")
    for cell in problem.cells:
        variables.model.add(largest >= variables.sum(cell, each))
    return largest


def _later(problem: PlacingProblem, variables: _Variables) -> cp_model.LinearExprT:
    """Accelerators times the number of their cell: of equal cells the first are filled."""
    each = _accelerators(problem)
    parts = (n * variables.sum(cell, each) for n, cell in enumerate(problem.cells))
    return sum(parts)


GOALS: tuple[Goal, ...] = (_unplaced, _crossing, _alone, _moved, _flipped, _largest, _later)
"""Each is made small before the next one is looked at."""


def _leaving(
    problem: PlacingProblem,
    variables: _Variables,
    groups: Iterable[tuple[object, dict[PoolKey, int]]],
    group_of: Callable[[PoolKey], object],
) -> cp_model.LinearExprT:
    leaving = []
    for name, own in groups:
        for cell in problem.cells:
            now = sum(n for k, n in problem.now.items() if k.cell == cell and group_of(k) == name)
            gone = variables.model.new_int_var(0, now, f"gone[{cell}]")
            variables.model.add(gone >= now - variables.sum(cell, own))
            leaving.append(gone)
    return cp_model.LinearExpr.sum(leaving)


def _of_role(problem: PlacingProblem, role: Role) -> dict[PoolKey, int]:
    return {key: weight for key, weight in problem.weights.items() if key.shape.role is role}


def _accelerators(problem: PlacingProblem) -> dict[PoolKey, int]:
    return {key: key.shape.accelerators for key in problem.wanted}


def _engine(key: PoolKey) -> tuple[object, ...]:
    """What a replica keeps when its role is flipped."""
    return *key.shape.engine, key.purchase_option

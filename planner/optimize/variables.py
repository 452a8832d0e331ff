"""The decisions, as CP-SAT variables, and the integers that stand for requests/s and USD."""

import math
from dataclasses import dataclass

from ortools.sat.python import cp_model

from planner.domain.fleet import Role
from planner.optimize.problem import Problem

Index = tuple[int, int]
Linear = cp_model.LinearExpr | int

_RPS_STEPS = 1e5
USD_UNIT = 1e-6
"""One unit of the objective, USD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateUnit:
    """Requests/s as integers: CP-SAT knows no others.

    Parameters
    ----------
    per_rps : float
        A power of ten, so that the largest demand has at least 1e5 units. Capacities are rounded
        down and demands up: what the solver finds enough is enough.
    """

    per_rps: float

    @classmethod
    def of(cls, problem: Problem) -> "RateUnit":
        """The unit for a problem's largest demand."""
        largest = max((w.demand_rps for w in problem.windows), default=0.0)
        return cls(per_rps=10.0 ** math.ceil(math.log10(_RPS_STEPS / max(largest, 1e-6))))

    def down(self, rate_rps: float) -> int:
        """Units of a capacity."""
        return math.floor(rate_rps * self.per_rps * (1 + 1e-12))

    def up(self, rate_rps: float) -> int:
        """Units of a demand."""
        return math.ceil(rate_rps * self.per_rps * (1 - 1e-12))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variables:
    """Decisions by (option o, window t), or by window.

    Parameters
    ----------
    replicas
        Replicas to have: ready, or ordered and starting.
    count : 0 or 1, one per entry of the pool's capacity table
        count[o, t][n] is 1 when n replicas serve (for the last n: n or more).
    beyond
        Serving replicas beyond the table.
    starts, stops
        Replicas that come and go when the window begins.
    shortfall : units of `rate`
        Requests/s that stay unserved.
    disaggregated : units of `rate`
        Requests/s that take the way through a prefill and a decode pool.
    has_pair : 0 or 1
        Prefill and decode pools are there.
    """

    rate: RateUnit
    replicas: dict[Index, cp_model.IntVar]
    count: dict[Index, tuple[cp_model.IntVar, ...]]
    beyond: dict[Index, cp_model.IntVar]
    starts: dict[Index, cp_model.IntVar]
    stops: dict[Index, cp_model.IntVar]
    shortfall: tuple[cp_model.IntVar, ...]
    disaggregated: tuple[cp_model.IntVar, ...]
    has_pair: tuple[cp_model.IntVar, ...]

    def usable(self, index: Index) -> Linear:
        """Replicas of the pool that serve in the window."""
        return sum(n * x for n, x in enumerate(self.count[index])) + self.beyond[index]

    def capacity(self, index: Index, problem: Problem) -> Linear:
        """Units of requests/s that the serving replicas sustain, cut at the window's demand.

        Nothing is lost by the cut, as no pool is sent more than that; it makes the relaxation
        that bounds the search much tighter.
        """
        pool, demand = problem.capacity[index], problem.windows[index[1]].demand_rps
        rates = [min(self.rate.down(pool.at(n)), self.rate.up(demand)) for n in self._counts(index)]
        table = sum(rate * x for rate, x in zip(rates, self.count[index], strict=True))
        return table + self.rate.down(pool.tail_rps) * self.beyond[index]

    def role_capacity(self, role: Role, t: int, problem: Problem) -> Linear:
        """Units of requests/s that all pools of a role sustain."""
        return sum(self.capacity((o, t), problem) for o in problem.in_role(role))

    def _counts(self, index: Index) -> range:
        return range(len(self.count[index]))


def add_variables(model: cp_model.CpModel, problem: Problem) -> Variables:
    """All decisions of a problem, within their simple bounds."""
    indices = [(o, t) for o in problem.option_indices for t in problem.window_indices]
    rate = RateUnit.of(problem)
    demands = [rate.up(w.demand_rps) for w in problem.windows]

    def integers(name: str) -> dict[Index, cp_model.IntVar]:
        most = problem.max_replicas
        labels = [o.label for o in problem.options]
        return {
            (o, t): model.new_int_var(
                0, max(most[o], _initial(problem, o)), f"{name}[{labels[o]},{t}]"
            )
            for o, t in indices
        }

    return Variables(
        rate=rate,
        replicas=integers("replicas"),
        count={i: _counts(model, problem, i) for i in indices},
        beyond={
            (o, t): model.new_int_var(0, problem.useful_counts(o, t)[1], f"beyond[{o},{t}]")
            for o, t in indices
        },
        starts=integers("starts"),
        stops=integers("stops"),
        shortfall=tuple(
            model.new_int_var(0, d if problem.may_fall_short(t) else 0, f"shortfall[{t}]")
            for t, d in enumerate(demands)
        ),
        disaggregated=tuple(
            model.new_int_var(0, d, f"disaggregated[{t}]") for t, d in enumerate(demands)
        ),
        has_pair=tuple(model.new_bool_var(f"has_pair[{t}]") for t in problem.window_indices),
    )


def _counts(model: cp_model.CpModel, problem: Problem, index: Index) -> tuple[cp_model.IntVar, ...]:
    o, t = index
    last, _ = problem.useful_counts(o, t)
    return tuple(model.new_bool_var(f"count[{o},{t}]={n}") for n in range(last + 1))


def _initial(problem: Problem, o: int) -> int:
    return problem.options[o].initial_replicas

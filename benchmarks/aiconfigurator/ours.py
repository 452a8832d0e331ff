"""Poolwise's optimizer on workers whose rates are given: most requests/s, or least cost."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product

import numpy as np

from benchmarks.aiconfigurator import formulas, theirs
from benchmarks.aiconfigurator.question import PER_NODE, TPS, Fleet, Question, Rated, served_rps
from planner.domain.errors import ProfileError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.domain.profile import Profile
from planner.domain.spec import Objective
from planner.optimize import Problem, check, optimize
from planner.optimize.inputs import (
    AcceleratorLimit,
    Option,
    PlanningWindow,
    PoolCapacity,
    SolverSettings,
    Stream,
)
from profiler.imports.aiconfigurator import EstimateRequest, import_profile

NOW = datetime(2026, 11, 1, tzinfo=UTC)
MORE_THAN_ENOUGH = 2.0
"""Times what all GPUs could serve if each did best: the demand when the most is asked for."""


def profiles_of(question: Question, accelerators: Iterable[str]) -> list[Profile]:
    """Profiles of every tp that fits, from aiconfigurator's database."""
    found = []
    for accelerator, tp in product(accelerators, TPS):
        request = EstimateRequest(model_path=question.model_path, accelerator=accelerator, tp=tp)
        try:
            found.append(import_profile(request, asked_at=NOW))
        except ProfileError as error:  # the weights do not fit
            print(f"({error})")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """A worker at an operating point that keeps the objectives by both estimates."""

    by_profile: Rated
    by_theirs: Rated


def confirmed_workers(question: Question, profiles: Sequence[Profile]) -> list[Confirmed]:
    """Every role of every profile at its best operating point.

    Found in the profile's tables, then put to aiconfigurator's own estimator; where that says an
    objective is missed, the next smaller batch is taken.
    """
    found = []
    for profile in profiles:
        pair = (formulas.best(profile, role, question) for role in (Role.PREFILL, Role.DECODE))
        found += _confirmed_pair(question, profile, *pair)
        found += _confirmed_aggregated(question, profile)
    return found


def _confirmed_pair(
    question: Question, profile: Profile, prefill: Rated | None, decode: Rated | None
) -> list[Confirmed]:
    while prefill is not None and decode is not None:
        theirs_of = theirs.rated_pair(question, prefill.worker, decode.worker)
        if theirs_of is None:  # it does not say whose memory: decode workers fill theirs
            decode = _smaller(question, profile, decode)
            continue
        missed = [not formulas.keeps(rated, question) for rated in theirs_of]
        if not any(missed):
            return [
                Confirmed(by_profile=mine, by_theirs=their)
                for mine, their in zip((prefill, decode), theirs_of, strict=True)
            ]
        prefill = _smaller(question, profile, prefill) if missed[0] else prefill
        decode = _smaller(question, profile, decode) if missed[1] else decode
    return []


def _confirmed_aggregated(question: Question, profile: Profile) -> list[Confirmed]:
    mine = formulas.best(profile, Role.AGGREGATED, question)
    while mine is not None:
        their = theirs.rated_aggregated(question, mine.worker)
        if their is not None and formulas.keeps(their, question):
            return [Confirmed(by_profile=mine, by_theirs=their)]
        mine = _smaller(question, profile, mine)
    return []


def _smaller(question: Question, profile: Profile, rated: Rated) -> Rated | None:
    worker = rated.worker
    return formulas.best(profile, worker.role, question, most_batch=worker.batch - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """A fleet and the solver's gap."""

    fleet: Fleet
    gap_ratio: float
    solver: str


def most(rated: Sequence[Rated], *, gpus: int) -> Solved | None:
    """The fleet of most requests/s of so many GPUs, of whatever types."""
    names = {r.worker.accelerator for r in rated}
    inventory = dict.fromkeys(sorted(names), gpus)
    demand = MORE_THAN_ENOUGH * gpus * max(r.rps / r.worker.tp for r in rated)
    # All at 1 USD/h, and a budget of so many: a limit on GPUs of all types together.
    limited = replace(
        _problem(rated, demand, inventory, dict.fromkeys(inventory, 1.0), Objective.GOODPUT),
        usd_per_hour_limit=float(gpus),
    )
    return _solved(rated, limited)


def cheapest(
    rated: Sequence[Rated],
    demand_rps: float,
    *,
    inventory: Mapping[str, int],
    usd_per_gpu_hour: Mapping[str, float],
) -> Solved | None:
    """The cheapest fleet that serves so many requests/s; None: none does."""
    return _solved(rated, _problem(rated, demand_rps, inventory, usd_per_gpu_hour, Objective.COST))


def _solved(rated: Sequence[Rated], problem: Problem) -> Solved | None:
    solution = optimize(problem)
    if not solution.feasible:
        return None
    assert check(problem, solution) == ()
    counts = solution.replicas[:, 0].tolist()
    parts = tuple((n, r.worker) for n, r in zip(counts, rated, strict=True) if n)
    return Solved(
        fleet=Fleet(parts=parts), gap_ratio=solution.gap_ratio, solver=solution.solver_name
    )


def _problem(
    rated: Sequence[Rated],
    demand_rps: float,
    inventory: Mapping[str, int],
    usd_per_gpu_hour: Mapping[str, float],
    objective: Objective,
) -> Problem:
    options = tuple(
        Option(
            shape=ReplicaShape(
                role=r.worker.role, model="m", accelerator=r.worker.accelerator, tp=r.worker.tp
            ),
            purchase_option=PurchaseOption.ON_DEMAND,
            usd_per_hour=r.worker.tp * usd_per_gpu_hour[r.worker.accelerator],
            footprint=r.worker.tp,
        )
        for r in rated
    )
    return Problem(
        streams=(Stream(model="m"),),
        options=options,
        windows=(PlanningWindow(start_at=NOW, window_s=3600.0),),
        demand_rps=np.array([[demand_rps]]),
        capacity={(o, 0): PoolCapacity.linear(r.rps) for o, r in enumerate(rated)},
        work=np.ones((1, len(options))),
        accelerators=tuple(
            AcceleratorLimit(name=name, inventory=count, per_node=PER_NODE)
            for name, count in inventory.items()
        ),
        ordered_at=NOW,
        objective=objective,
        solver=SolverSettings(exact_work=20.0, time_limit_s=60.0),
    )


def most_alike(rated: Sequence[Rated], gpus: int) -> Fleet | None:
    """The fleet of most requests/s with one shape in each role, in any numbers."""
    by_role = {role: [r for r in rated if r.worker.role is role] for role in Role}
    parts: list[list[tuple[int, Rated]]] = [
        [(gpus // r.worker.tp, r)] for r in by_role[Role.AGGREGATED]
    ]
    for p, d in product(by_role[Role.PREFILL], by_role[Role.DECODE]):
        for count in range(1, gpus // p.worker.tp + 1):
            left = (gpus - count * p.worker.tp) // d.worker.tp
            parts.append([(count, p), (left, d)])
    best = max(parts, key=served_rps, default=None)
    return None if best is None else Fleet(parts=tuple((n, r.worker) for n, r in best))


def cheapest_alike(
    rated: Sequence[Rated],
    demand_rps: float,
    *,
    inventory: Mapping[str, int],
    usd_per_gpu_hour: Mapping[str, float],
    types: int,
) -> Fleet | None:
    """The cheapest of all plans that aiconfigurator can say: one shape in each role.

    All of them are tried: aggregated replicas of one shape, or one prefill and one decode shape
    on at most `types` accelerator types, in any numbers (its search only repeats one unit).
    """
    fleets = list(_alike(rated, demand_rps, types))
    prices = dict(usd_per_gpu_hour)
    fitting = [f for f in fleets if _fits(f, inventory)]
    return min(fitting, key=lambda f: (f.usd_per_hour(prices), f.gpus), default=None)


def _alike(rated: Sequence[Rated], demand_rps: float, types: int) -> Iterable[Fleet]:
    def needed(r: Rated) -> int:
        return math.ceil(demand_rps / r.rps - 1e-9)

    by_role = {role: [r for r in rated if r.worker.role is role] for role in Role}
    for r in by_role[Role.AGGREGATED]:
        yield Fleet(parts=((needed(r), r.worker),))
    for p, d in product(by_role[Role.PREFILL], by_role[Role.DECODE]):
        if len({p.worker.accelerator, d.worker.accelerator}) <= types:
            yield Fleet(parts=((needed(p), p.worker), (needed(d), d.worker)))


def _fits(fleet: Fleet, inventory: Mapping[str, int]) -> bool:
    used = dict.fromkeys(inventory, 0)
    for count, worker in fleet.parts:
        used[worker.accelerator] += count * worker.tp
    return all(used[name] <= inventory[name] for name in inventory)

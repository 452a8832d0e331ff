"""From a proven solution to the plan that people and programs read."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from hashlib import sha256

from planner.domain.fleet import Fleet, Role
from planner.domain.forecast import Forecast, ForecastWindow
from planner.domain.plan import (
    Plan,
    PlanInputs,
    PlannedPool,
    PlanStatus,
    PlanWindow,
    RejectedAlternative,
    ShadowPrice,
    SolverReport,
    TrafficShare,
)
from planner.domain.profile import ProfileKind
from planner.domain.slo import Slo
from planner.domain.spec import Spec
from planner.optimize.binding import binding_rows
from planner.optimize.explain import rejected_alternatives
from planner.optimize.measures import objective_terms
from planner.optimize.predicted import predict_window
from planner.optimize.problem import Problem
from planner.optimize.replay import Replay
from planner.optimize.solution import Solution, mean_usd_per_hour, usd_per_hour

_LEAST_SHARE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proof:
    """A solution with everything that was found out about it."""

    problem: Problem
    solution: Solution
    status: PlanStatus
    replays: tuple[Replay, ...]
    wall_s: float
    relaxations: tuple[str, ...]
    slo: Slo
    unoffered: tuple[RejectedAlternative, ...] = ()
    shadow_prices: tuple[ShadowPrice, ...] = ()
    unproven: tuple[str, ...] = ()


def assemble(
    spec: Spec, forecast: Forecast, fleet: Fleet | None, proof: Proof, *, made_at: datetime
) -> Plan:
    """The plan, its id derived from its content."""
    problem, solution = proof.problem, proof.solution
    profiles = [p for o in problem.options if (p := spec.profile_of(o.shape)) is not None]
    windows = tuple(_window(spec, proof, window, t) for t, window in enumerate(forecast.windows))
    plan = Plan(
        plan_id="",
        model=forecast.model,
        made_at=made_at,
        status=proof.status,
        usd_per_hour=mean_usd_per_hour(problem, solution.replicas),
        windows=windows,
        objective=objective_terms(problem, solution, windows),
        binding=binding_rows(problem, solution),
        rejected=rejected_alternatives(problem, solution) + proof.unoffered,
        relaxations=proof.relaxations,
        solver=SolverReport(
            name=solution.solver_name,
            gap_ratio=solution.gap_ratio,
            wall_s=proof.wall_s,
            seed=problem.solver.seed,
            time_limit_s=problem.solver.time_limit_s,
            replayable=solution.replayable,
        ),
        inputs=PlanInputs(
            spec_id=spec.spec_id,
            forecast_id=forecast.forecast_id,
            profile_ids=tuple(sorted({p.profile_id for p in profiles})),
            fleet_version=None if fleet is None else fleet.version,
            demand_level=spec.forecast.demand_level,
            assumptions=tuple(
                c.sentence
                for c in spec.corrections
                if any(c.profile_id == p.profile_id for p in profiles)
            ),
        ),
        estimated=any(p.provenance.kind is ProfileKind.ESTIMATED for p in profiles),
        shadow_prices=proof.shadow_prices,
        held_by_others=problem.held_by_others,
        incomplete=any(p.interrupted for p in profiles),
        unproven=proof.unproven,
        stretched=problem.stretched,
    )
    return replace(plan, plan_id=plan_id_of(plan))


def plan_id_of(plan: Plan) -> str:
    """An id from the plan's content, without its own id and without elapsed times."""
    timeless = replace(plan, plan_id="", solver=replace(plan.solver, wall_s=0.0))
    content = json.dumps(asdict(timeless), sort_keys=True, default=str)
    return f"plan-{sha256(content.encode()).hexdigest()[:12]}"


def _window(spec: Spec, proof: Proof, window: ForecastWindow, t: int) -> PlanWindow:
    problem, solution = proof.problem, proof.solution
    closed_form = predict_window(spec, problem, solution, window, t=t, slo=proof.slo)
    replayed = next((r.prediction for r in proof.replays if r.window == t), None)
    return PlanWindow(
        start_at=window.start_at,
        window_s=window.window_s,
        request_rate_rps=problem.load_rps(t),
        pools=tuple(
            PlannedPool(
                shape=option.shape,
                purchase_option=option.purchase_option,
                replicas=int(solution.replicas[o, t]),
                utilization_ratio=closed_form.utilization_ratio[o],
            )
            for o, option in enumerate(problem.options)
            if solution.replicas[o, t] > 0
        ),
        predicted=replayed or closed_form.prediction,
        bottleneck=closed_form.bottleneck,
        usd_per_hour=usd_per_hour(problem, solution.replicas, t),
        shortfall_rps=float(solution.shortfall_rps[t]) if problem.sheds else 0.0,
        ready_after_s=_ready_after_s(problem, solution, t),
        traffic=tuple(_traffic(problem, solution, t)),
    )


def _ready_after_s(problem: Problem, solution: Solution, t: int) -> float:
    """Until the last of the new replicas that serve in window `t` is ready, s from its beginning.

    0 where all are from its beginning on: those that could be ordered early enough are.
    """
    new = [
        option.start_s
        for o, option in enumerate(problem.options)
        if solution.usable[o, t] > option.initial_replicas + _flipped(problem, solution, o, t)
    ]
    return max((problem.ready_after_s(start_s, t) for start_s in new), default=0.0)


def _flipped(problem: Problem, solution: Solution, o: int, t: int) -> int:
    """Replicas of an option that come from another role by window `t`."""
    return int(solution.flips[list(problem.flips_of(target=o)), : t + 1].sum())


def _traffic(problem: Problem, solution: Solution, t: int) -> Iterator[TrafficShare]:
    """Who is sent where, stream by stream."""
    for k, stream in enumerate(problem.streams) if len(problem.streams) > 1 else ():
        sent = solution.sent_rps[k, :, t]
        for roles in ((Role.PREFILL, Role.AGGREGATED), (Role.DECODE,)):
            side = [o for role in roles for o in problem.in_role(role)]
            total = float(problem.demand_rps[k, t] - solution.unserved_rps[k, t])
            for o in side:
                if total > 0 and sent[o] > _LEAST_SHARE * total:
                    yield TrafficShare(
                        **asdict(stream.kind),
                        shape=problem.options[o].shape,
                        purchase_option=problem.options[o].purchase_option,
                        share_ratio=min(float(sent[o]) / total, 1.0),
                    )

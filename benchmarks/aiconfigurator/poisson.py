"""The same fleets under random arrivals: what the twin says, and what Poolwise plans for them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np

from benchmarks.aiconfigurator.question import (
    HEAD_SIZE,
    KV_HEADS,
    PER_NODE,
    Fleet,
    Question,
    Worker,
)
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.forecast import Demand, Forecast, ForecastWindow, Quantiles
from planner.domain.hardware import Accelerator, Offer, PurchaseOption
from planner.domain.model import Model
from planner.domain.plan import Plan
from planner.domain.profile import Profile
from planner.domain.slo import DEFAULT_CLASS, Slo
from planner.domain.spec import ForecastSettings, Objective, PlanningSettings, PoolBounds, Spec
from planner.domain.workload import Shape, Workload
from planner.optimize import plan
from planner.simulate import ReplicaGroup, Scenario, simulate

ATTAINMENT_RATIO = 0.95
NOW = datetime(2026, 11, 1, tzinfo=UTC)
RUN_S, RUNS = 600.0, 4
NEAR_RATIO = 0.005
"""The rate that holds is found to this share of itself."""


def slo_of(question: Question) -> Slo:
    """The objectives, for each request."""
    return Slo(
        model=question.model_path,
        ttft_s=question.ttft_s,
        tpot_s=question.tpot_s,
        attainment_ratio=ATTAINMENT_RATIO,
    )


def attained(question: Question, fleet: Fleet, profiles: Sequence[Profile], rps: float) -> float:
    """Share of Poisson arrivals at this rate that keep both objectives, by the twin."""
    by_shape = {(p.accelerator, p.tp): p for p in profiles}
    groups = tuple(
        ReplicaGroup(profile=by_shape[w.accelerator, w.tp], role=w.role, replicas=n)
        for n, w in fleet.parts
    )
    runs = [simulate(Scenario(groups=groups, workload=w)) for w in _arrivals(question, rps)]
    met = np.concatenate([run.met([slo_of(question)]) for run in runs])
    return float(met.mean())


def _arrivals(question: Question, rps: float) -> Iterator[Workload]:
    """A few runs of Poisson arrivals, the same for every fleet."""
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        count = rng.poisson(rps * RUN_S)
        yield Workload(
            start_at=NOW,
            arrival_offset_s=np.sort(rng.uniform(0.0, RUN_S, count)),
            input_tokens=np.full(count, question.isl),
            output_tokens=np.full(count, question.osl),
            cached_tokens=np.zeros(count, dtype=np.int64),
            request_class=np.full(count, DEFAULT_CLASS),
            duration_s=RUN_S,
        )


def held_rps(
    question: Question, fleet: Fleet, profiles: Sequence[Profile], *, most_rps: float
) -> float:
    """The highest rate at which the target share keeps both objectives, by bisection."""
    low, high = 0.0, most_rps
    while high - low > NEAR_RATIO * high:
        middle = (low + high) / 2
        if attained(question, fleet, profiles, middle) >= ATTAINMENT_RATIO:
            low = middle
        else:
            high = middle
    return low


def planned(
    question: Question,
    profiles: Sequence[Profile],
    *,
    demand_rps: float,
    one_shape_per_role: bool,
) -> Plan:
    """Poolwise's plan of most requests in time, capacity model and proof in the twin included."""
    names = sorted({p.accelerator for p in profiles})
    spec = Spec(
        spec_id="question",
        name="question",
        models=(
            Model(
                name=question.model_path,
                layers=question.layers,
                kv_heads=KV_HEADS,
                head_size=HEAD_SIZE,
                parameters=question.parameters,
                active_parameters=question.parameters,
                max_context_tokens=question.max_context_tokens,
            ),
        ),
        slos=(slo_of(question),),
        accelerators=tuple(
            Accelerator(
                name=name,
                per_node=PER_NODE,
                inventory=question.gpus,
                offers=(Offer(purchase_option=PurchaseOption.ON_DEMAND, usd_per_gpu_hour=1.0),),
            )
            for name in names
        ),
        profiles=tuple(profiles),
        pools=tuple(
            PoolBounds(
                shape=ReplicaShape(
                    role=role, model=question.model_path, accelerator=p.accelerator, tp=p.tp
                )
            )
            for p in profiles
            for role in Role
        ),
        forecast=ForecastSettings(window_s=RUN_S, horizon_windows=1, demand_level=0.5),
        planning=PlanningSettings(
            objective=Objective.GOODPUT, one_shape_per_role=one_shape_per_role
        ),
    )
    return plan(spec, _forecast(question, demand_rps), None, made_at=NOW)


def fleet_of(made: Plan) -> Fleet:
    """The plan's pools; batches are the engine's own affair."""
    return Fleet(
        parts=tuple(
            (
                p.replicas,
                Worker(role=p.shape.role, accelerator=p.shape.accelerator, tp=p.shape.tp, batch=0),
            )
            for p in made.windows[0].pools
            if p.replicas
        )
    )


def _forecast(question: Question, rps: float) -> Forecast:
    def sure(value: float) -> Quantiles:
        return Quantiles(levels=(0.5,), values=(value,))

    one = np.ones(1)
    shape = Shape(
        input_tokens=question.isl * one,
        output_tokens=question.osl * one,
        cached_tokens=0 * one,
        weight=one,
    )
    demand = Demand(
        request_rate_rps=sure(rps),
        input_tokens_per_s=sure(rps * question.isl),
        output_tokens_per_s=sure(rps * question.osl),
        shape=shape,
    )
    window = ForecastWindow(start_at=NOW, window_s=RUN_S, demands=(demand,))
    return Forecast(
        forecast_id="question",
        model=question.model_path,
        made_at=NOW,
        windows=(window,),
        method="given",
    )

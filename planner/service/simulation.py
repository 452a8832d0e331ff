"""A fleet or a plan replayed against requests in the twin."""

from collections.abc import Sequence
from dataclasses import dataclass

from planner.domain.errors import InputError
from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.plan import Plan
from planner.domain.profile import ProfileKind
from planner.domain.spec import Spec
from planner.domain.workload import Workload
from planner.service.documents.plan import PredictionDocument
from planner.service.documents.simulation import (
    SimulatedLatencyDocument,
    SimulatedPoolDocument,
    SimulationDocument,
)
from planner.service.planning import check_classes
from planner.simulate import ReplicaGroup, Scenario, SimulationResult, simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How many replicas of a shape are simulated."""

    shape: ReplicaShape
    replicas: int


def replicas_of_fleet(fleet: Fleet, *, model: str) -> tuple[Replicas, ...]:
    """The ready replicas of a fleet; starting ones do not serve yet."""
    return tuple(
        Replicas(shape=pool.shape, replicas=pool.ready)
        for pool in fleet.pools
        if pool.shape.model == model and pool.ready > 0
    )


def replicas_of_plan(plan: Plan, *, window: int = 0) -> tuple[Replicas, ...]:
    """The replicas of one window of a plan.

    Raises
    ------
    InputError
        When the plan has no such window.
    """
    if not 0 <= window < len(plan.windows):
        raise InputError(f"the plan has windows 0 to {len(plan.windows) - 1}, not {window}")
    pools = plan.windows[window].pools
    return tuple(Replicas(shape=p.shape, replicas=p.replicas) for p in pools if p.replicas > 0)


def replay(
    spec: Spec, groups: Sequence[Replicas], workload: Workload, *, model: str
) -> SimulationDocument:
    """What the requests of a workload experience on these replicas.

    Raises
    ------
    InputError
        When the replicas cannot serve a request, one of them has no profile, or a class has no
        objective.
    """
    check_classes(spec, model, {str(name) for name in workload.request_class})
    scenario = Scenario(
        groups=tuple(_group(spec, group) for group in groups),
        workload=workload,
        seed=spec.loop.seed,
    )
    result = simulate(scenario)
    slos = [slo for slo in spec.slos if slo.model == model]
    kinds = {group.profile.provenance.kind for group in scenario.groups}
    return SimulationDocument(
        requests=len(workload),
        duration_s=workload.duration_s,
        pools=_pools(groups, result),
        latency=SimulatedLatencyDocument.model_validate(result.summary(slos)),
        predicted=PredictionDocument.model_validate(result.prediction(slos)),
        extrapolated_requests=result.extrapolated_requests,
        estimated=ProfileKind.ESTIMATED in kinds,
    )


def _group(spec: Spec, group: Replicas) -> ReplicaGroup:
    profile = spec.profile_of(group.shape)
    if profile is None:
        raise InputError(
            f"no profile of the spec describes {group.shape.label} of {group.shape.model}: measure "
            "it with `poolwise profile run`, or leave the pool out"
        )
    return ReplicaGroup(profile=profile, role=group.shape.role, replicas=group.replicas)


def _pools(groups: Sequence[Replicas], result: SimulationResult) -> list[SimulatedPoolDocument]:
    return [
        SimulatedPoolDocument(
            role=group.shape.role,
            model=group.shape.model,
            accelerator=group.shape.accelerator,
            tp=group.shape.tp,
            replicas=group.replicas,
            utilization_ratio=utilization,
        )
        for group, utilization in zip(groups, result.utilization_ratio, strict=True)
    ]

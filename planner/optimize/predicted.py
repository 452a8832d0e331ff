"""What the closed form says of one window of a solution."""

from dataclasses import replace

import numpy as np

from planner.capacity.deployment import ClassPromise, DeploymentPrediction, predict
from planner.capacity.split import PoolLoad
from planner.domain.fleet import Role
from planner.domain.forecast import ForecastWindow
from planner.domain.plan import Bottleneck, Prediction
from planner.domain.slo import Slo
from planner.domain.spec import Spec
from planner.optimize.loads import load_of, promises
from planner.optimize.problem import Problem
from planner.optimize.solution import Solution, admitted, is_sent_as_one, taken_rps

NOT_PREDICTED = "not predicted"
"""Of windows with several streams that were not replayed."""


def predict_window(
    spec: Spec, problem: Problem, solution: Solution, window: ForecastWindow, *, t: int, slo: Slo
) -> DeploymentPrediction:
    """Latencies, bottleneck and utilization at the spec's demand level.

    Returns
    -------
    DeploymentPrediction
        `utilization_ratio` has one entry per option of the problem, 0 for those that do not serve.
    """
    if len(problem.streams) > 1 and not is_sent_as_one(problem, solution, t):
        return _of_streams(problem, solution, t)
    utilization = [0.0] * len(problem.options)
    load = load_of(admitted(problem, solution, window, t), spec.forecast.demand_level)
    if load is None:
        nothing = Prediction(attainment_ratio=None, source="closed_form")
        return DeploymentPrediction(
            prediction=nothing, bottleneck=Bottleneck.NONE, utilization_ratio=tuple(utilization)
        )
    pools: dict[int, PoolLoad] = {}
    for o, option in enumerate(problem.options):
        profile, count = spec.profile_of(option.shape), int(solution.usable[o, t])
        if profile is not None and count > 0:
            pools[o] = PoolLoad(profile=profile, role=option.shape.role, replicas=count)
    found = predict(
        list(pools.values()),
        load.shape,
        slo,
        request_rate_rps=load.request_rate_rps,
        arrival_cv2=load.arrival_cv2,
        window_s=window.window_s,
        classes=[
            ClassPromise(slo=promise, of=load.of_class(promise.request_class))
            for promise in promises(spec, problem.model, load.class_names.tolist())
        ],
    )
    for o, ratio in zip(pools, found.utilization_ratio, strict=True):
        utilization[o] = ratio
    return replace(found, utilization_ratio=tuple(utilization))


def _of_streams(problem: Problem, solution: Solution, t: int) -> DeploymentPrediction:
    """How full the pools are; what requests experience when they are sent apart, the twin says."""
    taken, utilization = taken_rps(problem, solution)[:, t], []
    for o in problem.option_indices:
        sustained = problem.capacity[o, t].at(int(solution.usable[o, t]))
        utilization.append(float(taken[o] / sustained) if sustained > 0 else 0.0)
    fullest = int(np.argmax(utilization))
    role = problem.options[fullest].shape.role
    bottleneck = {Role.PREFILL: Bottleneck.PREFILL, Role.DECODE: Bottleneck.DECODE}.get(
        role, Bottleneck.SCHEDULING
    )
    return DeploymentPrediction(
        prediction=Prediction(attainment_ratio=None, source=NOT_PREDICTED),
        bottleneck=bottleneck if utilization[fullest] > 0 else Bottleneck.NONE,
        utilization_ratio=tuple(utilization),
    )

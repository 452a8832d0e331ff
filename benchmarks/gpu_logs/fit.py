"""Fit step times to what the first requests of a log saw.

The replay gets arrivals and lengths of the whole trace, which any prediction is given, since later
requests slow down earlier ones; of the times it is held against those of the first requests only.
"""

from dataclasses import astuple, fields

import numpy as np
from scipy.optimize import least_squares

from benchmarks.gpu_logs.logs import Deployment, Floats, Seen
from benchmarks.gpu_logs.replay import replay
from benchmarks.gpu_logs.steps import StepTimes
from planner.domain.workload import Workload

ROUNDS = 3
EVALUATIONS = 10
STEP = 0.03  # of the logarithm: below it, TTFTs jump with single steps instead of changing
RANGE = np.log(1e4)
FIRST_SPREADS = (0.3, 0.05)  # of TTFT and TPOT, as ratios; then those of the fit's own residuals
LEAST_SPREADS = (0.02, 0.005)
MAD_TO_SIGMA = 1.4826  # of a normal distribution
OUTLIERS = 1.5


def fit_steps(deployment: Deployment, workload: Workload, seen: Seen) -> StepTimes:
    """Step times under which the twin's first requests see what they saw.

    Least squares of log ratios of TTFT and of TPOT, robust against single requests. Both kinds
    are weighted by the inverse of their own scatter, found by refitting: TTFT scatters by whole
    steps, TPOT by a percent.

    Parameters
    ----------
    seen : Seen
        Of the first `len(seen.ttft_s)` requests of the workload.
    """
    free = _free(deployment)
    point = np.log(np.array(astuple(_guess(seen, workload)))[free])
    low, high = point - RANGE, point + RANGE
    spreads = np.array(FIRST_SPREADS)
    count = len(seen.ttft_s)

    def residuals(at: Floats) -> Floats:
        got = replay(deployment, _steps(at, free), workload)
        ttft = np.log(got.ttft_s[:count] / seen.ttft_s) / spreads[0]
        tpot = np.log(got.tpot_s[:count] / seen.tpot_s) / spreads[1]
        return np.concatenate([ttft, tpot])

    for _ in range(ROUNDS):
        found = least_squares(
            residuals,
            point,
            bounds=(low, high),
            diff_step=STEP / np.maximum(np.abs(point), 1.0),
            loss="soft_l1",
            f_scale=OUTLIERS,
            max_nfev=EVALUATIONS,
        )
        point = found.x
        scatter = [np.median(np.abs(found.fun[:count])), np.median(np.abs(found.fun[count:]))]
        spreads = np.maximum(MAD_TO_SIGMA * np.array(scatter) * spreads, LEAST_SPREADS)
    return _steps(point, free)


def _free(deployment: Deployment) -> "list[bool]":
    """Which parameters are fitted; a dense model has no experts."""
    return [f.name != "expert_s" or deployment.expert_share > 0 for f in fields(StepTimes)]


def _steps(at: Floats, free: "list[bool]") -> StepTimes:
    values = np.zeros(len(free))
    values[free] = np.exp(at)
    return StepTimes(**dict(zip([f.name for f in fields(StepTimes)], values, strict=True)))


def _guess(seen: Seen, workload: Workload) -> StepTimes:
    """A place to start from: a decode step of a hundred sequences is the median gap."""
    step_s = float(np.median(seen.tpot_s))
    prompt = workload.input_tokens[: len(seen.ttft_s)]
    token_s = 0.5 * float(np.quantile(seen.ttft_s / prompt, 0.1))
    return StepTimes(
        base_s=0.3 * step_s,
        expert_s=0.3 * step_s,
        sequence_s=0.2 * step_s / 100,
        context_token_s=0.1 * step_s / 100_000,
        prompt_token_s=token_s,
        prompt_token2_s=token_s / 40_000,
        first_token_s=0.005,
    )

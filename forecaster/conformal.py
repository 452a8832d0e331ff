"""Quantiles around a point forecast, from its own past errors."""

import numpy as np
from scipy.special import ndtri

from planner.domain.workload import Floats

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 0.99)

COLD_START_LOG_SD = 0.4
"""Spread assumed one step ahead when no error is known yet: 5 to 95 % spans a factor 0.5 to 1.9.

Wider than conversation traffic (request rates of windows of 20 to 300 s change by a log-sd of 0.07
to 0.24 in the Mooncake and Azure 2023 traces), narrower than the bursts of code traffic (1.2)."""

COLD_START_GROWTH = 0.25
"""The assumed spread grows with the steps ahead to this power."""

_PRIOR_ERRORS = 4.0
_RECENT_ERRORS = 200


def log_offsets(log_residuals: Floats, *, steps_ahead: int) -> Floats:
    """(levels,) what to add to the logarithm of a forecast, at each of `LEVELS`.

    Where the errors are enough for a level (two beyond it), their split-conformal quantile: the
    (n + 1) * level-th smallest. Where there are none, a normal spread assumed wide. Between, a
    mixture of the two, the normal's variance shrunk from the assumed towards the observed one.

    Parameters
    ----------
    log_residuals : (errors,) float
        Oldest first; the last 200 count.
    steps_ahead : int
        Steps from the last observation to the end of what is forecast.

    References
    ----------
    Split conformal prediction: Lei et al. (2018), JASA 113. In log space because errors of rates
    are multiplicative.
    """
    levels = np.array(LEVELS)
    residuals = np.sort(log_residuals[-_RECENT_ERRORS:])
    count = len(residuals)
    assumed_sd = COLD_START_LOG_SD * steps_ahead**COLD_START_GROWTH
    variance = (_PRIOR_ERRORS * assumed_sd**2 + np.sum(residuals**2)) / (_PRIOR_ERRORS + count)
    normal: Floats = np.sqrt(variance) * ndtri(levels)
    if count == 0:
        return normal
    rank = np.clip((count + 1) * levels - 1.0, 0.0, count - 1.0)
    empirical = np.interp(rank, np.arange(count), residuals)
    trust = np.clip(count * np.minimum(levels, 1.0 - levels) / 2.0, 0.0, 1.0)
    return np.maximum.accumulate(trust * empirical + (1.0 - trust) * normal)

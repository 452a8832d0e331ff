"""Gradient-boosted trees on the regressions' features, fitted anew from time to time."""

from collections import deque
from typing import Protocol

import numpy as np

from forecaster.panel.record import Integers
from forecaster.panel.regression import LARGEST_LOG_CHANGE
from planner.domain.workload import Floats

NAME = "boosted trees"

REFIT_STEPS = 48
FEWEST_ROWS = 48
MOST_ROWS = 2016


class _Regressor(Protocol):
    def predict(self, features: Floats) -> Floats: ...


class Trees:
    """One ensemble for each span of each series: histogram gradient boosting, absolute error.

    References
    ----------
    `sklearn.ensemble.HistGradientBoostingRegressor`; features as `regression.Features`.
    """

    def __init__(self, *, spans: int, series: int) -> None:
        self._rows: deque[tuple[Floats, Floats]] = deque(maxlen=MOST_ROWS)
        self._models: list[list[_Regressor | None]] = [[None] * series for _ in range(spans)]
        self._since_fit = 0

    def learn(self, features: Floats, target: Floats) -> None:
        """Take outcomes, as `Regression.learn`; every 48th time the trees are fitted anew."""
        self._rows.append((features, target))
        self._since_fit += 1
        if self._since_fit < REFIT_STEPS or len(self._rows) < FEWEST_ROWS:
            return
        self._since_fit = 0
        everything = np.stack([row for row, _ in self._rows])
        targets = np.stack([row for _, row in self._rows])
        for span, models in enumerate(self._models):
            for series in range(len(models)):
                models[series] = _fitted(everything[:, span, series], targets[:, span, series])

    def log_changes(self, features: Floats, anchors: Integers) -> Floats:
        """(spans, series) forecast of the target; NaN before the first fit."""
        spans, series, _ = features.shape
        changes = np.full((spans, series), np.nan)
        for span, anchor in enumerate(anchors):
            for column in range(series):
                model = self._models[anchor][column]
                if model is not None:
                    row = np.nan_to_num(features[span, column])[None]
                    changes[span, column] = model.predict(row)[0]
        return np.asarray(np.clip(changes, -LARGEST_LOG_CHANGE, LARGEST_LOG_CHANGE))


def _fitted(features: Floats, target: Floats) -> _Regressor | None:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    known = np.isfinite(target)
    if np.count_nonzero(known) < FEWEST_ROWS:
        return None
    model = HistGradientBoostingRegressor(
        loss="absolute_error",
        max_iter=60,
        learning_rate=0.08,
        max_leaf_nodes=12,
        min_samples_leaf=12,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    )
    # So few rows are fitted slower by several threads, by far when the processor is shared.
    with threadpool_limits(1):
        fitted: _Regressor = model.fit(np.nan_to_num(features[known]), target[known])
    return fitted

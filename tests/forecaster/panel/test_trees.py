import numpy as np

from forecaster.panel.trees import FEWEST_ROWS, REFIT_STEPS, Trees


def learned(steps: int) -> Trees:
    rng = np.random.default_rng(0)
    trees = Trees(spans=1, series=2)
    for _ in range(steps):
        x = rng.uniform(-1, 1, (1, 2, 3))
        # The first series steps at 0, the second is never known.
        y = np.stack([np.where(x[:, 0, 0] > 0, 1.0, -1.0), np.full(1, np.nan)], axis=1)
        trees.learn(x, y)
    return trees


def test_before_the_first_fit_nothing_is_known():
    changes = learned(FEWEST_ROWS - 1).log_changes(np.zeros((1, 2, 3)), np.array([0]))
    assert np.isnan(changes).all()


def test_a_step_that_no_line_can_follow_is_learned():
    trees = learned(4 * REFIT_STEPS)
    for side in (-0.7, 0.7):
        features = np.full((1, 2, 3), side)
        changes = trees.log_changes(features, np.array([0]))
        assert np.sign(changes[0, 0]) == np.sign(side)
        assert abs(changes[0, 0]) > 0.8
        assert np.isnan(changes[0, 1])

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from forecaster.forecast import forecast
from forecaster.paths import sample_paths
from planner.domain.forecast import Dependence, Forecast
from tests.forecaster.histories import history, minute

WINDOWS = 4


def of_busy_history(counts=None) -> Forecast:
    """A forecast whose errors are known well: a random walk of 300 minutes, two classes."""
    rng = np.random.default_rng(5)
    walk = np.exp(np.cumsum(rng.normal(0.0, 0.1, 300))) * 300
    noisy = rng.poisson(walk).tolist() if counts is None else counts
    other = rng.poisson(walk * 0.5).tolist() if counts is None else counts
    windows = [*history(noisy), *history(other, request_class="gold", isl=900)]
    return forecast(
        windows, model="m", made_at=minute(len(noisy)), window_s=60.0, horizon_windows=WINDOWS
    )


@pytest.fixture(scope="module")
def made() -> Forecast:
    return of_busy_history()


def drawn(made, paths=4000, seed=1):
    return sample_paths(made, paths, np.random.default_rng(seed))


def test_many_paths_have_the_forecasts_quantiles(made):
    paths = drawn(made)
    assert paths.count == 4000
    for of_class in paths.classes:
        for index, window in enumerate(made.windows):
            (demand,) = [d for d in window.demands if d.request_class == of_class.request_class]
            for column, quantiles in enumerate(demand.rates):
                for level in (0.1, 0.5, 0.9):
                    value = np.quantile(of_class.rates[:, index, column], level)
                    assert value == pytest.approx(quantiles.at(level), rel=0.01)


def test_windows_and_quantities_of_many_paths_go_together_as_the_errors_did(made):
    paths = drawn(made)
    for of_class, known in zip(paths.classes, made.dependence, strict=True):
        columns = known.ranks.reshape(len(known.ranks), -1)
        wanted = spearmanr(columns).statistic
        got = spearmanr(of_class.levels.reshape(paths.count, -1)).statistic
        assert np.abs(wanted - got).max() < 0.03


def test_classes_of_one_path_go_together_as_the_errors_did(made):
    paths = drawn(made)
    first, second = (d.ranks[:, 0, 0] for d in made.dependence)
    levels = [of_class.levels[:, 0, 0] for of_class in paths.classes]
    assert spearmanr(*levels).statistic == pytest.approx(
        spearmanr(first, second).statistic, abs=0.03
    )


def test_fewer_paths_than_origins_keep_their_spread_and_their_order(made):
    paths = drawn(made, paths=20)
    levels = paths.classes[0].levels
    assert np.sort(np.floor(levels * 20), axis=0) == pytest.approx(
        np.broadcast_to(np.arange(20)[:, None, None], levels.shape)
    )
    assert spearmanr(levels[:, 0, 0], levels[:, 1, 0]).statistic > 0


def test_without_known_errors_a_path_keeps_one_level_and_says_so():
    made = of_busy_history(counts=[300, 310, 290, 305])
    paths = drawn(made, paths=50)
    for of_class in paths.classes:
        assert np.ptp(of_class.levels, axis=(1, 2)).max() == 0
    assert np.array_equal(paths.classes[0].levels, paths.classes[1].levels)
    assert "one level for all windows of a path" in paths.rule
    assert "default, gold" in paths.rule


def test_a_class_without_known_errors_does_not_spoil_the_others(made):
    none = Dependence(request_class="gold", ranks=np.zeros((0, WINDOWS, 3)))
    paths = drawn(replace(made, dependence=(made.dependence[0], none)), paths=200)
    default, gold = paths.classes
    assert np.ptp(default.levels, axis=1).max() > 0
    assert np.ptp(gold.levels, axis=(1, 2)).max() == 0
    assert "past forecasts" in paths.rule
    assert "class gold" in paths.rule


def test_classes_with_different_histories_go_together_by_the_newest_origins(made):
    shorter = Dependence(request_class="gold", ranks=made.dependence[1].ranks[-40:])
    paths = drawn(replace(made, dependence=(made.dependence[0], shorter)))
    assert paths.rule.endswith("40 past forecasts")


def test_equal_generators_give_equal_paths(made):
    one, other = drawn(made, paths=7), drawn(made, paths=7)
    assert np.array_equal(one.classes[0].rates, other.classes[0].rates)


def test_no_path_is_refused(made):
    with pytest.raises(ValueError, match="paths must be at least 1"):
        drawn(made, paths=0)

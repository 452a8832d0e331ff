import numpy as np
import pytest

from forecaster.panel.choice import COLD_START, FEWEST_ERRORS, FOLLOWED, Choice

METHODS = ("last value", "EWMA 0.4", "mean of 6", "a", "b")
FIRST = np.array([0])


def learned(errors: np.ndarray) -> Choice:
    """A choice that saw these absolute errors, (outcomes, methods); the outcome was always 0."""
    choice = Choice(methods=METHODS, spans=1, series=1)
    for row in errors:
        choice.learn(row[:, None, None], np.zeros((1, 1)))
    return choice


def points(*values: float) -> np.ndarray:
    return np.array(values)[:, None, None]


def followed(choice: Choice) -> set[str]:
    return set(choice.names(points(1, 2, 3, 4, 5), FIRST, 0))


def test_with_few_errors_simple_methods_are_averaged():
    choice = learned(np.full((FEWEST_ERRORS - 1, 5), 1.0))
    assert followed(choice) == set(COLD_START)
    assert choice.follow(points(1, 2, 3, 40, 50), FIRST)[0, 0] == pytest.approx(2.0)


def test_the_last_value_is_followed_while_nothing_is_better_beyond_doubt():
    rng = np.random.default_rng(0)
    choice = learned(rng.uniform(0.5, 1.5, (60, 5)))
    assert followed(choice) == {"last value"}


def test_a_method_that_is_clearly_better_is_followed_beside_the_last_value():
    errors = np.random.default_rng(0).uniform(0.5, 1.5, (60, 5))
    errors[:, 3] *= 0.4
    choice = learned(errors)
    assert choice.names(points(1, 2, 3, 4, 5), FIRST, 0)[0] == "a"
    assert choice.follow(points(1, 2, 3, 4, 5), FIRST)[0, 0] == pytest.approx((4 + 1) / 2)


def test_no_more_than_three_are_followed():
    errors = np.random.default_rng(0).uniform(0.5, 1.5, (200, 5)) * [1, 0.5, 0.4, 0.3, 0.2]
    assert followed(learned(errors)) == {"mean of 6", "a", "b"}
    assert FOLLOWED == 3


def test_a_method_without_an_answer_is_not_followed():
    errors = np.random.default_rng(0).uniform(0.5, 1.5, (60, 5)) * [1, 1, 1, 0.3, 1]
    choice = learned(errors)
    assert choice.follow(points(1, 2, 3, np.nan, 5), FIRST)[0, 0] == pytest.approx(1.0)

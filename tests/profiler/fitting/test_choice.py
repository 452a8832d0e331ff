"""Which form is taken, and what it says of its own error."""

import numpy as np
import pytest

from planner.domain.errors import MeasurementError, OutsideProfileError
from planner.domain.profile import TimeTable
from profiler.fitting.choice import choose, error_interval
from profiler.fitting.forms import (
    Corrected,
    Floats,
    Interpolated,
    PhysicalPrompt,
    PhysicalStep,
    Scatter,
)
from profiler.fitting.tables import table_of

PROMPT = PhysicalPrompt(step_tokens=512)
FORMS = (PROMPT, Corrected(physical=PROMPT), Interpolated())


def scatter(x: Floats, y: Floats, seconds: Floats, noise: float = 1e-3) -> Scatter:
    return Scatter(x=x, y=y, seconds=seconds, noise_ratio=np.full(len(x), noise))


def grid(xs: tuple[float, ...], ys: tuple[float, ...]) -> tuple[Floats, Floats]:
    x, y = np.meshgrid(xs, ys, indexing="ij")
    return x.ravel(), y.ravel()


X, Y = grid((32.0, 100.0, 300.0, 900.0, 2000.0), (0.0, 1000.0))


def test_physical_times_are_described_by_the_physical_form() -> None:
    seconds = 0.01 + 1e-3 * X + 3e-7 * X * (Y + X / 2) + 0.004 * (np.ceil(X / 512) - 1)
    choice = choose(scatter(X, Y, seconds), FORMS)
    assert choice.form == "physical"
    assert choice.seconds(np.array([500.0]), np.array([500.0])) == pytest.approx(
        0.01 + 0.5 + 3e-7 * 500 * 750, rel=1e-6
    )


def test_times_that_the_physical_form_cannot_have_are_not_forced_into_it() -> None:
    seconds = 0.01 * X**0.4 * (1 + Y / 1e4)
    assert choose(scatter(X, Y, seconds), FORMS).form != "physical"


def test_doubt_is_large_where_nothing_was_measured() -> None:
    rng = np.random.default_rng(3)
    seconds = (0.01 + 1e-3 * X) * np.exp(rng.normal(0, 0.03, len(X)))
    choice = choose(scatter(X, Y, seconds, 0.03), FORMS)
    near, far = choice.doubt(np.array([100.0, 30_000.0]), np.array([0.0, 8000.0]))
    assert far > near


def test_no_term_of_a_decode_step_is_negative() -> None:
    batch, context = grid((1.0, 2.0, 4.0, 8.0, 16.0, 32.0), (64.0, 2000.0))
    seconds = 0.02 + 0.001 * np.maximum(batch, 8) + 1e-7 * batch * context
    fitted = PhysicalStep().fit(scatter(batch, context, seconds))
    assert min(fitted.coefficients.values()) >= 0
    assert fitted.seconds(np.array([16.0]), np.array([64.0])) == pytest.approx(0.0361, rel=0.03)


def test_error_interval_holds_the_median() -> None:
    errors = np.array([0.01, -0.02, 0.03, -0.04, 0.05, np.nan])
    median, p90, low, high = error_interval(errors)
    assert (median, low <= median <= high) == (pytest.approx(0.03), True)
    assert p90 == pytest.approx(0.046)
    assert all(np.isnan(error_interval(np.empty(0))))


def test_too_few_points_are_said() -> None:
    with pytest.raises(MeasurementError, match="needs at least 3"):
        choose(scatter(X[:2], Y[:2], X[:2]), FORMS)


def covered(table: TimeTable, x: float, y: float) -> bool:
    return bool(table.covers(np.array([x]), np.array([y]))[0])


def test_a_corner_that_was_not_measured_is_not_covered() -> None:
    batch, context = np.array([1.0, 16.0, 256.0, 16.0]), np.array([64.0, 64.0, 64.0, 8000.0])
    points = scatter(batch, context, 0.01 + 1e-3 * batch + 1e-7 * batch * context)
    table = table_of(choose(points, (PhysicalStep(),)).seconds, points, x_name="x", y_name="y")
    assert covered(table, 16, 8000)
    assert covered(table, 256, 64)
    assert not covered(table, 256, 8000)
    assert not covered(table, 128, 4000)
    assert covered(table, 64, 400)
    with pytest.raises(OutsideProfileError, match=r"8000 y \(at the most x 64 y\)"):
        table.at(256, 8000)
    most = table.most_x(1000.0)
    assert 16 < most < 256
    assert covered(table, most, 1000)
    assert not covered(table, most + 2, 1000)


def test_a_rectangle_that_was_measured_is_covered_to_its_corner() -> None:
    points = scatter(X, Y + X / 1e4, 0.01 + 1e-3 * X)
    table = table_of(choose(points, FORMS).seconds, points, x_name="x", y_name="y")
    assert table.reach is None
    assert covered(table, 2000, 1000)


def test_a_single_y_says_nothing_of_others() -> None:
    points = scatter(X[::2], 0 * X[::2], 0.01 + 1e-3 * X[::2])
    table = table_of(choose(points, FORMS).seconds, points, x_name="x", y_name="y")
    assert covered(table, 2000, 0)
    assert not covered(table, 32, 1)


def test_table_covers_what_was_measured_and_never_falls() -> None:
    rng = np.random.default_rng(5)
    seconds = (0.01 + 1e-4 * X) * np.exp(rng.normal(0, 0.1, len(X)))
    points = scatter(X, Y, seconds, 0.1)
    table = table_of(choose(points, FORMS).seconds, points, x_name="x", y_name="y")
    assert (table.x[0], table.x[-1], table.y[0], table.y[-1]) == (32, 2000, 0, 1000)
    assert (np.diff(table.seconds, axis=0) >= 0).all()
    assert (np.diff(table.seconds, axis=1) >= 0).all()

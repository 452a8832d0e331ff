import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.panel import Panel, Span
from forecaster.panel.panel import METHODS, MOST_ANCHORS

NEAR = [Span(first=1, last=1), Span(first=2, last=4)]
rates = st.lists(
    st.one_of(st.just(float("nan")), st.floats(0, 1e6, allow_subnormal=False)),
    min_size=1,
    max_size=40,
)


def panel_of(values: np.ndarray, spans: list[Span] = NEAR, step_s: float = 3600.0) -> Panel:
    panel = Panel(series=values.shape[1], step_s=step_s, spans=spans, first_end_s=step_s)
    for row in values:
        panel.observe(row)
    return panel


@settings(max_examples=60, deadline=None)
@given(first=rates, second=rates)
def test_series_do_not_touch_each_other(first, second):
    length = min(len(first), len(second))
    one, two = np.array(first[:length]), np.array(second[:length])
    together = panel_of(np.stack([one, two], axis=1)).outlook(NEAR)
    alone = panel_of(two[:, None]).outlook(NEAR)
    np.testing.assert_allclose(together.quantiles[:, :, 1], alone.quantiles[:, :, 0], rtol=1e-9)
    assert together.methods[1] == alone.methods[0]


@settings(max_examples=60, deadline=None)
@given(values=rates)
def test_what_was_seen_gives_finite_quantiles_that_never_decrease(values):
    outlook = panel_of(np.array(values)[:, None]).outlook(NEAR)
    if np.isnan(values).all():
        assert np.isnan(outlook.quantiles).all()
    else:
        assert np.isfinite(outlook.quantiles).all()
        assert (outlook.quantiles >= 0).all()
        assert (np.diff(outlook.quantiles, axis=0) >= -1e-9 * outlook.quantiles.max()).all()


def test_asking_changes_nothing():
    values = np.random.default_rng(0).poisson(20, (80, 1)).astype(float)
    asked, silent = panel_of(values[:40]), panel_of(values[:40])
    for row in values[40:]:
        asked.outlook(NEAR)
        asked.observe(row)
        silent.observe(row)
    np.testing.assert_array_equal(asked.outlook(NEAR).quantiles, silent.outlook(NEAR).quantiles)


def test_many_spans_share_what_is_learned_at_a_few():
    spans = [Span(first=k, last=k) for k in range(1, 101)]
    values = 50 + 10 * np.sin(np.arange(240) / 24 * 2 * np.pi)[:, None]
    outlook = panel_of(values, spans).outlook(spans)
    assert outlook.quantiles.shape[1] == 100
    coming = 50 + 10 * np.sin((240 + np.arange(100)) / 24 * 2 * np.pi)
    assert np.abs(outlook.point[:48, 0] - coming[:48]).mean() < 1.5
    assert MOST_ANCHORS < 100


def test_past_errors_are_told_origin_by_origin():
    rng = np.random.default_rng(0)
    walk = np.exp(4 + np.cumsum(rng.normal(0, 0.1, 120)))[:, None]
    spans = [Span(first=1, last=1), Span(first=6, last=6)]
    errors = panel_of(walk, spans).outlook(spans).errors
    assert errors.shape[1:] == (2, 1)
    assert len(errors) > 100
    # Errors of one origin at two distances go together in a random walk.
    assert np.corrcoef(errors[:, 0, 0], errors[:, 1, 0])[0, 1] > 0.2


def test_every_method_has_a_name_of_its_own():
    assert len(set(METHODS)) == len(METHODS)


def test_the_methods_followed_are_named():
    values = np.random.default_rng(0).poisson(20, (60, 1)).astype(float)
    (named,) = panel_of(values).outlook(NEAR).methods
    assert 1 <= len(named) <= 3
    assert set(named) <= set(METHODS)

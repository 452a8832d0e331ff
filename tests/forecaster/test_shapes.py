import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.length_distance import energy_distance
from forecaster.shapes import mix_shapes, shape_from_totals, shape_of_lengths, with_answers
from planner.domain.workload import Shape

lengths = st.integers(1, 200_000)
requests = st.lists(st.tuples(lengths, lengths, st.floats(0, 1)), min_size=1, max_size=120)


def shape_of_rows(rows: list[tuple[int, int, float]]) -> tuple[Shape, np.ndarray]:
    columns = np.array([(i, o, int(c * i)) for i, o, c in rows]).T
    return shape_of_lengths(columns[0], columns[1], columns[2]), columns


@settings(max_examples=80, deadline=None)
@given(rows=requests)
def test_a_shape_has_the_exact_means_of_its_requests(rows):
    shape, (inputs, outputs, cached) = shape_of_rows(rows)
    assert shape.isl_mean == pytest.approx(inputs.mean(), rel=1e-12)
    assert shape.osl_mean == pytest.approx(outputs.mean(), rel=1e-12)
    assert shape.cached_tokens @ shape.weight == pytest.approx(cached.mean(), rel=1e-9, abs=1e-9)
    assert shape.weight.sum() == pytest.approx(1.0)
    assert len(shape.weight) <= 40
    assert np.all(shape.cached_tokens <= shape.input_tokens)


@settings(max_examples=60, deadline=None)
@given(tokens=lengths, count=st.integers(1, 300))
def test_equal_lengths_keep_their_length_to_the_last_bit(tokens, count):
    shape, _ = shape_of_rows([(tokens, tokens, 0.0)] * count)
    assert set(shape.input_tokens) == set(shape.output_tokens) == {float(tokens)}


@settings(max_examples=30, deadline=None)
@given(rows=requests, seed=st.integers(0, 100))
def test_the_order_of_requests_does_not_change_their_shape(rows, seed):
    shape, _ = shape_of_rows(rows)
    mixed = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    other, _ = shape_of_rows(mixed)
    np.testing.assert_allclose(other.input_tokens, shape.input_tokens)
    np.testing.assert_allclose(other.output_tokens, shape.output_tokens)
    np.testing.assert_allclose(other.weight, shape.weight)


def test_long_requests_keep_a_bucket_of_their_own():
    inputs = np.concatenate([np.full(990, 100), np.full(10, 90_000)])
    shape = shape_of_lengths(inputs, np.full(1000, 50), np.zeros(1000, dtype=np.int64))
    assert shape.input_tokens.max() > 50_000
    assert shape.isl_quantile(0.5) == pytest.approx(100)


def test_a_shape_keeps_that_long_prompts_have_short_answers():
    rng = np.random.default_rng(0)
    inputs = rng.integers(100, 5000, 5000)
    outputs = np.maximum(1, 5100 - inputs + rng.integers(-50, 50, 5000))
    shape = shape_of_lengths(inputs, outputs, np.zeros(5000, dtype=np.int64))
    assert np.corrcoef(shape.input_tokens, shape.output_tokens)[0, 1] < -0.95


def test_no_request_has_no_shape():
    nothing = np.empty(0, dtype=np.int64)
    with pytest.raises(ValueError, match="at least one request"):
        shape_of_lengths(nothing, nothing, nothing)


@settings(max_examples=80, deadline=None)
@given(
    count=st.integers(1, 10_000),
    input_tokens=st.integers(0, 10**9),
    output_tokens=st.integers(0, 10**8),
    cached=st.floats(0, 1),
    length_cv=st.floats(0, 3),
)
def test_totals_give_a_shape_with_their_exact_means(
    count, input_tokens, output_tokens, cached, length_cv
):
    shape = shape_from_totals(
        requests=count,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=int(input_tokens * cached),
        length_cv=length_cv,
    )
    assert shape.isl_mean == pytest.approx(max(input_tokens / count, 1.0), rel=1e-9)
    assert shape.osl_mean == pytest.approx(max(output_tokens / count, 1.0), rel=1e-9)
    if input_tokens:
        assert shape.reuse_ratio == pytest.approx(int(input_tokens * cached) / input_tokens)


def test_totals_give_nearly_the_variation_asked_for():
    shape = shape_from_totals(
        requests=10, input_tokens=20_000, output_tokens=10_000, cached_tokens=0, length_cv=0.8
    )
    variance = shape.weight @ (shape.input_tokens - shape.isl_mean) ** 2
    assert np.sqrt(variance) / shape.isl_mean == pytest.approx(0.8, rel=0.15)


def test_without_variation_totals_give_one_length():
    shape = shape_from_totals(
        requests=4, input_tokens=400, output_tokens=40, cached_tokens=100, length_cv=0.0
    )
    np.testing.assert_allclose(shape.input_tokens, 100.0)
    np.testing.assert_allclose(shape.cached_tokens, 25.0)


def test_totals_without_requests_have_no_shape():
    with pytest.raises(ValueError, match="requests must be at least 1"):
        shape_from_totals(requests=0, input_tokens=0, output_tokens=0, cached_tokens=0)


@settings(max_examples=40, deadline=None)
@given(first=requests, second=requests, weights=st.tuples(st.floats(0.01, 10), st.floats(0.01, 10)))
def test_a_mixture_has_the_weighted_mean_of_its_parts(first, second, weights):
    shapes = [shape_of_rows(first)[0], shape_of_rows(second)[0]]
    mixed = mix_shapes(shapes, weights)
    for name in ("isl_mean", "osl_mean"):
        parts = [getattr(s, name) for s in shapes]
        assert getattr(mixed, name) == pytest.approx(np.average(parts, weights=weights))
    assert len(mixed.weight) <= 40


@settings(max_examples=60, deadline=None)
@given(rows=requests, others=requests)
def test_prompts_with_other_answers_keep_both_means(rows, others):
    shape, answers = shape_of_rows(rows)[0], shape_of_rows(others)[0]
    both = with_answers(shape, answers)
    assert both.isl_mean == pytest.approx(shape.isl_mean)
    assert both.reuse_ratio == pytest.approx(shape.reuse_ratio)
    assert both.osl_mean == pytest.approx(answers.osl_mean)


def test_prompts_with_other_answers_go_together_as_those_did():
    rng = np.random.default_rng(0)
    inputs = rng.lognormal(7, 1, 5000).astype(np.int64) + 1
    opposite = shape_of_lengths(inputs, 10_000_000 // inputs + 1, np.zeros_like(inputs))
    longer = shape_of_lengths(2 * inputs, inputs, np.zeros_like(inputs))
    both = with_answers(longer, opposite)
    order = np.argsort(both.input_tokens)
    assert np.all(np.diff(both.output_tokens[order][:: len(order) // 8]) < 0)
    apart = energy_distance(with_answers(opposite, opposite), opposite)
    alone = shape_from_totals(
        requests=1, input_tokens=1000, output_tokens=100, cached_tokens=0, length_cv=1.0
    )
    assert apart < 0.1 * energy_distance(with_answers(opposite, alone), opposite)

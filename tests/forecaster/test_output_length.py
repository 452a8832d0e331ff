import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.forecast import forecast
from forecaster.readers import read_trace
from forecaster.shapes import shape_of_lengths
from forecaster.windows import observe_windows
from planner.domain.output_length import OutputLengths

lengths = st.lists(st.integers(1, 5000), min_size=1, max_size=80).map(np.array)


@settings(max_examples=80, deadline=None)
@given(observed=lengths, so_far=st.integers(0, 6000), level=st.floats(0.01, 0.99))
def test_quantiles_and_means_are_possible(observed, so_far, level):
    found = OutputLengths.of(observed)
    assert found.share.sum() == pytest.approx(1.0)
    assert 0 <= found.remaining_quantile(level, so_far=so_far) < np.inf
    assert 0 <= found.remaining_mean(so_far=so_far) < np.inf
    assert found.quantile(level, so_far=so_far) >= so_far


@settings(max_examples=60, deadline=None)
@given(observed=lengths)
def test_the_mean_is_that_of_the_lengths_within_the_bins_width(observed):
    found = OutputLengths.of(observed).remaining_mean()
    assert found == pytest.approx(observed.mean(), rel=0.1, abs=1.0)


def test_what_is_to_come_is_told_from_what_was_written():
    half = OutputLengths.of(np.array([10] * 50 + [1000] * 50))
    assert half.remaining_mean() == pytest.approx(505, rel=0.08)
    # past the short ones only the long ones are left
    assert half.remaining_mean(so_far=20) == pytest.approx(980, rel=0.08)
    assert half.remaining_total([0, 20]) == pytest.approx(
        half.remaining_mean() + half.remaining_mean(so_far=20)
    )


def test_beyond_the_longest_answer_seen_it_goes_on_for_as_long_again():
    found = OutputLengths.of(np.array([100]))
    assert found.remaining_quantile(0.5, so_far=400) == pytest.approx(400.0)
    assert found.remaining_mean(so_far=400) == 400.0


@pytest.mark.parametrize("bad", [np.array([], dtype=np.int64), np.array([0, 5])])
def test_lengths_that_no_answer_has_are_refused(bad):
    with pytest.raises(ValueError, match="at least"):
        OutputLengths.of(bad)


@pytest.mark.parametrize("name", ["conv", "code"])
@pytest.mark.parametrize("so_far", [0, 16, 64])
def test_real_answers_end_as_the_lengths_themselves_say(poolwise_data, name, so_far):
    path = poolwise_data / "traces" / f"AzureLLMInferenceTrace_{name}.csv"
    tokens = read_trace(path).workload.output_tokens
    learned = OutputLengths.of(tokens)
    going_on = tokens[tokens > so_far]
    for level in (0.5, 0.9, 0.99):
        covered = np.mean(going_on <= np.ceil(learned.quantile(level, so_far=so_far)))
        # a single length may hold more than the distance to the next level
        tied = np.mean(going_on == np.quantile(going_on, level, method="higher"))
        assert level - 0.03 <= covered <= level + 0.03 + tied
    mean = going_on.mean() - so_far
    assert learned.remaining_mean(so_far=so_far) == pytest.approx(mean, rel=0.08, abs=1.0)


def test_a_shapes_buckets_give_about_the_same():
    rng = np.random.default_rng(0)
    outputs = np.maximum(rng.lognormal(5, 0.8, 4000), 1).astype(np.int64)
    shape = shape_of_lengths(np.full(4000, 100), outputs, np.zeros(4000, dtype=np.int64))
    coarse, fine = OutputLengths.of_shape(shape), OutputLengths.of(outputs)
    assert coarse.remaining_mean() == pytest.approx(fine.remaining_mean(), rel=0.1)
    assert coarse.quantile(0.5) == pytest.approx(fine.quantile(0.5), rel=0.15)


@pytest.mark.parametrize(
    "name", ["mooncake_conversation_trace.jsonl", "AzureLLMInferenceTrace_code.csv"]
)
def test_the_answers_of_the_next_minutes_are_as_long_as_forecast(poolwise_data, name):
    workload = read_trace(poolwise_data / "traces" / name).workload
    windows = observe_windows(workload, 60.0)
    half = windows[: len(windows) // 2]
    made = forecast(half, model="m", made_at=half[-1].end_at, window_s=600.0, horizon_windows=1)
    lengths = made.windows[0].demands[0].output_lengths
    assert lengths is not None
    came = workload.between(60.0 * len(half), 60.0 * len(half) + 600.0).output_tokens
    for tokens in (16, 32, 64, 256, 1024):
        assert lengths.longer_than(tokens) == pytest.approx(np.mean(came > tokens), abs=0.05)
    assert lengths.mean == pytest.approx(came.mean(), rel=0.2)

"""Two legs together: the truth lies within the bounds, however the legs hang together."""

import math

from hypothesis import given
from hypothesis import strategies as st

from serving.telemetry.legs import TwoLegs
from tests.serving.telemetry.test_histogram import made, true_quantile

PAIRS = st.lists(st.tuples(st.floats(0.0, 12.0), st.floats(0.0, 12.0)), min_size=1, max_size=40)


def legs(pairs: list[tuple[float, float]]) -> TwoLegs:
    first, second = zip(*pairs, strict=True)
    return TwoLegs(first=made(list(first)), second=made(list(second)))


@given(PAIRS, st.floats(0.0, 25.0))
def test_the_share_of_sums_within_a_limit_lies_between_its_bounds(pairs, limit: float) -> None:
    share = legs(pairs).within(limit)
    assert share is not None
    truth = sum(a + b <= limit for a, b in pairs) / len(pairs)
    assert share.low - 1e-9 <= truth <= share.high + 1e-9


@given(PAIRS, st.sampled_from(["0.5", "0.95", "0.99"]))
def test_a_quantile_of_the_sum_lies_between_its_ends(pairs, level: str) -> None:
    found = legs(pairs).quantile(float(level))
    assert found is not None
    truth = true_quantile([a + b for a, b in pairs], level)
    assert found.low <= truth <= found.high + 1e-9
    assert found.low <= found.value <= found.high


def test_means_add_up_exactly() -> None:
    assert legs([(1.0, 2.0), (3.0, 4.0)]).mean == 5.0


def test_without_values_nothing_is_said() -> None:
    nothing = TwoLegs(first=made([1.0]), second=made([1.0]) - made([1.0]))
    assert (nothing.mean, nothing.quantile(0.5), nothing.within(1.0)) == (None, None, None)


def test_beyond_the_last_bucket_there_is_no_upper_end() -> None:
    found = legs([(20.0, 20.0)]).quantile(0.5)
    assert found is not None
    assert math.isinf(found.high)

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.forecast import FEW_REQUESTS, forecast
from forecaster.memory import Memory
from forecaster.panel import LEVELS, METHODS, TREES
from forecaster.panel.conformal import COLD_START_LOG_SD
from forecaster.readers import read_trace
from forecaster.windows import observe_windows
from planner.domain.errors import HistoryError
from planner.domain.forecast import Demand, Forecast, KnownEvent
from planner.domain.workload import ObservedWindow, Shape
from tests.forecaster.histories import history, minute, window

counts = st.lists(st.one_of(st.none(), st.integers(0, 500)), min_size=1, max_size=25).filter(
    lambda c: any(x is not None for x in c)
)


def after(windows: list[ObservedWindow], **options) -> Forecast:
    made_at = options.pop("made_at", max(w.end_at for w in windows))
    asked = {"model": "m", "window_s": 60.0, "horizon_windows": 3} | options
    return forecast(windows, made_at=made_at, **asked)


def only_demand(made: Forecast, index: int = 0) -> Demand:
    (demand,) = made.windows[index].demands
    return demand


def quantile_rows(made: Forecast) -> np.ndarray:
    return np.array(
        [
            quantiles.values
            for w in made.windows
            for d in w.demands
            for quantiles in (d.request_rate_rps, d.input_tokens_per_s, d.output_tokens_per_s)
        ]
    )


def test_windows_follow_the_instant_of_the_forecast():
    made = after(history([5, 6, 7]), made_at=minute(4), window_s=300.0)
    assert [w.start_at for w in made.windows] == [minute(4), minute(9), minute(14)]
    assert {w.window_s for w in made.windows} == {300.0}
    assert made.made_at == minute(4)


def test_a_steady_history_is_forecast_as_it_was():
    made = after(history([30] * 40))
    demand = only_demand(made)
    assert demand.request_rate_rps.levels == LEVELS
    assert demand.request_rate_rps.median == pytest.approx(0.5)
    assert demand.input_tokens_per_s.median == pytest.approx(50.0)
    assert demand.output_tokens_per_s.median == pytest.approx(10.0)
    assert demand.request_rate_rps.at(0.9) == pytest.approx(0.5, rel=0.01)
    assert demand.shape.isl_mean == pytest.approx(100.0)
    assert demand.shape.osl_mean == pytest.approx(20.0)
    assert demand.arrival_cv2 == 1.0


@settings(max_examples=60, deadline=None)
@given(counts=counts, window_s=st.sampled_from([20.0, 60.0, 300.0]), late=st.integers(0, 5))
def test_quantiles_are_finite_and_never_decrease(counts, window_s, late):
    rows = quantile_rows(
        after(history(counts), window_s=window_s, made_at=minute(len(counts) + late))
    )
    assert np.all(np.isfinite(rows))
    assert np.all(rows >= 0)
    assert np.all(np.diff(rows, axis=1) >= 0)


@settings(max_examples=40, deadline=None)
@given(
    # of a few requests their number itself says how much is known: see the tests of rare traffic
    counts=counts.filter(lambda c: sum(x or 0 for x in c) > FEW_REQUESTS),
    # powers of two scale floats exactly, so even ties between methods stay ties
    factor=st.sampled_from([2, 8, 1024]),
)
def test_more_traffic_by_a_factor_is_forecast_by_that_factor(counts, factor):
    more = [None if x is None else factor * x for x in counts]
    np.testing.assert_allclose(
        quantile_rows(after(history(more))),
        factor * quantile_rows(after(history(counts))),
        rtol=1e-9,
        atol=1e-9,
    )


@settings(max_examples=40, deadline=None)
@given(past=counts, future=counts, other_future=counts)
def test_no_forecast_changes_when_the_future_is_altered(past, future, other_future):
    made_at = minute(len(past))
    futures = [
        [replace(w, start_at=w.start_at + timedelta(minutes=len(past))) for w in history(c)]
        for c in (future, other_future)
    ]
    # a window that has begun but not ended by made_at belongs to the future, too
    straddling = window(len(past) - 0.5, 999)
    made = [after(history(past) + extra, made_at=made_at) for extra in ([], *futures, [straddling])]
    assert {m.forecast_id for m in made} == {made[0].forecast_id}


@settings(max_examples=20, deadline=None)
@given(counts=counts, seed=st.integers(0, 9))
def test_the_order_of_the_history_does_not_matter(counts, seed):
    windows = history(counts)
    shuffled = [windows[i] for i in np.random.default_rng(seed).permutation(len(windows))]
    assert after(shuffled).forecast_id == after(windows).forecast_id


def test_the_id_changes_with_anything_that_the_forecast_holds():
    windows = history([3, 4, 5])
    made = [
        after(windows),
        after(windows, model="other"),
        after(windows, window_s=61.0),
        after(windows, horizon_windows=2),
        after(windows, arrival_cv2=2.0),
        after(windows, made_at=minute(3.5)),
        after(history([3, 4, 5], isl=101)),
    ]
    assert len({m.forecast_id for m in made}) == len(made)


def test_one_window_of_history_gives_a_wide_forecast():
    demand = only_demand(after(history([60])))
    assert demand.request_rate_rps.median == pytest.approx(1.0)
    expected = 1.25 * np.exp(COLD_START_LOG_SD * 1.2816) - 0.25
    assert demand.request_rate_rps.at(0.9) == pytest.approx(expected, rel=1e-3)


def test_the_forecast_grows_wider_with_the_distance():
    rng = np.random.default_rng(0)
    walk = np.exp(4 + np.cumsum(rng.normal(0, 0.15, 200))).astype(int).tolist()
    made = after(history(walk), horizon_windows=12)
    spread = [
        only_demand(made, k).request_rate_rps.at(0.9) / only_demand(made, k).request_rate_rps.median
        for k in (0, 11)
    ]
    assert spread[1] > 1.3 * spread[0]


def test_longer_windows_average_noise_away():
    noise = np.random.default_rng(0).poisson(10, 300).tolist()
    short, long = (
        only_demand(after(history(noise), window_s=s)).request_rate_rps for s in (60.0, 600.0)
    )
    assert np.log(long.at(0.9) / long.median) < 0.6 * np.log(short.at(0.9) / short.median)


def test_a_history_of_zeros_is_forecast_as_almost_nothing():
    demand = only_demand(after(history([0] * 60)))
    assert demand.request_rate_rps.at(0.95) == pytest.approx(3.0 / 3600.0, rel=0.01)
    assert demand.request_rate_rps.median < 0.001
    assert np.isfinite(demand.shape.isl_mean)


def test_a_class_without_requests_borrows_the_lengths_of_the_others():
    windows = history([0] * 10, request_class="batch") + history([9] * 10, request_class="chat")
    batch, chat = after(windows).windows[0].demands
    assert (batch.request_class, chat.request_class) == ("batch", "chat")
    assert batch.shape.isl_mean == pytest.approx(100.0)
    assert batch.request_rate_rps.at(0.99) < 0.01
    assert batch.input_tokens_per_s.at(0.95) == pytest.approx(100 * batch.request_rate_rps.at(0.95))


def test_a_gap_is_not_taken_for_silence():
    with_gap = only_demand(after(history([50] * 20 + [None] * 10 + [50] * 5)))
    assert with_gap.request_rate_rps.at(0.1) == pytest.approx(50 / 60, rel=0.02)


def test_a_stale_history_is_trusted_less():
    fresh, stale = (
        only_demand(after(history([60, 61, 59, 60]), made_at=minute(m))).request_rate_rps
        for m in (4, 60)
    )
    assert stale.at(0.9) > 1.2 * fresh.at(0.9)


def test_windows_of_another_length_are_rates_all_the_same():
    windows = [window(5 * i, 300, window_s=300.0) for i in range(12)]
    demand = only_demand(after(windows, window_s=60.0))
    assert demand.request_rate_rps.median == pytest.approx(1.0)
    # shorter windows than those observed are noisier: sqrt(300 / 60) times in log space
    same = only_demand(after(windows, window_s=300.0))
    assert demand.request_rate_rps.at(0.9) >= same.request_rate_rps.at(0.9)


def test_lengths_follow_recent_windows_more_than_old_ones():
    old, new = history([30] * 20, isl=100), history([30] * 20, isl=1000)
    turned = old + [replace(w, start_at=w.start_at + timedelta(minutes=20)) for w in new]
    assert only_demand(after(turned)).shape.isl_mean == pytest.approx(1000, rel=0.15)


def test_lengths_seen_one_by_one_are_preferred_to_totals():
    seen = Shape(
        input_tokens=np.array([50.0, 150.0]),
        output_tokens=np.array([20.0, 20.0]),
        cached_tokens=np.zeros(2),
        weight=np.array([0.5, 0.5]),
    )
    windows = [replace(w, shape=seen) for w in history([10, 10])]
    shape = only_demand(after(windows)).shape
    assert set(shape.input_tokens.round(6)) == {50.0, 150.0}


def test_the_method_is_named_for_every_series():
    made = after(history(np.random.default_rng(0).poisson(20, 60).tolist()))
    for label in ("default: requests by ", "input tokens by ", "output tokens by "):
        assert label in made.method
    assert "no traffic so far" in after(history([0, 0])).method


launch = KnownEvent(
    name="launch", start_at=minute(62), end_at=minute(63), rate_ratio=2.0, request_class=None
)


def test_a_known_event_is_put_on_top_of_what_is_usual():
    made = after(history([30] * 60), horizon_windows=4, events=[launch])
    rates = [only_demand(made, k).request_rate_rps.median for k in range(4)]
    assert rates == pytest.approx([0.5, 0.5, 1.0, 0.5], rel=0.01)
    assert only_demand(made, 2).input_tokens_per_s.median == pytest.approx(100.0, rel=0.01)
    assert made.events == (
        "launch: x2 from 2026-01-01T01:02:00+00:00 to 2026-01-01T01:03:00+00:00",
    )


def test_a_past_event_is_not_taken_for_usual_traffic():
    counts = [30] * 62 + [60] + [30] * 2
    without = only_demand(after(history(counts))).request_rate_rps
    known = only_demand(after(history(counts), events=[launch])).request_rate_rps
    steady = only_demand(after(history([30] * 65))).request_rate_rps
    assert known.values == pytest.approx(steady.values, rel=1e-6)
    assert without.at(0.99) > known.at(0.99)


def test_an_event_of_another_class_changes_nothing():
    other = replace(launch, request_class="batch")
    windows = history([30] * 62)
    assert after(windows, events=[other]).forecast_id == after(windows).forecast_id


def test_traffic_that_an_event_stopped_tells_nothing():
    closed = replace(launch, start_at=minute(55), end_at=minute(60), rate_ratio=0.0)
    made = after(history([30] * 55 + [0] * 5), events=[closed])
    assert only_demand(made).request_rate_rps.median == pytest.approx(0.5, rel=0.02)


@settings(max_examples=30, deadline=None)
@given(counts=counts, cut=st.integers(1, 24))
def test_a_forecast_with_a_memory_equals_one_without(counts, cut):
    windows, memory = history(counts), Memory()
    earlier = windows[: max(1, min(cut, len(windows)))]
    made_at = minute(len(counts))
    for given_windows in (earlier, windows, windows[1:] or windows, windows):
        made = after(given_windows, made_at=made_at, memory=memory)
        assert made.forecast_id == after(given_windows, made_at=made_at).forecast_id


def test_the_share_of_cached_tokens_is_forecast():
    windows = [replace(w, cached_tokens=w.input_tokens // 4) for w in history([30] * 40)]
    demand = only_demand(after(windows))
    assert demand.reuse_ratio.median == pytest.approx(0.25)
    assert demand.shape.reuse_ratio == pytest.approx(0.25)
    assert only_demand(after(history([0] * 9))).reuse_ratio is None


def test_the_median_forecast_of_a_daily_pattern_knows_the_hour():
    hours = np.arange(24 * 12)
    daily = (600 + 500 * np.sin(2 * np.pi * hours / 24)).astype(int).tolist()
    windows = [window(60 * i, n, window_s=3600.0) for i, n in enumerate(daily)]
    made = after(windows, window_s=3600.0, horizon_windows=12)
    rates = [only_demand(made, k).request_rate_rps.median * 3600 for k in range(12)]
    coming = 600 + 500 * np.sin(2 * np.pi * (hours[-1] + 1 + np.arange(12)) / 24)
    np.testing.assert_allclose(rates, coming, rtol=0.12, atol=25)


def test_no_history_is_refused():
    with pytest.raises(HistoryError, match="at least one"):
        forecast([], model="m", made_at=minute(0), window_s=60.0, horizon_windows=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"made_at": minute(9).replace(tzinfo=None)}, "made_at needs a time zone"),
        ({"window_s": 0.0}, "window_s must be above 0"),
        ({"horizon_windows": 0}, "horizon_windows must be at least 1"),
        ({"arrival_cv2": float("nan")}, "arrival_cv2 must be at least 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        after(history([1]), **options)


@pytest.mark.parametrize(
    "name", ["mooncake_conversation_trace.jsonl", "AzureLLMInferenceTrace_conv.csv"]
)
def test_a_real_hour_is_forecast_within_its_own_range(poolwise_data, name):
    trace = read_trace(poolwise_data / "traces" / name)
    windows = observe_windows(trace.workload, 60.0)
    half = windows[: len(windows) // 2]
    made = after(list(half), window_s=300.0, horizon_windows=2)
    rates = [w.requests / 60.0 for w in windows]
    demand = only_demand(made)
    assert min(rates) < demand.request_rate_rps.median < max(rates)
    assert demand.request_rate_rps.at(0.9) < 1.6 * demand.request_rate_rps.median
    recent = trace.workload.between(0.0, len(half) * 60.0)
    assert demand.shape.isl_mean == pytest.approx(recent.input_tokens.mean(), rel=0.25)


def test_classes_that_share_their_steps_are_forecast_as_if_alone():
    rng = np.random.default_rng(0)
    chat = history(rng.poisson(30, 60).tolist(), request_class="chat")
    code = history(rng.poisson(9, 40).tolist(), request_class="code")
    late = [replace(w, start_at=w.start_at + timedelta(minutes=20)) for w in code]
    together = after(chat + late).windows[1].demands
    alone = [after(own).windows[1].demands[0] for own in (chat, late)]
    for one, other in zip(together, alone, strict=True):
        assert one.request_class == other.request_class
        assert one.request_rate_rps.values == pytest.approx(other.request_rate_rps.values)
        assert one.input_tokens_per_s.values == pytest.approx(other.input_tokens_per_s.values)


def test_errors_of_several_classes_stay_in_step():
    rng = np.random.default_rng(0)
    level = np.exp(3.5 + np.cumsum(rng.normal(0, 0.2, 120)))
    chat = history(level.astype(int).tolist(), request_class="chat")
    code = history((2 * level).astype(int).tolist(), request_class="code")
    idle = history([0] * 120, request_class="idle")
    found = {d.request_class: d.ranks for d in after(chat + code + idle).dependence}
    assert len(found["chat"]) == len(found["code"]) > 100
    # Both follow the same walk: when one is under-forecast so is the other.
    ranks = [found[name][:, 0, 0] for name in ("chat", "code")]
    assert np.corrcoef(*ranks)[0, 1] > 0.9


def test_errors_of_rates_are_known_to_go_together_without_any_cached_token():
    rng = np.random.default_rng(3)
    made = after(history(rng.poisson(300, 60).tolist()))
    (known,) = made.dependence
    assert known.ranks.shape[0] > 40
    assert known.ranks.shape[1:] == (3, 3)


def test_boosted_trees_are_one_more_method_that_may_be_followed():
    hours = np.arange(24 * 5)
    # A sharp plateau at noon: no average and no line tells it.
    daily = np.where((hours % 24 >= 9) & (hours % 24 < 17), 900, 100) + 40 * (hours % 3)
    windows = [window(60 * i, int(n), window_s=3600.0) for i, n in enumerate(daily)]
    made = after(windows, window_s=3600.0, horizon_windows=2, boosted_trees=True)
    assert np.isfinite(quantile_rows(made)).all()
    assert TREES not in METHODS
    # The last value is followed until something is better beyond doubt, with and without them.
    rates = [only_demand(made, k).request_rate_rps.median * 3600 for k in range(2)]
    np.testing.assert_allclose(rates, daily[-24:-22], rtol=0.6)


@pytest.mark.parametrize("ratio", [0.0, 0.04, 3.0])
def test_an_event_over_all_that_was_seen_leaves_what_came(ratio):
    always = replace(launch, start_at=minute(0), end_at=minute(30), rate_ratio=ratio)
    made = after(history([30] * 30), events=[always])
    assert np.isfinite(quantile_rows(made)).all()
    usual = only_demand(made).request_rate_rps.median
    assert usual == pytest.approx(0.5 / ratio if ratio > 1 else 0.5, rel=0.02)


@pytest.mark.parametrize("requests", [1, 2, 10])
def test_a_few_requests_are_never_forecast_as_less_than_none(requests):
    counts = [0] * 60
    for k in range(requests):
        counts[6 * k] = 1
    few = only_demand(after(history(counts))).request_rate_rps
    none = only_demand(after(history([0] * 60))).request_rate_rps
    assert np.all(np.array(few.values) >= np.array(none.values))
    # the Poisson bound: so many or fewer in an hour would be unlikely at a higher rate
    assert few.at(0.95) >= none.at(0.95) * 1.5


@pytest.mark.parametrize("ratio", [0.0, 0.04, 0.06])
def test_an_event_over_all_that_was_seen_is_not_put_on_top_again(ratio):
    always = replace(launch, start_at=minute(0), end_at=minute(120), rate_ratio=ratio)
    sale = replace(launch, name="sale", start_at=minute(31), end_at=minute(32))
    made = after(history([100] * 30), events=[always, sale])
    rates = [only_demand(made, k).request_rate_rps.median for k in range(3)]
    assert rates == pytest.approx([100 / 60, 200 / 60, 100 / 60], rel=0.02)
    assert ("as in all that was seen" in made.events[0]) is (ratio < 0.05)
    assert made.events[1].endswith("00:32:00+00:00")


@pytest.mark.parametrize("seen_s", [1, 60, 600])
def test_an_event_that_only_touches_what_was_seen_is_put_on_top(seen_s):
    closed = replace(launch, name="closed", start_at=minute(0), end_at=minute(120), rate_ratio=0.0)
    start_at = minute(40) - timedelta(seconds=seen_s)
    coming = replace(launch, start_at=start_at, end_at=minute(42), rate_ratio=2.0)
    usual = [100] * (40 - seen_s // 60) + [200] * (seen_s // 60)
    made = after(history(usual), events=[closed, coming])
    rates = [only_demand(made, k).request_rate_rps.median for k in range(3)]
    assert rates == pytest.approx([200 / 60, 200 / 60, 100 / 60], rel=0.05)
    assert ["as in all that was seen" in said for said in made.events] == [True, False]


def test_events_that_cover_all_that_was_seen_only_together_are_held_together():
    early = replace(launch, name="early", start_at=minute(0), end_at=minute(20), rate_ratio=0.0)
    late = replace(launch, name="late", start_at=minute(20), end_at=minute(90), rate_ratio=0.0)
    made = after(history([100] * 40), events=[early, late])
    assert only_demand(made).request_rate_rps.median == pytest.approx(100 / 60, rel=0.02)
    assert "as in all that was seen" in made.events[0]


def silent(windows: list[ObservedWindow], tokens: int = 0) -> list[ObservedWindow]:
    return [replace(w, output_tokens=tokens) for w in windows]


@pytest.mark.parametrize("tokens", [0, 3])
def test_answers_that_were_not_counted_are_unknown_and_not_zero(tokens):
    windows = history([100] * 40)
    stopped = only_demand(after(windows[:20] + silent(windows[20:], tokens)))
    begun = only_demand(after(windows[:1] + silent(windows[1:], tokens)))
    for demand in (stopped, begun):
        assert demand.output_tokens_per_s.median == pytest.approx(100 * 20 / 60, rel=0.02)
        assert demand.shape.osl_mean == pytest.approx(20.0)
        assert demand.request_rate_rps.median == pytest.approx(100 / 60, rel=0.02)


@pytest.mark.parametrize("tokens", [0, 3])
def test_where_no_answer_was_counted_each_is_the_shortest_there_is(tokens):
    made = after(silent(history([100] * 40), tokens))
    demand = only_demand(made)
    assert demand.output_tokens_per_s.values == pytest.approx(demand.request_rate_rps.values)
    assert "output tokens by requests and their lengths" in made.method
    few = only_demand(after(silent(history([0, 1, 0, 0]))))
    assert np.isfinite(few.output_tokens_per_s.values).all()


@pytest.mark.parametrize("idle_every", [2, 4, 40])
def test_idle_windows_among_uncounted_ones_are_no_knowledge_of_answers(idle_every):
    windows = history([0 if i % idle_every == idle_every - 1 else 100 for i in range(40)])
    made = after(silent(windows))
    demand = only_demand(made)
    assert demand.output_tokens_per_s.values == pytest.approx(demand.request_rate_rps.values)
    assert demand.output_tokens_per_s.at(0.9) > 0
    assert "output tokens by requests and their lengths" in made.method


@pytest.mark.parametrize("first_idle", [0, 1])
def test_answers_not_counted_between_idle_windows_are_as_long_as_those_counted(first_idle):
    windows = history([0 if i % 2 == first_idle else 100 for i in range(40)])
    made = after(windows[:20] + silent(windows[20:]))
    for k in range(3):
        demand = only_demand(made, k)
        rates = 20.0 * np.array(demand.request_rate_rps.values)
        assert demand.output_tokens_per_s.values == pytest.approx(rates, rel=0.01)
    assert only_demand(after(history([0] * 40))).output_tokens_per_s.at(0.9) < 0.1

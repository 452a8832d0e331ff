"""The twin is the queue of the textbook: a fast part of `benchmarks/bench_closed_forms.py`."""

import numpy as np
import pytest

from planner.domain.fleet import Role
from tests.planner.simulate.closed_forms import in_turn_m1, md1_exceeds_by_series, mdc, mmc
from tests.planner.simulate.textbook import (
    SHARED_STEP_S,
    Counter,
    Queue,
    Work,
    counted,
    decode_slots,
    little,
    one_prefill,
    prefill_in_turn,
    prefill_pool,
    run,
    shared,
    stays,
    student_interval,
    unlimited,
)

REPLICATIONS, REQUESTS, WARM = 10, 12_000, 2_000
CONFIDENCE = 0.999  # some twenty figures with fixed seeds: all within, and none by luck of width
WIDEST_RATIO = {True: 0.12, False: 0.35}  # of means, of tails: wider intervals prove nothing

QUEUES = (
    one_prefill(Work.EXPONENTIAL, 0.7),
    one_prefill(Work.CONSTANT, 0.7),
    one_prefill(Work.TWO_POINT, 0.5),
    decode_slots(Work.EXPONENTIAL, 4, 0.7),
    prefill_pool(4, 0.7),
    decode_slots(Work.CONSTANT, 4, 0.7),
    prefill_in_turn(Work.CONSTANT, 4, 0.7),
    prefill_in_turn(Work.EXPONENTIAL, 4, 0.7),
    shared(Work.EXPONENTIAL, 0.7, Role.DECODE),
    shared(Work.TWO_POINT, 0.7, Role.AGGREGATED),
    unlimited(Work.TWO_POINT, 20.0, Role.DECODE),
)


def name_of(queue: Queue) -> str:
    return f"{queue.name} at {queue.load:g}"


@pytest.mark.parametrize("queue", QUEUES, ids=name_of)
def test_closed_forms_lie_within_the_twins_interval(queue: Queue) -> None:
    seen = [run(queue, requests=REQUESTS, warm=WARM, replication=i) for i in range(REPLICATIONS)]
    for figure in queue.figures:
        values = np.array([figure.of(s) for s in seen])
        mean, half = student_interval(values, confidence=CONFIDENCE)
        assert abs(mean - figure.closed_form) <= half, figure.name
        widest = WIDEST_RATIO[figure.name.startswith("mean")] * figure.closed_form
        assert student_interval(values)[1] <= widest, figure.name


@pytest.mark.parametrize("queue", [QUEUES[0], QUEUES[3], QUEUES[8]], ids=name_of)
def test_littles_law_holds_between_counters_and_request_times(queue: Queue) -> None:
    pairs = []
    for i in range(REPLICATIONS):
        seen = run(queue, requests=REQUESTS, warm=WARM, replication=i)
        pairs.append(little(seen.result, queue.counter, WARM))
    sampled, by_times = np.array(pairs).T
    gap, half = student_interval(sampled - by_times, confidence=CONFIDENCE)
    assert abs(gap) <= half <= 0.3 * by_times.mean()


@pytest.mark.parametrize("queue", QUEUES[:9], ids=name_of)
def test_sampled_numbers_are_those_that_the_request_times_tell(queue: Queue) -> None:
    result = run(queue, requests=2_000, warm=1, replication=99).result
    came_s, went_s = (np.sort(instants) for instants in stays(result, queue.counter))
    t_s = result.series.t_s
    there = np.searchsorted(came_s, t_s, "right") - np.searchsorted(went_s, t_s, "right")
    np.testing.assert_array_equal(there, counted(result, queue.counter))


def test_with_room_for_all_nobody_feels_the_others() -> None:
    seen = run(unlimited(Work.EXPONENTIAL, 20.0, Role.DECODE), requests=2_000, warm=0,
               replication=0)  # fmt: skip
    np.testing.assert_allclose(seen.sojourn_s, seen.work_s, rtol=0, atol=3 * SHARED_STEP_S)


def test_textbook_queues_are_counted_where_requests_wait() -> None:
    assert {queue.counter for queue in QUEUES} == set(Counter)


@pytest.mark.parametrize("load", [0.3, 0.8, 0.95])
def test_crommelin_and_franx_agree_with_erlangs_series_and_pollaczek_khinchine(
    load: float,
) -> None:
    law = mdc(1, load)
    assert law.mean_s == pytest.approx(load / (2 * (1 - load)), rel=1e-9)
    for seconds in (0.0, 0.4, 1.0, 2.7, 9.2):
        assert law.exceeds(seconds) == pytest.approx(
            md1_exceeds_by_series(load, seconds), abs=1e-11
        )


@pytest.mark.parametrize("servers", [2, 4, 16])
def test_mean_wait_of_mdc_is_near_cosmetatos(servers: int) -> None:
    # Cosmetatos, "Some approximate equilibrium results for the multi-server queue (M/G/r)" (1976).
    load = 0.8
    correction = (1 - load) * (servers - 1) * ((4 + 5 * servers) ** 0.5 - 2)
    expected = (1 + correction / (16 * load * servers)) / 2 * mmc(servers, load).mean_s
    assert mdc(servers, load).mean_s == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("law", [mmc(4, 0.7), mdc(4, 0.7), in_turn_m1(4, 0.7)])
def test_the_mean_is_the_integral_of_the_tail(law) -> None:
    t_s = np.linspace(0, 60, 6_001)
    tail = np.array([law.exceeds(float(t)) for t in t_s])
    assert np.trapezoid(tail, t_s) == pytest.approx(law.mean_s, rel=1e-3)


def test_one_server_taken_in_turn_is_the_plain_queue() -> None:
    assert in_turn_m1(1, 0.7).mean_s == pytest.approx(mmc(1, 0.7).mean_s, rel=1e-9)

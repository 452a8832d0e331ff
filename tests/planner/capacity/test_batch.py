"""The batch of decoding sequences against known queues."""

import math

import numpy as np
import pytest

from planner.capacity.batch import admission, batch_chain, servable, solve_chain
from planner.capacity.kernels import averaging
from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import point_shape


def test_constant_step_time_makes_every_batch_poisson() -> None:
    # With a step time that the batch does not change, nobody slows anybody: M/M/infinity.
    chain = batch_chain(step_s=np.full(60, 0.01), tokens=100.0, hold_s=0.0, replicas=1)
    state = solve_chain(chain, rate_rps=8.0, stretch=1.0, arrival_cv2=1.0, window_s=0.0)
    expected = [math.exp(-8.0) * 8.0**n / math.factorial(n) for n in range(61)]
    np.testing.assert_allclose(state.probability, expected, atol=1e-9)


def test_step_time_in_proportion_to_the_batch_is_a_single_server() -> None:
    # step = s x b: total speed is constant, so the number present is geometric as in M/M/1-PS.
    chain = batch_chain(
        step_s=0.01 * np.arange(1, 401, dtype=float), tokens=100.0, hold_s=0.0, replicas=1
    )
    state = solve_chain(chain, rate_rps=0.7, stretch=1.0, arrival_cv2=1.0, window_s=0.0)
    np.testing.assert_allclose(state.probability[:20], 0.3 * 0.7 ** np.arange(20), rtol=1e-6)


def test_transfer_holds_slots_by_littles_law() -> None:
    chain = batch_chain(step_s=np.full(50, 0.01), tokens=100.0, hold_s=0.5, replicas=1)
    state = solve_chain(chain, rate_rps=10.0, stretch=1.0, arrival_cv2=1.0, window_s=0.0)
    assert float(state.probability @ chain.states) == pytest.approx(10.0 * 1.5, rel=0.01)


def test_grouped_states_give_the_same_answer_as_single_ones() -> None:
    step_s = 0.01 + 2e-4 * np.arange(1, 257)
    small = batch_chain(step_s=step_s, tokens=100.0, hold_s=0.0, replicas=4)
    large = batch_chain(step_s=step_s, tokens=100.0, hold_s=0.0, replicas=40)
    assert large.stride > 1
    for rate_rps in (20.0, 60.0):
        few = solve_chain(small, rate_rps=rate_rps, stretch=1.0, arrival_cv2=1.0, window_s=0.0)
        many = solve_chain(
            large, rate_rps=10 * rate_rps, stretch=1.0, arrival_cv2=1.0, window_s=0.0
        )
        assert many.mean_step_s == pytest.approx(few.mean_step_s, rel=0.02)


def test_admission_names_what_binds() -> None:
    shape = point_shape(isl=900.0, osl=100.0)
    memory = linear_profile(kv_capacity_tokens=10_000)
    slots = linear_profile(max_num_seqs=5)
    everyone = servable(memory, Role.DECODE, shape)
    assert admission(memory, shape, everyone).limit is Bottleneck.MEMORY
    assert admission(memory, shape, everyone).sequences == 9
    assert admission(slots, shape, everyone).limit is Bottleneck.BATCHING
    assert admission(slots, shape, everyone).sequences == 5


def test_averaging_falls_from_one_to_zero() -> None:
    factor = averaging(np.array([1e-9, 1e-3, 1.0, 1e3]), 1.0)
    assert factor[0] == pytest.approx(1.0)
    assert np.all(np.diff(factor) < 0)
    assert factor[-1] == pytest.approx(2e-3, rel=0.01)


@pytest.mark.parametrize(
    ("role", "fits"), [(Role.PREFILL, True), (Role.DECODE, False), (Role.AGGREGATED, False)]
)
def test_prefill_holds_a_prompt_and_one_token_the_others_all_of_the_answer(role, fits) -> None:
    profile = linear_profile(max_model_len=1_000)
    assert bool(servable(profile, role, point_shape(isl=999.0, osl=1.0))[0])
    assert bool(servable(profile, role, point_shape(isl=999.0, osl=2.0))[0]) is fits

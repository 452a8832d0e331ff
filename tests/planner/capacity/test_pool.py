"""What pools sustain: orders that must hold, and limits that are known."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.capacity.deployment import predict, role_target
from planner.capacity.pool import Capacity, sustained_rps
from planner.capacity.split import PoolLoad
from planner.domain.errors import OutsideProfileError, ProfileError
from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from planner.domain.slo import Slo
from planner.domain.workload import Shape
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import point_shape

PROFILE = linear_profile()
SLO = Slo(model="tiny", ttft_s=1.0, tpot_s=0.02)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    count = draw(st.integers(1, 8))
    column = st.lists(st.floats(1.0, 2000.0), min_size=count, max_size=count)
    isl, osl = np.array(draw(column)), np.array(draw(column)) / 4 + 1
    reuse = draw(st.floats(0.0, 0.9))
    return Shape(
        input_tokens=isl,
        output_tokens=osl,
        cached_tokens=isl * reuse,
        weight=np.full(count, 1 / count),
    )


def rate(role: Role, shape: Shape, *, slo: Slo = SLO, replicas: int = 2, target: float = 0.95):
    return sustained_rps(PROFILE, role, shape, slo, replicas=replicas, target_ratio=target)


@given(shape=shapes(), role=st.sampled_from(Role), replicas=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_one_more_replica_never_sustains_less(shape: Shape, role: Role, replicas: int) -> None:
    few = rate(role, shape, replicas=replicas).sustained_rps
    more = rate(role, shape, replicas=replicas + 1).sustained_rps
    assert more >= few * (1 - 1e-3)


@given(shape=shapes(), role=st.sampled_from(Role), factor=st.floats(1.05, 4.0))
@settings(max_examples=40, deadline=None)
def test_a_looser_objective_never_sustains_less(shape: Shape, role: Role, factor: float) -> None:
    loose = dataclasses.replace(SLO, ttft_s=SLO.ttft_s * factor, tpot_s=SLO.tpot_s * factor)
    tight = rate(role, shape).sustained_rps
    assert rate(role, shape, slo=loose).sustained_rps >= tight * (1 - 1e-3)


@given(shape=shapes(), role=st.sampled_from(Role), target=st.floats(0.5, 0.98))
@settings(max_examples=40, deadline=None)
def test_a_higher_target_never_sustains_more(shape: Shape, role: Role, target: float) -> None:
    high = rate(role, shape, target=target + 0.01).sustained_rps
    assert high <= rate(role, shape, target=target).sustained_rps * (1 + 1e-3) + 1e-6


@pytest.mark.parametrize("role", Role)
def test_sustained_stays_below_saturation(role: Role) -> None:
    capacity = rate(role, point_shape(isl=800.0, osl=100.0))
    assert 0 < capacity.sustained_rps < capacity.saturation_rps
    assert capacity.utilization_ratio == pytest.approx(
        capacity.sustained_rps / capacity.saturation_rps
    )


def test_prefill_with_a_step_for_every_prompt_saturates_at_one_over_its_time() -> None:
    profile = linear_profile(max_num_seqs=1)
    shape = point_shape(isl=950.0, osl=10.0)
    capacity = sustained_rps(profile, Role.PREFILL, shape, SLO, replicas=3, target_ratio=0.95)
    assert capacity.saturation_rps == pytest.approx(3 / 0.1)


def test_prompts_that_share_a_step_pay_its_fixed_part_once() -> None:
    capacity = rate(Role.PREFILL, point_shape(isl=256.0, osl=10.0), replicas=3)
    assert capacity.saturation_rps == pytest.approx(3 / (0.0256 + 0.005 / 8))


def test_steps_that_only_prompts_make_too_long_are_named_as_scheduling() -> None:
    shape = point_shape(isl=1500.0, osl=20.0)
    slo = dataclasses.replace(SLO, ttft_s=60.0, tpot_s=0.03)
    assert rate(Role.AGGREGATED, shape, slo=slo).bottleneck is Bottleneck.SCHEDULING


def test_what_would_help_most_is_named_not_the_longest_part() -> None:
    """A transfer of 0.4 s leaves time enough: faster prompts sustain far more than faster links."""
    shape = point_shape(isl=1000.0, osl=100.0)

    def sustained(**changes: float) -> Capacity:
        profile = linear_profile(**{"transfer_bandwidth_bytes_per_s": 1e7, **changes})
        return sustained_rps(profile, Role.PREFILL, shape, SLO, replicas=2, target_ratio=0.95)

    assert sustained().bottleneck is Bottleneck.PREFILL
    links = sustained(transfer_bandwidth_bytes_per_s=1e12).sustained_rps
    prompts = sustained(prefill_token_s=5e-5, prefill_base_s=2.5e-3).sustained_rps
    assert prompts > 1.5 * links > 1.5 * sustained().sustained_rps


@pytest.mark.parametrize("cv2", [0.2, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("role", Role)
def test_more_load_never_raises_attainment_however_bursty(role: Role, cv2: float) -> None:
    roles = (Role.PREFILL, Role.DECODE) if role is not Role.AGGREGATED else (role,)
    pools = [PoolLoad(profile=PROFILE, role=r, replicas=4) for r in roles]
    shape = point_shape(isl=800.0, osl=100.0)
    slo = dataclasses.replace(SLO, tpot_s=0.03)
    attained = [
        predict(pools, shape, slo, request_rate_rps=float(r), arrival_cv2=cv2)
        .prediction.attainment_ratio
        for r in np.linspace(0.5, 30.0, 25)
    ]  # fmt: skip
    assert np.all(np.diff(attained) <= 1e-4)


@pytest.mark.parametrize(
    "wrong",
    [{"request_rate_rps": float("nan")}, {"request_rate_rps": float("inf")},
     {"arrival_cv2": float("nan")}, {"arrival_cv2": -1.0}, {"window_s": float("nan")}],
)  # fmt: skip
def test_a_load_that_is_no_number_is_refused_by_name(wrong: dict[str, float]) -> None:
    load = {"request_rate_rps": 1.0, **wrong}
    pools = [PoolLoad(profile=PROFILE, role=Role.AGGREGATED, replicas=1)]
    with pytest.raises(ValueError, match=next(iter(wrong))):
        predict(pools, point_shape(isl=100.0, osl=10.0), SLO, **load)


def test_time_outside_the_engine_is_named_as_scheduling() -> None:
    profile = linear_profile(first_token_s=0.95)
    shape = point_shape(isl=900.0, osl=20.0)
    capacity = sustained_rps(profile, Role.PREFILL, shape, SLO, replicas=1, target_ratio=0.9)
    assert capacity.bottleneck is Bottleneck.SCHEDULING


def test_a_constant_decode_step_within_the_objective_is_bound_by_slots() -> None:
    profile = linear_profile(decode_sequence_s=0.0, max_num_seqs=8)
    capacity = sustained_rps(
        profile,
        Role.DECODE,
        point_shape(isl=100.0, osl=100.0),
        SLO,
        replicas=1,
        target_ratio=0.95,
    )
    assert capacity.bottleneck is Bottleneck.BATCHING
    assert capacity.saturation_rps == pytest.approx(8.0, rel=0.01)


def test_a_small_kv_cache_is_named_as_memory() -> None:
    profile = linear_profile(kv_capacity_tokens=4_000)
    shape = point_shape(isl=900.0, osl=100.0)
    capacity = sustained_rps(profile, Role.DECODE, shape, SLO, replicas=1, target_ratio=0.95)
    assert capacity.bottleneck is Bottleneck.MEMORY


def test_a_slow_link_is_named_as_cache_transfer() -> None:
    profile = linear_profile(transfer_bandwidth_bytes_per_s=4.5e6)
    shape = point_shape(isl=1000.0, osl=100.0)
    capacity = sustained_rps(profile, Role.PREFILL, shape, SLO, replicas=1, target_ratio=0.9)
    assert capacity.bottleneck is Bottleneck.CACHE_TRANSFER


def test_an_objective_below_an_idle_pools_latency_sustains_nothing() -> None:
    slo = dataclasses.replace(SLO, ttft_s=0.05)
    capacity = rate(Role.PREFILL, point_shape(isl=950.0, osl=10.0), slo=slo)
    assert capacity.sustained_rps == 0.0


def test_prompts_longer_than_measured_are_refused_by_name() -> None:
    profile = linear_profile(max_prompt_tokens=1_000)
    with pytest.raises(OutsideProfileError, match="1000 new"):
        sustained_rps(
            profile,
            Role.PREFILL,
            point_shape(isl=2_000.0, osl=10.0),
            SLO,
            replicas=1,
            target_ratio=0.9,
        )


def test_a_role_that_was_not_measured_is_refused() -> None:
    profile = linear_profile(roles=(Role.PREFILL,))
    with pytest.raises(ProfileError, match="not as decode"):
        sustained_rps(
            profile,
            Role.DECODE,
            point_shape(isl=100.0, osl=10.0),
            SLO,
            replicas=1,
            target_ratio=0.9,
        )


def test_role_targets_multiply_to_the_joint_one() -> None:
    assert role_target(0.9, disaggregated=True) ** 2 == pytest.approx(0.9)
    assert role_target(0.9, disaggregated=False) == 0.9


FLEETS = {
    "disaggregated": (
        PoolLoad(profile=PROFILE, role=Role.PREFILL, replicas=2),
        PoolLoad(profile=PROFILE, role=Role.DECODE, replicas=2),
    ),
    "aggregated": (PoolLoad(profile=PROFILE, role=Role.AGGREGATED, replicas=4),),
    "side by side": (
        PoolLoad(profile=PROFILE, role=Role.PREFILL, replicas=1),
        PoolLoad(profile=linear_profile(speed=2.0), role=Role.DECODE, replicas=1),
        PoolLoad(profile=PROFILE, role=Role.AGGREGATED, replicas=2),
    ),
}


@given(shape=shapes(), fleet=st.sampled_from(sorted(FLEETS)), base=st.floats(0.01, 200.0))
@settings(max_examples=40, deadline=None)
def test_more_load_never_raises_attainment(shape: Shape, fleet: str, base: float) -> None:
    attained = [
        predict(FLEETS[fleet], shape, SLO, request_rate_rps=base * k).prediction.attainment_ratio
        for k in (1.0, 1.5, 4.0, 1e4)
    ]
    assert all(a is not None and 0 <= a <= 1 for a in attained)
    assert all(b <= a + 2e-3 for a, b in itertools.pairwise(attained))


@pytest.mark.parametrize("fleet", FLEETS)
def test_overload_is_finite_and_misses_everything(fleet: str) -> None:
    said = predict(FLEETS[fleet], point_shape(isl=1000.0, osl=100.0), SLO, request_rate_rps=1e5)
    latencies = (
        said.prediction.ttft_p50_s,
        said.prediction.ttft_p95_s,
        said.prediction.tpot_p95_s,
        said.prediction.itl_p95_s,
    )
    assert all(x is not None and np.isfinite(x) for x in latencies)
    assert said.prediction.attainment_ratio == pytest.approx(0.0, abs=1e-6)
    assert min(said.utilization_ratio) > 1


def test_nothing_arriving_has_no_latency_and_no_bottleneck() -> None:
    said = predict(
        FLEETS["disaggregated"], point_shape(isl=100.0, osl=10.0), SLO, request_rate_rps=0.0
    )
    assert said.bottleneck is Bottleneck.NONE
    assert said.prediction.attainment_ratio is None
    assert said.utilization_ratio == (0.0, 0.0)


def test_prefill_without_decode_attains_nothing_and_says_so() -> None:
    said = predict(
        FLEETS["disaggregated"][:1], point_shape(isl=100.0, osl=10.0), SLO, request_rate_rps=1.0
    )
    assert said.prediction.attainment_ratio == 0.0
    assert said.bottleneck is Bottleneck.DECODE


@pytest.mark.parametrize(
    ("isl", "osl", "bottleneck"),
    [(3000.0, 5.0, Bottleneck.PREFILL), (50.0, 400.0, Bottleneck.DECODE)],
)
def test_the_bottleneck_follows_the_lengths(isl: float, osl: float, bottleneck: Bottleneck) -> None:
    said = predict(
        FLEETS["disaggregated"], point_shape(isl=isl, osl=osl), SLO, request_rate_rps=2.0
    )
    assert said.bottleneck is bottleneck


def test_requests_that_fit_nowhere_miss() -> None:
    shape = Shape(
        input_tokens=np.array([100.0, 16_000.0]),
        output_tokens=np.array([10.0, 1_000.0]),
        cached_tokens=np.zeros(2),
        weight=np.array([0.8, 0.2]),
    )
    said = predict(FLEETS["disaggregated"], shape, SLO, request_rate_rps=0.1)
    assert said.prediction.attainment_ratio == pytest.approx(0.8, abs=1e-3)

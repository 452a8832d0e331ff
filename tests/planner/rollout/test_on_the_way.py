"""Any diff, walked through by the twin under load: what it keeps, and what it loses."""

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from planner.domain.fleet import ReplicaShape
from planner.domain.rollout import Verdict
from planner.domain.spec import LoopMode
from planner.rollout import guard
from tests.planner.rollout.cases import D_A100, P_A100, P_TP2, A, D, P, plan, spec
from tests.planner.rollout.guards.situations import CALM, verdict
from tests.planner.rollout.walks import walk, whole_pairs

NOISE_RATIO = 0.02
"""Of attainment: two runs of the twin route the same requests differently."""

Counts = dict[ReplicaShape, int]

fleets_that_serve = st.builds(
    lambda path, more: whole_pairs(more | path),
    st.sampled_from([{A: 1}, {A: 2}, {P: 1, D: 1}, {P: 2, D: 1}, {P: 1, D: 2}, {P_A100: 1, D: 1}]),
    st.dictionaries(
        st.sampled_from([P, D, A, P_A100, D_A100, P_TP2]), st.integers(0, 3), max_size=3
    ),
)
WALKS = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
)


@WALKS
@given(
    before=fleets_that_serve,
    wanted=fleets_that_serve,
    load_ratio=st.sampled_from([0.5, 0.7, 0.85]),
    can_flip=st.booleans(),
    seed=st.integers(0, 9),
)
def test_with_room_a_rollout_keeps_the_attainment_of_the_worse_fleet(
    before: Counts, wanted: Counts, load_ratio: float, can_flip: bool, seed: int
) -> None:
    roomy = spec(h100=99, a100=99)
    seen = walk(before, wanted, roomy, load_ratio=load_ratio, seed=seed, can_flip=can_flip)
    assert seen.dip.depth_ratio == 0.0
    assert seen.finished
    assert seen.lost_ratio <= NOISE_RATIO


@WALKS
@given(
    before=fleets_that_serve,
    wanted=fleets_that_serve,
    load_ratio=st.sampled_from([0.5, 0.7, 0.85]),
    can_flip=st.booleans(),
    seed=st.integers(0, 9),
)
def test_without_room_the_loss_lies_where_it_was_predicted_and_a_person_is_asked(
    before: Counts, wanted: Counts, load_ratio: float, can_flip: bool, seed: int
) -> None:
    used = [_used(counts, name) for counts in (before, wanted) for name in ("h100", "a100")]
    tight = spec(h100=max(used[0], used[2]), a100=max(used[1], used[3]), mode=LoopMode.AUTO)
    seen = walk(before, wanted, tight, load_ratio=load_ratio, seed=seed, can_flip=can_flip)
    event("dips" if seen.dip.depth_ratio > 0 else "has room all the same")
    assert seen.as_predicted(NOISE_RATIO)
    said = guard(seen.change, tight, CALM, plan=plan(wanted))
    asks = verdict("dip", said) is Verdict.REFUSE
    assert asks is (seen.dip.depth_ratio > tight.guards.max_dip_ratio)


def _used(counts: Counts, accelerator: str) -> int:
    return sum(n * s.accelerators for s, n in counts.items() if s.accelerator == accelerator)

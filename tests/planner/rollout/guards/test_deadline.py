import pytest

from planner.domain.guards import GuardSettings
from planner.domain.rollout import StepKind
from planner.rollout import deadline_s, diff
from tests.planner.rollout.cases import D_A100, D, P, fleet, plan, spec


@pytest.mark.parametrize(("least_s", "deadline"), [(10.0, 180.0), (200.0, 200.0)])
def test_a_step_has_a_multiple_of_its_expected_time_but_some_time_at_least(
    least_s: float, deadline: float
) -> None:
    settings = GuardSettings(progress_deadline_ratio=3.0, progress_deadline_least_s=least_s)
    steps = diff(fleet({P: 1, D: 1}), plan({P: 1, D: 1, D_A100: 1}), spec()).steps
    start = next(s for s in steps if s.kind is StepKind.START)  # cold: 60 s
    assert deadline_s(start, settings) == deadline

"""Where the closed form says itself that it may be off."""

import pytest

from planner.capacity.validity import Doubt, doubts_of
from planner.domain.slo import Slo

SLO = Slo(model="tiny", ttft_s=1.0, tpot_s=0.02, attainment_ratio=0.9)


@pytest.mark.parametrize(
    ("attained", "idle", "doubts"),
    [
        (1.0, 1.0, ()),
        (0.98, 1.0, ()),
        (0.95, 1.0, (Doubt.EDGE,)),
        (1.0, 0.95, (Doubt.EDGE,)),
    ],
)
def test_pools_that_miss_much_with_hardly_any_load_are_at_the_edge(
    attained: float, idle: float, doubts: tuple[Doubt, ...]
) -> None:
    assert doubts_of([], SLO, attained_ratio=attained, idle_ratio=idle) == doubts

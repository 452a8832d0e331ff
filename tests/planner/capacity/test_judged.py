"""Classes that share a pool, each held to its own target."""

import numpy as np
import pytest

from planner.capacity.pool import Judged, sustained_rps
from planner.domain.fleet import Role
from planner.domain.slo import Slo
from planner.domain.workload import Shape
from tests.fakes.profiles import linear_profile

SHAPE = Shape(
    input_tokens=np.array([400.0, 6_000.0]),
    output_tokens=np.array([40.0, 40.0]),
    cached_tokens=np.zeros(2),
    weight=np.array([0.95, 0.05]),
)
FEW, MANY, ALL = np.array([False, True]), np.array([True, False]), np.array([True, True])


def sustained(*judged: Judged, ttft_s: float = 2.0) -> float:
    return sustained_rps(
        linear_profile(),
        Role.PREFILL,
        SHAPE,
        Slo(model="tiny", ttft_s=ttft_s, tpot_s=0.05),
        replicas=2,
        target_ratio=0.9,
        judged=judged,
    ).sustained_rps


def test_all_as_one_class_is_all_together() -> None:
    assert sustained(Judged(of=ALL, target_ratio=0.9)) == pytest.approx(sustained())


def test_the_class_that_is_worst_off_decides() -> None:
    few, many = Judged(of=FEW, target_ratio=0.9), Judged(of=MANY, target_ratio=0.9)
    assert sustained(few, many) == pytest.approx(min(sustained(few), sustained(many)))
    assert sustained(few) < sustained(many)


def test_few_requests_that_are_late_when_idle_are_not_outvoted() -> None:
    assert sustained(ttft_s=0.3) > 0
    few, many = Judged(of=FEW, target_ratio=0.9), Judged(of=MANY, target_ratio=0.9)
    assert sustained(few, many, ttft_s=0.3) == 0

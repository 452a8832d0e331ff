"""A promise about single gaps between tokens is refused, not ignored."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.errors import InputError, SpecError
from planner.domain.fleet import Role
from planner.domain.workload import Workload
from planner.optimize import plan
from planner.simulate import ReplicaGroup, Scenario, simulate
from tests.fakes.profiles import linear_profile
from tests.planner.optimize.scenarios import NOW, forecast, spec

ASKED = spec(roles=(Role.AGGREGATED,))
SLO = replace(ASKED.slos[0], itl_p99_s=0.005)


def test_a_plan_refuses_it() -> None:
    with pytest.raises(SpecError, match="itl_p99_s is not judged"):
        plan(replace(ASKED, slos=(SLO,)), forecast([2.0]), None, made_at=NOW)


def test_the_twin_refuses_it() -> None:
    group = ReplicaGroup(profile=linear_profile(), role=Role.AGGREGATED, replicas=1)
    workload = Workload(
        start_at=NOW,
        arrival_offset_s=np.array([0.0, 1.0]),
        input_tokens=np.array([100, 100]),
        output_tokens=np.array([10, 10]),
        cached_tokens=np.array([0, 0]),
        request_class=np.array(["default", "default"]),
        duration_s=10.0,
    )
    result = simulate(Scenario(groups=(group,), workload=workload))
    assert result.met(ASKED.slos).all()
    with pytest.raises(InputError, match="itl_p99_s is not judged"):
        result.met([SLO])

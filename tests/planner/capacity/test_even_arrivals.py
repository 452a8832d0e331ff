"""Arrivals without any variation."""

import pytest

from planner.capacity.deployment import predict
from planner.capacity.split import PoolLoad
from planner.domain.fleet import Role
from planner.domain.slo import Slo
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import poisson_workload, shape_of_workload


@pytest.mark.parametrize("arrival_cv2", [0.0, 1e-18, 1e-15, 1e-6])
def test_even_arrivals_wait_no_longer_than_random_ones(arrival_cv2: float) -> None:
    shape = shape_of_workload(poisson_workload(requests=2000, rate_rps=1.0, isl=500, osl=100))
    pools = [PoolLoad(profile=linear_profile(), role=Role.AGGREGATED, replicas=2)]
    slo = Slo(model="tiny", ttft_s=1.0, tpot_s=0.03, attainment_ratio=0.9)

    def attained(cv2: float) -> float:
        said = predict(pools, shape, slo, request_rate_rps=5.0, arrival_cv2=cv2)
        return said.prediction.attainment_ratio or 0.0

    assert attained(arrival_cv2) >= attained(1.0) - 1e-9

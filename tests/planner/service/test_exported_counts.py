"""Exported counts are confirmed by decisions on fresh load only."""

from datetime import timedelta

import pytest

from actuators.metrics import DesiredReplicas
from planner.service.loop import tick
from planner.service.metrics import Metrics
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY, make_deployment, observe


@pytest.mark.parametrize(("age_s", "shown"), [(10, True), (3600, False)])
def test_counts_by_load_that_nobody_sees_any_more_are_not_confirmed(tmp_path, age_s, shown):
    deployment = make_deployment(tmp_path, loop={"mode": "advise"})
    try:
        observe(deployment, history(**BUSY))
        now = NOON + timedelta(seconds=age_s)
        desired = DesiredReplicas(deployment="shop", valid_for_s=180.0)
        metrics = Metrics(desired=desired)
        metrics.record_tick("shop", tick(deployment, now=now), took_s=0.1, at=now)
        assert bool(desired.current()) is shown
    finally:
        deployment.store.close()

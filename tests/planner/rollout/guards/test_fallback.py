import pytest

from planner.domain.guards import Fallback, GuardSettings, Pin
from planner.rollout import fallback
from tests.planner.rollout.cases import D, P, fleet

FLEET = fleet({P: 2, D: 4})
SET = (Pin(pool=P.label, replicas=3), Pin(pool=D.label, replicas=3))


@pytest.mark.parametrize(
    ("kind", "replicas"),
    [
        (Fallback.CURRENT, None),
        (Fallback.STATIC, {P.label: 3, D.label: 3}),
        (Fallback.HIGHER, {P.label: 3, D.label: 4}),
        (Fallback.LOWER, {P.label: 2, D.label: 3}),
    ],
)
def test_after_enough_failures_the_fallback_counts(kind: Fallback, replicas) -> None:
    settings = GuardSettings(fallback=kind, fallback_after=3, fallback_pools=SET)
    assert fallback(FLEET, settings, failures=3) == replicas
    assert fallback(FLEET, settings, failures=2) is None

"""Fleets name every pool once and change version exactly when they change."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role, version_of
from planner.domain.hardware import PurchaseOption

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PREFILL = Pool(shape=ReplicaShape(role=Role.PREFILL, model="m", accelerator="h100", tp=2), ready=2)
DECODE = Pool(shape=ReplicaShape(role=Role.DECODE, model="m", accelerator="h200"), ready=1)


def test_version_ignores_order_and_empty_pools() -> None:
    empty = replace(DECODE, purchase_option=PurchaseOption.SPOT, ready=0)
    assert version_of([PREFILL, DECODE]) == version_of([DECODE, empty, PREFILL])


@pytest.mark.parametrize("change", [{"ready": 3}, {"starting": 1}, {"draining": 1}])
def test_version_changes_with_any_count(change: dict[str, int]) -> None:
    assert version_of([replace(PREFILL, **change)]) != version_of([PREFILL])


def test_replicas_count_starting_but_not_draining_ones() -> None:
    pool = replace(PREFILL, starting=1, draining=5)
    fleet = Fleet(pools=(pool, DECODE), read_at=NOW, version="1")
    assert fleet.replicas(Role.PREFILL) == 3
    assert pool.accelerators == 16


def test_pool_listed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="lists each pool once"):
        Fleet(pools=(PREFILL, PREFILL), read_at=NOW, version="1")


def test_shapes_that_differ_in_pipeline_or_data_parallelism_have_different_labels() -> None:
    deep = replace(DECODE.shape, pp=4)
    assert DECODE.shape.label == "decode:h200:tp1"
    assert deep.label == "decode:h200:tp1:pp4"
    assert replace(deep, dp=2).label == "decode:h200:tp1:pp4:dp2"

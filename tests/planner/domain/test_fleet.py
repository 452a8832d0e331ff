"""Fleets name every pool once and change version exactly when they change."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role, version_of
from planner.domain.hardware import PurchaseOption
from planner.domain.model import Dtype

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


def test_a_usual_shape_is_called_as_ever_and_only_what_is_unusual_is_added() -> None:
    assert PREFILL.shape.label == "prefill:h100:tp2"
    unusual = replace(
        PREFILL.shape,
        pp=2,
        dp=4,
        weight_dtype=Dtype.FP8,
        kv_dtype=Dtype.FP8,
        max_num_batched_tokens=2048,
        max_num_seqs=64,
    )
    assert unusual.label == "prefill:h100:tp2:pp2:dp4:w-fp8:kv-fp8:chunk2048:seqs64"


def test_pools_that_differ_in_what_is_left_open_are_told_apart_in_any_order() -> None:
    plain, stated = PREFILL, replace(PREFILL, shape=replace(PREFILL.shape, kv_dtype=Dtype.FP8))
    limited = replace(PREFILL, shape=replace(PREFILL.shape, max_num_seqs=64))
    versions = {version_of([pool]) for pool in (plain, stated, limited)}
    assert len(versions) == 3
    assert version_of([plain, stated, limited]) == version_of([limited, stated, plain])


def test_roles_flip_within_an_engine_and_not_between_formats() -> None:
    decode = replace(PREFILL.shape, role=Role.DECODE)
    assert decode.engine == PREFILL.shape.engine
    assert replace(decode, weight_dtype=Dtype.FP8).engine != PREFILL.shape.engine


@pytest.mark.parametrize("field", ["tp", "max_num_seqs", "max_num_batched_tokens"])
def test_nothing_is_counted_below_one(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be at least 1"):
        replace(PREFILL.shape, **{field: 0})

"""From measured points to a profile."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from planner.domain.errors import MeasurementError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.profile import EngineLimits, LifecycleTimes
from profiler.fit import Setting, fit
from profiler.sweep import DecodePoint, Measurements, PrefillPoint, gaps_while_all_run
from serving.load import Timing

BANDWIDTH = 2e8
FIRST_S = 0.03
BASE_S = 0.01


def prefill_s(new: int, cached: int) -> float:
    return 0.001 * new + 0.0001 * cached


def step_s(batch: int, context: int) -> float:
    return 0.02 + 0.001 * batch + 1e-6 * batch * context


def point(new: int, cached: int) -> PrefillPoint:
    kv_bytes = 4096.0 * (new + cached)
    transfer_s = BASE_S + kv_bytes / BANDWIDTH
    busy_s = prefill_s(new, cached)
    return PrefillPoint(
        new_tokens=new,
        cached_tokens=cached,
        alone_ttft_s=FIRST_S + busy_s + transfer_s + step_s(1, 64),
        busy_s=busy_s,
        transfer_s=transfer_s,
        transfer_bytes=kv_bytes,
    )


MEASURED = Measurements(
    prefill=tuple(point(n, c) for n in (50, 200, 1000) for c in (0, 1000)),
    decode=tuple(
        DecodePoint(batch=b, context_tokens=c, step_s=step_s(b, c))
        for b in (1, 4, 16)
        for c in (64, 1000)
    ),
    check=point(400, 0),
)
SETTING = Setting(
    shape=ReplicaShape(role=Role.PREFILL, model="tiny", accelerator="cpu-slot"),
    limits=EngineLimits(
        kv_capacity_tokens=10_000,
        kv_bytes_per_token=4096.0,
        max_num_seqs=16,
        max_num_batched_tokens=4096,
        max_model_len=4096,
    ),
    lifecycle=LifecycleTimes(start_cold_s=30, start_warm_s=30, flip_s=5, drain_s=5),
    machine="test",
    engine="test 1",
    measured_at=datetime(2026, 1, 1, tzinfo=UTC),
    source="test",
)


def test_fitted_profile_gives_back_what_was_measured() -> None:
    profile = fit(MEASURED, SETTING)
    assert float(profile.prefill.at(200, 1000)) == pytest.approx(prefill_s(200, 1000))
    assert float(profile.decode_step.at(4, 64)) == pytest.approx(step_s(4, 64))
    assert profile.transfer.base_s == pytest.approx(BASE_S, rel=1e-3)
    assert profile.transfer.bandwidth_bytes_per_s == pytest.approx(BANDWIDTH, rel=1e-3)
    assert profile.first_token_s == pytest.approx(FIRST_S, rel=1e-3)


def test_held_out_point_gives_the_error() -> None:
    slower = replace(MEASURED, check=replace(point(400, 0), busy_s=0.5))
    assert fit(MEASURED, SETTING).provenance.error_ratio == pytest.approx(0, abs=1e-9)
    assert fit(slower, SETTING).provenance.error_ratio == pytest.approx(0.2)


def test_more_work_is_never_fitted_as_faster() -> None:
    noisy = tuple(replace(p, busy_s=0.001) if p.new_tokens == 1000 else p for p in MEASURED.prefill)
    table = fit(replace(MEASURED, prefill=noisy), SETTING).prefill
    assert (np.diff(table.seconds, axis=0) >= 0).all()


def test_transfer_that_does_not_grow_is_all_base() -> None:
    flat = tuple(replace(p, transfer_s=0.02) for p in MEASURED.prefill)
    transfer = fit(replace(MEASURED, prefill=flat), SETTING).transfer
    assert float(transfer.seconds(4096.0 * 50)) == pytest.approx(0.02, rel=0.1)


def test_aggregated_worker_has_no_transfer_and_no_second_step_before_its_first_token() -> None:
    alone = tuple(
        replace(p, alone_ttft_s=FIRST_S + p.busy_s, transfer_s=0.0, transfer_bytes=0.0)
        for p in MEASURED.prefill
    )
    profile = fit(replace(MEASURED, prefill=alone), SETTING)
    assert float(profile.transfer.seconds(4096.0 * 1000)) < 1e-6
    assert profile.first_token_s == pytest.approx(FIRST_S, rel=1e-3)


def test_missing_grid_point_is_told() -> None:
    with pytest.raises(MeasurementError, match=r"prefill grid lacks the points \[\(1000, 1000\)\]"):
        fit(replace(MEASURED, prefill=MEASURED.prefill[:-1]), SETTING)


def test_equal_measurements_have_equal_ids() -> None:
    assert fit(MEASURED, SETTING).profile_id == fit(MEASURED, SETTING).profile_id


def test_only_gaps_while_all_answers_run_are_counted() -> None:
    early = Timing(
        sent_at_s=0, token_at_s=(1.0, 2.0, 3.0, 4.0), tokens=(1, 2, 3, 4), input_tokens=1, error=""
    )
    late = Timing(
        sent_at_s=0, token_at_s=(2.0, 3.0, 5.0), tokens=(1, 2, 4), input_tokens=1, error=""
    )
    assert gaps_while_all_run([early, late]).tolist() == [1.0, 1.0, 1.0]

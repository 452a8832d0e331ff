"""Profiles from aiconfigurator: the conversion needs no package, the estimates do."""

import importlib.util
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from planner.domain.errors import ProfileError
from planner.domain.fleet import Role
from planner.domain.profile import ProfileKind
from profiler.files import profile_document, profile_of
from profiler.imports.aiconfigurator import (
    BACKEND,
    PACKAGE,
    EstimateRequest,
    Estimates,
    batches,
    grid,
    import_profile,
    installed_version,
    profile_from,
    read_estimates,
    system_of,
)

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SYSTEMS = ("a100_sxm", "b60", "h100_pcie", "h100_sxm", "l40s", "rtx_a", "rtx_b")
QWEN = EstimateRequest(model_path="Qwen/Qwen3-32B", accelerator="h100", tp=2)

needs_package = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None,
    reason="aiconfigurator is not installed: make bench-aiconfigurator installs it",
)


def estimates(**changes):
    given = Estimates(
        version="9.9",
        engine_version="1.2",
        system="h100_sxm",
        new_tokens=np.array([16.0, 1024.0]),
        cached_tokens=np.array([0.0, 4096.0]),
        prefill_ms=np.array([[20.0, 25.0], [90.0, 120.0]]),
        sequences=np.array([1.0, 8.0, 64.0]),
        context_tokens=np.array([128.0, 4096.0]),
        decode_step_ms=np.array([[10.0, 11.0], [9.0, 12.0], [14.0, 30.0]]),
        kv_capacity_tokens=30_000,
        kv_bytes_per_token=262_144.0,
        weight_bytes=65e9,
        max_context_tokens=40_960,
    )
    return replace(given, **changes)


def test_a_table_of_values_becomes_a_profile_in_seconds():
    profile = profile_from(QWEN, estimates(), asked_at=NOW)
    assert float(profile.prefill.at(1024, 4096)) == pytest.approx(0.120)
    assert float(profile.decode_step.at(64, 4096)) == pytest.approx(0.030)
    assert profile.limits.kv_capacity_tokens == 30_000
    assert profile.limits.max_model_len == 30_000
    assert (profile.accelerator, profile.tp, profile.roles) == ("h100", 2, tuple(Role))


def test_it_is_labelled_an_estimate_by_whom():
    provenance = profile_from(QWEN, estimates(), asked_at=NOW).provenance
    assert provenance.kind is ProfileKind.ESTIMATED
    assert "by aiconfigurator 9.9" in provenance.source
    assert provenance.engine == "vllm 1.2, not run"
    assert provenance.points == 10
    assert provenance.error_ratio == 0.5


def test_more_work_never_takes_less_time():
    profile = profile_from(QWEN, estimates(), asked_at=NOW)
    assert profile.decode_step.seconds[:, 0].tolist() == pytest.approx([0.010, 0.010, 0.014])


def test_the_model_has_the_name_it_has_in_specs():
    named = profile_from(replace(QWEN, name="chat"), estimates(), asked_at=NOW)
    assert named.model == "chat"
    assert profile_from(QWEN, estimates(), asked_at=NOW).model == "Qwen/Qwen3-32B"


def test_it_survives_its_file():
    profile = profile_from(QWEN, estimates(), asked_at=NOW)
    document = profile_document(profile).model_dump(mode="json")
    assert profile_of(document, where="x").profile_id == profile.profile_id


def test_a_model_without_room_for_a_kv_cache_is_refused():
    with pytest.raises(ProfileError, match="KV cache of 300 tokens only: raise tp"):
        profile_from(QWEN, estimates(kv_capacity_tokens=300), asked_at=NOW)


def test_values_that_make_no_profile_are_refused_with_their_origin():
    broken = estimates(prefill_ms=np.array([[20.0, 25.0], [np.nan, 120.0]]))
    with pytest.raises(ProfileError, match=r"aiconfigurator 9\.9 gave values for Qwen/Qwen3-32B"):
        profile_from(QWEN, broken, asked_at=NOW)


@pytest.mark.parametrize("field", ["tp", "max_num_seqs", "max_num_batched_tokens"])
def test_counts_below_one_are_refused_by_name(field):
    with pytest.raises(ValueError, match=f"{field} must be at least 1"):
        replace(QWEN, **{field: 0})


@pytest.mark.parametrize(
    ("accelerator", "system"),
    [
        ("h100", "h100_sxm"),
        ("H100-SXM5-80GB", "h100_sxm"),
        ("h100_pcie", "h100_pcie"),
        ("l40s", "l40s"),
        ("b60", "b60"),
    ],
)
def test_an_accelerator_finds_its_machine(accelerator, system):
    assert system_of(accelerator, SYSTEMS, version="9.9") == system


@pytest.mark.parametrize(
    ("accelerator", "said"),
    [
        ("tpu", "no machine of that name.*--system, of a100_sxm, b60"),
        ("rtx", "several machines of that name.*--system, of rtx_a, rtx_b"),
    ],
)
def test_an_unclear_accelerator_is_refused_with_the_choices(accelerator, said):
    with pytest.raises(ProfileError, match=said):
        system_of(accelerator, SYSTEMS, version="9.9")


def test_the_grid_has_both_ends_and_grows_evenly():
    points = grid(16, 1000)
    assert (points[0], points[-1]) == (16, 1000)
    assert (np.diff(points) > 0).all()
    assert grid(16, 10).tolist() == [16]


def test_small_batches_are_asked_for_one_by_one():
    assert batches(5).tolist() == [1, 2, 3, 4, 5]
    assert batches(64)[:17].tolist() == [*range(1, 17), 19]
    assert batches(64)[-1] == 64


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is not None, reason="it is installed")
def test_without_the_package_the_message_says_how_to_get_it():
    with pytest.raises(ProfileError, match=r"pip install 'poolwise\[aiconfigurator\]'"):
        installed_version()


@needs_package
def test_qwen_on_h100_is_as_fast_as_aiconfigurator_says():
    from aiconfigurator_core.sdk.engine import EngineHandle

    profile = import_profile(QWEN, asked_at=NOW)
    engine = EngineHandle.compile("Qwen/Qwen3-32B", "h100_sxm", BACKEND, tp_size=2)
    step_ms = engine.decode_step_latency(64, 4096, 0)
    assert float(profile.decode_step.at(64, 4096)) == pytest.approx(step_ms / 1e3, rel=0.01)
    prompt_ms = engine.predict_prefill_latency(1, 4096, 0)
    assert float(profile.prefill.at(4096, 0)) == pytest.approx(prompt_ms / 1e3, rel=0.01)
    assert 0.5e6 > profile.limits.kv_capacity_tokens > 0.2e6
    assert profile.limits.max_model_len == 40_960


@needs_package
def test_its_refusals_are_one_clear_message(tmp_path):
    impossible = {
        "num_heads 64 should be divisible by tp_size 3": replace(QWEN, tp=3),
        "no KV budget": replace(QWEN, model_path="meta-llama/Meta-Llama-3.1-70B", tp=1),
        "cannot estimate": replace(QWEN, model_path=str(tmp_path)),
        "no machine of that name": replace(QWEN, accelerator="tpu"),
    }
    for said, request in impossible.items():
        with pytest.raises(ProfileError, match=said):
            read_estimates(request)

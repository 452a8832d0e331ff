"""Roofline estimates: rough, but in the right order, and labelled."""

import pytest

from planner.domain.errors import ProfileError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.model import Dtype
from planner.domain.profile import ProfileKind
from planner.service.spec.catalogue import read_catalogue
from profiler.estimate import estimate_profile as from_facts
from profiler.files import profile_document, profile_of
from tests.fakes.models import LLAMA_70B

CATALOGUE = read_catalogue()
H100 = CATALOGUE.find("h100")
COMPLETE = [e.name for e in CATALOGUE.entries if e.bf16_flop_per_s]


def estimate_profile(model, shape, **options):
    return from_facts(model, shape, CATALOGUE.find(shape.accelerator), **options)


def shape(accelerator="h100", tp=4, role=Role.DECODE):
    return ReplicaShape(role=role, model="llama", accelerator=accelerator, tp=tp)


@pytest.mark.parametrize("accelerator", COMPLETE)
def test_every_estimate_is_labelled_and_wide(accelerator):
    profile = estimate_profile(LLAMA_70B, shape(accelerator, tp=16))
    assert profile.provenance.kind is ProfileKind.ESTIMATED
    assert profile.provenance.error_ratio >= 0.5
    assert profile.provenance.points == 0


def test_decoding_one_sequence_is_bound_by_reading_the_weights():
    profile = estimate_profile(LLAMA_70B, shape(tp=4))
    reading_s = LLAMA_70B.weight_bytes / (4 * H100.memory_bandwidth_bytes_per_s)
    assert reading_s < float(profile.decode_step.at(1, 1024)) < 3 * reading_s


def test_prefill_is_bound_by_compute_and_never_faster_than_peak():
    profile = estimate_profile(LLAMA_70B, shape(tp=4, role=Role.PREFILL))
    flop = 2 * LLAMA_70B.parameters * 8192
    peak_s = flop / (4 * H100.bf16_flop_per_s)
    assert peak_s < float(profile.prefill.at(8192, 0)) < 4 * peak_s


def test_a_faster_accelerator_has_the_lower_estimate():
    h100, h200 = (estimate_profile(LLAMA_70B, shape(name, tp=4)) for name in ("h100", "h200"))
    assert float(h200.decode_step.at(8, 4096)) < float(h100.decode_step.at(8, 4096))


def test_weights_that_do_not_fit_are_refused_with_what_to_do():
    with pytest.raises(ProfileError, match="raise tp"):
        estimate_profile(LLAMA_70B, shape(tp=1))


def test_quantized_weights_fit_where_full_ones_do_not():
    from dataclasses import replace

    small = replace(LLAMA_70B, weight_dtype=Dtype.INT4)
    assert estimate_profile(small, shape(tp=1)).limits.kv_capacity_tokens > 1024


def test_an_unknown_accelerator_is_refused_with_where_the_known_ones_are():
    with pytest.raises(ProfileError, match="`poolwise accelerators` lists what is"):
        estimate_profile(LLAMA_70B, shape("tpu"))


def test_an_accelerator_of_unknown_speed_is_refused():
    with pytest.raises(ProfileError, match="BF16 FLOP/s of a10g"):
        estimate_profile(LLAMA_70B, shape("a10g"))


def test_an_estimate_survives_its_file():
    profile = estimate_profile(LLAMA_70B, shape())
    document = profile_document(profile)
    assert profile_of(document.model_dump(mode="json"), where="x").profile_id == profile.profile_id


def test_an_estimate_is_of_the_shapes_own_formats_and_limits():
    from dataclasses import replace

    plain = shape(tp=4)
    stated = replace(
        plain,
        weight_dtype=Dtype.FP8,
        kv_dtype=Dtype.FP8,
        max_num_seqs=512,
        max_num_batched_tokens=2048,
    )
    usual, changed = estimate_profile(LLAMA_70B, plain), estimate_profile(LLAMA_70B, stated)
    assert changed.describes(stated)
    assert not changed.describes(plain)
    assert changed.limits.kv_capacity_tokens > 2 * usual.limits.kv_capacity_tokens
    assert (changed.limits.max_num_seqs, changed.limits.max_num_batched_tokens) == (512, 2048)
    assert float(changed.decode_step.at(1, 1024)) < float(usual.decode_step.at(1, 1024))


def test_more_memory_than_the_catalogues_holds_more():
    usual = estimate_profile(LLAMA_70B, shape(tp=4))
    larger = estimate_profile(LLAMA_70B, shape(tp=4), memory_bytes=94e9)
    assert larger.limits.kv_capacity_tokens > usual.limits.kv_capacity_tokens

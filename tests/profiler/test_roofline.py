"""Throughput under the roofs of peak compute and peak bandwidth."""

import numpy as np
import pytest

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.model import Dtype
from planner.service.spec.catalogue import read_catalogue
from profiler.estimate import BANDWIDTH_SHARE, PARALLEL_SHARE, estimate_profile
from profiler.roofline import decode_work, peak_of, roofed_decode, roofed_prefill
from tests.fakes.models import LLAMA_70B
from tests.fakes.profiles import linear_profile

H100 = read_catalogue().find("h100")
PEAK = peak_of(H100)


def test_one_sequence_decodes_no_faster_than_the_weights_are_read():
    work = decode_work(LLAMA_70B, np.asarray([[1.0]]), np.asarray([[0.0]]))
    seconds = float(work.memory_s(PEAK, 4)[0, 0])
    assert seconds == pytest.approx(LLAMA_70B.weight_bytes / (4 * 3.35e12))
    assert seconds > float(work.compute_s(PEAK, 4)[0, 0])


def test_fp8_weights_are_computed_with_at_the_fp8_peak_where_it_is_known():
    assert peak_of(H100, Dtype.FP8).flop_per_s == H100.fp8_flop_per_s
    assert peak_of(H100, Dtype.INT4).flop_per_s == H100.bf16_flop_per_s
    a100 = read_catalogue().find("a100")
    assert peak_of(a100, Dtype.FP8).flop_per_s == a100.bf16_flop_per_s
    assert peak_of(read_catalogue().find("a10g")) is None


def test_an_estimate_reaches_no_more_of_the_roof_than_it_assumes():
    shape = ReplicaShape(role=Role.AGGREGATED, model="llama", accelerator="h100", tp=4)
    profile = estimate_profile(LLAMA_70B, shape, H100)
    for roofed in (roofed_prefill, roofed_decode):
        share = roofed(profile, LLAMA_70B, PEAK).share
        assert share.shape == roofed(profile, LLAMA_70B, PEAK).measured.shape
        assert 0 < share.min() <= share.max() <= BANDWIDTH_SHARE * PARALLEL_SHARE


def test_without_a_peak_there_is_throughput_and_no_roof():
    found = roofed_decode(linear_profile(), None, None)
    assert found.roof is None
    assert found.share is None
    assert found.measured[0, 0] == pytest.approx(256 / (0.01 + 2e-4 * 256))

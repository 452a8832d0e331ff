"""Promises judged from histograms: the truth always lies within the bounds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.domain.slo import Slo
from serving.telemetry.histogram import Histogram
from serving.telemetry.interval import latency_of
from serving.telemetry.promises import NO_FAILURES, Experience, kept
from serving.telemetry.signals import Judged, Latency, Signal

SLO = Slo(model="m", ttft_s=1.0, tpot_s=0.05, attainment_ratio=0.9)
TTFT_ENDS, TPOT_ENDS = (0.1, 0.5, 0.8, 1.2, 3.0), (0.01, 0.03, 0.05, 0.1)
REQUESTS = st.lists(st.tuples(st.floats(0.0, 4.0), st.floats(0.0, 0.2)), min_size=1, max_size=50)


def seen(values, ends: tuple[float, ...]) -> Latency:
    upper = (*ends, math.inf)
    below = {end: float(sum(v <= end for v in values)) for end in upper}
    return latency_of(Histogram.of(below, count=len(values), total=sum(values)), metric="m")


def experience(requests, *, failed: int | None = 0) -> Experience:
    """What ten seconds of requests left in histograms."""
    ttft, tpot = zip(*requests, strict=True)
    return Experience(
        ttft=seen(ttft, TTFT_ENDS),
        tpot=seen(tpot, TPOT_ENDS),
        e2e=Latency(),
        failed_per_s=Signal.lacking("no") if failed is None else Signal(value=failed / 10),
        seconds=10.0,
    )


@given(REQUESTS, st.integers(0, 10), st.integers(0, 10))
def test_the_true_attainment_lies_within_the_bounds(requests, early: int, late: int) -> None:
    late = min(late, len(requests))  # so many failed after their first token
    arrivals = len(requests) + early
    ttft, tpot = (np.array(values) for values in zip(*requests, strict=True))
    in_time = SLO.met(ttft_s=ttft, tpot_s=tpot)
    in_time[:late] = False
    found = kept(SLO, experience(requests, failed=early + late))
    for signal, truth in (
        (found.attainment_ratio, in_time.sum() / arrivals),
        (found.goodput_rps, in_time.sum() / 10),
    ):
        assert signal.low is not None
        assert signal.high is not None
        assert signal.low - 1e-9 <= truth <= signal.high + 1e-9
    assert found.from_bounds


def test_limits_at_bucket_ends_and_one_objective_missed_by_all_are_exact() -> None:
    slo = Slo(model="m", ttft_s=0.5, tpot_s=0.05, attainment_ratio=0.9)
    found = kept(slo, experience([(0.2, 0.02)] * 9 + [(2.0, 0.02)]))
    assert found.attainment_ratio.low == pytest.approx(0.9)
    assert found.attainment_ratio.high == pytest.approx(0.9)
    assert found.error_budget_used_ratio.value == pytest.approx(1.0)
    assert found.goodput_rps.value == pytest.approx(0.9)


def test_failures_miss_every_promise() -> None:
    found = kept(SLO, experience([(0.2, 0.02)] * 8, failed=2))
    assert found.attainment_ratio.low == pytest.approx(0.75)  # were both among the eight
    assert found.attainment_ratio.high == pytest.approx(0.8)


def test_where_failures_are_not_told_that_is_said() -> None:
    assert kept(SLO, experience([(0.2, 0.02)], failed=None)).note == NO_FAILURES


def test_a_gate_that_judges_requests_one_by_one_is_believed() -> None:
    judged = Judged(
        request_class="default", judged_per_s=Signal(value=4.0), met_per_s=Signal(value=3.0)
    )
    blind = Experience(
        ttft=Latency(),
        tpot=Latency(),
        e2e=Latency(),
        failed_per_s=Signal(value=0.0),
        seconds=1.0,
        judged=(judged,),
    )
    found = kept(SLO, blind)
    assert not found.from_bounds
    assert (found.attainment_ratio.value, found.goodput_rps.value) == (0.75, 3.0)
    assert found.error_budget_used_ratio.value == pytest.approx(2.5)


def test_an_objective_that_nobody_sees_leaves_the_promise_not_known() -> None:
    slo = Slo(model="m", ttft_s=1.0, tpot_s=0.05, e2e_s=5.0)
    found = kept(slo, experience([(0.2, 0.02)]))
    assert found.attainment_ratio.missing.startswith("end-to-end time")


def test_classes_that_nobody_tells_apart_are_not_judged_by_everybody() -> None:
    one = experience([(0.2, 0.02)])
    mixed = Experience(
        ttft=one.ttft,
        tpot=one.tpot,
        e2e=one.e2e,
        failed_per_s=one.failed_per_s,
        seconds=1.0,
        classes_told_apart=False,
    )
    assert "tells request classes apart" in kept(SLO, mixed).attainment_ratio.missing

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


def experience(requests, *, failed: int | None = 0, arrivals: int | None = None) -> Experience:
    ttft, tpot = zip(*requests, strict=True)
    return Experience(
        ttft=seen(ttft, TTFT_ENDS),
        tpot=seen(tpot, TPOT_ENDS),
        e2e=Latency(),
        requests_per_s=Signal(value=float(len(requests) if arrivals is None else arrivals)),
        failed_per_s=Signal.lacking("no") if failed is None else Signal(value=float(failed)),
    )


@given(REQUESTS, st.integers(0, 10), st.booleans())
def test_the_true_attainment_lies_within_the_bounds(requests, failed: int, counts_all) -> None:
    arrivals = len(requests) + failed
    ttft, tpot = (np.array(values) for values in zip(*requests, strict=True))
    truth = float(SLO.met(ttft_s=ttft, tpot_s=tpot).sum()) / arrivals
    told = arrivals if counts_all else len(requests)
    found = kept(SLO, experience(requests, failed=failed, arrivals=told))
    attained = found.attainment_ratio
    assert attained.low is not None
    assert attained.high is not None
    assert found.from_bounds
    assert attained.low - 1e-9 <= truth <= attained.high + 1e-9
    goodput = found.goodput_rps
    assert goodput.low is not None
    assert goodput.high is not None
    assert goodput.low - 1e-9 <= truth * arrivals <= goodput.high + 1e-9


def test_limits_at_bucket_ends_and_one_objective_missed_by_all_are_exact() -> None:
    slo = Slo(model="m", ttft_s=0.5, tpot_s=0.05, attainment_ratio=0.9)
    found = kept(slo, experience([(0.2, 0.02)] * 9 + [(2.0, 0.02)]))
    assert found.attainment_ratio.low == pytest.approx(0.9)
    assert found.attainment_ratio.high == pytest.approx(0.9)
    assert found.error_budget_used_ratio.value == pytest.approx(1.0)
    assert found.goodput_rps.value == pytest.approx(9.0)


def test_failures_miss_every_promise() -> None:
    found = kept(SLO, experience([(0.2, 0.02)] * 8, failed=2, arrivals=10))
    assert found.attainment_ratio.low == pytest.approx(0.8)


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
        requests_per_s=Signal(value=4.0),
        failed_per_s=Signal(value=0.0),
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
        requests_per_s=one.requests_per_s,
        failed_per_s=one.failed_per_s,
        classes_told_apart=False,
    )
    assert "tells request classes apart" in kept(SLO, mixed).attainment_ratio.missing

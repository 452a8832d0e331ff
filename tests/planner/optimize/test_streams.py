"""Requests that the router can tell apart go to the pools that suit them."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.fleet import Role
from planner.domain.forecast import Forecast
from planner.domain.plan import Plan, PlanStatus
from planner.domain.slo import Slo
from planner.domain.spec import Routing, Spec
from planner.optimize import plan
from planner.optimize.coefficients import build_problem
from planner.optimize.streams import streams_of
from planner.service.documents.plan import plan_document, plan_of
from tests.fakes.profiles import linear_profile
from tests.planner.optimize.scenarios import MODEL, NOW, PAIR, forecast, spec

APART = Routing(bucket_limits=(1000,))


def two_kinds(*, routing: Routing) -> Spec:
    """A dear accelerator that serves all prompts, and a cheap one for short ones."""
    large = linear_profile(profile_id="large", accelerator="large", speed=2.0)
    small = linear_profile(profile_id="small", accelerator="small", max_model_len=1_500)
    return replace(
        spec(
            roles=PAIR,
            inventory=32,
            accelerators=(("large", 8.0, 2.0), ("small", 1.0, 1.0)),
            profiles=(large, small),
            ttft_s=2.0,
        ),
        routing=routing,
    )


def mixed(rate_rps: float = 20.0) -> Forecast:
    """Half short prompts of 500 tokens, half long ones of 1,500."""
    return forecast([rate_rps], isl=1000.0, osl=50.0)


def made(routing: Routing) -> Plan:
    return plan(two_kinds(routing=routing), mixed(), None, made_at=NOW)


def test_a_router_that_tells_nothing_apart_sees_one_stream() -> None:
    (only,) = streams_of(two_kinds(routing=Routing()), mixed())
    assert only.stream.request_class == ""
    assert only.stream.bucket == ""
    assert only.loads[0] is not None
    assert only.loads[0].request_rate_rps == pytest.approx(20.0)


def test_buckets_split_the_rate_and_the_lengths() -> None:
    short, long = streams_of(two_kinds(routing=APART), mixed())
    assert (short.stream.bucket, long.stream.bucket) == ("0-1000", "1000+")
    assert short.loads[0] is not None
    assert long.loads[0] is not None
    assert short.loads[0].request_rate_rps == pytest.approx(10.0)
    assert short.loads[0].shape.input_tokens.max() == 500
    assert long.loads[0].shape.input_tokens.min() == 1500


def test_a_long_request_is_worth_more_short_ones_where_prompts_are_computed() -> None:
    problem = build_problem(two_kinds(routing=APART), mixed(), None)
    large = next(o for o in problem.in_role(Role.PREFILL) if "large" in problem.options[o].label)
    small = next(o for o in problem.in_role(Role.PREFILL) if "small" in problem.options[o].label)
    assert problem.work[1, large] > 2 * problem.work[0, large]
    assert np.isinf(problem.work[1, small])
    assert np.isfinite(problem.work[0, small])


def test_short_prompts_go_to_cheap_replicas_that_long_ones_do_not_fit() -> None:
    apart, together = made(APART), made(Routing())
    assert apart.status is not PlanStatus.INFEASIBLE
    assert apart.usd_per_hour < 0.9 * together.usd_per_hour
    traffic = apart.windows[0].traffic
    long = {part.shape.accelerator for part in traffic if part.above_tokens == 1000}
    short = {part.shape.accelerator for part in traffic if part.most_tokens == 1000}
    assert long == {"large"}
    assert "small" in short
    assert together.windows[0].traffic == ()


def test_shares_of_a_stream_add_up_to_one_on_each_side() -> None:
    traffic = made(APART).windows[0].traffic
    for above in (0, 1000):
        for decoding in (False, True):
            shares = [
                part.share_ratio
                for part in traffic
                if part.above_tokens == above and (part.shape.role is Role.DECODE) == decoding
            ]
            assert sum(shares) == pytest.approx(1.0, abs=1e-4)


def test_the_twin_proves_what_is_sent_apart() -> None:
    first = made(APART).windows[0].predicted
    assert first.source == "twin"
    assert first.attainment_low_ratio is not None
    assert first.attainment_low_ratio >= 0.95


def test_a_plan_with_traffic_survives_its_document() -> None:
    apart = made(APART)
    assert plan_of(plan_document(apart), where="here") == apart


def test_classes_are_planned_under_their_own_promises() -> None:
    base = two_kinds(routing=Routing(by_class=True))
    hurried = Slo(model=MODEL, request_class="fast", ttft_s=0.4, tpot_s=0.05, attainment_ratio=0.95)
    window = mixed().windows[0]
    demand = window.demands[0]
    fast = replace(demand, request_class="fast")
    both = replace(mixed(), windows=(replace(window, demands=(demand, fast)),))
    streams = streams_of(replace(base, slos=(*base.slos, hurried)), both)
    assert [s.stream.request_class for s in streams] == ["default", "fast"]
    assert [s.slo.ttft_s for s in streams] == [2.0, 0.4]


def test_bucket_limits_that_do_not_increase_are_refused() -> None:
    with pytest.raises(ValueError, match="increase"):
        Routing(bucket_limits=(8192, 2048))

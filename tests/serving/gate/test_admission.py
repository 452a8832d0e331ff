"""Decisions about values: what is let in, shed first, or sent straight to a decode worker."""

from dataclasses import replace

import pytest

from planner.domain.slo import Slo
from serving.gate.admission import Case, Promise, Slack, Way, Why, decide
from serving.gate.estimates import (
    CellLoad,
    CellTimes,
    Prompt,
    WorkerLoad,
    estimate,
    estimate_direct,
)
from tests.fakes.profiles import linear_profile

PROFILE = linear_profile(
    prefill_base_s=0.01,
    prefill_token_s=1e-3,
    decode_base_s=0.01,
    decode_sequence_s=1e-3,
    transfer_base_s=0.02,
    transfer_bandwidth_bytes_per_s=4096e3,
    first_token_s=0.005,
    max_num_seqs=32,
    kv_capacity_tokens=32_768,
)
PAIR = CellTimes(prefill=PROFILE, decode=PROFILE, disaggregated=True)
SLO = Slo(model="tiny", ttft_s=1.0, tpot_s=0.03)
IDLE = CellLoad(prefill_replicas=1, decode_replicas=1)
PROMPT = Prompt(input_tokens=256, output_tokens=50)


def busy(**changes: float) -> CellLoad:
    return replace(IDLE, answers=4, answer_tokens=50.0, tightest_tpot_s=0.03, **changes)


def case(load: CellLoad = IDLE, **changes: object) -> Case:
    values = {"times": PAIR, "prompt": PROMPT, "promise": Promise(slo=SLO), **changes}
    return Case(load=load, **values)


def test_an_idle_pair_takes_the_sum_of_its_parts():
    expected = estimate(PAIR, IDLE, PROMPT)
    prompt_s, transfer_s, step_s = 0.01 + 0.256, 0.02 + 0.256, 0.01 + 0.001
    assert expected.ttft_s == pytest.approx(0.005 + prompt_s + transfer_s + step_s)
    assert expected.tpot_s == pytest.approx(step_s)
    assert expected.queue_s == 0


def test_prompts_ahead_delay_the_first_token_and_two_replicas_share_them():
    one = estimate(PAIR, replace(IDLE, prompts=2, prompt_work_s=0.6), PROMPT)
    two = estimate(PAIR, replace(IDLE, prompts=2, prompt_work_s=0.6, prefill_replicas=2), PROMPT)
    assert one.queue_s == pytest.approx(0.6 + 0.01)
    assert two.queue_s == pytest.approx(one.queue_s / 2)


def test_a_larger_batch_slows_every_token():
    few, many = (
        estimate(PAIR, replace(IDLE, answers=n, answer_tokens=500), PROMPT) for n in (2, 20)
    )
    assert many.tpot_s > few.tpot_s + 0.015


def test_answers_that_end_meanwhile_do_not_count():
    short = estimate(PAIR, replace(IDLE, answers=20, answer_tokens=5), PROMPT)
    assert short.tpot_s == pytest.approx(0.011)


def test_who_finds_all_slots_taken_waits_for_one():
    full = estimate(PAIR, replace(IDLE, answers=40, answer_tokens=1000), PROMPT)
    assert full.queue_s > 10
    assert full.tpot_s == pytest.approx(0.01 + 32e-3)


def test_lengths_beyond_the_profile_are_told():
    assert not estimate(PAIR, IDLE, PROMPT).extrapolated
    assert estimate(PAIR, IDLE, replace(PROMPT, input_tokens=20_000)).extrapolated


def test_a_request_that_fits_is_let_in():
    decision = decide(case(busy()))
    assert (decision.way, decision.why) == (Way.ADMIT, Why.FITS)


@pytest.mark.parametrize(
    ("load", "why"),
    [
        (busy(prompts=3, prompt_work_s=0.9), Why.TTFT),
        (busy(held_tokens=32_000), Why.KV_CACHE),
        (busy(kv_usage_ratio=0.97), Why.KV_CACHE),
        (replace(IDLE, answers=25, answer_tokens=500.0), Why.TPOT),
        (replace(IDLE, answers=18, answer_tokens=500.0, tightest_tpot_s=0.02), Why.OTHERS_TPOT),
    ],
)
def test_a_request_that_would_break_a_promise_is_shed_with_the_reason(load, why):
    decision = decide(case(load))
    assert (decision.way, decision.why) == (Way.SHED, why)
    assert 0 <= decision.retry_after_s <= 60


def test_an_end_to_end_objective_is_kept_too():
    slo = replace(SLO, e2e_s=1.5)
    load = replace(IDLE, answers=15, answer_tokens=500.0)
    assert decide(case(load)).way is Way.ADMIT
    assert decide(case(load, promise=Promise(slo=slo))).why is Why.E2E


def test_low_priority_is_shed_before_high():
    ways = {}
    for work_s in (0.0, 0.2, 0.35, 0.6):
        load = busy(prompts=1, prompt_work_s=work_s)
        ways[work_s] = [
            decide(case(load, promise=Promise(slo=SLO, rank=rank))).way for rank in (0.0, 1.0)
        ]
    assert ways[0.0] == [Way.ADMIT, Way.ADMIT]
    assert ways[0.35] == [Way.ADMIT, Way.SHED]
    assert ways[0.6] == [Way.SHED, Way.SHED]


def test_estimates_that_were_too_low_lately_count():
    load = busy(prompts=1, prompt_work_s=0.2)
    assert decide(case(load)).way is Way.ADMIT
    assert decide(case(load, slack=Slack(ttft_s=0.5))).why is Why.TTFT


def test_what_an_idle_pair_could_not_keep_either_is_let_in_while_nothing_is_ahead():
    long = Prompt(input_tokens=4000, output_tokens=50)
    assert decide(case(prompt=long)).way is Way.ADMIT
    assert decide(case(busy(), prompt=long)).way is Way.ADMIT
    assert decide(case(busy(prompts=1, prompt_work_s=0.9), prompt=long)).why is Why.TTFT


def test_without_a_promise_only_others_are_protected():
    nobody = Promise(slo=None)
    assert decide(case(busy(prompts=9, prompt_work_s=9.0), promise=nobody)).way is Way.ADMIT
    crowded = replace(IDLE, answers=25, answer_tokens=500.0, tightest_tpot_s=0.03)
    assert decide(case(crowded, promise=nobody)).why is Why.OTHERS_TPOT


SHORT = Prompt(input_tokens=8, output_tokens=50)
WORKER = WorkerLoad(running=2, direct_prompts=0, kv_usage_ratio=0.1)


def test_a_short_prompt_goes_straight_to_the_decode_worker():
    decision = decide(case(busy(), prompt=SHORT, worker=WORKER))
    assert (decision.way, decision.why) == (Way.DIRECT, Why.SHORT_PROMPT)
    assert decision.estimate == estimate_direct(PAIR, WORKER, SHORT)


@pytest.mark.parametrize(
    "worker",
    [
        replace(WORKER, direct_prompts=1),
        replace(WORKER, kv_usage_ratio=0.9),
        replace(WORKER, running=18),  # a step of theirs with the prompt in it: over 30 ms
        replace(WORKER, running=32),
    ],
)
def test_it_does_not_where_it_would_harm_answers_there(worker):
    assert decide(case(busy(), prompt=SHORT, worker=worker)).way is not Way.DIRECT


def test_a_long_prompt_does_not_go_straight():
    assert decide(case(busy(), prompt=PROMPT, worker=WORKER)).way is Way.ADMIT


def test_aggregated_replicas_lose_answer_time_to_prompts_ahead():
    both = CellTimes(prefill=PROFILE, decode=PROFILE, disaggregated=False)
    lasting = replace(busy(), answer_tokens=5000.0)
    quiet = estimate(both, lasting, PROMPT)
    loaded = estimate(both, replace(lasting, prompts=2, prompt_work_s=0.5), PROMPT)
    assert loaded.tpot_s > quiet.tpot_s + 0.5 / 50
    assert quiet.ttft_s < estimate(PAIR, lasting, PROMPT).ttft_s  # nothing is moved

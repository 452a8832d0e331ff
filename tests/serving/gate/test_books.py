"""Counting: tokens in passing answers, lengths learned, requests under way, rates, records."""

import asyncio
from datetime import UTC, datetime

import pytest

from planner.domain.errors import StoreError
from serving.gate.answer import AnswerMeter
from serving.gate.costs import Prices, request_usd
from serving.gate.estimates import CellTimes, Estimate, Prompt
from serving.gate.lengths import CHARACTERS_PER_TOKEN, AnswerLengths, PromptLengths
from serving.gate.load import CellLedger, Errors, Others, UnderWay
from serving.gate.rates import Bucket
from serving.gate.records import RecordWriter, RequestRecord
from serving.gate.requests import Asked, Kind
from tests.fakes.profiles import linear_profile

CHAT_ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
CHAT_TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
CHAT_END = b'data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}\n\n'
TOTAL = b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}}\n\n'
DONE = b"data: [DONE]\n\n"
TIMES = CellTimes(prefill=linear_profile(), decode=linear_profile(), disaggregated=True)


def test_chunks_with_text_count_and_others_do_not():
    meter = AnswerMeter(stream=True)
    for at_s, data in enumerate((CHAT_ROLE, CHAT_TOKEN, CHAT_TOKEN + CHAT_TOKEN, CHAT_END, DONE)):
        meter.take(data, float(at_s))
    meter.finish()
    assert (meter.output_tokens, meter.tokens_counted) == (3, False)
    assert (meter.first_token_s, meter.last_token_s) == (1.0, 2.0)
    assert meter.gaps_s == [1.0, 0.0]
    assert meter.tpot_s == pytest.approx(0.5)


def test_a_total_at_the_end_is_believed_and_is_no_token():
    meter = AnswerMeter(stream=True)
    for at_s, data in enumerate((CHAT_TOKEN, CHAT_TOKEN, TOTAL + DONE)):
        meter.take(data, float(at_s))
    assert (meter.output_tokens, meter.input_tokens, meter.tokens_counted) == (9, 5, True)
    assert meter.last_token_s == 1.0


def test_running_totals_tell_of_several_tokens_in_a_chunk():
    meter = AnswerMeter(stream=True)
    for at_s, total in enumerate((1, 4)):
        text = f'data: {{"choices":[{{"text":"x"}}],"usage":{{"completion_tokens":{total}}}}}\n\n'
        meter.take(text.encode(), float(at_s))
    assert meter.output_tokens == 4
    assert meter.gaps_s == [1.0, 0.0, 0.0]


def test_a_text_that_looks_like_a_count_is_none():
    meter = AnswerMeter(stream=True)
    meter.take(b'data: {"choices":[{"text":"\\"completion_tokens\\": 77"}]}\n\n', 1.0)
    assert (meter.output_tokens, meter.tokens_counted) == (1, False)


def test_an_answer_in_one_piece_is_read_at_its_end():
    meter = AnswerMeter(stream=False)
    meter.take(b'{"choices":[{"text":"x"}],"usage":{"prompt_tokens":12,', 1.0)
    meter.take(b'"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8}}}', 1.0)
    meter.finish()
    assert (meter.input_tokens, meter.cached_tokens, meter.output_tokens) == (12, 8, 3)
    assert meter.first_token_s is None


def asked(characters: int = 100, **changes: object) -> Asked:
    return Asked(**{"kind": Kind.COMPLETION, "model": "tiny", "stream": True,
                    "characters": characters, **changes})  # fmt: skip


def test_characters_per_token_are_learned_for_each_model():
    lengths = PromptLengths()
    assert lengths.count(asked(400), "tiny").tokens == round(400 / CHARACTERS_PER_TOKEN)
    for _ in range(50):
        lengths.learn(asked(500), "tiny", 100)
    assert lengths.count(asked(400), "tiny").tokens == 80
    assert lengths.count(asked(400), "other").tokens == 100
    assert not lengths.count(asked(400), "tiny").exact
    assert lengths.count(asked(0, prompt_tokens=33), "tiny").exact


def test_answers_are_expected_as_they_were_and_at_most_as_asked():
    lengths = AnswerLengths()
    assert lengths.expected(asked(max_tokens=500), "chat") == 500
    for _ in range(40):
        lengths.learn("chat", 100)
    assert lengths.expected(asked(max_tokens=500), "chat") == pytest.approx(100, rel=0.1)
    assert lengths.expected(asked(max_tokens=20), "chat") == pytest.approx(20)
    assert lengths.expected(asked(max_tokens=500), "batch") == 500


def under_way(work_s: float = 0.3, admitted_s: float = 0.0, **changes: object) -> UnderWay:
    values = {"tpot_promise_s": 0.05, "first_token_due_s": admitted_s + 1.0, "stream": True}
    prompt = Prompt(input_tokens=100, output_tokens=20)
    return UnderWay(prompt=prompt, work_s=work_s, admitted_s=admitted_s, **{**values, **changes})


NOBODY = Others()


def load_of(ledger: CellLedger, now_s: float, others: Others = NOBODY):
    return ledger.load(
        now_s, prefill_replicas=1, decode_replicas=1, others=others, kv_usage_ratio=None
    )


def test_requests_move_from_waiting_to_answering_to_gone():
    ledger, one, two = CellLedger(), under_way(), under_way(tpot_promise_s=0.02)
    ledger.add(one)
    ledger.add(two)
    load = load_of(ledger, 0.1)
    assert (load.prompts, load.answers, load.tightest_tpot_s) == (2, 0, 0.02)
    assert load.prompt_work_s == pytest.approx(0.6 - 0.1)  # the first one has been at it for 0.1 s
    ledger.begin(one, 0.35)
    load = load_of(ledger, 0.45)
    assert (load.prompts, load.answers, load.answer_tokens) == (1, 1, 20)
    assert load.prompt_work_s == pytest.approx(0.3 - 0.1)
    ledger.end(two)
    ledger.end(two)
    assert load_of(ledger, 0.5).tightest_tpot_s == 0.05
    ledger.end(one)
    assert load_of(ledger, 0.5).is_idle
    assert load_of(ledger, 0.5).held_tokens == 0


def test_answers_that_are_not_streamed_begin_when_they_are_due():
    ledger = CellLedger()
    ledger.add(under_way(stream=False))
    assert load_of(ledger, 0.5).prompts == 1
    assert load_of(ledger, 1.1).answers == 1


def test_requests_past_the_gate_count_with_the_usual_work():
    ledger = CellLedger()
    ledger.add(under_way(admitted_s=5.0))
    load = load_of(ledger, 5.0, Others(prompts=2, answers=3))
    assert (load.prompts, load.answers) == (3, 3)
    assert load.prompt_work_s == pytest.approx(0.9)


def test_slack_is_what_late_requests_needed_and_is_forgotten():
    errors = Errors()
    expected = Estimate(ttft_s=1.0, tpot_s=0.01, queue_s=0.0, step_s=0.01)
    for i in range(100):
        errors.learn(expected, ttft_s=1.0 + i / 100, tpot_s=0.012, now_s=10.0)
    slack = errors.slack(TIMES, 0.9, 11.0)
    assert slack.ttft_s == pytest.approx(0.95)
    assert slack.tpot_s == pytest.approx(0.002)
    assert errors.slack(TIMES, 0.9, 1000.0).ttft_s == 0.0


def test_a_bucket_holds_seconds_of_its_rate_and_refills():
    bucket = Bucket(per_s=2.0, at_s=0.0)
    for _ in range(10):
        assert bucket.wait_s(1, 0.0) == 0
        bucket.take(1, 0.0)
    assert bucket.wait_s(1, 0.0) == pytest.approx(0.5)
    assert bucket.wait_s(1, 0.5) == 0


def test_what_is_larger_than_a_bucket_waits_until_it_is_full():
    bucket = Bucket(per_s=10.0, at_s=0.0)
    assert bucket.wait_s(1000, 0.0) == 0
    bucket.take(1000, 0.0)
    assert bucket.wait_s(1, 0.0) == pytest.approx(95.1)


def test_a_request_costs_the_time_that_it_took():
    profile = linear_profile(prefill_base_s=1e-9, prefill_token_s=1e-3, decode_base_s=0.02,
                             decode_sequence_s=0.0)  # fmt: skip
    times = CellTimes(prefill=profile, decode=profile, disaggregated=True)
    prices = Prices(prefill_usd_per_s=1.0, decode_usd_per_s=10.0)
    prompt = Prompt(input_tokens=32, output_tokens=10)
    alone = request_usd(times, prices, prompt, output_tokens=10, together=1)
    assert alone == pytest.approx(0.032 + 10 * 0.02 * 10)
    shared = request_usd(times, prices, prompt, output_tokens=10, together=4)
    assert shared == pytest.approx(0.032 + 10 * 0.02 * 10 / 4)


def record(number: int) -> RequestRecord:
    return RequestRecord(
        started_at=datetime(2026, 1, 1, tzinfo=UTC), model="tiny", request_class="chat",
        priority=0, client="", kind="chat", decision="admit", reason="fits", cell="a",
        outcome="complete", status=200, input_tokens=number, cached_tokens=None, output_tokens=1,
        tokens_counted=True, ttft_s=None, tpot_s=None, itl_p99_s=None, e2e_s=1.0,
        predicted_ttft_s=None, predicted_tpot_s=None, met=None, cost_usd=None,
    )  # fmt: skip


class FailingSink:
    def __init__(self) -> None:
        self.fails, self.kept = True, []

    def add_requests(self, records):
        if self.fails:
            raise StoreError("disk full")
        self.kept += [r.input_tokens for r in records]


def test_records_wait_while_the_store_fails_and_the_oldest_are_dropped_and_counted():
    sink = FailingSink()
    writer = RecordWriter(sink, queued=5)
    for number in range(4):
        writer.put(record(number))
    asyncio.run(writer.flush())
    for number in range(4, 8):
        writer.put(record(number))
    sink.fails = False
    asyncio.run(writer.flush())
    assert sink.kept == [3, 4, 5, 6, 7]
    assert (writer.written, writer.dropped) == (5, 3)


@pytest.mark.parametrize("pieces", [1, 2, 3, 1000])
def test_counts_do_not_depend_on_how_a_stream_is_cut(pieces):
    whole = CHAT_ROLE + 3 * CHAT_TOKEN + CHAT_TOKEN.replace(b"hi", b'\\"content\\":\\"') + CHAT_END
    whole += TOTAL.replace(b'"completion_tokens": 9', b'"x": 1') + DONE
    meter = AnswerMeter(stream=True)
    step = -(-len(whole) // pieces)
    for start in range(0, len(whole), step):
        meter.take(whole[start : start + step], float(start))
    meter.finish()
    assert (meter.output_tokens, meter.input_tokens) == (4, None)

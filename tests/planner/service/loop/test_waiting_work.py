"""A backlog in tokens, made of what engines tell."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from planner.autoscale import Backlog
from planner.service.loop.waiting_work import WaitingWork
from serving.telemetry.signals import Signal
from serving.telemetry.whole import deployment_signals
from tests.planner.service.imagined import make_deployment
from tests.serving.telemetry.test_whole import DECODE, PREFILL

START = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


@pytest.fixture
def deployment(tmp_path):
    made = make_deployment(tmp_path)
    yield made
    made.store.close()


def holding(target, *, waiting, running):
    there = replace(target.activity, running=Signal(value=running), waiting=Signal(value=waiting))
    return replace(target, activity=there)


def seen(second, *, waiting, running=4.0):
    """Engines that end a request a second, of 500 tokens in and 100 out."""
    parts = (
        holding(PREFILL, waiting=waiting, running=0.0),
        holding(DECODE, waiting=1.0, running=running),
    )
    return deployment_signals(parts, looked_at=START + timedelta(seconds=second))


def kept(deployment):
    return deployment.store.backlog("shop", "tiny")


def test_what_waits_is_told_in_tokens_and_what_arrives_with_the_growth(deployment):
    work = WaitingWork(leading=lambda: deployment)
    work.take(seen(0, waiting=0.0))
    assert kept(deployment).waiting_prompt_tokens == 0
    assert kept(deployment).request_rate_rps is None  # nothing to compare with
    reading = seen(10, waiting=40.0)
    work.take(reading)
    backlog = kept(deployment)
    reused = reading.prefix_hit_ratio.value or 0.0
    assert backlog.observed_at == START + timedelta(seconds=10)
    assert backlog.waiting_prompt_tokens == round(40 * 500 * (1 - reused))
    assert backlog.decoding_sequences == 5
    assert backlog.context_tokens == pytest.approx(550)
    assert backlog.request_rate_rps == pytest.approx(reading.requests_per_s.value + 4.0)
    assert backlog.input_tokens_per_s == pytest.approx(500 * backlog.request_rate_rps)


def test_the_line_of_half_a_minute_ago_is_kept_with_it(deployment):
    work = WaitingWork(leading=lambda: deployment)
    for second, running in ((0, 4.0), (15, 10.0), (30, 20.0)):
        work.take(seen(second, waiting=0.0, running=running))
    assert kept(deployment).decoding_sequences == 21
    assert kept(deployment).sequences_before == 5


def test_only_the_leader_keeps_it(deployment):
    WaitingWork(leading=lambda: None).take(seen(0, waiting=9.0))
    assert kept(deployment) is None


def test_engines_that_do_not_tell_leave_none(deployment):
    silent = replace(PREFILL, activity=replace(PREFILL.activity, waiting=Signal.lacking("no")))
    signals = deployment_signals((silent, DECODE), looked_at=START)
    WaitingWork(leading=lambda: deployment).take(signals)
    assert kept(deployment) is None


def test_a_backlog_that_is_handed_in_is_left_until_it_is_old(deployment):
    told = Backlog(model="tiny", observed_at=START, waiting_prompt_tokens=7, decoding_sequences=0)
    deployment.store.put_backlog("shop", told)
    work = WaitingWork(leading=lambda: deployment)
    work.take(seen(60, waiting=9.0))
    assert kept(deployment) == told
    work.take(seen(600, waiting=9.0))
    work.take(seen(610, waiting=8.0))
    assert kept(deployment).observed_at == START + timedelta(seconds=610)

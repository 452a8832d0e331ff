"""Notifications over real HTTP: signed, retried, never twice, never in anybody's way."""

import hashlib
import hmac
import json
import logging
import socket
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from planner.domain.errors import InputError
from planner.service.fleet import lifecycle
from planner.service.loop.slow_tick import tick
from planner.service.settings import read_settings
from planner.service.telemetry.events import BurnWatch, EventWatch
from planner.service.telemetry.notifying import (
    QUEUE_SIZE,
    TRIES,
    Kind,
    Notification,
    Notifier,
    Slack,
    Webhook,
    channels_of,
    signature,
)
from planner.service.telemetry.observability import read_notifications
from tests.fakes.pages import answering
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY, make_deployment, observe
from tests.planner.service.signals import example_signals
from tests.serving.telemetry.servers import until

SECRET = "a secret of the test"


def note(key: str = "p-1", kind: Kind = Kind.PLAN_FAILED, **more) -> Notification:
    return Notification(
        kind=kind, deployment="shop", at=NOON, key=key, summary="plan p-1 failed", **more
    )


class Receiver:
    """Keeps what comes; answers what the test wants, the last answer from then on."""

    def __init__(self, *answers, delay_s: float = 0.0):
        self.answers, self.asked, self.delay_s = list(answers), [], delay_s

    def __call__(self, asked):
        self.asked.append(asked)
        time.sleep(self.delay_s)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Running:
    def __init__(self, *channels, **more):
        self.registry = CollectorRegistry()
        settings = {"first_pause_s": 0.01, "timeout_s": 1.0, **more}
        self.notifier = Notifier(channels, self.registry, **settings)
        self.notifier.show("shop")

    def __enter__(self):
        self.notifier.start()
        return self

    def __exit__(self, *_):
        self.notifier.stop()

    def count(self, outcome: str, channel: str = "webhook") -> float:
        labels = {"deployment": "shop", "channel": channel, "outcome": outcome}
        return self.registry.get_sample_value("poolwise_notifications_total", labels)

    def await_count(self, outcome: str, count: int, channel: str = "webhook") -> None:
        until(lambda: self.count(outcome, channel) >= count, f"{outcome} never became {count}")


def test_a_receiver_can_check_who_sent_it_and_when():
    receiver = Receiver((204, ""))
    with answering(receiver) as url, Running(Webhook(url, SECRET)) as running:
        running.notifier.tell(note(facts={"by": "ann"}))
        running.await_count("sent", 1)
    (asked,) = receiver.asked
    sent, body = asked.headers["X-Poolwise-Timestamp"], asked.body.encode()
    expected = hmac.new(SECRET.encode(), sent.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert asked.headers["X-Poolwise-Signature"] == f"v1={expected}"
    assert abs(time.time() - int(sent)) < 60
    document = json.loads(asked.body)
    assert document["kind"] == asked.headers["X-Poolwise-Event"] == "plan_failed"
    assert document["facts"] == {"by": "ann"}
    assert SECRET not in asked.body + str(asked.headers)


def test_another_secret_another_time_or_another_body_make_another_signature():
    made = {
        signature(secret, at, body)
        for secret in ("a", "b")
        for at in ("1", "2")
        for body in (b"x", b"y")
    }
    assert len(made) == 8


def test_slack_gets_one_text_without_foreign_markup():
    receiver = Receiver("ok")
    with answering(receiver) as url, Running(Slack(url)) as running:
        running.notifier.tell(replace(note(), summary="see <https://evil|this> & that"))
        running.await_count("sent", 1, "slack")
    document = json.loads(receiver.asked[0].body)
    assert list(document) == ["text"]
    assert "&lt;https://evil|this&gt; &amp; that" in document["text"]


@pytest.mark.parametrize("broken", [(500, ""), (503, ""), (429, ""), None])
def test_what_may_pass_is_tried_again_with_the_same_delivery(broken):
    receiver = Receiver(broken, broken, (200, ""))
    with answering(receiver) as url, Running(Webhook(url, SECRET)) as running:
        running.notifier.tell(note())
        running.await_count("sent", 1)
    assert len(receiver.asked) == 3
    assert len({asked.headers["X-Poolwise-Delivery"] for asked in receiver.asked}) == 1


def test_a_receiver_that_stays_broken_is_given_up_after_some_tries():
    receiver = Receiver((500, ""))
    with answering(receiver) as url, Running(Webhook(url, SECRET)) as running:
        running.notifier.tell(note())
        running.await_count("failed", 1)
    assert len(receiver.asked) == TRIES


@pytest.mark.parametrize("status", [400, 401, 404, 410, 302])
def test_a_receiver_that_is_gone_is_not_asked_again_and_nothing_is_followed(status):
    receiver = Receiver((status, ""))
    with answering(receiver) as url, Running(Webhook(url, SECRET)) as running:
        running.notifier.tell(note())
        running.await_count("failed", 1)
    assert len(receiver.asked) == 1


def test_nobody_at_the_address_holds_up_nobody_and_is_counted(caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/hook/T0PSECRET"
        with caplog.at_level(logging.DEBUG), Running(Webhook(nobody, SECRET)) as running:
            running.notifier.tell(note())
            running.await_count("failed", 1)
    own = [r.getMessage() for r in caplog.records if r.name.startswith("poolwise")]
    assert any("not delivered: ConnectError" in text for text in own)
    assert not any("T0PSECRET" in text or SECRET in text for text in own)


def test_a_slow_receiver_fills_its_queue_and_neither_caller_nor_the_other_channel_waits():
    release = threading.Event()

    def hangs(_asked):
        release.wait(20)
        return (200, "")

    fast = Receiver("ok")
    with answering(hangs) as slow_url, answering(fast) as fast_url:
        channels = (Webhook(slow_url, SECRET), Slack(fast_url))
        with Running(*channels, timeout_s=30.0) as running:
            threads = threading.active_count()
            for i in range(QUEUE_SIZE + 20):
                running.notifier.tell(note(key=str(i)))
                if i % 50 == 0:  # let the fast one keep up
                    until(lambda i=i: len(fast.asked) > i - 50, "slack waits too")
            assert running.count("dropped") >= 18
            assert running.count("sent") == 0
            assert threading.active_count() < threads + 10, "no thread a notification"
            running.await_count("sent", QUEUE_SIZE, "slack")
            release.set()


def test_the_same_is_told_once_until_it_may_be_repeated():
    now = [0.0]
    receiver = Receiver((200, ""))
    with answering(receiver) as url:
        settings = {"repeat_s": 60.0, "clock_s": lambda: now[0]}
        with Running(Webhook(url, SECRET), **settings) as running:
            for _ in range(5):
                running.notifier.tell(note())
            running.notifier.tell(note(key="p-2"))
            running.notifier.tell(note(kind=Kind.PLAN_APPLIED))
            running.await_count("sent", 3)
            assert running.count("repeated") == 4
            now[0] = 61.0
            running.notifier.tell(note())
            running.await_count("sent", 4)


def test_secrets_are_in_no_representation(tmp_path):
    hook, path = "https://hooks.example/T0PSECRET", tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    environ = {
        "HOME": "/h",
        "POOLWISE_WEBHOOK_URL": hook,
        "POOLWISE_WEBHOOK_SECRET_FILE": str(path),
        "POOLWISE_SLACK_URL": hook,
    }
    settings = read_settings(environ)
    assert settings.notifications.webhook_secret == SECRET
    shown = repr(settings) + repr(channels_of(settings.notifications))
    assert "T0PSECRET" not in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"POOLWISE_WEBHOOK_URL": "https://h"}, "needs POOLWISE_WEBHOOK_SECRET"),
        ({"POOLWISE_SLACK_URL": "h"}, "POOLWISE_SLACK_URL is no address"),
        ({"POOLWISE_SLACK_URL_FILE": "/nowhere"}, "cannot be read"),
        (
            {"POOLWISE_WEBHOOK_SECRET": "a", "POOLWISE_WEBHOOK_SECRET_FILE": "b"},
            "are both set: set one",
        ),
        ({"POOLWISE_NOTIFY_REPEAT_S": "often"}, "POOLWISE_NOTIFY_REPEAT_S must be a number"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(environ, message):
    with pytest.raises(InputError, match=message):
        read_notifications(environ)


class Told:
    """A notifier's front, which keeps what it is told."""

    def __init__(self):
        self.all = []

    def tell(self, told):
        self.all.append(told)

    @property
    def kinds(self):
        return [one.kind for one in self.all]


@pytest.fixture
def deployment(tmp_path):
    made = make_deployment(tmp_path)
    yield made
    made.store.close()


def watch_of(deployment, *, leads=lambda: True):
    told = Told()
    events = EventWatch(deployment, told, leads)
    events.look(now=NOON)
    return events, told


def test_a_plan_is_told_when_it_waits_and_when_it_was_applied_and_rolled_back(deployment):
    events, told = watch_of(deployment)
    observe(deployment, history(**BUSY))
    plan_id = tick(deployment, now=NOON).decision.plan.plan_id
    events.look(now=NOON)
    assert told.kinds == [Kind.APPROVAL_WANTED]
    assert plan_id in told.all[0].summary
    lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    lifecycle.apply(deployment, plan_id, by="ann", at=NOON)
    events.look(now=NOON)
    lifecycle.roll_back(deployment, plan_id, by="ann", at=NOON)
    events.look(now=NOON)
    assert told.kinds == [Kind.APPROVAL_WANTED, Kind.PLAN_APPLIED, Kind.PLAN_ROLLED_BACK]
    assert told.all[-1].facts["by"] == "ann"


def test_what_policy_approves_at_once_asks_nobody(tmp_path):
    made = make_deployment(tmp_path, loop={"mode": "auto"})
    events, told = watch_of(made)
    observe(made, history(**BUSY))
    tick(made, now=NOON)
    events.look(now=NOON)
    assert told.kinds == [Kind.PLAN_APPLIED]
    made.store.close()


def test_a_plan_that_failed_is_told_with_the_reason(tmp_path):
    made = make_deployment(tmp_path, loop={"mode": "auto"})
    made.actuator.fails_at = 0
    events, told = watch_of(made)
    observe(made, history(**BUSY))
    tick(made, now=NOON)
    events.look(now=NOON)
    assert told.kinds == [Kind.PLAN_FAILED]
    assert "the machine is on fire" in told.all[0].facts["reason"]
    made.store.close()


def test_what_happened_before_this_process_began_to_lead_is_not_told_again(deployment):
    observe(deployment, history(**BUSY))
    tick(deployment, now=NOON)
    leads = []
    events, told = watch_of(deployment, leads=lambda: bool(leads))
    events.look(now=NOON)
    leads.append(True)
    events.look(now=NOON)
    assert told.kinds == []


def test_a_loop_that_fails_three_times_or_stops_is_told(tmp_path):
    made = make_deployment(tmp_path)
    events, told = watch_of(made)
    observe(made, history(**BUSY))
    with closing(sqlite3.connect(tmp_path / "poolwise.db")) as database:
        database.execute("DROP TABLE forecasts")
    for i in range(3):
        assert tick(made, now=NOON + timedelta(seconds=i)).outcome == "failed"
    events.look(now=NOON + timedelta(seconds=10))
    assert told.kinds == [Kind.LOOP_FAILING]
    assert "the last 3 ticks failed" in told.all[0].summary
    events.look(now=NOON + timedelta(minutes=10))
    assert "no tick came to its end for" in told.all[-1].summary
    made.store.close()


def burn(watch, minutes, ratio, *, start=0):
    return [
        watch.add(NOON + timedelta(minutes=start + i), 100.0, 100.0 * ratio) for i in range(minutes)
    ]


def test_a_burning_budget_is_told_when_both_the_hour_and_the_last_minutes_are_bad():
    watch = BurnWatch(allowed_ratio=0.01, burn_ratio=14.4)
    assert not any(burn(watch, 60, 0.001))
    told = burn(watch, 30, 0.5, start=60)
    first = next(i for i, one in enumerate(told) if one is not None)
    assert 15 < first < 20, "0.144 of an hour at 0.5 takes 17 minutes"
    assert burn(watch, 10, 0.0, start=90)[-1] is None, "it is over when the last minutes are good"


def test_a_loose_promise_can_burn_too():
    watch = BurnWatch(allowed_ratio=0.1, burn_ratio=14.4)
    assert burn(watch, 60, 0.9)[-1] == pytest.approx(0.9)


def test_signals_of_a_deployment_that_misses_are_told_with_the_bottleneck(deployment):
    events, told = watch_of(deployment)
    for i in range(10):
        at = NOON + timedelta(minutes=i)
        events.take(example_signals(at=at, attainment=0.05))
    assert set(told.kinds) == {Kind.SLO_BURN}
    assert "missed 95.0% of its requests" in told.all[0].summary
    assert told.all[0].facts["bottleneck"] == "prompts wait"

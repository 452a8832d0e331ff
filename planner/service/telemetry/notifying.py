"""Notifications over HTTP: signed, retried, never twice, and never in the loop's way.

Each channel has a thread and a bounded queue of its own: a receiver that hangs holds up neither
the loop nor the other channel; what does not fit into the queue is dropped and counted.
"""

import hashlib
import hmac
import json
import logging
import queue
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import httpx
from prometheus_client import CollectorRegistry, Counter

from planner.service.telemetry.observability import NotificationSettings

LOG = logging.getLogger("poolwise.notify")
QUEUE_SIZE = 100
TIMEOUT_S = 5.0
TRIES = 5
FIRST_PAUSE_S = 1.0
"""Before the second try; doubled for each further one."""
MOST_REMEMBERED = 1_000
_TRY_AGAIN = frozenset({408, 425, 429})


class Kind(StrEnum):
    """What people are told."""

    APPROVAL_WANTED = "approval_wanted"
    PLAN_APPLIED = "plan_applied"
    PLAN_FAILED = "plan_failed"
    PLAN_ROLLED_BACK = "plan_rolled_back"
    SLO_BURN = "slo_burn"
    LOOP_FAILING = "loop_failing"


class Fate(StrEnum):
    """What became of a notification."""

    SENT = "sent"
    FAILED = "failed"
    DROPPED = "dropped"
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """Something that people want to know.

    Parameters
    ----------
    key : str
        What makes two of them the same.
    summary : str
        One sentence.
    facts : mapping of str to str
    """

    kind: Kind
    deployment: str
    at: datetime
    key: str
    summary: str
    facts: Mapping[str, str] = field(default_factory=dict)
    delivery: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One HTTP request; its address may hold a secret and is never shown."""

    body: bytes
    headers: Mapping[str, str]


class Channel(Protocol):
    """A way to tell people."""

    @property
    def name(self) -> str:
        """For metrics and logs."""

    @property
    def url(self) -> str:
        """Where it is posted to."""

    def post(self, told: Notification, *, at_s: float) -> Post:
        """The request, made anew for every try."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """JSON, signed with HMAC-SHA256 over the time of sending, a dot and the body."""

    url: str = field(repr=False)
    secret: str = field(repr=False)
    name: str = "webhook"

    def post(self, told: Notification, *, at_s: float) -> Post:
        """The document with its signature."""
        document = {
            "version": 1,
            "delivery": told.delivery,
            "kind": told.kind.value,
            "deployment": told.deployment,
            "at": told.at.isoformat(),
            "summary": told.summary,
            "facts": dict(told.facts),
        }
        body = json.dumps(document, sort_keys=True).encode()
        sent = str(int(at_s))
        return Post(
            body=body,
            headers={
                "Content-Type": "application/json",
                "User-Agent": "poolwise",
                "X-Poolwise-Event": told.kind.value,
                "X-Poolwise-Delivery": told.delivery,
                "X-Poolwise-Timestamp": sent,
                "X-Poolwise-Signature": f"v1={signature(self.secret, sent, body)}",
            },
        )


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What a receiver computes to see who sent it: hex of HMAC-SHA256 over `TIMESTAMP.BODY`."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Slack:
    """`{"text": ...}`, which Slack, Mattermost, Rocket.Chat and Google Chat take."""

    url: str = field(repr=False)
    name: str = "slack"

    def post(self, told: Notification, *, at_s: float) -> Post:  # noqa: ARG002  same for any time
        """The summary and facts as lines; what would be markup is escaped."""
        lines = [f"*{told.deployment}*: {told.summary}"]
        lines += [f"• {name}: {value}" for name, value in told.facts.items()]
        text = "\n".join(lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return Post(
            body=json.dumps({"text": text}).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "poolwise"},
        )


def channels_of(settings: NotificationSettings) -> tuple[Channel, ...]:
    """The channels that the settings name."""
    found: list[Channel] = []
    if settings.webhook_url and settings.webhook_secret:
        found.append(Webhook(settings.webhook_url, settings.webhook_secret))
    if settings.slack_url:
        found.append(Slack(settings.slack_url))
    return tuple(found)


@dataclass(slots=True)
class Sender:
    """Posts what is in its queue, one after another, in a thread of its own."""

    channel: Channel
    settled: Callable[[str, Notification, Fate], None]
    first_pause_s: float = FIRST_PAUSE_S
    timeout_s: float = TIMEOUT_S
    waiting: queue.Queue[Notification] = field(
        default_factory=lambda: queue.Queue(maxsize=QUEUE_SIZE)
    )
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin to send."""
        name = f"notify-{self.channel.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no more; a request under way is not waited for longer than its timeout."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=self.timeout_s + 1)

    def offer(self, told: Notification) -> None:
        """Put it into the queue; never waits."""
        try:
            self.waiting.put_nowait(told)
        except queue.Full:
            LOG.warning("channel=%s kind=%s dropped: its queue is full", *self._names(told))
            self.settled(self.channel.name, told, Fate.DROPPED)

    def _run(self) -> None:
        with httpx.Client(timeout=self.timeout_s, follow_redirects=False) as client:
            while not self._stopped.is_set():
                try:
                    told = self.waiting.get(timeout=0.2)
                except queue.Empty:
                    continue
                try:
                    fate = self._deliver(client, told)
                except Exception:  # a fault here must not end the channel
                    LOG.exception("channel=%s kind=%s failed unexpectedly", *self._names(told))
                    fate = Fate.FAILED
                self.settled(self.channel.name, told, fate)

    def _deliver(self, client: httpx.Client, told: Notification) -> Fate:
        pause_s, reason = self.first_pause_s, ""
        for count in range(1, TRIES + 1):
            reason, again = self._try(client, told)
            if not reason:
                return Fate.SENT
            if not again or count == TRIES or self._stopped.wait(pause_s):
                break
            pause_s *= 2
        LOG.warning("channel=%s kind=%s not delivered: %s", *self._names(told), reason)
        return Fate.FAILED

    def _try(self, client: httpx.Client, told: Notification) -> tuple[str, bool]:
        """Why it did not arrive, empty where it did; and whether another try may help."""
        post = self.channel.post(told, at_s=time.time())
        try:
            # `stream` reads no body: an endless one would hold this thread.
            with client.stream(
                "POST", self.channel.url, content=post.body, headers=dict(post.headers)
            ) as answer:
                status = answer.status_code
        except httpx.HTTPError as error:  # its text may hold the address
            return type(error).__name__, True
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            return type(error).__name__, False
        if status < 300:
            return "", False
        return f"it answered {status}", status >= 500 or status in _TRY_AGAIN

    def _names(self, told: Notification) -> tuple[str, str]:
        return self.channel.name, told.kind.value


class Notifier:
    """Tells all channels, each event once.

    Parameters
    ----------
    repeat_s : float
        An event with the same key is not told again for so long, seconds.
    """

    def __init__(
        self,
        channels: tuple[Channel, ...],
        registry: CollectorRegistry,
        *,
        repeat_s: float = 3600.0,
        clock_s: Callable[[], float] = time.monotonic,
        first_pause_s: float = FIRST_PAUSE_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.repeat_s = repeat_s
        self.clock_s = clock_s
        self.counted = Counter(
            "poolwise_notifications",
            "Notifications by what became of them",
            ("deployment", "channel", "outcome"),
            registry=registry,
        )
        self.senders = tuple(
            Sender(one, self._settled, first_pause_s=first_pause_s, timeout_s=timeout_s)
            for one in channels
        )
        self._told: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def show(self, deployment: str) -> None:
        """Have the series of a deployment, from now on."""
        for sender in self.senders:
            for fate in Fate:
                self.counted.labels(deployment, sender.channel.name, fate.value)

    def start(self) -> None:
        """Begin to send."""
        for sender in self.senders:
            sender.start()

    def stop(self) -> None:
        """Send no more."""
        for sender in self.senders:
            sender.stop()

    def tell(self, told: Notification) -> None:
        """Tell it, unless the same was told lately; never waits and never raises."""
        if self._was_told(told):
            for sender in self.senders:
                self._settled(sender.channel.name, told, Fate.REPEATED)
            return
        for sender in self.senders:
            sender.offer(told)

    def _was_told(self, told: Notification) -> bool:
        key, now_s = f"{told.deployment}:{told.kind}:{told.key}", self.clock_s()
        with self._lock:
            before_s = self._told.get(key)
            if before_s is not None and now_s - before_s < self.repeat_s:
                return True
            self._told[key] = now_s
            self._told.move_to_end(key)
            while len(self._told) > MOST_REMEMBERED:
                self._told.popitem(last=False)
        return False

    def _settled(self, channel: str, told: Notification, fate: Fate) -> None:
        self.counted.labels(told.deployment, channel, fate.value).inc()

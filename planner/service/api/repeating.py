"""Requests with an `Idempotency-Key`: carried out once, however often they are sent.

As draft-ietf-httpapi-idempotency-key-header has it: the same key with the same request gets the
answer that was kept, with another request 422, while the first one is under way 409. Refusals
change nothing and are not kept: after one the key is free again.
"""

import hashlib
import logging
import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from planner.domain.errors import StoreError
from planner.service.api.problems import http_problem, response
from planner.service.api.service import Service, ServiceParameter, Writer
from planner.service.loop.presence import Presence
from planner.service.store.repeats import Claim, KeptAnswer, StoredRepeats

LOG = logging.getLogger("poolwise.api")
HELD = "poolwise.claim"
KEPT_HEADERS = ("content-type", "location", "etag", "link", "preference-applied", "retry-after")
REPLAYED = "Idempotency-Replayed"


class AnsweredBeforeError(Exception):
    """The request was sent before: what it is answered with now."""

    def __init__(self, answer: Response) -> None:
        super().__init__("answered before")
        self.answer = answer


@dataclass(slots=True, kw_only=True)
class Repeats:
    """The keys of one process.

    Parameters
    ----------
    unsettled : list
        Answers that could not be kept while the database was away; None: the key is free.
    """

    stored: StoredRepeats
    presence: Presence
    unsettled: list[tuple[Claim, KeptAnswer | None]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.presence.add_chore(self.settle_rest)

    def claim(self, claim: Claim, *, at: datetime) -> KeptAnswer | None:
        """Take a key; see `StoredRepeats.claim`."""
        self.presence.begin()
        return self.stored.claim(claim, at=self.stored.access.shared_now(at))

    def settle(self, claim: Claim, answer: KeptAnswer | None) -> None:
        """Keep an answer, or free the key; later where the database is away."""
        self.unsettled.append((claim, answer))
        try:
            self.settle_rest()
        except StoreError as error:
            LOG.warning("what was done under an Idempotency-Key is kept later: %s", error)

    def settle_rest(self) -> None:
        """Keep what could not be kept. Raises StoreError."""
        with self.lock:
            while self.unsettled:
                claim, answer = self.unsettled[0]
                if answer is None:
                    self.stored.release(claim)
                else:
                    self.stored.keep(claim, answer)
                del self.unsettled[0]


def repeats_of(request: Request) -> Repeats:
    """The keys of an app."""
    repeats = request.app.state.repeats
    if not isinstance(repeats, Repeats):
        raise TypeError("app.state.repeats is not Repeats: use create_app")
    return repeats


async def once(
    request: Request,
    service: ServiceParameter,
    by: Writer,
    repeats: Annotated[Repeats, Depends(repeats_of)],
    idempotency_key: Annotated[
        str | None,
        Header(
            description="any text of your own, another one for every request: sent again under "
            "the same key, the request is not carried out again, and answered as the first time",
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
        ),
    ] = None,
) -> None:
    """Let the first request under a key pass; raises where it was sent before."""
    if idempotency_key is None:
        return
    claim = Claim(
        actor=by,
        key=idempotency_key,
        fingerprint=_fingerprint(request, await request.body()),
        owner=repeats.presence.identity,
    )
    kept = await run_in_threadpool(repeats.claim, claim, at=service.now())
    if kept is None:
        request.scope[HELD].append(claim)
        return
    if kept.fingerprint != claim.fingerprint:
        detail = (
            f"Idempotency-Key {claim.key} was sent with another request before: take a new key "
            "for a new request"
        )
        problem = http_problem(422, detail, title="Idempotency key reused")
        raise AnsweredBeforeError(response(problem))
    if kept.status is None:
        detail = f"the first request with Idempotency-Key {claim.key} is still under way"
        problem = http_problem(409, detail, title="Request under way")
        raise AnsweredBeforeError(response(problem, {"Retry-After": "1"}))
    headers = {**kept.headers, REPLAYED: "true"}
    raise AnsweredBeforeError(Response(kept.body, status_code=kept.status, headers=headers))


Once = Depends(once)


def _fingerprint(request: Request, body: bytes) -> str:
    url = request.url
    told = f"{request.method} {url.path}?{url.query}\n".encode()
    return hashlib.sha256(told + body).hexdigest()


def install(app: FastAPI, service: Service, presence: Presence) -> None:
    """Have an app's routes that depend on `once` keep their answers."""
    repeats = Repeats(stored=StoredRepeats(access=service.store.access), presence=presence)
    app.state.repeats = repeats
    app.add_exception_handler(AnsweredBeforeError, _answered_before)
    app.add_middleware(KeepAnswers, repeats=repeats)


def _answered_before(_request: Request, error: Exception) -> Response:
    if not isinstance(error, AnsweredBeforeError):
        raise error
    return error.answer


class KeepAnswers:
    """Keeps the answers of requests that took a key, before they are sent."""

    def __init__(self, app: ASGIApp, repeats: Repeats) -> None:
        self.app = app
        self.repeats = repeats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; keep what it is answered with."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        claims: list[Claim] = []
        scope[HELD] = claims
        start: Message = {}
        body = bytearray()

        async def kept(message: Message) -> None:
            if claims and message["type"] == "http.response.start":
                start.update(message)
            elif claims and message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    answer = _answer(claims[0], start, bytes(body))
                    await run_in_threadpool(self.repeats.settle, claims.pop(), answer)
            await send(message)

        try:
            await self.app(scope, receive, kept)
        finally:
            if claims:  # it failed unexpectedly, or whoever asked went away
                await run_in_threadpool(self.repeats.settle, claims.pop(), None)


def _answer(claim: Claim, start: Message, body: bytes) -> KeptAnswer | None:
    """What is kept; None of a refusal, after which nothing is different."""
    status = int(start["status"])
    if status >= 400:
        return None
    headers = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in start["headers"]
        if name.decode("latin-1").lower() in KEPT_HEADERS
    }
    return KeptAnswer(
        fingerprint=claim.fingerprint, status=status, headers=headers, body=body.decode()
    )

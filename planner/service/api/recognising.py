"""Finds out whose a token is that was sent, and holds up addresses that try many."""

import asyncio
import logging
from ipaddress import ip_address, ip_network
from math import ceil

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from planner.service.security.access import Principal
from planner.service.security.authentication import NO_TOKEN, Authenticator, Refusal
from planner.service.security.rate_limits import Buckets
from planner.service.store.tokens import StoredToken

LOG = logging.getLogger("poolwise.access")
FAILURES_PER_S, FAILURES_AT_ONCE = 1 / 6, 10.0
"""Bad tokens that an address may send: 10 a minute in the long run."""
TELL_PER_S = 1 / 60
"""Refusals of one kind are told once a minute, in the log and the audit log; all are counted."""


class RefusedError(Exception):
    """Not let through."""

    def __init__(
        self, reason: str, status: int, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.status = status
        self.detail = detail
        self.headers = headers


class Recognition:
    """Whose tokens are sent to this process, from one thread: that of its event loop."""

    def __init__(self, authenticator: Authenticator) -> None:
        self.authenticator = authenticator
        self.told = Buckets(TELL_PER_S, 1.0)
        self._failures = Buckets(FAILURES_PER_S, FAILURES_AT_ONCE)
        self._asking: dict[str, asyncio.Future[StoredToken | None]] = {}

    async def of(self, token_hash: str | None, address: str) -> Principal:
        """Whose token it is; an address that sent too many bad ones is not even looked at.

        Raises
        ------
        RefusedError
            When it is nobody's, has ended, or too many bad ones came from there.
        """
        known = self.authenticator
        wait_s = self._failures.wait_s(address)
        if wait_s > 0 and not (token_hash and known.is_known(token_hash)):
            raise too_many("failures", wait_s, f"too many bad tokens came from {address}")
        refusal: Principal | Refusal = NO_TOKEN
        if token_hash is not None:
            found = known.fresh(token_hash) or await self._look_up(token_hash)
            refusal = known.recognise(token_hash, found)
        if isinstance(refusal, Principal):
            return refusal
        self._failures.take(address)
        if self.told.take(f"{address} {refusal.reason}") == 0:
            LOG.warning("authentication failed: from=%s reason=%s", address, refusal.reason)
        raise unauthorized(refusal)

    async def _look_up(self, token_hash: str) -> StoredToken | None:
        """What the database says; of many requests with one token at once, one asks."""
        asking = self._asking.get(token_hash)
        if asking is None:
            look_up = run_in_threadpool(self.authenticator.look_up, token_hash)
            asking = self._asking[token_hash] = asyncio.ensure_future(look_up)
            asking.add_done_callback(lambda _: self._asking.pop(token_hash, None))
        return await asyncio.shield(asking)


def unauthorized(refusal: Refusal) -> RefusedError:
    """Nobody is recognised."""
    return RefusedError(refusal.reason, 401, refusal.detail, {"WWW-Authenticate": "Bearer"})


def too_many(reason: str, wait_s: float, what: str) -> RefusedError:
    """It may be tried again after so many seconds."""
    seconds = ceil(wait_s)
    headers = {"Retry-After": str(seconds)}
    return RefusedError(reason, 429, f"{what}; try again in {seconds} s", headers)


def address_of(request: Request) -> str:
    """Where a request comes from; of IPv6 the network, of which one machine has all."""
    host = request.client.host if request.client else "nowhere"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    mapped = address.ipv4_mapped  # an IPv4 client, of a socket for both
    return str(mapped or ip_network((address, 64), strict=False))

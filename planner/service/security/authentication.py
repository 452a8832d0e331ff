"""Finds out whose a bearer token is, without asking the database for every request."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from planner.domain.errors import PoolwiseError
from planner.service.security.access import Principal
from planner.service.security.tokens import hash_of
from planner.service.store.tokens import StoredToken, StoredTokens

LOG = logging.getLogger("poolwise.access")
FRESH_S = 1.0
"""So long the answer of the database is believed: a token that was revoked lives on, seconds."""
KNOWN_S = 300.0
"""Who sent a good token within so long is let in however many others fail, seconds."""
MOST_KNOWN = 10_000
NOTE_EVERY_S = 60.0
"""How often the last uses are written down, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why nobody is recognised.

    Parameters
    ----------
    reason : str
        For the metrics: `no_token`, `unknown_token`, `expired_token` or `revoked_token`.
    detail : str
        For whoever asked.
    """

    reason: str
    detail: str


NO_TOKEN = Refusal(
    reason="no_token",
    detail="send `Authorization: Bearer TOKEN`: the token that `poolwise serve` printed when it "
    "first started, or one by `poolwise token create`; `poolwise serve --new-token` replaces all",
)
UNKNOWN = Refusal(
    reason="unknown_token",
    detail="nobody has this token; `poolwise token create` makes one, and `poolwise serve "
    "--new-token` replaces all",
)


@dataclass(slots=True)
class _Known:
    token: StoredToken
    asked_s: float


class Authenticator:
    """Recognises tokens; used from one thread but for `look_up` and `note_uses`.

    Parameters
    ----------
    now : callable
        The service's clock, for the ends of tokens.
    clock : callable
        Seconds that never go back.
    """

    def __init__(
        self,
        tokens: StoredTokens,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._now = now
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._used: dict[str, datetime] = {}

    @staticmethod
    def hash_in(authorization: str) -> str | None:
        """The hash of the token in an Authorization header; None: there is none."""
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        return hash_of(token) if scheme.lower() == "bearer" and token else None

    def is_known(self, token_hash: str) -> bool:
        """Whether this token was good a short while ago."""
        known = self._known.get(token_hash)
        return known is not None and self._clock() - known.asked_s <= KNOWN_S

    def fresh(self, token_hash: str) -> StoredToken | None:
        """What the database said within `FRESH_S`; None: ask it."""
        known = self._known.get(token_hash)
        if known is None or self._clock() - known.asked_s > FRESH_S:
            return None
        return known.token

    def look_up(self, token_hash: str) -> StoredToken | None:
        """What the database says, which takes a while. Raises StoreError."""
        return self._tokens.find(token_hash)

    def recognise(self, token_hash: str, found: StoredToken | None) -> Principal | Refusal:
        """Whose token that is, by what was found just now or a moment ago."""
        now = self._now()
        state = "unknown" if found is None else found.state(now)
        if found is None or state != "live":
            self._known.pop(token_hash, None)
            return UNKNOWN if found is None else _ended(found, state)
        if self.fresh(token_hash) is not found:
            self._remember(token_hash, found)
        self._used[token_hash] = now
        return Principal(name=found.name, role=found.role, expires_at=found.expires_at)

    def note_uses(self) -> None:
        """Write down when tokens were last used. Raises StoreError."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            self._tokens.note_uses(dict(used))
        except BaseException:
            self._used = used | self._used  # for the next time
            raise

    def _remember(self, token_hash: str, found: StoredToken) -> None:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[token_hash] = _Known(found, self._clock())


def _ended(token: StoredToken, state: str) -> Refusal:
    ended_at = token.revoked_at or token.expires_at
    at = ended_at.isoformat(timespec="seconds") if ended_at else "some time"
    return Refusal(
        reason=f"{state}_token",
        detail=f"this token of {token.name} {'was ' if state == 'revoked' else ''}{state} at {at}; "
        "an admin makes another one (`poolwise token`)",
    )


@contextmanager
def noting_uses(authenticator: Authenticator) -> Iterator[None]:
    """Write the last uses down now and then, in a thread, and at the end."""
    stopped = threading.Event()

    def note() -> None:
        try:
            authenticator.note_uses()
        except PoolwiseError as error:
            LOG.warning("when tokens were last used is not kept: %s", error)

    def run() -> None:
        while not stopped.wait(NOTE_EVERY_S):
            note()

    thread = threading.Thread(target=run, name="token-uses", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        note()

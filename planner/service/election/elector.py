"""Takes and renews a lease in a thread of its own, and always knows whether it holds it."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from planner.domain.errors import PoolwiseError
from planner.service.election.lease import Lease, LeaseCarrier, Terms, Timing

LOG = logging.getLogger("poolwise.leader")
STOP_S = 5.0
"""How long a clean stop waits for a renewal that is under way, seconds."""


def running_s() -> float:
    """Seconds since the machine started, those in which it slept as well.

    `time.monotonic` stands still in sleep on Linux: a machine that wakes up would believe that it
    holds a lease that others have taken long ago.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A lease that is ours until an instant of our own clock."""

    lease: Lease
    until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """A lease as it was last seen, and since when it has not changed."""

    lease: Lease
    since_s: float


class Elector:
    """One candidate for a lease.

    Parameters
    ----------
    terms : Terms
        Told of a new term before the term begins, so that writes of older ones are refused.
    identity : str
        Another one for every process that ever runs.
    clock : callable
        Seconds of this machine that never go back.
    """

    def __init__(
        self,
        carrier: LeaseCarrier,
        terms: Terms,
        *,
        identity: str,
        timing: Timing,
        clock: Callable[[], float] = running_s,
    ) -> None:
        self.carrier = carrier
        self.identity = identity
        self.timing = timing
        self._terms = terms
        self._clock = clock
        self._held: _Held | None = None
        self._watched: _Watched | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._on_gain: Callable[[], None] = lambda: None

    def term(self) -> int | None:
        """The term in which this process may act now; None: another one leads, or nobody."""
        held = self._held
        return held.lease.term if held is not None and self._clock() < held.until_s else None

    def holds(self, term: int) -> bool:
        """Whether a term still lasts, and is ours."""
        return self.term() == term

    def seen(self) -> Lease | None:
        """The lease as it was seen or written last."""
        return self._watched.lease if self._watched else None

    def start(self, on_gain: Callable[[], None] = lambda: None) -> None:
        """Try once, then go on in a thread; `on_gain` is called in it when a term begins."""
        self._on_gain = on_gain
        self._try_once()
        self._thread = threading.Thread(target=self._run, name="leader-election", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop acting, and release the lease so that nobody has to wait for its end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_S)
            if self._thread.is_alive():
                return  # the carrier does not answer: the lease ends by itself
        held, self._held = self._held, None
        if held is None:
            return
        try:
            self.carrier.replace(held.lease, replace(held.lease, holder=""))
        except PoolwiseError as error:
            LOG.warning("the lease was not released, it ends by itself: %s", error)

    def _run(self) -> None:
        while not self._stop.wait(self.timing.retry_s * random.uniform(1.0, 1.2)):  # noqa: S311
            self._try_once()

    def _try_once(self) -> None:
        """Nothing that goes wrong ends the thread; a lease that is not renewed ends by itself."""
        try:
            self.step()
        except PoolwiseError as error:
            LOG.warning("%s could not be asked: %s", self.carrier.label, error)
        except Exception:
            LOG.exception("the election failed unexpectedly; it is tried again")

    def step(self) -> None:
        """Renew what is held, or take what may be taken; once.

        Raises
        ------
        OperationError
            When the carrier or the store of terms cannot be asked.
        """
        if self._held is not None and self._clock() >= self._held.until_s:
            self._lose("it could not be renewed in time")
        if self._held is None:
            self._watch(self.carrier.read())
            self._take()
        else:
            self._renew(self._held)

    def _renew(self, held: _Held) -> None:
        began_s = self._clock()
        renewed = self.carrier.replace(held.lease, self._now(held.lease))
        if renewed is None:
            self._watch(self.carrier.read())
            there = self.seen()
            if there is None or (there.holder, there.term) != (self.identity, held.lease.term):
                self._lose("another process has taken it")
                return
            # An earlier renewal landed though its answer was lost.
            renewed = self.carrier.replace(there, self._now(there))
            if renewed is None:
                return
        self._watch(renewed)
        self._held = _Held(lease=renewed, until_s=began_s + self.timing.renew_deadline_s)

    def _take(self) -> None:
        """Take a lease that is free, and act only once older terms can write no more."""
        watched = self._watched
        if watched is not None and not self._free(watched):
            return
        seen = watched.lease if watched else None
        term = max(self._terms.newest_term(), seen.term if seen else 0) + 1
        began_s = self._clock()
        wanted = self._now(
            Lease(
                holder=self.identity,
                term=term,
                duration_s=self.timing.lease_duration_s,
                renewed_at=datetime.now(UTC),
            )
        )
        taken = self.carrier.replace(seen, wanted)
        if taken is None:
            return  # somebody was faster; look again at the next try
        self._watch(taken)
        if not self._begin(taken):
            return
        self._held = _Held(lease=taken, until_s=began_s + self.timing.renew_deadline_s)
        LOG.info("%s leads by %s in term %d", self.identity, self.carrier.label, term)
        self._on_gain()

    def _begin(self, taken: Lease) -> bool:
        """Shut older terms out of the store; a lease without that is of no use to us."""
        begun = False
        try:
            begun = self._terms.begin_term(taken.term, self.identity, at=taken.renewed_at)
        finally:
            if not begun:
                self.carrier.replace(taken, replace(taken, holder=""))
        return begun

    def _free(self, watched: _Watched) -> bool:
        lease = watched.lease
        if lease.holder in ("", self.identity):
            return True
        longest_s = max(lease.duration_s, self.timing.lease_duration_s)
        return self._clock() - watched.since_s >= longest_s

    def _watch(self, lease: Lease | None) -> None:
        """Remember what was seen; since when only where it has changed."""
        if lease is None:
            self._watched = None
        elif self._watched is None or self._watched.lease.version != lease.version:
            self._watched = _Watched(lease=lease, since_s=self._clock())

    def _now(self, lease: Lease) -> Lease:
        return replace(lease, renewed_at=datetime.now(UTC))

    def _lose(self, why: str) -> None:
        held, self._held = self._held, None
        if held is not None:
            LOG.warning("%s leads no longer (term %d): %s", self.identity, held.lease.term, why)


class NoElection:
    """No election: this process believes that it is alone, and always leads."""

    identity = "alone"

    def start(self, on_gain: Callable[[], None] = lambda: None) -> None:
        """Lead from the start."""
        on_gain()

    def stop(self) -> None:
        """Do nothing: there is nothing to release."""

    def term(self) -> int | None:
        """Term 0 for ever."""
        return 0

    def holds(self, _term: int) -> bool:
        """Always."""
        return True

    def seen(self) -> Lease | None:
        """There is no lease."""
        return None

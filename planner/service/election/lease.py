"""What a lease is, how long things take, and where a lease is kept."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from planner.domain.errors import InputError

LEASE_DURATION_S = 15.0
RENEW_DEADLINE_S = 10.0
RETRY_S = 2.0
"""As client-go's `leaderelection` recommends."""

LONGEST_RETRY_RATIO = 1.2
"""A try is put off by up to a fifth, at random, so that candidates do not move in step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a lease lasts.

    Parameters
    ----------
    lease_duration_s : float
        A lease that was seen unchanged for so long may be taken, seconds.
    renew_deadline_s : float
        A holder that could not renew for so long stops acting, seconds. Less than the lease
        duration: what lies between is the margin for a step that was just begun.
    retry_s : float
        Between two tries to renew or to take, seconds.
    """

    lease_duration_s: float = LEASE_DURATION_S
    renew_deadline_s: float = RENEW_DEADLINE_S
    retry_s: float = RETRY_S

    def __post_init__(self) -> None:
        if self.lease_duration_s <= self.renew_deadline_s:
            raise InputError(
                f"a lease of {self.lease_duration_s:g} s must outlast the renew deadline of "
                f"{self.renew_deadline_s:g} s, or two processes would act at once: set "
                "POOLWISE_LEASE_DURATION_S above POOLWISE_RENEW_DEADLINE_S"
            )
        if not 0 < self.retry_s * LONGEST_RETRY_RATIO < self.renew_deadline_s:
            raise InputError(
                f"a lease that is renewed every {self.retry_s:g} s is lost within a renew deadline "
                f"of {self.renew_deadline_s:g} s: set POOLWISE_LEASE_RETRY_S lower, best to a fifth"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who may act.

    Parameters
    ----------
    holder : str
        Empty: released, anybody may take it.
    term : int
        Grows with every change of hands.
    duration_s : float
        Whoever sees it unchanged for so long may take it, seconds.
    renewed_at : datetime
        By the holder's clock; shown to people, compared with nothing.
    version : str
        The carrier's; another one after every write.
    """

    holder: str
    term: int
    duration_s: float
    renewed_at: datetime
    version: str = ""


class LeaseCarrier(Protocol):
    """Where a lease is kept: something that can replace a record if it is still the one seen."""

    @property
    def label(self) -> str:
        """The carrier and its place, for people."""

    def read(self) -> Lease | None:
        """The lease as it is; None where there never was one. Raises OperationError."""

    def replace(self, seen: Lease | None, wanted: Lease) -> Lease | None:
        """Write a lease over the one seen; None when it is another one by now.

        Raises
        ------
        OperationError
            When the carrier cannot be asked; whether it wrote is not known then.
        """


class Terms(Protocol):
    """The newest term that has begun, known to whatever refuses writes of older ones."""

    def newest_term(self) -> int:
        """0 before the first. Raises StoreError."""

    def begin_term(self, term: int, holder: str, *, at: datetime) -> bool:
        """Refuse all writes of older terms from now on; False when this one is old itself."""

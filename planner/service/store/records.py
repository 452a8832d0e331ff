"""What the store gives back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from planner.domain.fleet import Fleet
from planner.domain.plan import Plan
from planner.domain.rollout import Approval
from planner.domain.workload import ObservedWindow
from planner.service.documents.rollout import DiffDocument, FindingDocument


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanRecord:
    """A stored plan and where it stands.

    Parameters
    ----------
    diff : DiffDocument
        From the fleet it was made for, as it was shown.
    approval : Approval
        The newest of its states.
    revision : int
        Number of that state: another one after every change. 0: not stored yet.
    """

    deployment: str
    created_at: datetime
    plan: Plan
    diff: DiffDocument
    findings: tuple[FindingDocument, ...]
    approval: Approval
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunStep:
    """A step of a rollout that was begun; what came of it says the state that follows.

    Parameters
    ----------
    number : int
        From 1, in its run: a rollout that broke off and is completed begins anew.
    what : str
        As people read it: `step 3 of 7 (start decode:h100:tp1)`.
    under_way : bool
        Of the run that goes on at present.
    """

    number: int
    begun_at: datetime
    what: str
    under_way: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredWindow:
    """An observed window, and when it came in."""

    received_at: datetime
    window: ObservedWindow


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredFleet:
    """A fleet that was handed in, and when."""

    received_at: datetime
    fleet: Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """What a tick did.

    Parameters
    ----------
    plan_id : str or None
        None when no plan was made.
    outcome : str
        Value of `loop.Outcome`.
    wanted : mapping of str to int or None
        Replicas by pool label that the plan wants first, whatever guards say; scale-down waits
        until none wanted more for long enough. None: no plan was made.
    decision_id : int
        Given by the store.
    """

    deployment: str
    decided_at: datetime
    plan_id: str | None
    outcome: str
    reason: str
    wanted: Mapping[str, int] | None = None
    decision_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenTemplate:
    """A pod template whose containers do not start.

    Parameters
    ----------
    template : str
        Tells it from others.
    times : int
        Rollouts that failed by it, one after the other.
    at : datetime
        When the last one did.
    why : str
        What its containers said last.
    """

    template: str
    times: int
    at: datetime
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPool:
    """A pool as Poolwise left it, or as it was first seen.

    Parameters
    ----------
    pool : str
        Its label.
    replicas : int
        Asked for, whatever became of them.
    late : int
        Of them those that missed their deadline: nobody waits for them any more.
    edited_at : datetime or None
        When somebody else was seen to have changed the count; None: nobody since Poolwise did.
    edited_from : int or None
        What it was before.
    broken : BrokenTemplate or None
        What its pods were made of when they did not start.
    """

    pool: str
    replicas: int
    late: int = 0
    edited_at: datetime | None = None
    edited_from: int | None = None
    broken: BrokenTemplate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """A line of the append-only audit log.

    Parameters
    ----------
    prev_hash : str
        Hash of the line before; 64 zeros: it is the first.
    hash : str
        Of `prev_hash` and the other fields, see `store.audit.hash_of`.
    """

    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: str
    prev_hash: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredForecast:
    """Which forecast is stored, without its content.

    Parameters
    ----------
    window_s : float
        Length of its windows, seconds; the first starts at `made_at`.
    windows : int
        How many.
    """

    made_at: datetime
    window_s: float
    windows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastOutcome:
    """What came in a window beside what had been forecast of it, of one request class.

    Parameters
    ----------
    made_at : datetime
        Of the forecast.
    windows_ahead : int
        1: the first window of the forecast.
    request_rate_rps, input_tokens_per_s, output_tokens_per_s : float
        Observed, requests/s and tokens/s; beside each the forecast's median and 90 % quantile.
    """

    request_class: str
    made_at: datetime
    windows_ahead: int
    start_at: datetime
    window_s: float
    request_rate_rps: float
    request_rate_median_rps: float
    request_rate_q90_rps: float
    input_tokens_per_s: float
    input_tokens_median_per_s: float
    input_tokens_q90_per_s: float
    output_tokens_per_s: float
    output_tokens_median_per_s: float
    output_tokens_q90_per_s: float

    @property
    def covered(self) -> bool:
        """Whether no more requests came than the 90 % quantile said."""
        return self.request_rate_rps <= self.request_rate_q90_rps

    @property
    def error_ratio(self) -> float:
        """The median of the request rate over the observed one, minus 1; above 0: too many.

        Infinite where requests were expected and none came.
        """
        if self.request_rate_rps > 0:
            return self.request_rate_median_rps / self.request_rate_rps - 1.0
        return math.inf if self.request_rate_median_rps > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GateHour:
    """Requests of one class, client and outcome that came to a gate in an hour, summed up.

    Parameters
    ----------
    judged, met : int
        Streamed requests of a class with objectives, and those that met all of them.
    cost_usd : float
        For the accelerator time that they took.
    """

    hour_at: datetime
    model: str
    request_class: str
    client: str
    outcome: str
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    judged: int
    met: int
    cost_usd: float

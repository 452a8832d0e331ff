"""What happened in one run of the demo, as values."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from planner.domain.fleet import Fleet
from planner.domain.forecast import Forecast
from planner.domain.plan import Plan, PlanWindow, Prediction
from planner.domain.profile import Profile
from planner.domain.rollout import Approval, Diff, GuardFinding
from planner.domain.slo import Slo
from planner.domain.workload import LatencySummary, ObservedWindow
from planner.service.demo.traffic import DemoTraffic
from serving.traffic.load import Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Tokens that the engines processed in a measured window, by their own counters.

    Parameters
    ----------
    prefill_tokens_per_s, decode_tokens_per_s : float
        Prompt tokens computed, and answer tokens generated, per second of the window.
    computed_tokens, cached_tokens : int
        Prompt tokens that prefill workers computed, and found in their own prefix caches.
    transferred_tokens : int
        Prompt tokens whose KV cache came to decode workers over NIXL.
    decode_computed_tokens : int
        Prompt tokens that decode workers computed themselves: 0 when the deployment really is
        disaggregated.
    transfers, transfer_bytes : int
    """

    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    computed_tokens: int
    cached_tokens: int
    transferred_tokens: int
    decode_computed_tokens: int
    transfers: int
    transfer_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredWindow:
    """A window of real traffic against the real deployment."""

    replay: Replay
    fleet: Fleet
    latency: LatencySummary
    throughput: Throughput


def window_when_ready(plan: Plan, diff: Diff, profile: Profile) -> PlanWindow:
    """The planned window to compare with what comes after the rollout.

    Plans count a new replica from the window that begins after it is ready; the windows before
    are predicted without it. Where nothing changes, that is the first window.
    """
    if not diff.steps:
        return plan.windows[0]
    ready_at = plan.windows[0].start_at + timedelta(seconds=profile.lifecycle.start_warm_s)
    later = [w for w in plan.windows if w.start_at >= ready_at]
    return later[0] if later else plan.windows[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledOut:
    """A step that took effect; `began_s` counts from the demo's start."""

    text: str
    kind: str
    began_s: float
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run of the demo, from its first second to its last.

    Parameters
    ----------
    began_at_s : float
        `time.perf_counter` at the start, the zero of all plots.
    quota : str
        How workers are held to their share of the processor, for people.
    history : tuple of ObservedWindow
        What the forecast was made from.
    hindcast : Prediction
        What the twin says of the planned fleet under the traffic that really came: the
        prediction without the forecast's error.
    during : Replay or None
        Traffic while the plan was applied; None when nothing had to change.
    verdict : tuple of str
        Sentences: did attainment rise, and if not, why.
    """

    began_at: datetime
    began_at_s: float
    took_s: float
    quota: str
    traffic: DemoTraffic
    profile: Profile
    slo: Slo
    window_s: float
    before: MeasuredWindow
    history: tuple[ObservedWindow, ...]
    forecast: Forecast
    plan: Plan
    diff: Diff
    findings: tuple[GuardFinding, ...]
    approval: Approval
    applied: tuple[RolledOut, ...]
    during: Replay | None
    after: MeasuredWindow
    hindcast: Prediction
    verdict: tuple[str, ...]

    @property
    def planned(self) -> PlanWindow | None:
        """The planned window that `after` is compared with; None for a plan without windows."""
        if not self.plan.windows:
            return None
        return window_when_ready(self.plan, self.diff, self.profile)

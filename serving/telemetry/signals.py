"""The normal form: what is known of a deployment's parts, in our units, whatever told it.

No data is never zero: a `Signal` holds a value, or the reason why there is none.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self

from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from serving.telemetry.histogram import Histogram
from serving.telemetry.legs import TwoLegs


class Source(StrEnum):
    """Whose metric names a target speaks."""

    VLLM = "vllm"
    SGLANG = "sglang"
    SMG = "smg"
    VLLM_ROUTER = "vllm-router"
    DYNAMO = "dynamo"
    LLM_D = "llm-d"
    GATE = "gate"
    DCGM = "dcgm"


class TargetKind(StrEnum):
    """What a target is: engine, what stands before engines, or an exporter of hardware."""

    ENGINE = "engine"
    ROUTER = "router"
    GATE = "gate"
    HARDWARE = "hardware"


class TargetState(StrEnum):
    """How a target answered.

    restarted: it answers, but was started anew inside the interval; rates are of the time since.
    stale: the newest sample is too old to act on. down: nothing newer could be read.
    """

    UP = "up"
    RESTARTED = "restarted"
    STALE = "stale"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One number, or why there is none.

    Parameters
    ----------
    value : float or None
        In the unit that the field's name ends in; None: not known, see `missing`.
    low, high : float or None
        Where the true value lies for certain, when it is known to a bucket's width only.
    missing : str
        Why there is no value; empty with one.
    metric : str
        Name of the metric it was read from, in the source's own spelling.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    missing: str = ""
    metric: str = ""

    def __post_init__(self) -> None:
        if (self.value is None) == (not self.missing):
            raise ValueError("a signal has a value, or a reason in `missing`, and not both")
        if self.value is not None and math.isnan(self.value):
            raise ValueError("value is not a number: say in `missing` why there is none")

    @classmethod
    def lacking(cls, reason: str) -> Self:
        """No value, for this reason."""
        return cls(missing=reason)

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return self.value is not None


NOT_ASKED = Signal(missing="this source does not tell it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Quantiles of a duration over the interval, seconds.

    Parameters
    ----------
    p50_s, p95_s, p99_s : Signal
        Interpolated inside a bucket, whose ends are `low` and `high` (high is infinite in the last
        bucket, where `value` is the bucket's lower end).
    mean_s : Signal
        Exact: sum over count.
    count : Signal
        How many values.
    histogram : Histogram or None
        What they were taken from; None where the source tells quantiles or means only.
    legs : TwoLegs or None
        Instead of a histogram where two engines each saw one leg of the requests.
    """

    p50_s: Signal = NOT_ASKED
    p95_s: Signal = NOT_ASKED
    p99_s: Signal = NOT_ASKED
    mean_s: Signal = NOT_ASKED
    count: Signal = NOT_ASKED
    histogram: Histogram | None = None
    legs: TwoLegs | None = None

    @property
    def distribution(self) -> Histogram | TwoLegs | None:
        """Where shares within a limit can be asked."""
        return self.histogram or self.legs


NO_LATENCY = Latency()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSignals:
    """KV caches that came from other workers.

    Parameters
    ----------
    latency : Latency
        Of one transfer.
    transfers_per_s, bytes_per_s : Signal
    failed_per_s, expired_per_s : Signal
        Transfers that failed; caches that nobody fetched before their lease ended.
    """

    latency: Latency = NO_LATENCY
    transfers_per_s: Signal = NOT_ASKED
    bytes_per_s: Signal = NOT_ASKED
    failed_per_s: Signal = NOT_ASKED
    expired_per_s: Signal = NOT_ASKED


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareSignals:
    """How busy the hardware below is. On a machine without a GPU only the CPU figures are known.

    Parameters
    ----------
    accelerator_ratio : Signal
        Share of time in which a kernel ran, 0..1.
    memory_used_ratio : Signal
        Accelerator memory (HBM) in use, 0..1.
    memory_bandwidth_ratio, tensor_ratio : Signal
        Share of time in which HBM moved data, and in which tensor cores worked, 0..1 (DCGM).
    power_w : Signal
    cpu_cores : Signal
        Processor cores kept busy by the target's processes.
    resident_bytes : Signal
        Main memory they hold.
    """

    accelerator_ratio: Signal = NOT_ASKED
    memory_used_ratio: Signal = NOT_ASKED
    memory_bandwidth_ratio: Signal = NOT_ASKED
    tensor_ratio: Signal = NOT_ASKED
    power_w: Signal = NOT_ASKED
    cpu_cores: Signal = NOT_ASKED
    resident_bytes: Signal = NOT_ASKED


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Requests of one class that were judged one by one, requests/s: all, and those in time."""

    request_class: str
    judged_per_s: Signal
    met_per_s: Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What one target, or all of a role together, did in an interval and holds at its end.

    Parameters
    ----------
    running, waiting : Signal
        Requests in the batch and in the queue, at the end of the interval.
    waiting_for_kv : Signal
        Those of `waiting` that wait for a KV cache from another worker.
    kv_usage_ratio : Signal
        Share of the KV cache in use, 0..1; of a role: the mean over its KV memory.
    kv_usage_most_ratio : Signal
        Of the fullest worker.
    kv_capacity_tokens : Signal
        Tokens whose KV cache fits.
    requests_per_s, failed_per_s, preemptions_per_s : Signal
        Requests finished, failed (errors, aborts, sheds), and put back for want of KV memory.
    input_tokens_per_s, output_tokens_per_s : Signal
        Prompt tokens taken in; tokens generated.
    computed_tokens_per_s, cached_tokens_per_s, transferred_tokens_per_s : Signal
        Prompt tokens by where their KV cache came from: computed here, found in the local prefix
        cache, moved from another worker.
    prefix_hit_ratio, external_hit_ratio : Signal
        Share of looked-up prompt tokens found in the local prefix cache, and at the connector.
    ttft, itl, tpot, e2e : Latency
        As far as this target sees them: an engine in a disaggregated deployment sees its own leg.
    queueing, prefilling, decoding : Latency
        Of finished requests: time in the queue, from scheduled to first token, and after it.
    step_tokens : Signal
        Mean tokens (prompt and answer) of an engine step.
    isl, osl : Signal
        Mean prompt and answer of finished requests, tokens.
    judged : tuple of Judged
        Per class, where the target judges each request by itself (the gate does).
    prompt_lengths, answer_lengths : Histogram or None
        Their distributions, tokens; None where the source does not tell them.
    """

    running: Signal = NOT_ASKED
    waiting: Signal = NOT_ASKED
    waiting_for_kv: Signal = NOT_ASKED
    kv_usage_ratio: Signal = NOT_ASKED
    kv_usage_most_ratio: Signal = NOT_ASKED
    kv_capacity_tokens: Signal = NOT_ASKED
    requests_per_s: Signal = NOT_ASKED
    failed_per_s: Signal = NOT_ASKED
    preemptions_per_s: Signal = NOT_ASKED
    input_tokens_per_s: Signal = NOT_ASKED
    output_tokens_per_s: Signal = NOT_ASKED
    computed_tokens_per_s: Signal = NOT_ASKED
    cached_tokens_per_s: Signal = NOT_ASKED
    transferred_tokens_per_s: Signal = NOT_ASKED
    prefix_hit_ratio: Signal = NOT_ASKED
    external_hit_ratio: Signal = NOT_ASKED
    ttft: Latency = NO_LATENCY
    itl: Latency = NO_LATENCY
    tpot: Latency = NO_LATENCY
    e2e: Latency = NO_LATENCY
    queueing: Latency = NO_LATENCY
    prefilling: Latency = NO_LATENCY
    decoding: Latency = NO_LATENCY
    step_tokens: Signal = NOT_ASKED
    isl: Signal = NOT_ASKED
    osl: Signal = NOT_ASKED
    prompt_lengths: Histogram | None = None
    answer_lengths: Histogram | None = None
    judged: tuple[Judged, ...] = ()
    transfer: TransferSignals = field(default_factory=TransferSignals)
    hardware: HardwareSignals = field(default_factory=HardwareSignals)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSignals:
    """One engine, router, gate or hardware exporter.

    Parameters
    ----------
    role : Role or None
        Of an engine, where it is known.
    state : TargetState
    note : str
        Why it is not `up`, for people; empty when it is.
    observed_at : datetime or None
        Of the newest sample; None when there is none.
    age_s : float or None
        How old that was when it was looked at.
    interval_s : float or None
        Over which rates and quantiles were taken.
    """

    name: str
    url: str
    kind: TargetKind
    source: Source
    role: Role | None = None
    cell: str = ""
    model: str | None = None
    state: TargetState
    note: str = ""
    observed_at: datetime | None = None
    age_s: float | None = None
    interval_s: float | None = None
    activity: Activity = field(default_factory=Activity)

    @property
    def answers(self) -> bool:
        """Whether its figures are of now."""
        return self.state in (TargetState.UP, TargetState.RESTARTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSignals:
    """All workers of a role together.

    Parameters
    ----------
    workers, answering : int
        How many there are, and how many of them the figures are of.
    activity : Activity
        Counts and rates summed, ratios as means, latencies over all values.
    """

    role: Role
    workers: int
    answering: int
    activity: Activity


@dataclass(frozen=True, slots=True, kw_only=True)
class SloSignals:
    """How well the promise to one request class is kept.

    Parameters
    ----------
    target_ratio : float
        Share of arrivals that was promised, 0..1.
    attainment_ratio : Signal
        Share of arrivals within all objectives, 0..1; exact from a gate that judges each request.
        From histograms only bounds are certain: `low` and `high`; `value` is their middle.
    goodput_rps : Signal
        Requests/s within all objectives, with the same bounds.
    error_budget_used_ratio : Signal
        Misses as a share of those that the promise allows: 1 uses it up, above 1 breaks it.
    from_bounds : bool
        Whether it is known to bounds only, because each request by itself was not seen.
    note : str
        What the bounds leave out; empty: nothing.
    """

    request_class: str
    target_ratio: float
    attainment_ratio: Signal
    goodput_rps: Signal
    error_budget_used_ratio: Signal
    from_bounds: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What was predicted for the load that was observed, beside it.

    Parameters
    ----------
    ttft_p50_s, ttft_p95_s, tpot_p95_s, itl_p95_s, attainment_ratio : Signal
        By the profiles' closed form, for the observed rate, lengths and workers.
    bottleneck : Bottleneck or None
        What would miss first if the load grew.
    """

    ttft_p50_s: Signal
    ttft_p95_s: Signal
    tpot_p95_s: Signal
    itl_p95_s: Signal
    attainment_ratio: Signal
    bottleneck: Bottleneck | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastBeside:
    """What was forecast for now, beside what comes.

    Parameters
    ----------
    expected_rps, expected_high_rps : Signal
        Median and 90 % quantile of the newest forecast for this instant, requests/s.
    expected_input_tokens_per_s, expected_high_input_tokens_per_s : Signal
    expected_output_tokens_per_s, expected_high_output_tokens_per_s : Signal
        The same of tokens.
    observed_rps : Signal
    """

    expected_rps: Signal
    expected_high_rps: Signal
    expected_input_tokens_per_s: Signal
    expected_high_input_tokens_per_s: Signal
    expected_output_tokens_per_s: Signal
    expected_high_output_tokens_per_s: Signal
    observed_rps: Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class LedBy:
    """Which process of the control loop moves the fleet, in which term, since when."""

    holder: str
    term: int
    since_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSignals:
    """The whole deployment: the signals that must be observable, and the parts they are made of.

    Parameters
    ----------
    looked_at : datetime
        When it was looked at.
    ttft, itl, e2e : Latency
        As users have it: from the gate where one runs, else the router, else the engines.
    seen_by : str
        Which parts those were read from, for people.
    requests_per_s, input_tokens_per_s, output_tokens_per_s : Signal
        Each request counted once, though two engines work on it.
    prefix_hit_ratio : Signal
    transfer : TransferSignals
        KV caches moved from worker to worker.
    usd_per_hour, usd_per_million_tokens : Signal
        Price of all workers, and per million generated tokens at the observed rate.
    roles : tuple of RoleSignals
        Queue depth, KV pressure and hardware by role.
    lacks : tuple of Role
        Roles without which it serves nobody, or that its spec wants, and of which no worker
        answers.
    targets : tuple of TargetSignals
        Every part that was asked, those that do not answer too.
    slos : tuple of SloSignals
        Empty without a spec.
    expected : Expected or None
        None without a spec with profiles.
    forecast : ForecastBeside or None
        None without a store.
    led_by : LedBy or None
        The leader of the newest term that began; None without a store, or before the first.
    ordered : tuple of str
        What people ordered of the control loop at run time and is in force, as sentences.
    bottleneck : Bottleneck or None
        What it is short of now by measurement; `none`: nothing; None: not known.
    bottleneck_why : str
        In one line: the finding with its evidence, or why it is not known.
    corrections : tuple of str
        By how much the loop corrects profiles, and why to profile again; empty: not at all.
    """

    looked_at: datetime
    ttft: Latency
    itl: Latency
    e2e: Latency
    seen_by: str
    requests_per_s: Signal
    input_tokens_per_s: Signal
    output_tokens_per_s: Signal
    prefix_hit_ratio: Signal
    transfer: TransferSignals
    usd_per_hour: Signal
    usd_per_million_tokens: Signal
    roles: tuple[RoleSignals, ...]
    targets: tuple[TargetSignals, ...]
    slos: tuple[SloSignals, ...] = ()
    expected: Expected | None = None
    forecast: ForecastBeside | None = None
    led_by: LedBy | None = None
    ordered: tuple[str, ...] = ()
    bottleneck: Bottleneck | None = None
    bottleneck_why: str = ""
    corrections: tuple[str, ...] = ()
    lacks: tuple[Role, ...] = ()

    @property
    def workers(self) -> tuple[TargetSignals, ...]:
        """Engines only."""
        return tuple(t for t in self.targets if t.kind is TargetKind.ENGINE)

    def of_role(self, role: Role) -> RoleSignals | None:
        """All workers of a role together; None when there is none."""
        return next((r for r in self.roles if r.role is role), None)

"""What `poolwise status` says, as JSON: the normal form of `serving.telemetry.signals`."""

import math
from typing import Annotated

from pydantic import BeforeValidator, Field

from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from planner.service.documents.document import Document, Instant
from serving.telemetry.signals import DeploymentSignals, Source, TargetKind, TargetState


def _bounded(value: object) -> object:
    """An end without a bound is none: JSON has no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Bound = Annotated[float | None, BeforeValidator(_bounded)]
"""None: not stated, or without a bound."""


class SignalDocument(Document):
    """A value and where it lies for certain, or why it is missing."""

    value: float | None
    low: Bound
    high: Bound
    missing: str
    metric: str


class LatencyDocument(Document):
    """Quantiles, seconds."""

    p50_s: SignalDocument
    p95_s: SignalDocument
    p99_s: SignalDocument
    mean_s: SignalDocument
    count: SignalDocument


class TransferDocument(Document):
    """KV caches that came from other workers."""

    latency: LatencyDocument
    transfers_per_s: SignalDocument
    bytes_per_s: SignalDocument
    failed_per_s: SignalDocument
    expired_per_s: SignalDocument


class HardwareDocument(Document):
    """How busy the hardware is."""

    accelerator_ratio: SignalDocument
    memory_used_ratio: SignalDocument
    memory_bandwidth_ratio: SignalDocument
    tensor_ratio: SignalDocument
    power_w: SignalDocument
    cpu_cores: SignalDocument
    resident_bytes: SignalDocument


class JudgedDocument(Document):
    """Requests of a class that were judged one by one."""

    request_class: str
    judged_per_s: SignalDocument
    met_per_s: SignalDocument


class ActivityDocument(Document):
    """What one target, or all of a role, did and holds."""

    running: SignalDocument
    waiting: SignalDocument
    waiting_for_kv: SignalDocument
    kv_usage_ratio: SignalDocument
    kv_usage_most_ratio: SignalDocument
    kv_capacity_tokens: SignalDocument
    requests_per_s: SignalDocument
    failed_per_s: SignalDocument
    preemptions_per_s: SignalDocument
    input_tokens_per_s: SignalDocument
    output_tokens_per_s: SignalDocument
    computed_tokens_per_s: SignalDocument
    cached_tokens_per_s: SignalDocument
    transferred_tokens_per_s: SignalDocument
    prefix_hit_ratio: SignalDocument
    external_hit_ratio: SignalDocument
    ttft: LatencyDocument
    itl: LatencyDocument
    tpot: LatencyDocument
    e2e: LatencyDocument
    queueing: LatencyDocument
    prefilling: LatencyDocument
    decoding: LatencyDocument
    step_tokens: SignalDocument
    isl: SignalDocument
    osl: SignalDocument
    judged: tuple[JudgedDocument, ...]
    transfer: TransferDocument
    hardware: HardwareDocument


class TargetDocument(Document):
    """One engine, router, gate or hardware exporter."""

    name: str
    url: str
    kind: TargetKind
    source: Source
    role: Role | None
    cell: str
    model: str | None
    state: TargetState
    note: str
    observed_at: Instant | None
    age_s: float | None
    interval_s: float | None
    activity: ActivityDocument


class RoleDocument(Document):
    """All workers of a role together."""

    role: Role
    workers: int
    answering: int
    activity: ActivityDocument


class PromiseDocument(Document):
    """How well the promise to one class is kept."""

    request_class: str
    target_ratio: float
    attainment_ratio: SignalDocument
    goodput_rps: SignalDocument
    error_budget_used_ratio: SignalDocument
    from_bounds: bool
    note: str


class ExpectedDocument(Document):
    """What the profiles say of the observed load."""

    ttft_p50_s: SignalDocument
    ttft_p95_s: SignalDocument
    tpot_p95_s: SignalDocument
    itl_p95_s: SignalDocument
    attainment_ratio: SignalDocument
    bottleneck: Bottleneck | None


class ForecastBesideDocument(Document):
    """What was forecast for now, beside what comes."""

    expected_rps: SignalDocument
    expected_high_rps: SignalDocument
    expected_input_tokens_per_s: SignalDocument
    expected_high_input_tokens_per_s: SignalDocument
    expected_output_tokens_per_s: SignalDocument
    expected_high_output_tokens_per_s: SignalDocument
    observed_rps: SignalDocument


class LedByDocument(Document):
    """Which process moves the fleet."""

    holder: str
    term: int
    since_at: Instant


class StatusDocument(Document):
    """All signals of a deployment, and of its parts."""

    looked_at: Instant
    seen_by: str
    ttft: LatencyDocument
    itl: LatencyDocument
    e2e: LatencyDocument
    requests_per_s: SignalDocument
    input_tokens_per_s: SignalDocument
    output_tokens_per_s: SignalDocument
    prefix_hit_ratio: SignalDocument
    transfer: TransferDocument
    usd_per_hour: SignalDocument
    usd_per_million_tokens: SignalDocument
    roles: tuple[RoleDocument, ...]
    targets: tuple[TargetDocument, ...]
    slos: tuple[PromiseDocument, ...]
    expected: ExpectedDocument | None
    forecast: ForecastBesideDocument | None
    led_by: LedByDocument | None
    ordered: tuple[str, ...] = Field(
        description="what people ordered of the loop at run time (pause, pin, mode), as sentences"
    )
    bottleneck: Bottleneck | None
    bottleneck_why: str
    corrections: tuple[str, ...]
    lacks: tuple[Role, ...] = Field(
        description="roles that it needs, or its spec wants, and of which no worker answers"
    )


def status_document(signals: DeploymentSignals) -> StatusDocument:
    """The document of a deployment's signals; its field names are theirs."""
    return StatusDocument.model_validate(signals)

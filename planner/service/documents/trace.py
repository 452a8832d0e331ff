"""Statistics of a trace, and what was written of one, as JSON."""

from pydantic import AwareDatetime, Field

from forecaster.readers import TraceFile
from forecaster.trace_statistics import LEVELS, LengthStatistics, TraceStatistics
from planner.service.documents.document import Document
from planner.service.documents.prefix_cache import CacheReuseDocument


class PeakDocument(Document):
    """Counts of arrivals in windows of one length."""

    window_s: float
    peak_rps: float = Field(description="rate of the busiest window, requests/s")
    peak_to_mean: float
    dispersion: float = Field(description="variance of the counts over their mean; 1: Poisson")


class LengthsDocument(Document):
    """Lengths, tokens."""

    p5: float
    p25: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    p99_9: float
    mean: float
    max: int


class JointDocument(Document):
    """Share of requests by prompt (rows) and answer (columns) length."""

    input_edges: list[int] = Field(description="lower edges, tokens; the last group is open")
    output_edges: list[int] = Field(description="lower edges, tokens; the last group is open")
    share: list[list[float]] = Field(description="one list per prompt length; sums to 1")


class GapDocument(Document):
    """A silence that chance does not explain."""

    start_at: AwareDatetime
    start_s: float = Field(description="from the trace's start")
    length_s: float
    expected_requests: float = Field(description="at the pace around it")


class ClassShareDocument(Document):
    """Requests of one class."""

    request_class: str
    requests: int


class TraceDocument(Document):
    """What `poolwise trace show` finds."""

    file: str
    format: str
    rows_read: int
    rows_refused: int
    requests_failed: int
    refusals: list[str] = Field(description="the first ones, with line numbers")
    remarks: list[str]
    clock_tick_s: float | None = Field(description="step of a coarse clock; null: fine")
    start_at: AwareDatetime
    duration_s: float
    requests: int
    request_rate_rps: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    peaks: list[PeakDocument] = Field(description="windows of at least ten ticks")
    arrival_cv: float | None = Field(description="of gaps; null: the clock is too coarse")
    isl: LengthsDocument
    osl: LengthsDocument
    joint: JointDocument
    length_correlation: float = Field(description="rank correlation of prompt and answer")
    reuse_ratio: float | None = Field(description="unbounded cache; null: no prefix is named")
    unique_tokens: int = Field(description="prompt tokens in different blocks")
    cache_reuse: list[CacheReuseDocument]
    gaps: list[GapDocument]
    classes: list[ClassShareDocument]


def trace_document(trace: TraceFile, found: TraceStatistics) -> TraceDocument:
    """The document of a trace and its statistics."""
    report = trace.report
    return TraceDocument(
        file=str(report.path),
        format=report.trace_format.value,
        rows_read=report.rows_read,
        rows_refused=report.rows_refused,
        requests_failed=report.requests_failed,
        refusals=list(report.reasons),
        remarks=list(report.remarks),
        clock_tick_s=report.arrival_tick_s,
        start_at=found.start_at,
        duration_s=found.duration_s,
        requests=found.requests,
        request_rate_rps=found.rate_rps,
        input_tokens_per_s=found.input_tokens_per_s,
        output_tokens_per_s=found.output_tokens_per_s,
        peaks=[PeakDocument.model_validate(peak) for peak in found.peaks],
        arrival_cv=found.arrival_cv,
        isl=_lengths(found.isl),
        osl=_lengths(found.osl),
        joint=JointDocument(
            input_edges=list(found.joint.input_edges),
            output_edges=list(found.joint.output_edges),
            share=found.joint.share.tolist(),
        ),
        length_correlation=found.length_correlation,
        reuse_ratio=found.reuse_ratio,
        unique_tokens=found.unique_tokens,
        cache_reuse=[CacheReuseDocument.model_validate(one) for one in found.cache_reuse],
        gaps=[GapDocument.model_validate(gap) for gap in found.gaps],
        classes=[ClassShareDocument.model_validate(one) for one in found.classes],
    )


def _lengths(found: LengthStatistics) -> LengthsDocument:
    names = [f"p{level * 100:g}".replace(".", "_") for level in LEVELS]
    values = dict(zip(names, found.quantiles, strict=True))
    return LengthsDocument.model_validate({**values, "mean": found.mean, "max": found.longest})


class WrittenTraceDocument(Document):
    """What `poolwise trace convert` and `synthesize` wrote."""

    file: str
    format: str
    requests: int
    duration_s: float
    request_rate_rps: float
    isl_mean: float
    osl_mean: float
    reuse_ratio: float | None = Field(description="null: the file names no prefix blocks")
    notes: list[str] = Field(description="what was assumed, and what the format cannot hold")

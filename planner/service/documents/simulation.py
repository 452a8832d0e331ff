"""What a simulation answers."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from planner.domain.hardware import PurchaseOption
from planner.domain.profile import ProfileKind
from planner.service.answers.simulation import Simulated
from planner.service.documents.document import Document
from planner.service.documents.plan import PredictionDocument
from planner.service.documents.replica_shape import ReplicaFields
from planner.simulate import GroupSeries, Outcome, RouterPolicy

_SECONDS = "seconds; null: nothing finished"
_RATIO = "0..1"


class SimulatedPoolDocument(ReplicaFields):
    """One group of identical replicas in the simulation."""

    pool: int = Field(description="its number, from 0")
    model: str
    purchase_option: PurchaseOption = PurchaseOption.ON_DEMAND
    replicas: int
    utilization_ratio: float = Field(description="share of the time that a replica was busy, 0..1")
    kv_peak_ratio: float = Field(
        description="highest share of KV blocks in use on one replica, in any run, 0..1"
    )
    accelerator_hours: float = Field(description="of one run")


class SimulatedLatencyDocument(Document):
    """Latencies over all requests; the percentile is in the name."""

    ttft_p50_s: float | None = Field(description=_SECONDS)
    ttft_p95_s: float | None = Field(description=_SECONDS)
    tpot_p50_s: float | None = Field(description=_SECONDS)
    tpot_p95_s: float | None = Field(description=_SECONDS)
    itl_p50_s: float | None = Field(description=_SECONDS)
    itl_p95_s: float | None = Field(description=_SECONDS)
    e2e_p95_s: float | None = Field(description=_SECONDS)
    attainment_ratio: float | None = Field(description="share that met every objective, 0..1")


class OutcomesDocument(Document):
    """How requests ended; together all requests."""

    finished: int
    rejected: int = Field(
        description="no replica was there that can hold them, or expected TTFT too long"
    )
    aborted: int = Field(description="the client went away")
    failed: int = Field(
        description="lost with a replica after their first token, or no decode replica was left"
    )
    in_flight: int = Field(description="under way when the run stopped")
    not_arrived: int = Field(description="after the run was stopped; they count as missed")


class SimulatedClassDocument(Document):
    """One request class beside what it was promised."""

    request_class: str
    requests: int
    attainment_ratio: float | None = Field(description=_RATIO)
    attainment_low_ratio: float | None = Field(description="null for given requests")
    attainment_high_ratio: float | None = Field(description="null for given requests")
    target_ratio: float
    holds: bool | None = Field(description="null: not clear after so many futures")


class StoppedDocument(Document):
    """A run that was stopped because it would never have recovered."""

    at_s: float = Field(description="seconds from the start")
    reason: str


class FuturesDocument(Document):
    """How many futures were sampled, and why no more."""

    count: int
    most: int
    looks: int = Field(description="how often the interval was looked at; it holds at all of them")
    ended_by: Literal["count", "precision", "clear"]
    half_width_ratio: float | None = Field(description="half the width of attainment's interval")
    confidence_ratio: float
    stopped: int = Field(description="futures that were stopped as unstable")


class PoolSeriesDocument(Document):
    """One pool over time, a value per instant."""

    pool: int
    ready: list[int] = Field(description="replicas that serve")
    waiting: list[int] = Field(description="requests in line")
    running: list[int] = Field(description="sequences in the batches")
    kv_usage_ratio: list[float] = Field(description="mean over the replicas that serve, 0..1")


class SeriesDocument(Document):
    """Pools over time; of futures the first one."""

    t_s: list[float] = Field(description="seconds from the start")
    pools: list[PoolSeriesDocument]


class SimulationDocument(Document):
    """A fleet against requests, replayed in the twin."""

    requests: int = Field(description="of all runs")
    duration_s: float = Field(
        description="interval in which the requests of one run arrive, seconds"
    )
    router: RouterPolicy
    pools: list[SimulatedPoolDocument]
    latency: SimulatedLatencyDocument = Field(
        description="over all runs; of sampled futures within 0.5 %"
    )
    predicted: PredictionDocument = Field(
        description="the same with its 95 % interval: of given requests as if they were "
        "independent, of futures from how they differ"
    )
    classes: list[SimulatedClassDocument]
    holds: bool | None = Field(
        description="whether every class keeps its promise; false when a run was stopped; null: "
        "not clear after so many futures"
    )
    outcomes: OutcomesDocument
    usd: float = Field(description="price of the replicas for one run, USD; mean over runs")
    accelerator_hours: float = Field(description="of one run; mean over runs")
    output_tokens_per_s: float = Field(description="of finished requests, over all runs")
    preemptions: int = Field(description="how often a request lost its KV cache, all runs")
    cached_ratio: float = Field(description="share of prompt tokens found in a cache, 0..1")
    stopped: StoppedDocument | None = Field(
        description="null: every run came to its end; else the first that did not"
    )
    futures: FuturesDocument | None = Field(description="null: given requests were replayed")
    extrapolated_requests: int = Field(description="outside what the profiles measured")
    estimated: bool = Field(description="true: rests on an estimated profile")
    incomplete: bool = Field(description="true: rests on a profile whose measuring broke off")
    flags: list[str] = Field(description="what to know before believing the figures")
    series: SeriesDocument | None = Field(default=None, description="null: not asked for")


def simulation_document(seen: Simulated, *, series: bool = False) -> SimulationDocument:
    """The document of a simulation.

    Parameters
    ----------
    series : bool
        Whether pools over time are told.
    """
    total, runs = seen.total, seen.total.runs
    profiles = [group.profile for group in seen.scenario.groups]
    return SimulationDocument(
        requests=total.requests,
        duration_s=seen.duration_s,
        router=seen.scenario.router,
        pools=_pools(seen),
        latency=SimulatedLatencyDocument.model_validate(seen.latency),
        predicted=_predicted(seen),
        classes=_classes(seen),
        holds=seen.holds,
        outcomes=OutcomesDocument(**{o.name.lower(): total.count(o) for o in Outcome}),
        usd=total.usd / runs,
        accelerator_hours=float(total.accelerator_hours.sum()) / runs,
        output_tokens_per_s=total.answer_tokens / total.end_s if total.end_s > 0 else 0.0,
        preemptions=total.preemptions,
        cached_ratio=total.cached_tokens / max(total.prompt_tokens, 1),
        stopped=None if seen.stopped is None else StoppedDocument.model_validate(seen.stopped),
        futures=_futures(seen),
        extrapolated_requests=total.extrapolated_requests,
        estimated=any(p.provenance.kind is ProfileKind.ESTIMATED for p in profiles),
        incomplete=any(p.interrupted for p in profiles),
        flags=list(seen.flags),
        series=_series(seen.results[0].series) if series else None,
    )


def _pools(seen: Simulated) -> list[SimulatedPoolDocument]:
    total = seen.total
    return [
        SimulatedPoolDocument(
            pool=number,
            **dict(ReplicaFields.of(pool.shape)),
            model=pool.shape.model,
            purchase_option=pool.purchase_option,
            replicas=pool.replicas,
            utilization_ratio=float(total.utilization_ratio[number]),
            kv_peak_ratio=float(total.kv_peak_ratio[number]),
            accelerator_hours=float(total.accelerator_hours[number]) / total.runs,
        )
        for number, pool in enumerate(seen.pools)
    ]


def _predicted(seen: Simulated) -> PredictionDocument:
    latency = seen.latency
    return PredictionDocument(
        attainment_ratio=seen.attainment.ratio,
        attainment_low_ratio=seen.attainment.low_ratio,
        attainment_high_ratio=seen.attainment.high_ratio,
        ttft_p50_s=latency.ttft_p50_s,
        ttft_p95_s=latency.ttft_p95_s,
        tpot_p95_s=latency.tpot_p95_s,
        itl_p95_s=latency.itl_p95_s,
        source="twin",
    )


def _classes(seen: Simulated) -> list[SimulatedClassDocument]:
    return [
        SimulatedClassDocument(
            request_class=verdict.request_class,
            requests=verdict.requests,
            attainment_ratio=verdict.attainment.ratio,
            attainment_low_ratio=verdict.attainment.low_ratio,
            attainment_high_ratio=verdict.attainment.high_ratio,
            target_ratio=verdict.target_ratio,
            holds=seen.keeps(verdict),
        )
        for verdict in seen.verdicts
    ]


def _futures(seen: Simulated) -> FuturesDocument | None:
    if seen.futures is None or seen.stopping is None:
        return None
    return FuturesDocument(
        count=seen.futures.count,
        most=seen.stopping.most_futures,
        looks=seen.futures.looks,
        ended_by=seen.futures.ended_by,
        half_width_ratio=seen.attainment.half_width_ratio,
        confidence_ratio=seen.stopping.confidence_ratio,
        stopped=len(seen.total.stopped),
    )


def _series(series: GroupSeries) -> SeriesDocument:
    columns: Sequence[tuple[list[int], list[int], list[int], list[float]]] = list(
        zip(
            series.ready.tolist(),
            series.waiting.tolist(),
            series.running.tolist(),
            series.kv_usage_ratio.tolist(),
            strict=True,
        )
    )
    return SeriesDocument(
        t_s=series.t_s.tolist(),
        pools=[
            PoolSeriesDocument(
                pool=number, ready=ready, waiting=waiting, running=running, kv_usage_ratio=used
            )
            for number, (ready, waiting, running, used) in enumerate(columns)
        ],
    )

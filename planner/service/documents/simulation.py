"""What a simulation answers."""

from pydantic import Field

from planner.domain.fleet import Role
from planner.service.documents.document import Document
from planner.service.documents.plan import PredictionDocument

_SECONDS = "seconds; null: nothing finished"


class SimulatedPoolDocument(Document):
    """One group of identical replicas in the simulation."""

    role: Role
    model: str
    accelerator: str
    tp: int
    replicas: int
    utilization_ratio: float = Field(description="share of the time that a replica was busy, 0..1")


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


class SimulationDocument(Document):
    """A fleet against requests, replayed in the twin."""

    requests: int
    duration_s: float = Field(description="interval in which the requests arrive, seconds")
    pools: list[SimulatedPoolDocument]
    latency: SimulatedLatencyDocument
    predicted: PredictionDocument = Field(description="the same with its 95 % interval")
    extrapolated_requests: int = Field(description="outside what the profiles measured")
    estimated: bool = Field(description="true: rests on an estimated profile")

"""A capacity report that has no answer, as JSON: too little was seen, and what is known without."""

from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field

from planner.service.documents.capacity_report import ProfileDocument
from planner.service.documents.document import Document, parse, read_object

SCHEMA_VERSION: Literal["poolwise/capacity-report-unanswered/v1"] = (
    "poolwise/capacity-report-unanswered/v1"
)


class PromiseDocument(Document):
    """What the spec promises to requests of one class."""

    request_class: str
    ttft_s: float
    tpot_s: float
    attainment_ratio: float = Field(description="share of requests in time, 0..1")


class StockDocument(Document):
    """Accelerators of one type that the spec may use."""

    accelerator: str
    inventory: int
    on_demand_usd_per_hour: float | None = Field(description="of one; null: the spec has no price")
    reserved_usd_per_hour: float | None
    spot_usd_per_hour: float | None


class UnansweredReport(Document):
    """Why nothing can be recommended, what to do, and what the spec says by itself."""

    schema_version: Literal["poolwise/capacity-report-unanswered/v1"] = SCHEMA_VERSION
    deployment: str
    model: str
    made_at: AwareDatetime
    source: str = Field(description="a file, a description or the store")
    requests: int = Field(description="that were seen")
    missing: str = Field(description="what the source holds, or lacks")
    remedy: str = Field(description="what to do about it")
    window_s: float = Field(description="length of the planning windows, seconds")
    horizon_windows: int
    promises: list[PromiseDocument]
    inventory: list[StockDocument]
    pools: list[str] = Field(description="replica shapes that the spec lists")
    profiles: list[ProfileDocument]


def read_unanswered_report(path: Path) -> UnansweredReport:
    """The report in a JSON file.

    Raises
    ------
    HistoryError
        When the file is missing or no such report.
    """
    return parse(UnansweredReport, read_object(path, what="a capacity report"), where=str(path))

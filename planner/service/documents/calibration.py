"""Predicted beside observed, and by how much profiles are corrected for it, as documents."""

from pydantic import Field

from planner.capacity.calibration import Calibration, Watch
from planner.domain.calibration import Correction, Leg
from planner.service.documents.document import Document, Instant


class CorrectionDocument(Document):
    """One leg of a profile that is taken to last so many times as long as it says."""

    profile_id: str
    leg: Leg
    factor: float = Field(description="times the profile's seconds; 1: as profiled")
    since_at: Instant
    ticks: int = Field(description="readings behind it, count")
    at_bound: bool = Field(description="true: what is seen asks for more than the spec allows")


class WatchDocument(Document):
    """A cumulative sum over what is seen beyond the correction; see the docs of calibration."""

    high: float
    low: float
    high_ticks: int
    low_ticks: int
    high_total: float
    low_total: float
    readings: int
    noise_total: float
    last: float | None


class CalibrationDocument(Document):
    """What is known of one leg of one profile."""

    correction: CorrectionDocument
    watch: WatchDocument


class MeansDocument(Document):
    """Means over one tick; None: not known."""

    ttft_s: float | None
    itl_s: float | None
    output_tokens_per_s: float | None


class ComparisonDocument(Document):
    """What one tick saw beside what the corrected profiles predict for the same load."""

    compared_at: Instant
    model: str
    seconds: float = Field(description="for how long it was looked")
    requests: float = Field(description="answered in that time, count")
    observed: MeansDocument
    predicted: MeansDocument
    implied: dict[Leg, float | None] = Field(
        description="times the uncorrected profile's seconds that explain what was seen"
    )
    reason: str = Field(description="why nothing was concluded; empty: it was")


def calibration_document(calibration: Calibration) -> CalibrationDocument:
    """The document of a calibration; its field names are the same."""
    return CalibrationDocument.model_validate(calibration)


def calibration_of(document: CalibrationDocument) -> Calibration:
    """The calibration of a document."""
    return Calibration(
        correction=Correction(**document.correction.model_dump()),
        watch=Watch(**document.watch.model_dump()),
    )

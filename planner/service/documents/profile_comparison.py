"""A comparison of profiles as JSON."""

from collections.abc import Sequence
from datetime import date

from planner.domain.profile import Profile
from planner.service.documents.document import Document
from profiler.comparison import Agreement, Compared


class ComparedProfileDocument(Document):
    """One of the compared profiles, and what a replica of it costs."""

    profile_id: str
    file: str
    model: str
    accelerator: str
    accelerators: int
    kind: str
    error_ratio: float
    usd_per_gpu_hour: float | None
    price_source: str | None
    price_listed_on: date | None


class ComparedDocument(Document):
    """One quantity: a value per profile, ratios to the first."""

    quantity: str
    at: float | None
    values: tuple[float | None, ...]
    batches: tuple[int | None, ...]
    ratios: tuple[float | None, ...]
    ratios_low: tuple[float | None, ...]
    ratios_high: tuple[float | None, ...]
    tokens_per_usd: tuple[float | None, ...]


class AgreementDocument(Document):
    """How far a profile of the same replica is from the first."""

    profile_id: str
    table: str
    points: int
    median_ratio: float
    p90_ratio: float
    bias_ratio: float
    stated_ratio: float
    exceeds: bool


class ComparisonDocument(Document):
    """Everything that `poolwise profile compare` says."""

    profiles: tuple[ComparedProfileDocument, ...]
    context_tokens: int
    compared: tuple[ComparedDocument, ...]
    agreement: tuple[AgreementDocument, ...]


def compared_document(row: Compared) -> ComparedDocument:
    """The document of one quantity."""
    return ComparedDocument(
        quantity=row.quantity.value,
        at=row.at,
        values=row.values,
        batches=row.batches,
        ratios=row.ratios,
        ratios_low=row.low,
        ratios_high=row.high,
        tokens_per_usd=row.per_usd,
    )


def agreement_documents(
    profile: Profile, found: Sequence[Agreement]
) -> tuple[AgreementDocument, ...]:
    """The documents of how far a profile is from the first."""
    return tuple(
        AgreementDocument(
            profile_id=profile.profile_id,
            table=one.table,
            points=one.points,
            median_ratio=one.median_ratio,
            p90_ratio=one.p90_ratio,
            bias_ratio=one.bias_ratio,
            stated_ratio=one.stated_ratio,
            exceeds=one.exceeds,
        )
        for one in found
    )

"""A forecast as JSON, both ways."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from planner.domain.errors import HistoryError
from planner.domain.forecast import (
    Demand,
    Dependence,
    Drift,
    Forecast,
    ForecastWindow,
    Paths,
    Quantiles,
)
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.wording import counted
from planner.service.documents.document import (
    Document,
    Instant,
    WindowSeconds,
    parse,
    read_object,
)
from planner.service.documents.output_lengths import OutputLengthsDocument
from planner.service.documents.paths import PathsDocument
from planner.service.documents.shapes import ShapeDocument

MOST_ORIGINS = 10_000

Level = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, le=1e24)]
Distance = Annotated[float, Field(ge=0, le=1e6)]
Rank = Annotated[int, Field(ge=0, lt=MOST_ORIGINS)]

RANKED = 3
"""Quantities whose errors are ranked together: requests, input tokens, output tokens."""


class QuantilesDocument(Document):
    """A distribution at a few levels."""

    levels: list[Level] = Field(min_length=1, description="increasing, 0..1")
    values: list[Rate] = Field(min_length=1, description="not decreasing")

    @classmethod
    def of(cls, quantiles: Quantiles) -> Self:
        """The document of quantiles."""
        return cls(levels=list(quantiles.levels), values=list(quantiles.values))

    def quantiles(self) -> Quantiles:
        """The quantiles; ValueError when they are none."""
        return Quantiles(levels=tuple(self.levels), values=tuple(self.values))


class DemandDocument(Document):
    """Expected arrivals of one request class in one window."""

    request_class: str = DEFAULT_CLASS
    request_rate_rps: QuantilesDocument = Field(description="requests/s")
    input_tokens_per_s: QuantilesDocument = Field(description="tokens/s, cached ones included")
    output_tokens_per_s: QuantilesDocument = Field(description="tokens/s")
    shape: ShapeDocument
    reuse_ratio: QuantilesDocument | None = Field(
        default=None,
        description="share of the prompt tokens that is cached, 0..1; null: no prompt was seen",
    )
    arrival_cv2: float = Field(
        default=1.0,
        ge=0,
        le=1e4,
        description="squared variation of the gaps between arrivals; 1: Poisson",
    )


class ForecastWindowDocument(Document):
    """Demand of every class in [start_at, start_at + window_s)."""

    start_at: Instant
    window_s: WindowSeconds = Field(description="seconds")
    demands: list[DemandDocument]


class DriftDocument(Document):
    """A change of a class's request lengths beyond what its windows differ by anyway."""

    request_class: str
    since: Instant = Field(
        description="start of the first of the windows that differ, at the latest six windows ago"
    )
    distance: Distance = Field(
        description="energy distance between the recent lengths and those before, in doublings"
    )
    usual: Distance = Field(description="what 95 % of earlier groups of windows differ by")
    what: str


class DependenceDocument(Document):
    """How the errors of one class's past forecasts went together."""

    request_class: str
    ranks: list[list[list[Rank]]] = Field(
        max_length=MOST_ORIGINS,
        description="past origin x window x (requests, input, output tokens): place of its error "
        "among all origins', from 0, the smallest",
    )

    @classmethod
    def of(cls, dependence: Dependence) -> Self:
        """The document of a dependence."""
        places = np.rint(dependence.ranks * len(dependence.ranks) - 0.5).astype(np.int64)
        return cls(request_class=dependence.request_class, ranks=places.tolist())

    def dependence(self, windows: int) -> Dependence:
        """The value; ValueError when a row is not as long as the forecast, or no rank."""
        if any(len(o) != windows or any(len(w) != RANKED for w in o) for o in self.ranks):
            raise ValueError(
                f"dependence of class {self.request_class}: every origin has "
                f"{counted(windows, 'window')} of "
                f"{RANKED} ranks"
            )
        shape = (len(self.ranks), windows, RANKED)
        places = np.asarray(self.ranks, dtype=np.float64).reshape(shape)
        if places.size and places.max() >= len(places):
            raise ValueError(
                f"dependence of class {self.request_class}: rank {places.max():g} among "
                f"{len(places)} origins"
            )
        ranks = (places + 0.5) / max(len(places), 1)
        return Dependence(request_class=self.request_class, ranks=ranks)


class ForecastDocument(Document):
    """What is coming for one model."""

    forecast_id: str
    model: str
    made_at: Instant
    method: str = Field(description="which methods were followed, per class and series")
    windows: list[ForecastWindowDocument] = Field(min_length=1)
    events: list[str] = Field(
        default_factory=list, description="known events that changed a window, for people"
    )
    drifts: list[DriftDocument] = Field(
        default_factory=list, description="classes whose requests have changed their lengths"
    )
    output_lengths: list[OutputLengthsDocument] = Field(
        default_factory=list,
        description="per class: how long answers are, and what is to come of those in flight; "
        "follows from the shape of the first window",
    )
    dependence: list[DependenceDocument] = Field(
        default_factory=list,
        description="how errors of windows and quantities go together; paths are drawn with it",
    )
    paths: PathsDocument | None = Field(
        default=None, description="possible futures, where they were asked for; not read back"
    )
    notes: list[str] = Field(
        default_factory=list, description="what should be known of the history; for people"
    )


def forecast_document(
    forecast: Forecast, *, paths: Paths | None = None, notes: Sequence[str] = ()
) -> ForecastDocument:
    """The document of a forecast, with paths through it and what should be known of its history."""
    return ForecastDocument(
        forecast_id=forecast.forecast_id,
        model=forecast.model,
        made_at=forecast.made_at,
        method=forecast.method,
        windows=[
            ForecastWindowDocument(
                start_at=window.start_at,
                window_s=window.window_s,
                demands=[_demand_document(demand) for demand in window.demands],
            )
            for window in forecast.windows
        ],
        events=list(forecast.events),
        drifts=[DriftDocument.model_validate(drift) for drift in forecast.drifts],
        output_lengths=[OutputLengthsDocument.of(demand) for demand in forecast.windows[0].demands],
        dependence=[DependenceDocument.of(of_class) for of_class in forecast.dependence],
        paths=None if paths is None else PathsDocument.of(paths),
        notes=list(notes),
    )


def forecast_of(document: ForecastDocument, *, where: str) -> Forecast:
    """The forecast that a document describes.

    Raises
    ------
    HistoryError
        When its numbers are no forecast.
    """
    try:
        return Forecast(
            forecast_id=document.forecast_id,
            model=document.model,
            made_at=document.made_at,
            method=document.method,
            windows=tuple(
                ForecastWindow(
                    start_at=window.start_at,
                    window_s=window.window_s,
                    demands=tuple(_demand(demand) for demand in window.demands),
                )
                for window in document.windows
            ),
            events=tuple(document.events),
            drifts=tuple(_drift(drift) for drift in document.drifts),
            dependence=tuple(d.dependence(len(document.windows)) for d in document.dependence),
        )
    except ValueError as error:
        raise HistoryError(f"{where}: {error}") from error


def read_forecast(path: Path) -> Forecast:
    """The forecast in a JSON file, as `poolwise forecast --json` prints it.

    Raises
    ------
    HistoryError
        When the file is missing or no forecast.
    """
    document = parse(ForecastDocument, read_object(path, what="a forecast"), where=str(path))
    return forecast_of(document, where=str(path))


def _demand_document(demand: Demand) -> DemandDocument:
    reuse = demand.reuse_ratio
    return DemandDocument(
        request_class=demand.request_class,
        request_rate_rps=QuantilesDocument.of(demand.request_rate_rps),
        input_tokens_per_s=QuantilesDocument.of(demand.input_tokens_per_s),
        output_tokens_per_s=QuantilesDocument.of(demand.output_tokens_per_s),
        shape=ShapeDocument.of(demand.shape),
        reuse_ratio=None if reuse is None else QuantilesDocument.of(reuse),
        arrival_cv2=demand.arrival_cv2,
    )


def _drift(document: DriftDocument) -> Drift:
    return Drift(
        request_class=document.request_class,
        since=document.since,
        distance=document.distance,
        usual=document.usual,
        what=document.what,
    )


def _demand(document: DemandDocument) -> Demand:
    reuse = None if document.reuse_ratio is None else document.reuse_ratio.quantiles()
    if reuse is not None and reuse.values[-1] > 1:
        raise ValueError(f"reuse_ratio is a share, 0..1, got {reuse.values[-1]:g}")
    return Demand(
        request_class=document.request_class,
        request_rate_rps=document.request_rate_rps.quantiles(),
        input_tokens_per_s=document.input_tokens_per_s.quantiles(),
        output_tokens_per_s=document.output_tokens_per_s.quantiles(),
        shape=document.shape.shape(),
        reuse_ratio=reuse,
        arrival_cv2=document.arrival_cv2,
    )

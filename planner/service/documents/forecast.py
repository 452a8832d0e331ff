"""A forecast as JSON, both ways."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from planner.domain.errors import HistoryError
from planner.domain.forecast import Demand, Forecast, ForecastWindow, Quantiles
from planner.domain.slo import DEFAULT_CLASS
from planner.service.documents.document import (
    Document,
    Instant,
    WindowSeconds,
    parse,
    read_object,
)
from planner.service.documents.shapes import ShapeDocument

Level = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, le=1e24)]


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


class ForecastDocument(Document):
    """What is coming for one model."""

    forecast_id: str
    model: str
    made_at: Instant
    method: str
    windows: list[ForecastWindowDocument] = Field(min_length=1)


def forecast_document(forecast: Forecast) -> ForecastDocument:
    """The document of a forecast."""
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
    return DemandDocument(
        request_class=demand.request_class,
        request_rate_rps=QuantilesDocument.of(demand.request_rate_rps),
        input_tokens_per_s=QuantilesDocument.of(demand.input_tokens_per_s),
        output_tokens_per_s=QuantilesDocument.of(demand.output_tokens_per_s),
        shape=ShapeDocument.of(demand.shape),
        arrival_cv2=demand.arrival_cv2,
    )


def _demand(document: DemandDocument) -> Demand:
    return Demand(
        request_class=document.request_class,
        request_rate_rps=document.request_rate_rps.quantiles(),
        input_tokens_per_s=document.input_tokens_per_s.quantiles(),
        output_tokens_per_s=document.output_tokens_per_s.quantiles(),
        shape=document.shape.shape(),
        arrival_cv2=document.arrival_cv2,
    )

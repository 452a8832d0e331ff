"""How good the forecaster would have been, as JSON."""

import math
from collections.abc import Iterable, Sequence

from pydantic import Field

from forecaster.backtest import BacktestResult, SeriesScore
from planner.service.documents.document import Document

USUAL_HORIZONS = (1, 5)
MOST_HORIZONS = 16

_RATIO = "over that of the last value; null: the last value was always right"


class PinballDocument(Document):
    """Pinball loss at one level."""

    level: float = Field(description="0..1")
    ratio: float | None = Field(
        description="loss over that of the last value with conformal quantiles; null: that was 0"
    )


class SeriesScoreDocument(Document):
    """Accuracy of one series of one request class at one horizon."""

    request_class: str
    series: str = Field(description="request_rate_rps, input_tokens_per_s or output_tokens_per_s")
    horizon_windows: int = Field(description="windows from the origin to what was forecast")
    origins: int = Field(description="forecasts that were scored, count")
    mae_ratio: float | None = Field(description=f"mean absolute error of the median {_RATIO}")
    mase: float | None = Field(
        description="the same over the mean one-step change before; null: it never changed"
    )
    pinball: list[PinballDocument]
    q90_coverage_ratio: float = Field(description="share of actual values at or below the 90 % one")
    q90_coverage_low_ratio: float = Field(description="of its 95 % block-bootstrap interval")
    q90_coverage_high_ratio: float = Field(description="of its 95 % block-bootstrap interval")


class HorizonDocument(Document):
    """All series at one horizon."""

    horizon_windows: int
    series: int = Field(description="how many, count")
    origins: int = Field(description="of all series together, count")
    mae_ratio: float | None = Field(description="geometric mean of the series' ratios")
    worst_mae_ratio: float | None
    worst_series: str | None = Field(description="class and series of the worst ratio")
    pinball_90_ratio: float | None = Field(description="geometric mean of the series' ratios")
    q90_coverage_ratio: float = Field(description="pooled over all origins")


class BacktestDocument(Document):
    """Accuracy of all series at all horizons, rolling origin, past data only."""

    window_s: float = Field(description="seconds")
    horizons: list[HorizonDocument]
    scores: list[SeriesScoreDocument]
    notes: list[str] = Field(description="what should be known of the history")


def backtest_document(result: BacktestResult, *, notes: Sequence[str] = ()) -> BacktestDocument:
    """The document of a backtest."""
    horizons = sorted({score.horizon_windows for score in result.scores})
    return BacktestDocument(
        window_s=result.window_s,
        horizons=[
            _horizon([s for s in result.scores if s.horizon_windows == horizon])
            for horizon in horizons
        ],
        scores=[_series(score) for score in result.scores],
        notes=list(notes),
    )


def _series(scored: SeriesScore) -> SeriesScoreDocument:
    score = scored.score
    return SeriesScoreDocument(
        request_class=scored.request_class,
        series=scored.series,
        horizon_windows=scored.horizon_windows,
        origins=score.origins,
        mae_ratio=score.mae_ratio,
        mase=score.mase,
        pinball=[PinballDocument(level=level, ratio=ratio) for level, ratio in score.pinball_ratio],
        q90_coverage_ratio=score.q90_coverage_ratio,
        q90_coverage_low_ratio=score.q90_coverage_low_ratio,
        q90_coverage_high_ratio=score.q90_coverage_high_ratio,
    )


def _horizon(scores: list[SeriesScore]) -> HorizonDocument:
    known = [(s.score.mae_ratio, s) for s in scores if s.score.mae_ratio is not None]
    worst = max(known, key=lambda pair: pair[0], default=None)
    origins = sum(s.score.origins for s in scores)
    covered = math.fsum(s.score.q90_coverage_ratio * s.score.origins for s in scores)
    return HorizonDocument(
        horizon_windows=scores[0].horizon_windows,
        series=len(scores),
        origins=origins,
        mae_ratio=_geometric_mean(ratio for ratio, _ in known),
        worst_mae_ratio=None if worst is None else worst[0],
        worst_series=None if worst is None else f"{worst[1].request_class} {worst[1].series}",
        pinball_90_ratio=_geometric_mean(
            ratio
            for s in scores
            for level, ratio in s.score.pinball_ratio
            if level == 0.9 and ratio is not None
        ),
        q90_coverage_ratio=covered / origins,
    )


def _geometric_mean(ratios: Iterable[float]) -> float | None:
    """None without any; 0 when one is 0."""
    listed = list(ratios)
    if not listed:
        return None
    if min(listed) <= 0:
        return 0.0
    return math.exp(math.fsum(math.log(ratio) for ratio in listed) / len(listed))

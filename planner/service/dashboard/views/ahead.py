"""What was forecast beside what came."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from planner.domain.wording import counted
from planner.domain.workload import ObservedWindow
from planner.service.api.forecasts import ForecastBesideActual
from planner.service.dashboard.views.charts import Axes, Band, Chart, Line, drawn
from planner.service.documents.forecast import ForecastWindowDocument
from planner.service.loop.forecast_outcomes import observed_rates
from planner.service.reports.quantities import MISSING, rate, sentence, share, span
from planner.service.reports.table import Table, cells, number_columns, text_columns

LOW, MIDDLE, HIGH = 0.1, 0.5, 0.9
PAST_WINDOWS = 60
"""So many windows before a forecast are drawn with it."""
Rates = dict[datetime, float]
"""Requests/s of all classes together, by the middle of their window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """A forecast: its plot, how it was made, and how good earlier ones were."""

    charts: tuple[Chart, ...]
    made: str
    coverage: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expected:
    """All classes of one window together, requests/s; quantiles added up."""

    start_at: datetime
    middle_at: datetime
    low: float
    median: float
    high: float


def past_of(beside: ForecastBesideActual) -> tuple[datetime, datetime]:
    """The time before a forecast that is drawn with it."""
    first = beside.forecast.windows[0]
    begun = first.start_at - timedelta(seconds=PAST_WINDOWS * first.window_s)
    return begun, first.start_at


def ahead_view(beside: ForecastBesideActual, past: Sequence[ObservedWindow]) -> Ahead:
    """A forecast beside what came, with what came before it.

    Parameters
    ----------
    past : sequence of ObservedWindow
        Of the time before the forecast; windows of several classes are added up.
    """
    forecast = beside.forecast
    expected = [_expected_in(window) for window in forecast.windows]
    came = {**_before(beside, past), **_came(beside)}
    earlier = _earlier(beside)
    first = min([*came, *earlier, expected[0].start_at])
    last = forecast.windows[-1].start_at + timedelta(seconds=forecast.windows[-1].window_s)
    axes = Axes(start_at=first, end_at=last, written=_number)
    summary = (
        f"{rate(expected[0].median, 'requests')} expected next, "
        f"{rate(expected[0].low, 'requests')} to {rate(expected[0].high, 'requests')} with 80 % "
        "probability."
    )
    chart = drawn(
        "ahead",
        "Requests/s",
        axes,
        summary=summary,
        bands=[
            Band(
                name="80 % band",
                look="expected",
                points=tuple((e.middle_at, e.low, e.high) for e in expected),
            )
        ],
        lines=[
            Line(
                name="forecast before",
                look="before",
                points=tuple(sorted(earlier.items())),
            ),
            Line(
                name="forecast",
                look="expected",
                points=tuple((e.middle_at, e.median) for e in expected),
            ),
            Line(name="came", look="observed", points=tuple(sorted(came.items()))),
        ],
        table=_table(expected, came),
    )
    known = beside.q90_coverage_ratio
    return Ahead(
        charts=(chart,),
        made=f"Made at {forecast.made_at:%Y-%m-%d %H:%M} UTC for "
        f"{counted(len(forecast.windows), 'window')} of {span(forecast.windows[0].window_s)}, by "
        f"{forecast.method}.",
        coverage=(
            "No earlier forecast can be judged yet."
            if known is None
            else f"Of {len(beside.outcomes)} earlier windows {share(known)} had no more requests "
            "than the 90 % quantile said; 90% would be right."
        ),
        notes=tuple(
            sentence(note)
            for note in (*forecast.notes, *forecast.events, *(d.what for d in forecast.drifts))
        ),
    )


def _expected_in(window: ForecastWindowDocument) -> _Expected:
    rates = [demand.request_rate_rps.quantiles() for demand in window.demands]
    return _Expected(
        start_at=window.start_at,
        middle_at=_middle(window.start_at, window.window_s),
        low=sum(one.at(LOW) for one in rates),
        median=sum(one.at(MIDDLE) for one in rates),
        high=sum(one.at(HIGH) for one in rates),
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _middle(start_at: datetime, window_s: float) -> datetime:
    return start_at + timedelta(seconds=window_s / 2)


def _before(beside: ForecastBesideActual, past: Sequence[ObservedWindow]) -> Rates:
    """What came in the windows before the forecast, each as long as its own."""
    first = beside.forecast.windows[0]
    found: Rates = {}
    for back in range(PAST_WINDOWS, 0, -1):
        start_at = first.start_at - timedelta(seconds=back * first.window_s)
        known = observed_rates(past, start_at=start_at, window_s=first.window_s)
        if known:
            found[_middle(start_at, first.window_s)] = sum(k.request_rate_rps for k in known)
    return found


def _came(beside: ForecastBesideActual) -> Rates:
    """What came in the forecast's own windows, of those that are over."""
    found: Rates = {}
    for window in beside.forecast.windows:
        mine = [one for one in beside.actual if one.start_at == window.start_at]
        known = [one.request_rate_rps for one in mine if one.request_rate_rps is not None]
        if known:
            found[_middle(window.start_at, window.window_s)] = sum(known)
    return found


def _earlier(beside: ForecastBesideActual) -> Rates:
    """What the forecast just before each of these windows had said, its median."""
    found: defaultdict[datetime, float] = defaultdict(float)
    begun, _ = past_of(beside)
    for one in beside.outcomes:
        if one.windows_ahead == 1 and one.start_at >= begun:
            found[_middle(one.start_at, one.window_s)] += one.request_rate_median_rps
    return dict(found)


def _table(expected: Iterable[_Expected], came: Rates) -> Table:
    rows = [
        cells(
            f"{one.start_at:%H:%M:%S}",
            _number(one.median),
            f"{_number(one.low)} to {_number(one.high)}",
            MISSING if one.middle_at not in came else _number(came[one.middle_at]),
        )
        for one in expected
    ]
    return Table(
        caption="Forecast windows, requests/s",
        columns=(
            *text_columns("From, UTC"),
            *number_columns("Median", "80 % band", "Came"),
        ),
        rows=tuple(rows),
    )

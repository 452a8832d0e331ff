"""What was predicted beside what was observed."""

from dataclasses import dataclass

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from planner.domain.plan import Prediction
from planner.domain.workload import LatencySummary
from planner.service.demo.outcome import Outcome
from planner.service.reports.page import (
    HINDCAST,
    OBSERVED,
    PREDICTED,
    PROMISE,
    TEXT,
    Figure,
    Key,
    drawn,
    titled,
)
from planner.service.reports.quantities import MISSING, between, duration, share
from planner.service.reports.table import Column, Table, cells, number_columns

NAMES = ("the plan's prediction", "the twin, given the traffic that came", "observed after")
_COLOURS = (PREDICTED, HINDCAST, OBSERVED)
PANEL_PX = 86


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure as predicted, as the twin says in hindsight, and as observed.

    Parameters
    ----------
    values : tuple of float or None
        In the order of `NAMES`; a ratio, or seconds.
    interval : tuple of (float, float) or None
        95 % interval of each value, where there is one.
    """

    name: str
    is_ratio: bool
    promised: float | None
    values: tuple[float | None, ...]
    intervals: tuple[tuple[float, float] | None, ...] = (None, None, None)

    def text(self, value: float | None) -> str:
        """Write one of its values."""
        return share(value) if self.is_ratio else duration(value)

    @property
    def promise_text(self) -> str:
        """What was promised, with its direction."""
        if self.promised is None:
            return MISSING
        return f"{'≥' if self.is_ratio else '≤'} {self.text(self.promised)}"


def measures_of(outcome: Outcome) -> tuple[Measure, ...]:
    """All figures that the plan predicts and the demo measures."""
    predicted = outcome.planned.predicted if outcome.planned else None
    hindcast, observed = outcome.hindcast, outcome.after.latency
    slo = outcome.slo
    attainment = Measure(
        name="Attainment",
        is_ratio=True,
        promised=slo.attainment_ratio,
        values=_values("attainment_ratio", predicted, hindcast, observed),
        intervals=(_interval(predicted), _interval(hindcast), None),
    )
    latencies = (
        ("TTFT, median", "ttft_p50_s", None),
        ("TTFT, 95th percentile", "ttft_p95_s", slo.ttft_s),
        ("TPOT, 95th percentile", "tpot_p95_s", slo.tpot_s),
        ("ITL, 95th percentile", "itl_p95_s", None),
    )
    return (
        attainment,
        *(
            Measure(
                name=name,
                is_ratio=False,
                promised=promised,
                values=_values(field, predicted, hindcast, observed),
            )
            for name, field, promised in latencies
        ),
    )


def _values(
    field: str, predicted: Prediction | None, hindcast: Prediction, observed: LatencySummary
) -> tuple[float | None, ...]:
    return (
        None if predicted is None else getattr(predicted, field),
        getattr(hindcast, field),
        getattr(observed, field),
    )


def _interval(prediction: Prediction | None) -> tuple[float, float] | None:
    if prediction is None:
        return None
    low, high = prediction.attainment_low_ratio, prediction.attainment_high_ratio
    return None if low is None or high is None else (low, high)


def comparison_table(outcome: Outcome) -> Table:
    """The measures as a table."""
    rows = []
    for measure in measures_of(outcome):
        texts = [
            measure.text(value) + (f" ({between(*interval)})" if interval else "")
            for value, interval in zip(measure.values, measure.intervals, strict=True)
        ]
        rows.append(cells(measure.name, measure.promise_text, *texts))
    return Table(
        caption="In numbers, with the twin's 95% interval in brackets",
        columns=(
            Column(heading="Measure"),
            *number_columns("Promised", "Predicted", "Twin in hindsight", "Observed"),
        ),
        rows=tuple(rows),
    )


def comparison_figure(outcome: Outcome) -> Figure | None:
    """The measures as bars, each on its own scale; None when there is nothing to compare."""
    shown = [m for m in measures_of(outcome) if any(v is not None for v in m.values)]
    if not shown:
        return None
    height_px = PANEL_PX * len(shown) + 30
    figure = make_subplots(rows=len(shown), cols=1, vertical_spacing=26 / height_px)
    for row, measure in enumerate(shown, start=1):
        _draw_bars(figure, row, measure)
    figure.update_xaxes(showticklabels=False, showgrid=False, ticks="")
    figure.update_yaxes(showticklabels=False, showgrid=False, ticks="")
    return drawn(
        figure,
        name="comparison",
        title="Predicted, in hindsight, observed",
        description="Bars of the table's values. " + " ".join(_spoken(m) for m in shown),
        keys=[
            *(Key(text=n, colour=c, mark="bar") for n, c in zip(NAMES, _COLOURS, strict=True)),
            Key(text="promised", colour=PROMISE, mark="dash"),
        ],
        height_px=height_px,
    )


def _draw_bars(figure: go.Figure, row: int, measure: Measure) -> None:
    numbers = [v for v in (*measure.values, measure.promised) if v is not None]
    for place, (name, value) in enumerate(zip(NAMES, measure.values, strict=True)):
        figure.add_trace(
            go.Bar(
                x=[value or 0.0],
                y=[len(NAMES) - place],
                orientation="h",
                width=0.82,
                marker={"color": _COLOURS[place]},
                text=[measure.text(value) if value is not None else "nothing to show"],
                textposition="outside",
                textfont={"color": TEXT},
                cliponaxis=False,
                name=name,
                hovertemplate=f"{name}: %{{text}}<extra></extra>",
            ),
            row=row,
            col=1,
        )
    figure.update_xaxes(range=[0, 1.3 * max(*numbers, 1e-9)], row=row, col=1)
    figure.update_yaxes(range=[0.45, len(NAMES) + 0.55], row=row, col=1)
    titled(figure, row, f"<b>{measure.name}</b>")
    if measure.promised is not None:
        figure.add_vline(
            x=measure.promised,
            line={"color": PROMISE, "width": 1.5, "dash": "dash"},
            row=row,
            col=1,
        )


def _spoken(measure: Measure) -> str:
    pairs = zip(NAMES, measure.values, strict=True)
    return f"{measure.name}: " + ", ".join(f"{n} {measure.text(v)}" for n, v in pairs) + "."

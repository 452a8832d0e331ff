"""What a plan does to requests, as the twin saw it."""

from collections.abc import Sequence

from planner.domain.plan import ClassAttainment, Plan, Prediction
from planner.service.reports.quantities import (
    MISSING,
    between,
    duration,
    rate,
    share,
    share_between,
    short_fleet,
    usd_per_hour,
    words,
)
from planner.service.reports.table import Table, cells, number_columns, text_columns


def in_time(predicted: Prediction) -> str:
    """Attainment with its interval."""
    return share_between(
        predicted.attainment_ratio,
        predicted.attainment_low_ratio,
        predicted.attainment_high_ratio,
    )


def effect_table(plan: Plan) -> Table:
    """What is predicted for every window."""
    rows = [
        cells(
            f"{window.start_at:%H:%M:%S}",
            short_fleet(window),
            rate(window.request_rate_rps, "requests"),
            in_time(window.predicted),
            duration(window.predicted.ttft_p95_s),
            duration(window.predicted.tpot_p95_s),
            duration(window.predicted.itl_p95_s),
            words(window.bottleneck),
            usd_per_hour(window.usd_per_hour),
        )
        for window in plan.windows
    ]
    return Table(
        caption="Predicted, window by window",
        columns=(
            *text_columns("From, UTC", "Fleet"),
            *number_columns("Requests", "In time", "TTFT p95", "TPOT p95", "ITL p95"),
            *text_columns("Misses first"),
            *number_columns("Cost"),
        ),
        rows=tuple(rows),
        when_empty="There is no window to predict.",
    )


def classes_table(plan: Plan) -> Table:
    """Every class beside its promise, in the first window."""
    found: Sequence[ClassAttainment] = plan.windows[0].predicted.classes if plan.windows else ()
    rows = [
        cells(
            one.request_class,
            share(one.target_ratio),
            share(one.attainment_ratio),
            between(one.low_ratio, one.high_ratio),
            MISSING if one.requests is None else f"{one.requests:,}",
        )
        for one in found
    ]
    return Table(
        caption="By class, in the first window",
        columns=(
            *text_columns("Class"),
            *number_columns("Promised", "In time", "95 % interval", "Requests replayed"),
        ),
        rows=tuple(rows),
        when_empty="No class is told apart.",
    )


def replay_sentence(plan: Plan) -> str:
    """Whether the twin replayed the plan, and how much of it."""
    sources = {window.predicted.source for window in plan.windows}
    if sources == {"twin"}:
        return (
            "The digital twin replayed this fleet, request by request, against what is forecast; "
            "what it saw stands below."
        )
    if "twin" in sources:
        return "The digital twin replayed the busiest windows; the others are from the model alone."
    return "This plan was not replayed in the twin: the figures are from the model alone."

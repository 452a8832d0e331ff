"""What `poolwise forecast` shows to people."""

from datetime import datetime
from typing import TYPE_CHECKING

from planner.service.cli import output

if TYPE_CHECKING:
    from planner.domain.forecast import Demand, Forecast, Paths

MOST_SHOWN = 20
"""Paths and windows of the table; JSON has all."""


def show_forecast(expected: "Forecast", paths: "Paths | None") -> None:
    """Rates per window and class, then what is behind them."""
    long = expected.windows[0].window_s < 60
    output.print_table(
        f"Forecast {expected.forecast_id} of {expected.model}, made at "
        f"{expected.made_at.isoformat(timespec='seconds')}; windows of "
        f"{expected.windows[0].window_s:g} s",
        (
            "window",
            "class",
            "requests/s p10",
            "p50",
            "p90",
            "input tokens/s p50",
            "p90",
            "output tokens/s p50",
            "p90",
            "mean ISL",
            "mean OSL",
            "cached",
        ),
        [
            [_clock(window.start_at, long=long), demand.request_class, *_figures(demand)]
            for window in expected.windows
            for demand in window.demands
        ],
        numbers_from=2,
        unbroken=("window",),
    )
    output.print_lines("Events", expected.events)
    output.print_lines(
        "Lengths have changed",
        [f"{d.request_class} since {d.since.isoformat()}: {d.what}" for d in expected.drifts],
    )
    output.print_lines("Methods", expected.method.split("; "))
    _show_output_lengths(expected)
    if paths is not None:
        _show_paths(paths)


def _figures(demand: "Demand") -> list[str]:
    rate = demand.request_rate_rps
    reuse = demand.reuse_ratio
    return [
        *(f"{rate.at(level):.3g}" for level in (0.1, 0.5, 0.9)),
        *(f"{demand.input_tokens_per_s.at(level):,.0f}" for level in (0.5, 0.9)),
        *(f"{demand.output_tokens_per_s.at(level):,.0f}" for level in (0.5, 0.9)),
        f"{demand.shape.isl_mean:,.0f}",
        f"{demand.shape.osl_mean:,.0f}",
        output.percent(demand.shape.reuse_ratio if reuse is None else reuse.median),
    ]


def _show_output_lengths(expected: "Forecast") -> None:
    from planner.service.documents.output_lengths import LEVELS, OutputLengthsDocument

    classes = [OutputLengthsDocument.of(demand) for demand in expected.windows[0].demands]
    output.print_table(
        "Answers in flight: tokens still to come of one that has so many",
        ("class", "so far", "get longer", "mean", *(f"p{100 * level:g}" for level in LEVELS)),
        [
            [
                of_class.request_class,
                f"{row.so_far_tokens:,}",
                output.percent(row.longer_ratio),
                *(f"{tokens:,.0f}" for tokens in (row.mean_tokens, *row.values)),
            ]
            for of_class in classes
            for row in of_class.remaining
        ],
        numbers_from=1,
    )


def _show_paths(paths: "Paths") -> None:
    windows = paths.windows[:MOST_SHOWN]
    output.print_table(
        f"Paths, requests/s per window: {paths.rule}",
        ("path", "class", *(_clock(w.start_at, long=w.window_s < 60)[5:] for w in windows)),
        [
            [
                str(index),
                of_class.request_class,
                *(f"{rate:.3g}" for rate in of_class.rates[index, : len(windows), 0]),
            ]
            for index in range(min(paths.count, MOST_SHOWN))
            for of_class in paths.classes
        ],
        numbers_from=2,
    )
    if paths.count > MOST_SHOWN or len(paths.windows) > MOST_SHOWN:
        output.note(
            f"shown are {min(paths.count, MOST_SHOWN)} of {paths.count:,} paths and "
            f"{len(windows)} of {len(paths.windows)} windows; --json prints all"
        )


def _clock(moment: datetime, *, long: bool) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S" if long else "%Y-%m-%d %H:%M")

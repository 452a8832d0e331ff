"""`poolwise forecast`: what the next windows will bring."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.service.cli import output
from planner.service.cli.options import AtOption, JsonOption, StartOption, instant, seconds

if TYPE_CHECKING:
    from planner.domain.forecast import Forecast

EPILOG = (
    "Examples:\n\n"
    "poolwise forecast --trace requests.jsonl --window-s 60\n\n"
    "poolwise forecast --spec spec.yaml --trace requests.csv --at 2026-11-01T09:00:00Z --json"
)


def forecast(
    *,
    trace: Annotated[
        Path,
        typer.Option(
            "--trace", "-t", help="Requests: Mooncake JSONL, Azure or BurstGPT CSV.", metavar="FILE"
        ),
    ],
    spec: Annotated[
        Path | None,
        typer.Option(
            "--spec", "-s", help="Take window, horizon and model from this spec.", metavar="FILE"
        ),
    ] = None,
    window_s: Annotated[
        float | None,
        typer.Option(
            "--window-s", help="Window, seconds (default 300).", min=0.001, callback=seconds
        ),
    ] = None,
    horizon_windows: Annotated[
        int | None,
        typer.Option("--horizon-windows", help="Windows ahead (default 6).", min=1, max=1000),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Name of the model that the forecast is for."),
    ] = None,
    start_at: StartOption = None,
    at: AtOption = None,
    json: JsonOption = False,
) -> None:
    """Forecast request and token rates per window, with quantiles, from a trace."""
    from forecaster.forecast import forecast as forecast_windows
    from planner.domain.spec import ForecastSettings
    from planner.service.planning import sole_model, trace_history

    settings, name = ForecastSettings(), model or "model"
    if spec is not None:
        from planner.service.spec_file import read_spec

        checked = read_spec(spec, allow_estimates=True)
        settings, name = checked.forecast, sole_model(checked, model)
    moment = instant(at, option="--at")
    with output.working("forecasting"):
        history = trace_history(
            trace,
            window_s=window_s or settings.window_s,
            start_at=instant(start_at, option="--start-at"),
            at=moment,
        )
        expected = forecast_windows(
            history.windows,
            model=name,
            made_at=moment or history.ended_at,
            window_s=window_s or settings.window_s,
            horizon_windows=horizon_windows or settings.horizon_windows,
            arrival_cv2=history.arrival_cv2,
        )
    output.note_skipped(trace, history.report.left_out)
    if json:
        from planner.service.documents.forecast import forecast_document

        output.print_json(forecast_document(expected))
        return
    _show(expected)


def _show(expected: "Forecast") -> None:
    rows = [
        [
            _minute(window.start_at),
            demand.request_class,
            *(f"{demand.request_rate_rps.at(level):.3g}/s" for level in (0.1, 0.5, 0.9)),
            f"{demand.input_tokens_per_s.median:,.0f}/s",
            f"{demand.output_tokens_per_s.median:,.0f}/s",
            f"{demand.shape.isl_mean:,.0f}",
            f"{demand.shape.osl_mean:,.0f}",
            output.percent(demand.shape.reuse_ratio),
        ]
        for window in expected.windows
        for demand in window.demands
    ]
    columns = (
        "window",
        "class",
        "requests p10",
        "p50",
        "p90",
        "input tokens",
        "output tokens",
        "mean ISL",
        "mean OSL",
        "cached",
    )
    output.print_table(f"Forecast {expected.forecast_id}", columns, rows, numbers_from=2)
    output.print_lines("Methods", expected.method.split("; "))


def _minute(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M")

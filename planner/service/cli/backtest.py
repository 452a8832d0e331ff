"""`poolwise backtest`: what would have been, on a history."""

import time
from typing import TYPE_CHECKING

import typer

from planner.domain import wording
from planner.domain.errors import InputError
from planner.service.cli import backtest_options as about
from planner.service.cli import forecast_options as asked
from planner.service.cli import output
from planner.service.cli.catalogue_option import known_accelerators
from planner.service.cli.options import (
    AtOption,
    EstimatesOption,
    HistoryOption,
    JsonOption,
    ModelOption,
    SpecOption,
    StartOption,
    TraceOption,
    instant,
)
from planner.service.cli.progress import counting

if TYPE_CHECKING:
    from planner.service.documents.autoscaling import AutoscalingBacktestDocument
    from planner.service.documents.backtest import BacktestDocument, SeriesScoreDocument

app = typer.Typer(
    no_args_is_help=True,
    help="Judge the forecaster and the autoscaler on what has happened.",
)

EPILOG = (
    "Examples:\n\n"
    "poolwise backtest forecast --trace requests.csv --window-s 60\n\n"
    "poolwise backtest forecast --history windows.json --horizon 1 --horizon 12 --html b.html\n\n"
    "MAE and pinball losses stand over those of the last value: below 1 is better than it."
)

SERIES = {
    "request_rate_rps": "requests/s",
    "input_tokens_per_s": "input tokens/s",
    "output_tokens_per_s": "output tokens/s",
}


@app.command("forecast", epilog=EPILOG)
def forecast(
    *,
    trace: TraceOption = None,
    history: HistoryOption = None,
    window_s: asked.WindowOption = None,
    horizon: asked.HorizonsOption = None,
    first_origin: asked.FirstOriginOption = None,
    start_at: StartOption = None,
    at: AtOption = None,
    html: asked.HtmlOption = None,
    json: JsonOption = False,
) -> None:
    """Forecast every later window of a history from those before it, and compare."""
    from forecaster.backtest import backtest_forecast
    from planner.domain.spec import ForecastSettings
    from planner.service.answers.histories import asked_history
    from planner.service.documents.backtest import backtest_document
    from planner.service.whole_file import check_writable, whole_file

    horizons = _horizons(horizon)
    if history is not None and window_s is not None:
        raise InputError("--window-s is for --trace: a history is judged on its own windows")
    if html is not None:
        read = [path for path in (trace, history) if path is not None]
        check_writable(html, option="--html", inputs=read)
    observed = asked_history(
        trace=trace,
        history=history,
        window_s=window_s or ForecastSettings().window_s,
        start_at=instant(start_at, option="--start-at"),
        at=instant(at, option="--at"),
    )
    with counting("forecasting windows") as progress:
        result = backtest_forecast(
            observed.windows, horizons=horizons, first_origin=first_origin, progress=progress
        )
    for note in observed.notes:
        output.note(note)
    document = backtest_document(result, notes=observed.notes)
    if html is not None:
        from planner.service.reports.backtest_report import backtest_report

        with whole_file(html) as unfinished:
            unfinished.write_text(backtest_report(observed, result, document), encoding="utf-8")
        output.note(f"{html}: open it in a browser")
    if json:
        output.print_json(document)
    else:
        _show(document)


AUTOSCALER_EPILOG = (
    "Examples:\n\n"
    "poolwise backtest autoscaler --spec spec.yaml --trace requests.csv\n\n"
    "poolwise backtest autoscaler -s spec.yaml -t requests.csv --policy poolwise --policy static "
    "--warm-s 300 --json\n\n"
    "Each policy runs with its settings from cheap to dear until one keeps the promise. Foresight "
    "and static fleets are chosen with the trace known. Nothing is changed anywhere."
)


@app.command("autoscaler", epilog=AUTOSCALER_EPILOG)
def autoscaler(
    *,
    spec: SpecOption,
    trace: about.TraceOption,
    policy: about.PolicyOption = None,
    warm_s: about.WarmOption = 600.0,
    start_at: StartOption = None,
    model: ModelOption = None,
    allow_estimates: EstimatesOption = False,
    json: JsonOption = False,
) -> None:
    """Let policies steer the spec's pools over a trace in the digital twin, and compare them."""
    from planner.service.answers.autoscaling import Contender, compare
    from planner.service.answers.planning import read_requests, sole_model
    from planner.service.documents.autoscaling import autoscaling_document
    from planner.service.spec.file import read_spec

    contenders = [Contender(name) for name in about.contenders(policy)]
    checked = read_spec(spec, allow_estimates=allow_estimates, catalogue=known_accelerators())
    named = sole_model(checked, model)
    workload, report = read_requests(trace, start_at=instant(start_at, option="--start-at"))
    output.note_report(trace, report)
    with counting("running policies") as progress:
        compared = compare(
            checked,
            about.as_one_class(workload),
            model=named,
            contenders=contenders,
            warm_s=warm_s,
            clock=time.process_time,
            progress=progress,
        )
    document = autoscaling_document(
        compared,
        model=named,
        promised_ratio=max(s.attainment_ratio for s in checked.slos if s.model == named),
        warm_s=warm_s,
        notes=report.notes,
    )
    if json:
        output.print_json(document)
    else:
        _show_policies(document)


def _show_policies(document: "AutoscalingBacktestDocument") -> None:
    output.print_table(
        f"{document.model}: {document.promised_ratio:.1%} promised, judged after "
        f"{document.warm_s:g} s",
        (
            "policy",
            "setting",
            "all",
            "attainable",
            "kept",
            "accelerator-h",
            "USD",
            "x foresight",
            "decision, most",
        ),
        [
            [
                one.policy,
                one.setting,
                output.percent(one.attainment_ratio),
                output.percent(one.attainable_ratio),
                "yes" if one.promise_kept else "no",
                f"{one.accelerator_hours:,.2f}",
                f"{one.usd:,.2f}",
                _ratio(one.hours_over_foresight_ratio),
                output.milliseconds(one.most_decided_s),
            ]
            for one in document.policies
        ],
        numbers_from=2,
        unbroken=("policy",),
    )


def _horizons(given: list[int] | None) -> tuple[int, ...]:
    from planner.service.documents.backtest import MOST_HORIZONS, USUAL_HORIZONS

    horizons = tuple(sorted(set(given or USUAL_HORIZONS)))
    if len(horizons) > MOST_HORIZONS:
        raise InputError(f"{len(horizons)} horizons; give at most {MOST_HORIZONS}")
    return horizons


def _show(document: "BacktestDocument") -> None:
    output.print_table(
        f"Forecasts of windows of {document.window_s:g} s, each from those before it",
        (
            "class",
            "series",
            "ahead",
            "origins",
            "MAE ratio",
            "MASE",
            *(f"pinball {p.level:g}" for p in document.scores[0].pinball),
            "90% covers",
            "95% interval",
        ),
        [_row(score) for score in document.scores],
        numbers_from=2,
        unbroken=("class", "series", "ahead", "origins", "95% interval"),
    )
    output.print_table(
        "All series (geometric means)",
        (
            "windows ahead",
            "series",
            "origins",
            "MAE ratio",
            "worst",
            "pinball 0.9",
            "90% covers",
            "worst series",
        ),
        [
            [
                str(one.horizon_windows),
                str(one.series),
                f"{one.origins:,}",
                _ratio(one.mae_ratio),
                _ratio(one.worst_mae_ratio),
                _ratio(one.pinball_90_ratio),
                output.percent(one.q90_coverage_ratio),
                one.worst_series or "-",
            ]
            for one in document.horizons
        ],
        numbers_from=0,
    )


def _row(score: "SeriesScoreDocument") -> list[str]:
    return [
        score.request_class,
        SERIES[score.series],
        str(score.horizon_windows),
        f"{score.origins:,}",
        _ratio(score.mae_ratio),
        _ratio(score.mase),
        *(_ratio(p.ratio) for p in score.pinball),
        output.percent(score.q90_coverage_ratio),
        wording.interval(score.q90_coverage_low_ratio, score.q90_coverage_high_ratio),
    ]


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"

"""`poolwise forecast`: what the next windows will bring."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from planner.service.cli import forecast_options as asked
from planner.service.cli import output
from planner.service.cli.catalogue_option import known_accelerators
from planner.service.cli.forecast_tables import show_forecast
from planner.service.cli.known_event_option import known_event_of
from planner.service.cli.options import (
    AtOption,
    HistoryOption,
    JsonOption,
    StartOption,
    TraceOption,
    instant,
)

if TYPE_CHECKING:
    from planner.domain.forecast import Forecast, Paths
    from planner.domain.spec import ForecastSettings
    from planner.service.answers.histories import AskedHistory

EPILOG = (
    "Examples:\n\n"
    "poolwise forecast --trace requests.jsonl --window-s 60 --html forecast.html\n\n"
    "poolwise forecast --spec spec.yaml --trace requests.csv --at 2026-11-01T09:00:00Z --json\n\n"
    'poolwise forecast --history windows.json --event "launch 2026-11-01T14:00Z/2h x2" --paths 5'
)


def forecast(
    *,
    trace: TraceOption = None,
    history: HistoryOption = None,
    spec: asked.SpecOption = None,
    window_s: asked.WindowOption = None,
    horizon_windows: asked.HorizonOption = None,
    event: asked.EventOption = None,
    paths: asked.PathsOption = 0,
    seed: asked.SeedOption = 0,
    cache_tokens: asked.CacheOption = None,
    model: asked.ModelOption = None,
    start_at: StartOption = None,
    at: AtOption = None,
    html: asked.HtmlOption = None,
    json: JsonOption = False,
) -> None:
    """Forecast request and token rates, lengths and reuse per window, with quantiles."""
    from planner.service.answers.histories import asked_history, event_notes

    settings, name = _asked(spec, model)
    events = (*settings.events, *(known_event_of(text) for text in event or ()))
    settings = replace(
        settings,
        window_s=window_s or settings.window_s,
        horizon_windows=horizon_windows or settings.horizon_windows,
        events=events,
    )
    _check_html(html, read=(trace, history, spec))
    moment = instant(at, option="--at")
    with output.working("forecasting"):
        observed = asked_history(
            trace=trace,
            history=history,
            window_s=settings.window_s,
            start_at=instant(start_at, option="--start-at"),
            at=moment,
        )
        expected = _forecast(
            observed,
            settings,
            model=name,
            made_at=moment or observed.ended_at,
            cache_tokens=cache_tokens,
        )
        drawn = _paths(expected, paths, seed)
    notes = (*observed.notes, *event_notes(settings.events, observed.windows))
    for note in notes:
        output.note(note)
    if html is not None:
        _write(html, observed, expected)
    if json:
        from planner.service.documents.forecast import forecast_document

        output.print_json(forecast_document(expected, paths=drawn, notes=notes))
    else:
        show_forecast(expected, drawn)


def _asked(spec: Path | None, model: str | None) -> "tuple[ForecastSettings, str]":
    """Settings and the model's name, from the spec where one is given."""
    from planner.domain.spec import ForecastSettings

    if spec is None:
        return ForecastSettings(), model or "model"
    from planner.service.answers.planning import sole_model
    from planner.service.spec.file import read_spec

    checked = read_spec(spec, allow_estimates=True, catalogue=known_accelerators())
    return checked.forecast, sole_model(checked, model)


def _forecast(
    observed: "AskedHistory",
    settings: "ForecastSettings",
    *,
    model: str,
    made_at: datetime,
    cache_tokens: int | None,
) -> "Forecast":
    from forecaster.forecast import forecast as forecast_windows
    from planner.service.answers.reach import check_reach

    check_reach(observed.windows, settings, made_at=made_at)
    return forecast_windows(
        observed.windows,
        model=model,
        made_at=made_at,
        window_s=settings.window_s,
        horizon_windows=settings.horizon_windows,
        arrival_cv2=observed.arrival_cv2,
        events=settings.events,
        boosted_trees=settings.boosted_trees,
        cache_tokens=cache_tokens,
    )


def _paths(expected: "Forecast", count: int, seed: int) -> "Paths | None":
    if count == 0:
        return None
    import numpy as np

    from forecaster.paths import sample_paths

    return sample_paths(expected, count, np.random.default_rng(seed))


def _check_html(html: Path | None, *, read: Sequence[Path | None]) -> None:
    """Say before any work that the page could not be written."""
    if html is None:
        return
    from planner.service.whole_file import check_writable

    check_writable(html, option="--html", inputs=[path for path in read if path is not None])


def _write(html: Path, observed: "AskedHistory", expected: "Forecast") -> None:
    from planner.service.reports.forecast_report import forecast_report
    from planner.service.whole_file import whole_file

    with whole_file(html) as unfinished:
        page = forecast_report(observed, expected)
        unfinished.write_text(page, encoding="utf-8")
    output.note(f"{html}: open it in a browser")

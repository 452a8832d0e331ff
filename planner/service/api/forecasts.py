"""Forecasts: asked for, and those of the loop beside what came."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Body, HTTPException, Query, Response
from fastapi.openapi.models import Example
from pydantic import AwareDatetime, Field

from forecaster.paths import sample_paths
from planner.domain.errors import InputError
from planner.domain.forecast import Forecast, Paths
from planner.domain.spec import Spec
from planner.domain.workload import ObservedWindow
from planner.service.answers.histories import event_notes, notes_of
from planner.service.answers.planning import expected_demand
from planner.service.api.bodies import MOST_PATH_VALUES, ForecastBody
from planner.service.api.examples import MINUTES
from planner.service.api.problems import answers
from planner.service.api.repeating import Once
from planner.service.api.service import DeploymentParameter, Service, ServiceParameter, Writer
from planner.service.api.work import ACCEPTED, WorkParameter
from planner.service.deployment import Deployment
from planner.service.documents.document import Document, Instant
from planner.service.documents.forecast import ForecastDocument, forecast_document
from planner.service.documents.history import history_end, windows_of
from planner.service.documents.known_events import known_events
from planner.service.job_runner import Made
from planner.service.loop.forecast_outcomes import observed_rates

ROUTER = APIRouter(prefix="/v1", tags=["forecasts"])

MOST_OUTCOMES = 1_000


class ActualDocument(Document):
    """What arrived in a window of a forecast, of one class; null: not wholly observed (yet)."""

    start_at: AwareDatetime
    window_s: float = Field(description="seconds")
    request_class: str
    request_rate_rps: float | None = Field(description="requests/s")
    input_tokens_per_s: float | None = Field(description="tokens/s, cached ones included")
    output_tokens_per_s: float | None = Field(description="tokens/s")
    reuse_ratio: float | None = Field(description="share of prompt tokens cached, 0..1")


class OutcomeDocument(Document):
    """What came in a window beside what an earlier forecast had said of it."""

    request_class: str
    made_at: AwareDatetime = Field(description="when it was forecast")
    windows_ahead: int = Field(description="1: the first window of that forecast")
    start_at: AwareDatetime
    window_s: float = Field(description="seconds")
    request_rate_rps: float = Field(description="observed, requests/s")
    request_rate_median_rps: float = Field(description="forecast, requests/s")
    request_rate_q90_rps: float = Field(description="forecast, 90 % quantile, requests/s")
    input_tokens_per_s: float = Field(description="observed, tokens/s")
    input_tokens_median_per_s: float = Field(description="forecast, tokens/s")
    input_tokens_q90_per_s: float = Field(description="forecast, 90 % quantile, tokens/s")
    output_tokens_per_s: float = Field(description="observed, tokens/s")
    output_tokens_median_per_s: float = Field(description="forecast, tokens/s")
    output_tokens_q90_per_s: float = Field(description="forecast, 90 % quantile, tokens/s")
    covered: bool = Field(description="no more requests came than the 90 % quantile said")


class ForecastBesideActual(Document):
    """A forecast of the loop, what has come of it, and how earlier ones came out."""

    forecast: ForecastDocument
    actual: list[ActualDocument] = Field(description="one for each window and class")
    outcomes: list[OutcomeDocument] = Field(
        description="first and last windows of earlier forecasts, newest first"
    )
    q90_coverage_ratio: float | None = Field(
        description="share of these outcomes that are covered; null: there is none yet"
    )


EXAMPLES: dict[str, Example] = {
    "history": Example(
        summary="The next five minutes after these windows, with a launch at 12:02",
        value={
            "history": MINUTES,
            "window_s": 60,
            "horizon_windows": 5,
            "events": [
                {
                    "name": "launch",
                    "start_at": "2026-11-02T12:02:00Z",
                    "end_at": "2026-11-02T12:04:00Z",
                    "rate_ratio": 2,
                }
            ],
        },
    ),
    "paths": Example(
        summary="Three possible futures through the next windows",
        value={"history": MINUTES, "horizon_windows": 3, "paths": 3, "seed": 1},
    ),
}


@ROUTER.post(
    "/forecasts",
    response_model=ForecastDocument,
    responses={**ACCEPTED, **answers(404)},
    dependencies=[Once],
)
async def post_forecast(
    body: Annotated[ForecastBody, Body(openapi_examples=EXAMPLES)],
    service: ServiceParameter,
    work: WorkParameter,
    by: Writer,
) -> Response:
    """What the next windows will bring, from windows in the body or the stored ones.

    Nothing is kept. `notes` says what is wrong with the history: gaps, silences, too few windows.
    """
    name = service.registry.sole(body.deployment).name
    return await work.answer("forecasts", body.model_copy(update={"deployment": name}), by=by)


def make_forecast(service: Service, body: ForecastBody) -> Made:
    """The work behind `POST /v1/forecasts`."""
    deployment = service.registry.sole(body.deployment).deployment
    spec = _spec(body, deployment.spec)
    _check_paths(body, spec)
    windows = _windows(body, deployment, now=service.now())
    made_at = body.made_at or body.now or history_end(windows, where="history")
    expected = expected_demand(
        spec,
        windows,
        model=deployment.model,
        made_at=made_at,
        memory=deployment.memory if _is_usual(body) else None,
    )
    past = [window for window in windows if window.end_at <= made_at]
    notes = (*notes_of(past), *event_notes(spec.forecast.events, past))
    document = forecast_document(expected, paths=_paths(body, expected), notes=notes)
    return Made(status=200, text=document.model_dump_json())


def _is_usual(body: ForecastBody) -> bool:
    """Whether it is what the loop asks, too: other questions must not crowd out what it learned."""
    asked = (body.history, body.window_s, body.horizon_windows, body.made_at, body.now)
    return not body.events and all(value is None for value in asked)


def _spec(body: ForecastBody, spec: Spec) -> Spec:
    """The spec with the window, the horizon and the events that the body asks for."""
    own = spec.forecast
    changed = replace(
        own,
        window_s=body.window_s or own.window_s,
        horizon_windows=body.horizon_windows or own.horizon_windows,
        events=(*own.events, *known_events(body.events)),
    )
    return replace(spec, forecast=changed)


def _check_paths(body: ForecastBody, spec: Spec) -> None:
    """Say before any work that the answer would be too long."""
    windows = spec.forecast.horizon_windows
    if body.paths * windows > MOST_PATH_VALUES:
        raise InputError(
            f"{body.paths} paths through {windows} windows are more than {MOST_PATH_VALUES:,} "
            "values: ask for fewer, or run `poolwise forecast --paths`"
        )


def _windows(
    body: ForecastBody, deployment: Deployment, *, now: datetime
) -> Sequence[ObservedWindow]:
    if body.history is not None:
        return windows_of(body.history, where="history", until=body.made_at or body.now)
    asked = body.made_at or body.now or now
    windows = deployment.observer.observe(now=asked).windows
    history_end(windows, where=f"observations of {deployment.spec.name}")
    return windows


def _paths(body: ForecastBody, expected: Forecast) -> Paths | None:
    if body.paths == 0:
        return None
    return sample_paths(expected, body.paths, np.random.default_rng(body.seed))


@ROUTER.get("/deployments/{name}/forecast", responses=answers(404))
def get_forecast(
    deployment: DeploymentParameter,
    made_by: Annotated[
        Instant | None, Query(description="the newest made by this instant; left out: of all")
    ] = None,
    outcomes: Annotated[
        int, Query(ge=0, le=MOST_OUTCOMES, description="at most so many earlier outcomes")
    ] = 100,
) -> ForecastBesideActual:
    """The newest forecast of the loop beside what came; 404 before the first tick with data."""
    store, name, model = deployment.store, deployment.spec.name, deployment.model
    forecast = store.newest_forecast(name, model, by=made_by)
    if forecast is None:
        when = "" if made_by is None else f" by {made_by.isoformat()}"
        raise HTTPException(
            404,
            f"the loop of {name} has made no forecast{when}: it makes one at every tick once "
            f"windows were handed in (POST /v1/deployments/{name}/observations)",
        )
    known = store.forecast_outcomes(name, model, limit=outcomes)
    return ForecastBesideActual(
        forecast=forecast_document(forecast),
        actual=_actual(deployment, forecast),
        outcomes=[OutcomeDocument.model_validate(outcome) for outcome in known],
        q90_coverage_ratio=sum(o.covered for o in known) / len(known) if known else None,
    )


def _actual(deployment: Deployment, forecast: Forecast) -> list[ActualDocument]:
    first, last = forecast.windows[0], forecast.windows[-1]
    observed = deployment.store.windows_overlapping(
        deployment.spec.name,
        deployment.model,
        start_at=first.start_at,
        end_at=last.end_at,
    )
    rows = []
    for window in forecast.windows:
        rates = observed_rates(observed, start_at=window.start_at, window_s=window.window_s)
        known = {of_class.request_class: of_class for of_class in rates}
        for demand in window.demands:
            came = known.get(demand.request_class)
            rows.append(
                ActualDocument(
                    start_at=window.start_at,
                    window_s=window.window_s,
                    request_class=demand.request_class,
                    request_rate_rps=None if came is None else came.request_rate_rps,
                    input_tokens_per_s=None if came is None else came.input_tokens_per_s,
                    output_tokens_per_s=None if came is None else came.output_tokens_per_s,
                    reuse_ratio=None if came is None else came.reuse_ratio,
                )
            )
    return rows

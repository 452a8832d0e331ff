"""Forecasts and what came of them: the store's part that only ever grows by ticks, and is cut."""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select

from planner.domain.forecast import Forecast
from planner.service.documents.forecast import ForecastDocument, forecast_document, forecast_of
from planner.service.store.instants import instant, stamp
from planner.service.store.records import ForecastOutcome, StoredForecast
from planner.service.store.tables import FORECAST_OUTCOMES, FORECASTS

KEPT_FORECASTS = 2_000
"""Of one model; at a tick a minute a day and a half, some 50 MB."""

KEPT_OUTCOMES_S = 30 * 86_400.0


def add(connection: Connection, deployment: str, forecast: Forecast) -> None:
    """Keep a forecast; one that was made at the same instant gives way, very old ones go.

    How errors go together is left out: it is most of the content, and only paths need it.
    """
    here = _forecasts_of(deployment, forecast.model)
    made_at = stamp(forecast.made_at)
    connection.execute(delete(FORECASTS).where(here, FORECASTS.c.made_at == made_at))
    document = forecast_document(replace(forecast, dependence=()))
    connection.execute(
        insert(FORECASTS).values(
            deployment=deployment,
            model=forecast.model,
            made_at=made_at,
            window_s=forecast.windows[0].window_s,
            windows=len(forecast.windows),
            forecast=document.model_copy(update={"output_lengths": []}).model_dump_json(),
        )
    )
    oldest = (
        select(FORECASTS.c.made_at)
        .where(here)
        .order_by(FORECASTS.c.made_at.desc())
        .offset(KEPT_FORECASTS - 1)
        .limit(1)
    )
    kept_from = connection.execute(oldest).scalar_one_or_none()
    if kept_from is not None:
        connection.execute(delete(FORECASTS).where(here, FORECASTS.c.made_at < kept_from))


def newest(
    connection: Connection, deployment: str, model: str, *, by: datetime | None = None
) -> Forecast | None:
    """The newest forecast of a model, made by an instant where one is given; None without any."""
    query = (
        select(FORECASTS.c.forecast)
        .where(_forecasts_of(deployment, model))
        .order_by(FORECASTS.c.made_at.desc())
        .limit(1)
    )
    if by is not None:
        query = query.where(FORECASTS.c.made_at <= stamp(by))
    text = connection.execute(query).scalar_one_or_none()
    if text is None:
        return None
    return forecast_of(ForecastDocument.model_validate_json(text), where="stored forecast")


def made_since(
    connection: Connection, deployment: str, model: str, *, since: datetime
) -> tuple[StoredForecast, ...]:
    """Which forecasts were made since an instant, oldest first."""
    query = (
        select(FORECASTS.c.made_at, FORECASTS.c.window_s, FORECASTS.c.windows)
        .where(_forecasts_of(deployment, model), FORECASTS.c.made_at >= stamp(since))
        .order_by(FORECASTS.c.made_at)
    )
    return tuple(
        StoredForecast(made_at=instant(made_at), window_s=window_s, windows=windows)
        for made_at, window_s, windows in connection.execute(query)
    )


def add_outcomes(
    connection: Connection, deployment: str, model: str, outcomes: Sequence[ForecastOutcome]
) -> tuple[ForecastOutcome, ...]:
    """Keep outcomes; those that were not known yet."""
    new = [one for one in outcomes if not _is_known(connection, deployment, model, one)]
    for one in new:
        values = asdict(one) | {"made_at": stamp(one.made_at), "start_at": stamp(one.start_at)}
        connection.execute(
            insert(FORECAST_OUTCOMES).values(deployment=deployment, model=model, **values)
        )
    if new:
        oldest = max(one.made_at for one in new) - timedelta(seconds=KEPT_OUTCOMES_S)
        here = _outcomes_of(deployment, model)
        connection.execute(
            delete(FORECAST_OUTCOMES).where(here, FORECAST_OUTCOMES.c.made_at < stamp(oldest))
        )
    return tuple(new)


def _is_known(
    connection: Connection, deployment: str, model: str, outcome: ForecastOutcome
) -> bool:
    query = select(FORECAST_OUTCOMES.c.seq).where(
        _outcomes_of(deployment, model),
        FORECAST_OUTCOMES.c.made_at == stamp(outcome.made_at),
        FORECAST_OUTCOMES.c.windows_ahead == outcome.windows_ahead,
        FORECAST_OUTCOMES.c.request_class == outcome.request_class,
    )
    return connection.execute(query.limit(1)).first() is not None


def known_since(
    connection: Connection, deployment: str, model: str, *, since: datetime
) -> frozenset[tuple[datetime, int]]:
    """Instant and window of the forecasts made since then whose outcome is known."""
    query = select(FORECAST_OUTCOMES.c.made_at, FORECAST_OUTCOMES.c.windows_ahead).where(
        _outcomes_of(deployment, model), FORECAST_OUTCOMES.c.made_at >= stamp(since)
    )
    return frozenset((instant(made_at), ahead) for made_at, ahead in connection.execute(query))


def outcomes(
    connection: Connection, deployment: str, model: str, *, limit: int
) -> tuple[ForecastOutcome, ...]:
    """The newest outcomes of a model, newest window first."""
    columns = [FORECAST_OUTCOMES.c[field.name] for field in fields(ForecastOutcome)]
    query = (
        select(FORECAST_OUTCOMES)
        .with_only_columns(*columns)
        .where(_outcomes_of(deployment, model))
        .order_by(FORECAST_OUTCOMES.c.start_at.desc(), FORECAST_OUTCOMES.c.seq.desc())
        .limit(limit)
    )
    return tuple(
        ForecastOutcome(
            **{**row, "made_at": instant(row["made_at"]), "start_at": instant(row["start_at"])}
        )
        for row in connection.execute(query).mappings()
    )


def _forecasts_of(deployment: str, model: str) -> ColumnElement[bool]:
    return and_(FORECASTS.c.deployment == deployment, FORECASTS.c.model == model)


def _outcomes_of(deployment: str, model: str) -> ColumnElement[bool]:
    return and_(FORECAST_OUTCOMES.c.deployment == deployment, FORECAST_OUTCOMES.c.model == model)

"""`POST /v1/backtests`: how good forecasts of a history would have been. Nothing is kept."""

from typing import Annotated

from fastapi import APIRouter, Body, Response
from fastapi.openapi.models import Example
from pydantic import Field

from forecaster.backtest import backtest_forecast
from planner.service.answers.histories import notes_of
from planner.service.api.examples import MINUTES
from planner.service.api.repeating import Once
from planner.service.api.service import Writer
from planner.service.api.work import ACCEPTED, WorkParameter
from planner.service.documents.backtest import (
    MOST_HORIZONS,
    USUAL_HORIZONS,
    BacktestDocument,
    backtest_document,
)
from planner.service.documents.document import Document
from planner.service.documents.history import WindowDocument, windows_of
from planner.service.job_runner import Made, Progress

ROUTER = APIRouter(prefix="/v1", tags=["forecasts"])

MOST_WINDOWS = 100_000
Horizon = Annotated[int, Field(ge=1, le=10_000)]


class BacktestBody(Document):
    """A history, and how far ahead its windows are to be forecast."""

    history: list[WindowDocument] = Field(
        min_length=1, max_length=MOST_WINDOWS, description="observed windows of one length"
    )
    horizons: list[Horizon] = Field(
        default=list(USUAL_HORIZONS),
        min_length=1,
        max_length=MOST_HORIZONS,
        description="windows ahead that are scored",
    )
    first_origin: int | None = Field(
        default=None,
        ge=0,
        le=MOST_WINDOWS,
        description="windows that only serve as history; left out: the first half",
    )


EXAMPLES: dict[str, Example] = {
    "minutes": Example(
        summary="One and three minutes ahead, over the second half of these windows",
        value={"history": MINUTES, "horizons": [1, 3]},
    )
}


@ROUTER.post(
    "/backtests", response_model=BacktestDocument, responses={**ACCEPTED}, dependencies=[Once]
)
async def post_backtest(
    body: Annotated[BacktestBody, Body(openapi_examples=EXAMPLES)], work: WorkParameter, by: Writer
) -> Response:
    """Forecast every later window of a history from those before it, and compare.

    The answer is that of `poolwise backtest forecast --json`; below 1 a ratio is better than the
    last value carried forward.
    """
    return await work.answer("backtests", body, by=by)


def make_backtest(body: BacktestBody, progress: Progress) -> Made:
    """The work behind `POST /v1/backtests`."""
    windows = windows_of(body.history, where="history")
    result = backtest_forecast(
        windows,
        horizons=tuple(sorted(set(body.horizons))),
        first_origin=body.first_origin,
        progress=progress,
    )
    document = backtest_document(result, notes=notes_of(windows))
    return Made(status=200, text=document.model_dump_json())

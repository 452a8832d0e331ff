"""`POST /v1/simulations`: requests or sampled futures on replicas in the twin. Nothing is kept."""

from datetime import datetime
from itertools import pairwise
from typing import Annotated, Self

import numpy as np
from fastapi import APIRouter, Body, Response
from fastapi.openapi.models import Example
from pydantic import Field, model_validator
from starlette.concurrency import run_in_threadpool

from planner.domain.errors import HistoryError, InputError
from planner.domain.forecast import Demand, ForecastWindow, Quantiles
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.wording import counted
from planner.domain.workload import PrefixBlocks, Workload
from planner.service.answers.planning import check_forecast
from planner.service.answers.simulation import (
    MOST_FUTURES,
    USUAL_FUTURES,
    Replicas,
    Sampling,
    expected_requests,
    replay,
    replicas_of_fleet,
    replicas_of_plan,
    sample,
    sampling_like,
    sampling_through,
)
from planner.service.api.problems import answers
from planner.service.api.repeating import Once
from planner.service.api.service import Service, ServiceParameter, Writer
from planner.service.api.work import ACCEPTED, WorkParameter
from planner.service.deployment import Deployment
from planner.service.documents.circumstances import CircumstancesDocument
from planner.service.documents.document import Document, Instant, WindowSeconds
from planner.service.documents.fleet import FleetDocument, fleet_of
from planner.service.documents.forecast import (
    ForecastDocument,
    QuantilesDocument,
    Rate,
    forecast_of,
)
from planner.service.documents.shapes import ShapeDocument
from planner.service.documents.simulation import SimulationDocument, simulation_document
from planner.service.job_runner import Made, Progress
from planner.simulate.futures import Stopping

ROUTER = APIRouter(prefix="/v1", tags=["advice"])

MOST_REQUESTS = 1_000_000
MOST_SAMPLED = 2_000_000
"""Expected requests of all futures of one question."""

Offset = Annotated[float, Field(ge=0, le=366 * 86_400, description="seconds")]
Length = Annotated[int, Field(ge=1, le=10**7, description="tokens")]
Cached = Annotated[int, Field(ge=0, le=10**7, description="tokens")]
BlockId = Annotated[int, Field(ge=0, lt=2**62)]
ClassName = Annotated[str, Field(min_length=1, max_length=200)]


class RequestsBody(Document):
    """Requests in order of arrival: equally long lists."""

    arrival_offset_s: list[Offset] = Field(min_length=1, max_length=MOST_REQUESTS)
    input_tokens: list[Length] = Field(min_length=1, max_length=MOST_REQUESTS)
    output_tokens: list[Length] = Field(min_length=1, max_length=MOST_REQUESTS)
    cached_tokens: list[Cached] | None = Field(default=None, description="left out: none cached")
    request_class: list[ClassName] | None = Field(
        default=None, max_length=MOST_REQUESTS, description="left out: all `default`"
    )
    prefix_block_tokens: int | None = Field(
        default=None, ge=1, le=10**6, description="tokens in one prefix block"
    )
    prefix_block_ids: list[list[BlockId]] | None = Field(
        default=None,
        max_length=MOST_REQUESTS,
        description="per request the blocks that its prompt starts with: equal ids stand for "
        "equal tokens and equal tokens before them",
    )
    duration_s: float | None = Field(
        default=None,
        gt=0,
        le=366 * 86_400,
        description="interval of the arrivals; left out: until the last one",
    )
    start_at: Instant

    @model_validator(mode="after")
    def _blocks_have_a_size(self) -> Self:
        if (self.prefix_block_ids is None) != (self.prefix_block_tokens is None):
            raise ValueError("prefix_block_ids and prefix_block_tokens go together")
        return self

    def workload(self) -> Workload:
        """The requests as a workload.

        Raises
        ------
        HistoryError
            When they are no workload.
        """
        count = len(self.arrival_offset_s)
        for i, (before, now) in enumerate(pairwise(self.arrival_offset_s), start=1):
            if now < before:
                raise HistoryError(
                    f"requests: arrival_offset_s[{i}] ({now:g} s) lies before the one above "
                    f"({before:g} s): give requests in order of arrival"
                )
        cached = [0] * count if self.cached_tokens is None else self.cached_tokens
        classes = [DEFAULT_CLASS] * count if self.request_class is None else self.request_class
        try:
            return Workload(
                start_at=self.start_at,
                arrival_offset_s=np.asarray(self.arrival_offset_s, dtype=np.float64),
                input_tokens=np.asarray(self.input_tokens, dtype=np.int64),
                output_tokens=np.asarray(self.output_tokens, dtype=np.int64),
                cached_tokens=np.asarray(cached, dtype=np.int64),
                request_class=np.array(classes, dtype=np.str_),
                duration_s=self.duration_s or max(self.arrival_offset_s[-1], 1e-6),
                prefix=self._prefix(count),
            )
        except (ValueError, OverflowError) as error:
            raise HistoryError(f"requests: {error}") from error

    def _prefix(self, count: int) -> PrefixBlocks | None:
        if self.prefix_block_ids is None or self.prefix_block_tokens is None:
            return None
        rows = len(self.prefix_block_ids)
        if rows != count:
            raise ValueError(f"prefix_block_ids has {counted(rows, 'row')}, not {count}")
        lengths = [len(ids) for ids in self.prefix_block_ids]
        for i, (blocks, tokens) in enumerate(zip(lengths, self.input_tokens, strict=False)):
            if (blocks - 1) * self.prefix_block_tokens >= tokens:
                raise ValueError(
                    f"prefix_block_ids[{i}] names {blocks} blocks of {self.prefix_block_tokens} "
                    f"tokens, more than its prompt of {tokens} tokens has"
                )
        return PrefixBlocks(
            block_tokens=self.prefix_block_tokens,
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            block_ids=np.array([i for ids in self.prefix_block_ids for i in ids], dtype=np.int64),
        )


class GeneratedClassBody(Document):
    """Requests of one class that are drawn at random."""

    request_class: ClassName = DEFAULT_CLASS
    request_rate_rps: Rate | QuantilesDocument = Field(
        description="requests/s: one number, or quantiles to draw each future's rate from"
    )
    shape: ShapeDocument
    arrival_cv2: float = Field(
        default=1.0, ge=0, le=1e4, description="squared variation of the gaps; 1: Poisson"
    )

    def demand(self) -> Demand:
        """The demand; ValueError when the numbers are none."""
        rate = self.request_rate_rps
        if isinstance(rate, float):
            quantiles = Quantiles(levels=(0.5,), values=(rate,))
        else:
            quantiles = rate.quantiles()
        shape = self.shape.shape()
        return Demand(
            request_class=self.request_class,
            request_rate_rps=quantiles,
            input_tokens_per_s=_times(quantiles, shape.isl_mean),
            output_tokens_per_s=_times(quantiles, shape.osl_mean),
            shape=shape,
            arrival_cv2=self.arrival_cv2,
        )


class GeneratedBody(Document):
    """Requests that are drawn at random."""

    classes: list[GeneratedClassBody] = Field(min_length=1, max_length=100)
    duration_s: WindowSeconds = Field(description="length of a future, seconds")

    def window(self, *, start_at: Instant) -> ForecastWindow:
        """What futures are drawn from.

        Raises
        ------
        HistoryError
            When the numbers are none.
        """
        try:
            demands = tuple(each.demand() for each in self.classes)
        except ValueError as error:
            raise HistoryError(f"generated: {error}") from error
        return ForecastWindow(start_at=start_at, window_s=self.duration_s, demands=demands)


class SimulationBody(CircumstancesDocument):
    """What is replayed (one of three), on which replicas, how often, and what happens meanwhile."""

    requests: RequestsBody | None = Field(
        default=None, description="these; with futures, ones like these are drawn"
    )
    generated: GeneratedBody | None = Field(default=None, description="drawn from shapes")
    forecast: ForecastDocument | None = Field(default=None, description="drawn from a forecast")
    deployment: str | None = Field(
        default=None,
        description="whose spec; left out: the plan's, or the only one that is served here",
    )
    plan_id: str | None = None
    window: int = Field(default=0, ge=0, description="which window of plan and forecast")
    all_windows: bool = Field(
        default=False,
        description="every future runs through all windows of `forecast`, along a path that keeps "
        "them together as past errors were",
    )
    fleet: FleetDocument | None = Field(
        default=None, description="its ready replicas serve; left out with plan_id: as it runs now"
    )
    futures: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="futures to draw; with precision_ratio or until_clear the most of them",
    )
    precision_ratio: float | None = Field(
        default=None, gt=0, lt=1, description="draw until attainment is known to this, either way"
    )
    until_clear: bool = Field(
        default=False, description="draw until it is clear whether the objectives hold"
    )
    demand_level: float | None = Field(
        default=None, ge=0, le=1, description="quantile of the rate; left out: drawn anew"
    )
    series: bool = Field(default=False, description="answer with pools over time, too")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [s for s in (self.requests, self.generated, self.forecast) if s is not None]
        if len(given) != 1:
            raise ValueError("give one of requests, generated and forecast")
        if self.plan_id is not None and self.fleet is not None:
            raise ValueError("give plan_id or fleet, not both")
        if self.all_windows and (self.forecast is None or self.demand_level is not None):
            raise ValueError("all_windows goes with forecast, without demand_level")
        return self

    @property
    def sampled(self) -> bool:
        """Whether futures are drawn."""
        return self.requests is None or self.sequential or self.futures is not None

    @property
    def sequential(self) -> bool:
        """Whether their number depends on what they show."""
        return self.until_clear or self.precision_ratio is not None


_SHORT_REQUESTS = {
    "start_at": "2026-11-02T12:00:00Z",
    "arrival_offset_s": [0.0, 0.4, 0.9, 1.1],
    "input_tokens": [900, 1200, 300, 1500],
    "output_tokens": [60, 20, 80, 40],
}
EXAMPLES: dict[str, Example] = {
    "replay": Example(
        summary="Given requests on the fleet that runs",
        value={"requests": _SHORT_REQUESTS, "router": "least_loaded", "series": True},
    ),
    "futures": Example(
        summary="Do the objectives hold at 2 requests/s, when a replica fails?",
        value={
            "generated": {
                "duration_s": 300,
                "classes": [
                    {
                        "request_rate_rps": 2.0,
                        "shape": {
                            "input_tokens": [400, 1600],
                            "output_tokens": [60, 40],
                            "cached_tokens": [0, 0],
                            "weight": [0.7, 0.3],
                        },
                    }
                ],
            },
            "until_clear": True,
            "futures": 32,
            "patience_s": 30,
            "events": [{"at_s": 60, "incident": "fail", "pool": 0, "replica": 0}],
        },
    ),
}


@ROUTER.post(
    "/simulations",
    response_model=SimulationDocument,
    responses={**ACCEPTED, **answers(404)},
    dependencies=[Once],
)
async def post_simulation(
    body: Annotated[SimulationBody, Body(openapi_examples=EXAMPLES)],
    service: ServiceParameter,
    work: WorkParameter,
    by: Writer,
) -> Response:
    """What requests would experience on a plan's or a fleet's replicas, and how sure that is.

    A run that is stopped as unstable is an answer: `stopped` says when and why, `holds` is false.
    """
    name = await run_in_threadpool(_deployment_of, body, service)
    return await work.answer("simulations", body.model_copy(update={"deployment": name}), by=by)


def _deployment_of(body: SimulationBody, service: Service) -> str:
    """Name of the deployment whose spec counts."""
    if body.plan_id is None:
        return service.registry.sole(body.deployment).name
    name = service.served_of_plan(body.plan_id).name
    if body.deployment not in (None, name):
        raise InputError(f"plan {body.plan_id} is of deployment {name}, not {body.deployment}")
    return name


def make_simulation(service: Service, body: SimulationBody, progress: Progress) -> Made:
    """The work behind `POST /v1/simulations`."""
    deployment = service.registry.sole(body.deployment).deployment
    pools = _pools(body, deployment, now=service.now())
    if not body.sampled and body.requests is not None:
        seen = replay(
            deployment.spec,
            pools,
            body.requests.workload(),
            model=deployment.model,
            circumstances=body,
        )
    else:
        sampling = _sampling(body, pools, deployment, now=service.now())
        seen = sample(
            deployment.spec,
            pools,
            sampling,
            _stopping(body, expected_requests(sampling)),
            model=deployment.model,
            circumstances=body,
            progress=progress,
        )
    document = simulation_document(seen, series=body.series)
    return Made(status=200, text=document.model_dump_json())


def _check_window(body: SimulationBody) -> None:
    if body.window and body.plan_id is None and body.forecast is None:
        raise InputError("window is for plan_id and forecast: neither was given")


def _sampling(
    body: SimulationBody, pools: tuple[Replicas, ...], deployment: Deployment, *, now: datetime
) -> Sampling:
    if body.requests is not None:
        return sampling_like(deployment.spec, pools, body.requests.workload(), body)
    if body.generated is not None:
        window = body.generated.window(start_at=now)
    elif body.forecast is not None:
        forecast = forecast_of(body.forecast, where="forecast")
        check_forecast(deployment.spec, forecast, model=deployment.model)
        if body.all_windows:
            return sampling_through(forecast)
        if body.window >= len(forecast.windows):
            raise InputError(
                f"forecast has windows 0 to {len(forecast.windows) - 1}, not {body.window}"
            )
        window = forecast.windows[body.window]
    else:
        raise InputError("give one of requests, generated and forecast")
    return Sampling(window=window, duration_s=window.window_s, level=body.demand_level)


def _stopping(body: SimulationBody, expected: float) -> Stopping:
    """So many futures; no more than can be answered while the caller waits."""
    usual = MOST_FUTURES if body.sequential else USUAL_FUTURES
    affordable = MOST_SAMPLED / max(expected, 1.0)
    most = body.futures or max(min(usual, int(min(affordable, usual))), 1)
    if most > affordable:
        raise InputError(
            f"{most * expected:,.0f} expected requests ({most} x {expected:,.0f}) are more than "
            f"the {MOST_SAMPLED:,} that are simulated while the caller waits: ask for fewer "
            "futures or shorter ones, or run `poolwise simulate`"
        )
    return Stopping(
        most_futures=most, precision_ratio=body.precision_ratio, until_clear=body.until_clear
    )


def _times(quantiles: Quantiles, factor: float) -> Quantiles:
    return Quantiles(levels=quantiles.levels, values=tuple(factor * v for v in quantiles.values))


def _pools(body: SimulationBody, deployment: Deployment, *, now: datetime) -> tuple[Replicas, ...]:
    _check_window(body)
    if body.plan_id is not None:
        return replicas_of_plan(deployment.store.plan(body.plan_id).plan, window=body.window)
    if body.fleet is None:
        return replicas_of_fleet(deployment.actuator.read_fleet(), model=deployment.model)
    fleet = fleet_of(body.fleet, spec=deployment.spec, read_at=now, where="fleet")
    return replicas_of_fleet(fleet, model=deployment.model)

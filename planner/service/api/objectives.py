"""What was promised beside what was kept: objectives, attainment, error budget."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field

from planner.domain.slo import Slo
from planner.service.api.problems import answers
from planner.service.api.service import DeploymentParameter, ServiceParameter
from planner.service.deployment import Deployment
from planner.service.documents.document import Document
from serving.gate.records import RequestRecord

ROUTER = APIRouter(prefix="/v1/deployments/{name}", tags=["deployments"])

MOST_REQUESTS = 100_000
UNSERVED = ("failed", "refused", "shed")
"""Outcomes of requests that got no answer: they miss, whatever was promised."""


class ObjectivesDocument(Document):
    """A promise to a request class, and what came of it.

    Attainment is given as bounds: requests that nobody judged (not streamed, or cancelled by the
    client) may have met it or not.
    """

    request_class: str
    ttft_s: float = Field(description="promised, seconds")
    tpot_s: float = Field(description="promised, seconds per output token")
    itl_p99_s: float | None = Field(description="promised, seconds; null: nothing")
    e2e_s: float | None = Field(description="promised, seconds; null: nothing")
    target_ratio: float = Field(description="share of all arrivals that shall meet all of it")
    requests: int = Field(description="arrivals in the interval")
    met: int
    missed: int = Field(description="those refused, shed or failed included")
    unjudged: int
    attainment_low_ratio: float | None = Field(description="null: nothing arrived")
    attainment_high_ratio: float | None = Field(description="null: nothing arrived")
    budget_left_ratio: float | None = Field(
        description="share of the misses that the target allows which is left, with all unjudged "
        "ones counted as met; below 0: overspent; null: nothing arrived, or no miss is allowed"
    )


class SloDocument(Document):
    """What was promised beside what was kept, of requests through the gate."""

    since_at: AwareDatetime
    until_at: AwareDatetime
    complete: bool = Field(
        description=f"false: more than {MOST_REQUESTS:,} arrived, only the newest are counted"
    )
    classes: list[ObjectivesDocument]
    predicted_attainment_ratio: float | None = Field(
        description="of the newest plan's first window; null: there is none"
    )


@ROUTER.get("/slo", responses=answers(404))
def get_slo(
    deployment: DeploymentParameter,
    service: ServiceParameter,
    window_s: Annotated[
        float, Query(gt=0, le=30 * 86_400, description="of the last so many seconds")
    ] = 3600.0,
) -> SloDocument:
    """Attainment and error budget of every request class, as the gate saw them."""
    name, now = deployment.spec.name, service.now()
    since = now - timedelta(seconds=window_s)
    records = deployment.store.gate_requests_since(name, start_at=since, limit=MOST_REQUESTS)
    mine = [record for record in records if record.model == deployment.model]
    promised = [slo for slo in deployment.spec.slos if slo.model == deployment.model]
    return SloDocument(
        since_at=since,
        until_at=now,
        complete=len(records) < MOST_REQUESTS,
        classes=[_kept(slo, mine) for slo in promised],
        predicted_attainment_ratio=_predicted(deployment, now),
    )


def _predicted(deployment: Deployment, now: datetime) -> float | None:
    newest = next(iter(deployment.store.plans(deployment.spec.name, limit=1)), None)
    if newest is None or newest.created_at > now or not newest.plan.windows:
        return None
    return newest.plan.windows[0].predicted.attainment_ratio


def _kept(slo: Slo, records: Sequence[RequestRecord]) -> ObjectivesDocument:
    mine = [record for record in records if record.request_class == slo.request_class]
    met = sum(record.met is True for record in mine)
    missed = sum(
        record.met is False or (record.met is None and record.outcome in UNSERVED)
        for record in mine
    )
    requests = len(mine)
    allowed = (1.0 - slo.attainment_ratio) * requests
    return ObjectivesDocument(
        request_class=slo.request_class,
        ttft_s=slo.ttft_s,
        tpot_s=slo.tpot_s,
        itl_p99_s=slo.itl_p99_s,
        e2e_s=slo.e2e_s,
        target_ratio=slo.attainment_ratio,
        requests=requests,
        met=met,
        missed=missed,
        unjudged=requests - met - missed,
        attainment_low_ratio=met / requests if requests else None,
        attainment_high_ratio=1.0 - missed / requests if requests else None,
        budget_left_ratio=1.0 - missed / allowed if allowed > 0 else None,
    )

"""Jobs: how far long work is, what came of it, and the end of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from planner.domain.errors import BusyError, StoreError, UnknownJobError
from planner.service.api import paging
from planner.service.api.paging import CursorParameter
from planner.service.api.problems import answers
from planner.service.api.service import PrincipalParameter
from planner.service.api.work import (
    JobResource,
    JobSummary,
    RunnerParameter,
    job_resource,
    job_summary,
)
from planner.service.documents.document import Document
from planner.service.security.access import AccessRole
from planner.service.store.jobs import JobState, StoredJobs

ROUTER = APIRouter(prefix="/v1/jobs", tags=["jobs"])

LOOK_S = 0.5
SILENT_S = 15.0
"""Between two looks at a job, and at the most between two signs of life of a stream, seconds."""
MOST_STREAMS = 64
EVENTS: dict[int | str, dict[str, object]] = {
    200: {
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "description": "Events `progress`, then one of `done`, `failed` and `cancelled`; the data "
        "of each is the job without its answer",
    }
}


class JobList(Document):
    """Jobs without their answers, newest first."""

    jobs: list[JobSummary]
    next: str | None = Field(default=None, description="cursor of the next page; null: the last")


@ROUTER.get("")
def get_jobs(
    *,
    runner: RunnerParameter,
    request: Request,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=paging.MOST, description="at most so many")] = 50,
    state: Annotated[list[JobState] | None, Query(description="only in these states")] = None,
    cursor: CursorParameter = None,
) -> JobList:
    """The newest jobs, newest first, in pages; ended ones are kept for a week."""
    found = runner.jobs.jobs(limit=limit + 1, before=paging.before(cursor), states=state or ())
    jobs, more = paging.page(found, limit)
    following = paging.cursor(jobs[-1].seq) if more else None
    paging.link(request, response, following)
    return JobList(jobs=[job_summary(job) for job in jobs], next=following)


@ROUTER.get("/{job_id}", responses=answers(404))
def get_job(job_id: str, runner: RunnerParameter) -> JobResource:
    """How far a job is, and once it has ended, what it answers."""
    return job_resource(runner.jobs.job(job_id))


@ROUTER.delete("/{job_id}", responses=answers(404, 409))
def delete_job(job_id: str, runner: RunnerParameter, by: PrincipalParameter) -> JobResource:
    """Cancel a job; again is once. 409 when it has ended already.

    Everybody may cancel what they asked for themselves; jobs of others an operator.

    What calculates for it is broken off, and nothing that it would have made is kept.
    """
    asked_by = runner.jobs.job(job_id).asked_by
    if asked_by != by.name and not by.role.may(AccessRole.OPERATOR):
        raise HTTPException(
            403, f"job {job_id} is {asked_by}'s: only they and operators may cancel it"
        )
    job = runner.cancel(job_id, by=by.name)
    if job.state is not JobState.CANCELLED:
        raise HTTPException(409, f"job {job_id} is {job.state}: there is nothing to cancel")
    return job_resource(job)


@ROUTER.get("/{job_id}/events", responses=EVENTS | answers(404), response_class=StreamingResponse)
async def get_events(job_id: str, runner: RunnerParameter, request: Request) -> StreamingResponse:
    """Progress of a job as server-sent events, until it ends; a new stream begins with now."""
    await run_in_threadpool(runner.jobs.job, job_id)  # an unknown one is told at once
    streams: set[str] = request.app.state.streams
    if len(streams) >= MOST_STREAMS:
        raise BusyError(f"{len(streams)} streams of events are open, and no more may be")
    return StreamingResponse(
        _events(runner.jobs, job_id, streams),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(jobs: StoredJobs, job_id: str, streams: set[str]) -> AsyncIterator[str]:
    place = f"{job_id}:{id(asyncio.current_task())}"
    streams.add(place)
    told, silent_s = "", 0.0
    try:
        while True:
            try:
                job = await run_in_threadpool(jobs.job, job_id)
            except UnknownJobError:
                return  # it ended, and was forgotten
            except StoreError:
                silent_s = SILENT_S  # only a sign of life, until the database is back
            else:
                data = job_summary(job).model_dump_json()
                if data != told:
                    name = job.state.value if job.state.ended else "progress"
                    yield f"event: {name}\ndata: {data}\n\n"
                    told, silent_s = data, 0.0
                if job.state.ended:
                    return
            if silent_s >= SILENT_S:
                yield ": still there\n\n"
                silent_s = 0.0
            await asyncio.sleep(LOOK_S)
            silent_s += LOOK_S
    finally:
        streams.discard(place)

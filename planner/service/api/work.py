"""Plans, forecasts, simulations, reports: answered while one waits, or as a job (RFC 7240)."""

import asyncio
import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import AwareDatetime, Field, JsonValue
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool

from planner.service.api.problems import Problem
from planner.service.documents.document import Document
from planner.service.job_runner import JobRunner, Made, Task
from planner.service.store.jobs import Job, JobState

MEDIA_TYPE = "application/json"
LONGEST_WAIT_S = 120
_WAIT = re.compile(r"wait=(\d{1,9})")


class ProgressDocument(Document):
    """How far the work is."""

    done: int = Field(description="parts of the work")
    total: int | None = Field(description="null: not known")


class JobSummary(Document):
    """A piece of work, and how far it is."""

    job_id: str
    kind: str = Field(
        description="the route that was asked: plans, simulations, what-ifs, forecasts, backtests "
        "or reports"
    )
    state: JobState
    asked_by: str
    asked_at: AwareDatetime
    changed_at: AwareDatetime = Field(description="when state or progress last changed")
    attempts: int = Field(description="above 1: a server was stopped, or died, over it")
    progress: ProgressDocument
    status: int | None = Field(description="HTTP status of the answer; null: there is none yet")
    location: str | None = Field(description="where what was made is found; null: it is not kept")


class JobResource(JobSummary):
    """A job with what came of it."""

    answer: JsonValue = Field(default=None, description="what the route answers; null: not yet")
    problem: Problem | None = Field(default=None, description="why it failed; null: it did not")


ACCEPTED: dict[int | str, dict[str, object]] = {
    202: {
        "model": JobResource,
        "description": "It goes on as a job (Location): asked for by `Prefer: respond-async`, or "
        "because it takes longer than the caller is kept waiting",
    }
}


def job_summary(job: Job) -> JobSummary:
    """A job without its answer."""
    return JobSummary(
        job_id=job.job_id,
        kind=job.kind,
        state=job.state,
        asked_by=job.asked_by,
        asked_at=job.asked_at,
        changed_at=job.changed_at,
        attempts=job.attempts,
        progress=ProgressDocument(done=job.done, total=job.total),
        status=job.status,
        location=job.location,
    )


def job_resource(job: Job) -> JobResource:
    """A job with its answer."""
    made = None if job.answer is None else from_json(job.answer)
    if job.state is JobState.FAILED:
        return JobResource(**dict(job_summary(job)), problem=made)
    return JobResource(**dict(job_summary(job)), answer=made)


def runner_of(request: Request) -> JobRunner:
    """The jobs of an app."""
    runner = request.app.state.runner
    if not isinstance(runner, JobRunner):
        raise TypeError("app.state.runner is not a JobRunner: use create_app")
    return runner


RunnerParameter = Annotated[JobRunner, Depends(runner_of)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of one request, and how long whoever asks is ready to wait.

    Parameters
    ----------
    wait_s : float
        Longer work becomes a job, seconds.
    asynchronous : bool
        Whether it is to be a job at once.
    """

    runner: JobRunner
    wait_s: float
    asynchronous: bool

    async def answer(self, kind: str, body: Document, *, by: str) -> Response:
        """What the work comes to, or 202 with the job that it became.

        Raises
        ------
        BusyError
            When too much waits already.
        """
        if self.asynchronous:
            submit = partial(self.runner.submit_job, kind, body, by=by)
            response = accepted(await run_in_threadpool(submit))
            response.headers["Preference-Applied"] = "respond-async"
            return response
        task = Task(kind=kind, body=body, by=by)
        self.runner.submit(task)
        waiting = asyncio.wrap_future(task.made)
        await asyncio.wait([waiting], timeout=self.wait_s)
        if not waiting.done():
            job = await run_in_threadpool(self.runner.keep, task)
            if job is not None:
                waiting.add_done_callback(_take_note)
                return accepted(job)
        made = await waiting
        headers = {} if made.location is None else {"Location": made.location}
        return Response(made.text, made.status, headers=headers, media_type=MEDIA_TYPE)


def _take_note(ended: "asyncio.Future[Made]") -> None:
    """Look at how work ended that nobody waits for any more: its job says so."""
    if not ended.cancelled():
        ended.exception()


def accepted(job: Job) -> Response:
    """That a job goes on."""
    headers = {"Location": f"/v1/jobs/{job.job_id}", "Retry-After": "1"}
    text = job_resource(job).model_dump_json()
    return Response(text, 202, headers=headers, media_type=MEDIA_TYPE)


def work_of(
    request: Request,
    runner: RunnerParameter,
    prefer: Annotated[
        str | None,
        Header(
            description="`respond-async`: answer 202 at once and go on as a job; `wait=N`: become "
            "one after N seconds (RFC 7240)",
            max_length=200,
        ),
    ] = None,
) -> Work:
    """How the work of a request is to be answered."""
    preferences = [part.strip().lower() for part in re.split("[,;]", prefer or "")]
    waits = [int(match[1]) for part in preferences if (match := _WAIT.fullmatch(part))]
    usual_s: float = request.app.state.service.answer_within_s
    return Work(
        runner=runner,
        wait_s=min(waits[0], LONGEST_WAIT_S) if waits else usual_s,
        asynchronous="respond-async" in preferences and not waits,
    )


WorkParameter = Annotated[Work, Depends(work_of)]

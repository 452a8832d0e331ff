"""Long work: how far it is, and what came of it."""

import json
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter

from planner.service.api.problems import Problem
from planner.service.dashboard.views.what_if import Answer, answer_view
from planner.service.documents.answers import PlanAnswer, RefusedAnswer
from planner.service.documents.simulation import SimulationDocument
from planner.service.reports.quantities import (
    MISSING,
    counted,
    duration,
    sentence,
    share,
    share_between,
    usd,
)
from planner.service.reports.table import Fact, Table, cells, number_columns, text_columns
from planner.service.store.jobs import Job, JobState

_WHAT_IF: TypeAdapter[PlanAnswer | RefusedAnswer] = TypeAdapter(PlanAnswer | RefusedAnswer)

KINDS = {
    "plans": "A plan",
    "what-ifs": "What if",
    "simulations": "A replay in the twin",
    "forecasts": "A forecast",
    "backtests": "A backtest of forecasts",
    "reports": "A capacity report",
}
STATES = {
    JobState.QUEUED: ("waits for its turn", "waits"),
    JobState.RUNNING: ("under way", "waits"),
    JobState.DONE: ("done", "good"),
    JobState.FAILED: ("failed", "bad"),
    JobState.CANCELLED: ("cancelled", ""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What the twin saw."""

    verdict: str
    tone: str
    facts: tuple[Fact, ...]
    classes: Table
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A piece of work.

    Parameters
    ----------
    leads_to : str
        Page of what was made, below the dashboard's root; empty: there is none.
    deployment : str
        Which it is about; empty: none in particular.
    """

    job_id: str
    kind: str
    state: str
    tone: str
    over: bool
    asked_by: str
    asked_at: datetime
    done: int
    total: int | None
    problem: str
    leads_to: str
    deployment: str
    what_if: Answer | None = None
    replay: Replay | None = None


def job_view(job: Job) -> JobView:
    """A job as its page shows it."""
    words, tone = STATES[job.state]
    good = job.state is JobState.DONE and job.answer is not None
    text = job.answer or ""
    return JobView(
        job_id=job.job_id,
        kind=KINDS.get(job.kind, job.kind),
        state=words,
        tone=tone,
        over=job.state in (JobState.DONE, JobState.FAILED, JobState.CANCELLED),
        asked_by=job.asked_by,
        asked_at=job.asked_at,
        done=job.total if good and job.total else job.done,  # the last part is told by the answer
        total=job.total,
        problem=_problem(job),
        leads_to=_leads_to(job) if good else "",
        deployment=_deployment(job),
        what_if=(
            answer_view(_WHAT_IF.validate_json(text)) if good and job.kind == "what-ifs" else None
        ),
        replay=(
            _replay(SimulationDocument.model_validate_json(text))
            if good and job.kind == "simulations"
            else None
        ),
    )


def _deployment(job: Job) -> str:
    asked = json.loads(job.request)
    return str(asked.get("deployment") or "") if isinstance(asked, dict) else ""


def _problem(job: Job) -> str:
    if job.state is not JobState.FAILED or job.answer is None:
        return ""
    return sentence(Problem.model_validate_json(job.answer).detail)


def _leads_to(job: Job) -> str:
    if job.kind == "plans" and job.location:
        return job.location.removeprefix("/v1")
    return f"/reports/{job.job_id}" if job.kind == "reports" else ""


def _replay(seen: SimulationDocument) -> Replay:
    verdict, tone = {
        True: ("every promise is kept", "good"),
        False: ("a promise is not kept", "bad"),
        None: ("not clear after so many futures", "waits"),
    }[seen.holds]
    latency, predicted = seen.latency, seen.predicted
    futures = MISSING if seen.futures is None else counted(seen.futures.count, "future")
    stopped = () if seen.stopped is None else (f"stopped: {seen.stopped.reason}",)
    facts = [
        ("Replayed", f"{counted(seen.requests, 'request')} in {futures}"),
        ("In time", share_between(predicted.attainment_ratio, predicted.attainment_low_ratio,
                                  predicted.attainment_high_ratio)),
        ("TTFT", f"p50 {duration(latency.ttft_p50_s)}, p95 {duration(latency.ttft_p95_s)}"),
        ("ITL", f"p50 {duration(latency.itl_p50_s)}, p95 {duration(latency.itl_p95_s)}"),
        ("Whole answer", f"p95 {duration(latency.e2e_p95_s)}"),
        ("Not served", _unserved(seen)),
        ("Cost of one run", usd(seen.usd)),
    ]  # fmt: skip
    rows = [
        cells(
            one.request_class,
            share(one.target_ratio),
            share_between(
                one.attainment_ratio, one.attainment_low_ratio, one.attainment_high_ratio
            ),
            {True: "kept", False: "missed", None: "not clear"}[one.holds],
        )
        for one in seen.classes
    ]
    return Replay(
        verdict=verdict,
        tone=tone,
        facts=tuple(Fact(term=term, value=value) for term, value in facts),
        classes=Table(
            caption="By class",
            columns=(
                *text_columns("Class"),
                *number_columns("Promised", "In time"),
                *text_columns("Promise"),
            ),
            rows=tuple(rows),
            when_empty="No class arrived.",
        ),
        flags=tuple(sentence(flag) for flag in (*stopped, *seen.flags)),
    )


def _unserved(seen: SimulationDocument) -> str:
    ends = seen.outcomes
    parts = [
        f"{count:,} {what}"
        for count, what in (
            (ends.rejected, "rejected"),
            (ends.aborted, "given up"),
            (ends.failed, "failed"),
        )
        if count
    ]
    return ", ".join(parts) or "none"

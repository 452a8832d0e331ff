"""Long work that somebody waits for elsewhere: kept with its request until it is answered."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, func, insert, select, update

from planner.domain.errors import UnknownJobError
from planner.service.store import audit
from planner.service.store.database import Access
from planner.service.store.instants import instant, stamp
from planner.service.store.processes import living
from planner.service.store.tables import JOBS

KEPT_S = 7 * 86_400.0
MOST_KEPT = 1_000
"""Ended jobs are kept for so long, and at most so many."""


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A piece of work, and how far it is.

    Parameters
    ----------
    kind : str
        The route that was asked: `plans`, `simulations`, `forecasts` or `backtests`.
    request : str
        The body that came, JSON.
    attempts : int
        How often it was begun; above 1: a process died over it, or was stopped.
    done, total : int, int or None
        Progress in parts of the work; None: how many there are is not known.
    changed_at : datetime
        When its state or progress last changed.
    status : int or None
        HTTP status of the answer; None: there is none yet.
    location : str or None
        Where what was made is found.
    answer : str or None
        JSON; a problem where it failed.
    """

    seq: int
    job_id: str
    deployment: str
    kind: str
    request: str
    asked_by: str
    asked_at: datetime
    state: JobState
    attempts: int
    done: int
    total: int | None
    changed_at: datetime
    status: int | None
    location: str | None
    answer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What is asked for."""

    kind: str
    request: str
    asked_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAnswer:
    """What came of a job.

    Parameters
    ----------
    parts : int or None
        Of so many parts the work was in the end, all of them done: a run that may stop early has
        fewer than it said before. None: its progress stays as it was told last.
    """

    state: JobState
    status: int
    location: str | None
    answer: str
    parts: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJobs:
    """The jobs of one deployment.

    Parameters
    ----------
    owner : str
        This process: it may only change jobs of its own.
    """

    access: Access
    deployment: str
    owner: str

    def add(self, asked: JobRequest, *, at: datetime, begun: bool = False) -> Job:
        """Keep a job that this process carries out. Raises StoreError.

        Parameters
        ----------
        begun : bool
            Whether the work is under way already.
        """
        job_id = "job-" + secrets.token_hex(8)
        state = JobState.RUNNING if begun else JobState.QUEUED
        with self.access.writing() as connection:
            connection.execute(
                insert(JOBS).values(
                    job_id=job_id,
                    deployment=self.deployment,
                    kind=asked.kind,
                    request=asked.request,
                    asked_by=asked.asked_by,
                    asked_at=stamp(at),
                    state=state.value,
                    owner=self.owner,
                    attempts=int(begun),
                    done=0,
                    changed_at=stamp(at),
                )
            )
            audit.add(connection, at, asked.asked_by, "job.create", job_id, detail=asked.kind)
            return _job(connection, job_id)

    def job(self, job_id: str) -> Job:
        """One job.

        Raises
        ------
        UnknownJobError
            When there is none under this id, or it ended too long ago.
        """
        with self.access.reading() as connection:
            job = _job(connection, job_id)
            if job.deployment != self.deployment:
                raise UnknownJobError(_unknown(job_id))
            return job

    def jobs(
        self, *, limit: int, before: int | None = None, states: Sequence[JobState] = ()
    ) -> tuple[Job, ...]:
        """The newest jobs, newest first; those before a `seq` where given."""
        query = select(JOBS).where(JOBS.c.deployment == self.deployment)
        if before is not None:
            query = query.where(JOBS.c.seq < before)
        if states:
            query = query.where(JOBS.c.state.in_([state.value for state in states]))
        query = query.order_by(JOBS.c.seq.desc()).limit(limit)
        with self.access.reading() as connection:
            return tuple(_job_of(row) for row in connection.execute(query).mappings())

    def take_orphans(self, *, at: datetime, limit: int) -> tuple[Job, ...]:
        """Take over jobs of processes that are gone, oldest first; they are queued here then."""
        gone = JOBS.c.owner.not_in(living(at=at)) & (JOBS.c.owner != self.owner)
        query = (
            select(JOBS.c.job_id)
            .where(JOBS.c.deployment == self.deployment, _open(), gone)
            .order_by(JOBS.c.seq)
            .limit(limit)
        )
        with self.access.reading() as connection:  # most often there are none
            if connection.execute(query).first() is None:
                return ()
        with self.access.writing() as connection:
            ids = connection.execute(query).scalars().all()
            values = {"owner": self.owner, "state": JobState.QUEUED.value}
            connection.execute(update(JOBS).where(JOBS.c.job_id.in_(ids)).values(values))
            return tuple(_job(connection, job_id) for job_id in ids)

    def begin(self, job_id: str, *, at: datetime) -> bool:
        """Say that the work begins; False when it was cancelled."""
        values = {"state": JobState.RUNNING.value, "attempts": JOBS.c.attempts + 1}
        return self._change(job_id, {**values, "changed_at": stamp(at)})

    def tell(self, job_id: str, *, done: int, total: int | None, at: datetime) -> bool:
        """Say how far the work is; False when it was cancelled, or another process has it."""
        return self._change(job_id, {"done": done, "total": total, "changed_at": stamp(at)})

    def end(self, job_id: str, answer: JobAnswer, *, at: datetime) -> bool:
        """Keep what came of it; False when it was cancelled. Ended jobs of long ago go."""
        values = {
            "state": answer.state.value,
            "status": answer.status,
            "location": answer.location,
            "answer": answer.answer,
            "changed_at": stamp(at),
        }
        if answer.parts is not None:
            values |= {"done": answer.parts, "total": answer.parts}
        kept = self._change(job_id, values)
        self._forget_old(at=at)
        return kept

    def cancel(self, job_id: str, *, by: str, at: datetime) -> Job:
        """End a job that has not ended; one that has stays as it is. Raises UnknownJobError."""
        self.job(job_id)
        values = {"state": JobState.CANCELLED.value, "changed_at": stamp(at)}
        with self.access.writing() as connection:
            here = (JOBS.c.job_id == job_id) & _open()
            if connection.execute(update(JOBS).where(here).values(values)).rowcount:
                audit.add(connection, at, by, "job.cancel", job_id)
            return _job(connection, job_id)

    def cancelled(self, job_ids: Collection[str]) -> set[str]:
        """Which of these were cancelled, or taken over by another process. Raises StoreError."""
        if not job_ids:
            return set()
        mine = (JOBS.c.owner == self.owner) & _open() & JOBS.c.job_id.in_(job_ids)
        with self.access.reading() as connection:
            wanted = connection.execute(select(JOBS.c.job_id).where(mine)).scalars().all()
        return set(job_ids).difference(wanted)

    def give_back(self) -> None:
        """Leave this process's jobs to whichever comes next. Raises StoreError."""
        mine = (JOBS.c.owner == self.owner) & _open()
        values = {"owner": "", "state": JobState.QUEUED.value}
        with self.access.writing() as connection:
            connection.execute(update(JOBS).where(mine).values(values))

    def _change(self, job_id: str, values: Mapping[str, object]) -> bool:
        here = (JOBS.c.job_id == job_id) & (JOBS.c.owner == self.owner) & _open()
        with self.access.writing() as connection:
            return connection.execute(update(JOBS).where(here).values(values)).rowcount == 1

    def _forget_old(self, *, at: datetime) -> None:
        ended = (JOBS.c.deployment == self.deployment) & ~_open()
        newest = select(JOBS.c.seq).where(ended).order_by(JOBS.c.seq.desc()).limit(MOST_KEPT)
        oldest_kept = select(func.min(newest.subquery().c.seq)).scalar_subquery()
        long_ago = JOBS.c.changed_at < stamp(at - timedelta(seconds=KEPT_S))
        with self.access.writing() as connection:
            connection.execute(delete(JOBS).where(ended & (long_ago | (JOBS.c.seq < oldest_kept))))


def _open() -> ColumnElement[bool]:
    return JOBS.c.state.in_([state.value for state in JobState if not state.ended])


def _job(connection: Connection, job_id: str) -> Job:
    query = select(JOBS).where(JOBS.c.job_id == job_id)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise UnknownJobError(_unknown(job_id))
    return _job_of(row)


def _unknown(job_id: str) -> str:
    return (
        f"no job {job_id} is stored; `GET /v1/jobs` lists the known ones (ended ones go after "
        f"{KEPT_S / 86_400:g} days)"
    )


def _job_of(row: RowMapping) -> Job:
    values = {key: value for key, value in row.items() if key != "owner"}
    return Job(
        **{
            **values,
            "asked_at": instant(row["asked_at"]),
            "changed_at": instant(row["changed_at"]),
            "state": JobState(row["state"]),
        }
    )

"""Carries out long work in a few threads: answered at once where it is quick, else kept as a job.

Work that takes longer than whoever asked wants to wait becomes a job in the store, together with
what was asked. A process that starts, or finds that another one died, begins its jobs again.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from pydantic import ValidationError

from planner.domain.errors import BusyError, NotWantedError, PoolwiseError, StoreError
from planner.domain.wanted import Wanted, go_on, working_for
from planner.domain.wording import agreed, counted
from planner.service.documents.document import Document
from planner.service.loop.presence import Presence
from planner.service.store.jobs import Job, JobAnswer, JobRequest, JobState, StoredJobs

LOG = logging.getLogger("poolwise.jobs")
WORKERS = 4
MOST_WAITING = 64
"""So much work is done at once, and so much more may wait."""
MOST_ATTEMPTS = 5
"""A job that was begun so often and never ended is given up: it may be what ends the process."""
TELL_S = 0.5
"""Between two words of progress, seconds."""
AGAIN_S = 2.0
"""Between two tries to keep an answer while the database is away, seconds."""

Progress = Callable[[int, int], None]
"""Told how many parts of the work are done, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What came of some work.

    Parameters
    ----------
    text : str
        JSON.
    location : str or None
        Where what was made is found.
    """

    status: int
    text: str
    location: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of work.

    Parameters
    ----------
    body : type
        Of what is asked.
    perform : callable
        The work itself, from what is asked, who asks, and whom to tell of progress.
    """

    body: type[Document]
    perform: Callable[[Document, str, Progress], Made]


@dataclass(slots=True, kw_only=True)
class Task:
    """Work that is waited for, as long as it has no `job_id`; later it is a job.

    Parameters
    ----------
    parts : int
        How many parts of it are done, as the work itself said last.
    told_s : float
        When that was last told to the store, seconds of a clock that never goes back.
    """

    kind: str
    body: Document
    by: str
    job_id: str | None = None
    made: "Future[Made]" = field(default_factory=Future)
    lock: threading.Lock = field(default_factory=threading.Lock)
    parts: int = 0
    told_s: float = 0.0
    wanted: Wanted = field(default_factory=Wanted)


class JobRunner:
    """The work of one process.

    Parameters
    ----------
    failure : callable
        An error as the answer of a job that met it.
    """

    def __init__(
        self,
        kinds: dict[str, Kind],
        jobs: StoredJobs,
        presence: Presence,
        *,
        clock: Callable[[], datetime],
        failure: Callable[[Exception], Made],
        workers: int = WORKERS,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.jobs = jobs
        self._kinds = kinds
        self._presence = presence
        self._clock = clock
        self._failure = failure
        self._most_waiting = most_waiting
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="work")
        self._lock = threading.Lock()
        self._waiting = 0
        self._running: list[Task] = []
        self._stopped = threading.Event()
        presence.add_chore(self._give_up_cancelled)
        presence.add_chore(self._take_orphans)

    def submit(self, task: Task) -> None:
        """Have work done, as soon as a thread is free.

        Raises
        ------
        BusyError
            When too much waits already.
        """
        with self._lock:
            if self._waiting >= self._most_waiting:
                raise BusyError(
                    f"{counted(self._waiting, 'request')} "
                    f"{agreed(self._waiting, 'waits', 'wait')} for one of the threads that plan, "
                    "forecast and simulate, and no more may: ask again later"
                )
            self._waiting += 1
        try:
            self._pool.submit(self._run, task)
        except RuntimeError as error:
            raise BusyError("this server is being stopped: ask again, once it is back") from error

    def submit_job(self, kind: str, body: Document, *, by: str) -> Job:
        """Keep work as a job and have it done. Raises BusyError, StoreError."""
        self._presence.begin()
        with self._lock:
            if self._waiting >= self._most_waiting:
                raise BusyError(
                    f"{counted(self._waiting, 'job')} {agreed(self._waiting, 'waits', 'wait')}, "
                    "and no more may: ask again later"
                )
        asked = JobRequest(kind=kind, request=body.model_dump_json(), asked_by=by)
        job = self.jobs.add(asked, at=self._clock())
        self.submit(Task(kind=kind, body=body, by=by, job_id=job.job_id))
        return job

    def keep(self, task: Task) -> Job | None:
        """Make a job of work that takes long; None when it has ended meanwhile."""
        self._presence.begin()
        with task.lock:
            if task.made.done():
                return None
            asked = JobRequest(
                kind=task.kind, request=task.body.model_dump_json(), asked_by=task.by
            )
            job = self.jobs.add(asked, at=self._clock(), begun=True)
            task.job_id = job.job_id
            return job

    def start(self) -> None:
        """Begin what processes that are gone have left; the rest follows when they fall silent."""
        try:
            self._presence.begin()
        except StoreError as error:
            LOG.warning("jobs that were left are not begun yet: %s", error)

    def cancel(self, job_id: str, *, by: str) -> Job:
        """End a job; what calculates for it here is broken off. Raises UnknownJobError."""
        job = self.jobs.cancel(job_id, by=by, at=self._clock())
        if job.state is JobState.CANCELLED:
            self._give_up({job_id})
        return job

    def stop(self) -> None:
        """Break off what runs, and leave it to the process that comes next."""
        self._stopped.set()
        with self._lock:
            running = tuple(self._running)
        for task in running:
            task.wanted.give_up()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._presence.end()  # first, or its chore would take back what is given back
        try:
            self.jobs.give_back()
        except StoreError as error:
            LOG.warning("jobs are left as they are: %s", error)

    def _run(self, task: Task) -> None:
        with self._lock:
            self._waiting -= 1
        if task.job_id is not None and not self._surely(
            partial(self.jobs.begin, task.job_id, at=self._clock())
        ):
            return
        with self._lock:
            self._running.append(task)
            if self._stopped.is_set():
                task.wanted.give_up()
        try:
            with working_for(task.wanted):
                made = self._kinds[task.kind].perform(task.body, task.by, partial(self._tell, task))
        except NotWantedError as error:
            self._break_off(task, error)
        except Exception as error:
            if not isinstance(error, PoolwiseError):
                LOG.exception("%s for %s failed unexpectedly", task.kind, task.by)
            self._end(task, self._failure(error), error)
        else:
            self._end(task, made, None)
        finally:
            with self._lock:
                self._running.remove(task)

    def _break_off(self, task: Task, error: NotWantedError) -> None:
        """Tell whoever waits; a job says so already, or is begun again by another process."""
        with task.lock:
            task.made.set_exception(BusyError(f"this server is being stopped: {error}"))
        LOG.info("%s for %s was broken off", task.job_id or task.kind, task.by)

    def _give_up_cancelled(self) -> None:
        """Break off what was cancelled by way of another process."""
        with self._lock:
            here = {task.job_id for task in self._running if task.job_id is not None}
        self._give_up(self.jobs.cancelled(here))

    def _give_up(self, job_ids: set[str]) -> None:
        with self._lock:
            found = [task for task in self._running if task.job_id in job_ids]
        for task in found:
            task.wanted.give_up()

    def _end(self, task: Task, made: Made, error: Exception | None) -> None:
        """Answer whoever waits; a job is answered in the store."""
        with task.lock:
            if error is not None:
                task.made.set_exception(error)
            else:
                task.made.set_result(made)
            job_id = task.job_id
        if job_id is not None:
            answer = JobAnswer(
                state=JobState.DONE if error is None else JobState.FAILED,
                status=made.status,
                location=made.location,
                answer=made.text,
                parts=None if error is not None else max(task.parts, 1),
            )
            self._surely(partial(self.jobs.end, job_id, answer, at=self._clock()))

    def _surely(self, write: Callable[[], bool]) -> bool:
        """Write, however long the database is away; False when this process stops before."""
        while True:
            try:
                return write()
            except StoreError as error:
                LOG.warning("tried again in %g s: %s", AGAIN_S, error)
            if self._stopped.wait(AGAIN_S):
                return False

    def _tell(self, task: Task, done: int, total: int) -> None:
        """Say how far it is; raises NotWantedError where nobody wants it any more."""
        go_on()
        task.parts = done
        if task.job_id is None or time.monotonic() - task.told_s < TELL_S:
            return
        task.told_s = time.monotonic()
        try:
            wanted = self.jobs.tell(task.job_id, done=done, total=total, at=self._clock())
        except StoreError as error:
            LOG.warning("progress of %s is not told: %s", task.job_id, error)
            return
        if not wanted:
            task.wanted.give_up()
            go_on()

    def _take_orphans(self) -> None:
        """Begin jobs of processes that are gone, as many as may wait."""
        if self._stopped.is_set():
            return
        with self._lock:
            room = self._most_waiting - self._waiting
        at = self.jobs.access.shared_now(self._clock())
        for job in self.jobs.take_orphans(at=at, limit=max(room, 0)):
            LOG.info("job %s (%s of %s) is taken over", job.job_id, job.kind, job.asked_by)
            try:
                self._again(job)
            except PoolwiseError as error:
                if self._stopped.is_set():
                    return  # taken when it was too late: `stop` gives them back
                made = self._failure(error)
                answer = JobAnswer(
                    state=JobState.FAILED, status=made.status, location=None, answer=made.text
                )
                self.jobs.end(job.job_id, answer, at=self._clock())

    def _again(self, job: Job) -> None:
        if job.attempts >= MOST_ATTEMPTS:
            raise BusyError(
                f"it was begun {counted(job.attempts, 'time')}, and the server ended before it "
                "did each "
                "time: it is not begun again by itself"
            )
        kind = self._kinds.get(job.kind)
        if kind is None:
            raise BusyError(f"this version knows no work of kind {job.kind}: ask again")
        try:
            body = kind.body.model_validate_json(job.request)
        except ValidationError as error:
            raise BusyError(f"this version cannot read what was asked ({error}): ask again") from (
                error
            )
        self.submit(Task(kind=job.kind, body=body, by=job.asked_by, job_id=job.job_id))

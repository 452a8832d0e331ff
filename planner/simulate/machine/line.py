"""Requests that wait for a worker, are let in, and leave it."""

import numpy as np

from planner.simulate.machine.cache import give_back
from planner.simulate.machine.compiled import compiled
from planner.simulate.state import AWAY, FINISHED, IN_LINE, NOBODY, UNDER_WAY, Twin


@compiled
def wait_in_line(twin: Twin, w: int, r: int) -> None:
    """Append to the worker's waiting line."""
    record = twin.records[r]
    worker = twin.workers[w]
    record.next_request = NOBODY
    record.worker = w
    if worker.head == NOBODY:
        worker.head = r
    else:
        twin.records[worker.tail].next_request = r
    worker.tail = r
    worker.waiting += 1
    worker.present += 1


@compiled
def wait_in_front(twin: Twin, w: int, r: int) -> None:
    """Put a preempted request at the head of the line."""
    record = twin.records[r]
    worker = twin.workers[w]
    request = twin.requests[r]
    record.next_request = worker.head
    if worker.head == NOBODY:
        worker.tail = r
    worker.head = r
    record.place = IN_LINE
    record.came_s = -np.inf
    worker.waiting += 1
    worker.queued_tokens += request.input_tokens


@compiled
def first_in_line(twin: Twin, w: int) -> int:
    """Who is next, past those whose client has gone."""
    worker = twin.workers[w]
    while worker.head != NOBODY and twin.records[worker.head].end != UNDER_WAY:
        worker.head = twin.records[worker.head].next_request
    return int(worker.head)


@compiled
def leave_line(twin: Twin, w: int, r: int) -> None:
    """The first in line is admitted."""
    worker = twin.workers[w]
    record = twin.records[r]
    worker.head = record.next_request
    worker.waiting -= 1
    worker.slots_used += 1
    record.admission = worker.admissions
    worker.admissions += 1


@compiled
def vacate(twin: Twin, w: int, r: int, tokens: int) -> None:
    """Give back slot and blocks, which hold `tokens`."""
    worker = twin.workers[w]
    worker.slots_used -= 1
    worker.present -= 1
    give_back(twin, w, r, tokens)


@compiled
def finish(twin: Twin, r: int, end: int, t: float) -> None:
    """The request has ended."""
    record = twin.records[r]
    clock = twin.clock[0]
    record.end = end
    record.place = AWAY
    if end == FINISHED:
        record.finished_s = t
        twin.finished[clock.finished] = r
        clock.finished += 1

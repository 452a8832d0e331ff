"""Workers that come, drain, change roles and fail."""

import math
from collections.abc import Callable

import numpy as np

from planner.simulate.machine.cache import forget_all, give_back
from planner.simulate.machine.compiled import compiled, compiled_and_kept, fingerprint_of_sources
from planner.simulate.machine.heaps import find, remove, set_next
from planner.simulate.machine.line import finish, vacate
from planner.simulate.machine.links import drop_flow, flow_of, settle_flows, share_links
from planner.simulate.machine.reference import by_reference
from planner.simulate.machine.routing import retire, route_prompt, settle
from planner.simulate.machine.steps import count_gaps, count_what_has_been, steps_ended, wake
from planner.simulate.state import (
    ABSENT,
    AWAY,
    DRAIN,
    DRAINING,
    FAIL,
    FAILED,
    FLIP,
    MOVING,
    NOBODY,
    SERVING,
    START,
    TO_PULL,
    UNDER_WAY,
    Twin,
)


@compiled
def start(twin: Twin, w: int, group: int, t: float) -> None:
    """Order a replica: paid from now on, ready after its start-up time."""
    worker = twin.workers[w]
    worker.group = group
    worker.state = SERVING
    worker.life += 1
    worker.ordered_s = t
    worker.ready_s = t + twin.groups[group].start_s


@compiled
def stop_moving(twin: Twin, r: int, t: float) -> None:
    """Stop a transfer."""
    clock = twin.clock[0]
    at = find(twin.moving, clock.moving, r)
    if at >= 0:
        remove(twin.moving, 0, clock.moving, at)
        clock.moving -= 1
        return
    at = flow_of(twin, r)
    if at >= 0:
        settle_flows(twin, t)
        drop_flow(twin, at)
        share_links(twin)


@compiled
def leave_middle_of_line(twin: Twin, w: int, r: int) -> None:
    """Take a request out of a line, wherever it stands."""
    worker = twin.workers[w]
    record = twin.records[r]
    worker.waiting -= 1
    worker.present -= 1
    following = record.next_request
    if worker.head == r:
        worker.head = following
        return
    before = worker.head
    record_before = twin.records[before]
    while record_before.next_request != r:
        before = record_before.next_request
        record_before = twin.records[before]
    record_before.next_request = following
    if worker.tail == r:
        worker.tail = before


@compiled
def fail(twin: Twin, w: int, t: float, restarts: bool) -> None:
    """A worker is gone at once: who has no token yet starts over, the others have failed."""
    arrived = twin.clock[0].arrived
    for r in range(arrived):
        forget_source(twin, w, r, t)
    for r in range(arrived):
        forget_puller(twin, w, r, t)
    clear(twin, w)
    retire(twin, w, t)
    if restarts:
        start(twin, w, twin.workers[w].group, t)
    for r in range(arrived):
        record = twin.records[r]
        if record.worker != w or record.place == AWAY:
            continue
        record.place = AWAY
        record.source = NOBODY
        if record.end != UNDER_WAY:
            continue
        if record.first_token_s <= t:
            finish(twin, r, FAILED, t)
        else:
            record.first_token_s = np.nan
            record.generated = 0
            route_prompt(twin, r, t)


@compiled
def forget_source(twin: Twin, w: int, r: int, t: float) -> None:
    """A request on the failed worker w: nobody will pull its KV cache any more."""
    record = twin.records[r]
    if record.worker != w or record.place == AWAY:
        return
    if record.place == MOVING:
        stop_moving(twin, r, t)
    source = record.source
    if source not in (NOBODY, w):
        twin.workers[source].held -= 1
        give_back(twin, source, r, twin.requests[r].input_tokens)
        record.source = NOBODY
        wake(twin, source, t)
        settle(twin, source, t)


@compiled
def forget_puller(twin: Twin, w: int, r: int, t: float) -> None:
    """A request whose KV cache was on the failed worker w: it counts as being there."""
    record = twin.records[r]
    other = record.worker
    if record.source != w or record.place == AWAY or other == w:
        return
    if record.place == MOVING:
        stop_moving(twin, r, t)
        vacate(twin, other, r, twin.requests[r].input_tokens)
    elif record.place == TO_PULL:
        leave_middle_of_line(twin, other, r)
    record.worker = w
    wake(twin, other, t)
    settle(twin, other, t)


@compiled
def clear(twin: Twin, w: int) -> None:
    """Forget all that a worker was doing."""
    worker = twin.workers[w]
    if not math.isnan(worker.started_s):
        worker.busy_s += twin.clock[0].now_s - worker.started_s
        count_gaps(twin, w, steps_ended(twin, w, twin.clock[0].now_s))
    worker.head = worker.tail = worker.prompt = worker.flips_to = NOBODY
    worker.prompts_head = worker.prompts_tail = NOBODY
    worker.arrived_head = worker.arrived_tail = NOBODY
    worker.running = worker.context_sum = worker.newcomers = worker.slots_used = 0
    worker.waiting = worker.present = worker.held = worker.queued_tokens = 0
    worker.leavers = 0
    worker.outstanding_s = 0.0
    worker.started_s = np.nan
    for i in range(twin.groups[worker.group].block_tokens):
        twin.phases[w, i] = 0
    forget_all(twin, w)
    set_next(twin, w, np.inf)


def _entry(fingerprint: int) -> Callable[[Twin, int, int, float], None]:
    """What Python calls, bound to the sources that it was compiled from."""

    @compiled_and_kept
    def change(given: Twin, command: int, w: int, extra: float) -> None:
        """Do a command to a worker at the present instant.

        `extra`: start: the group; flip: the group to join; fail: 1 when it starts again at once.
        """
        twin = by_reference(given)
        worker, t = twin.workers[w], twin.clock[0].now_s + 0.0 * fingerprint
        if command == START and worker.state == ABSENT:
            start(twin, w, int(extra), t)
        elif command == DRAIN and worker.state == SERVING:
            worker.state = DRAINING
            settle(twin, w, t)
        elif command == DRAIN and worker.state == DRAINING:
            worker.flips_to = NOBODY
        elif command == FLIP and worker.state == SERVING:
            worker.state = DRAINING
            worker.flips_to = int(extra)
            settle(twin, w, t)
        elif command == FAIL and worker.state != ABSENT:
            fail(twin, w, t, extra > 0)
        if twin.clock[0].stopped_by != NOBODY:
            count_what_has_been(twin)

    return change


change = _entry(fingerprint_of_sources())

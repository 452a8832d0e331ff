"""The twin's main loop."""

from collections.abc import Callable

import numpy as np

from planner.simulate.machine.batch import preempt
from planner.simulate.machine.compiled import (
    compiled,
    compiled_and_kept,
    compiled_into_caller,
    fingerprint_of_sources,
)
from planner.simulate.machine.heaps import remove
from planner.simulate.machine.line import finish, vacate
from planner.simulate.machine.links import end_flows
from planner.simulate.machine.reference import by_reference
from planner.simulate.machine.routing import end_prompts, route_prompt, settle
from planner.simulate.machine.samples import sample_before
from planner.simulate.machine.steps import (
    count_what_has_been,
    end_jump,
    join_arrived,
    know_all,
    release_source,
    start_steps,
    wake,
)
from planner.simulate.state import (
    ABORTED,
    ARRIVED,
    AWAY,
    COMPUTING,
    IN_LINE,
    NOBODY,
    RUNNING,
    TO_PULL,
    UNDER_WAY,
    Twin,
)


@compiled_into_caller
def boundary(twin: Twin, w: int) -> None:
    """A worker's step ends, or it wakes: see `docs/twin.md`, "A worker"."""
    worker = twin.workers[w]
    t = twin.next_s[w]
    if np.isnan(worker.started_s):
        know_all(twin, w, t)
    else:
        end_jump(twin, w, t)
        end_prompts(twin, w, t)
    composing = True
    while composing:
        join_arrived(twin, w, t)
        preempted = preempt(twin, w, t)
        start_steps(twin, w, t, not preempted)
        composing = np.isnan(worker.started_s) and worker.kv_known_s < np.inf
        if composing:
            know_all(twin, w, t)
    settle(twin, w, t)


@compiled_into_caller
def kv_arrives(twin: Twin) -> None:
    """A KV cache has arrived at its decode worker."""
    clock = twin.clock[0]
    first = twin.moving[0]
    t, r = first.key, first.request
    record = twin.records[r]
    request = twin.requests[r]
    remove(twin.moving, 0, clock.moving, 0)
    clock.moving -= 1
    w, p = record.worker, record.source
    worker = twin.workers[w]
    release_source(twin, r, t)
    settle(twin, p, t)
    if record.end != UNDER_WAY:
        vacate(twin, w, r, request.input_tokens)
        record.place = AWAY
        wake(twin, w, t)
        return
    record.place = ARRIVED
    record.came_s = t
    record.next_request = NOBODY
    if worker.arrived_head == NOBODY:
        worker.arrived_head = r
    else:
        twin.records[worker.arrived_tail].next_request = r
    worker.arrived_tail = r
    wake(twin, w, t)


@compiled_into_caller
def client_leaves(twin: Twin, r: int, t: float) -> None:
    """Out of the line at once; otherwise as soon as the worker can."""
    record = twin.records[r]
    request = twin.requests[r]
    if record.end != UNDER_WAY:
        return
    record.left_s = t
    place, w = record.place, record.worker
    worker = twin.workers[w]
    finish(twin, r, ABORTED, t)
    record.place = place
    if place in (IN_LINE, TO_PULL):
        worker.waiting -= 1
        worker.present -= 1
        record.place = AWAY
        if place == IN_LINE:
            worker.outstanding_s -= record.assumed_s
            worker.queued_tokens -= request.input_tokens
        else:
            p = record.source
            release_source(twin, r, t)
            settle(twin, p, t)
        wake(twin, w, t)
        settle(twin, w, t)
    elif place == RUNNING:
        worker.leavers += 1
        wake(twin, w, t)
    elif place in (COMPUTING, ARRIVED):
        wake(twin, w, t)


@compiled
def next_departure_s(twin: Twin) -> float:
    """When the next client goes away, past those whose request has ended before."""
    clock = twin.clock[0]
    while clock.departed < len(twin.departure):
        r = twin.departure[clock.departed]
        if r >= clock.arrived or twin.records[r].end == UNDER_WAY:
            return float(twin.departure_s[clock.departed])
        clock.departed += 1
    return np.inf


def _main_loop(fingerprint: int) -> Callable[[Twin, float], float]:
    """The loop, bound to the sources that it was compiled from."""

    @compiled_and_kept
    def run(given: Twin, until_s: float) -> float:
        """Let everything happen up to `until_s`.

        Returns the instant of what happens next; inf when nothing will.
        """
        twin = by_reference(given)
        requests, clock = twin.requests, twin.clock[0]
        count = len(requests) + 0 * fingerprint
        if clock.stopped_by != NOBODY:
            return float(clock.now_s)
        while clock.stopped_by == NOBODY:
            step_s = twin.next_s[twin.tree[1]]
            kv_s = twin.moving[0].key if clock.moving > 0 else np.inf
            flow_s = clock.flow_end_s
            leave_s = next_departure_s(twin)
            arrival_s = requests[clock.arrived].arrival_s if clock.arrived < count else np.inf
            t = min(step_s, kv_s, flow_s, leave_s, arrival_s)
            if t == np.inf:
                return float(t)
            sample_before(twin, min(t, until_s))
            if t > until_s:
                return float(t)
            clock.now_s = t
            if step_s == t:
                boundary(twin, twin.tree[1])
            elif kv_s == t:
                kv_arrives(twin)
            elif flow_s == t:
                end_flows(twin)
            elif arrival_s == t:
                clock.arrived += 1
                route_prompt(twin, clock.arrived - 1, t)
            else:
                clock.departed += 1
                client_leaves(twin, twin.departure[clock.departed - 1], t)
        count_what_has_been(twin)
        return float(clock.now_s)

    return run


run = _main_loop(fingerprint_of_sources())

"""One worker: what happens when a step ends, and which step it starts next.

Decode steps without prompts differ only by the context, which grows by one token a sequence, so
a run of them up to the next change is taken as one *jump*; whoever comes in between cuts it short
at the end of the step in progress.
"""

import math

import numpy as np

from planner.simulate.machine.batch import (
    first_entry,
    grow,
    join,
    let_go,
    quit_batch,
    steps_ahead,
    tokens_in_kv,
)
from planner.simulate.machine.cache import cached_tokens, give_back, has_room, take
from planner.simulate.machine.compiled import compiled
from planner.simulate.machine.heaps import set_next
from planner.simulate.machine.line import finish, first_in_line, leave_line, vacate
from planner.simulate.machine.links import begin_transfer
from planner.simulate.machine.times import (
    context_segment,
    count_gap,
    decode_seconds,
    prompt_seconds,
)
from planner.simulate.state import (
    ABORTED,
    AWAY,
    COMPUTING,
    FINISHED,
    MOVING,
    NOBODY,
    TO_PULL,
    UNDER_WAY,
    Twin,
)


@compiled
def release_source(twin: Twin, r: int, t: float) -> None:
    """The KV cache has been pulled, or will never be: the prefill worker may forget it."""
    record = twin.records[r]
    request = twin.requests[r]
    p = record.source
    holder = twin.workers[p]
    record.source = NOBODY
    holder.held -= 1
    give_back(twin, p, r, request.input_tokens)
    wake(twin, p, t)


@compiled
def elapsed_s(twin: Twin, w: int, steps: int) -> float:
    """Seconds of the first `steps` steps of a jump."""
    worker = twin.workers[w]
    more = worker.slope_s * steps * (steps - 1) / 2
    return float(worker.step_s * steps + more)


@compiled
def steps_ended(twin: Twin, w: int, t: float) -> int:
    """Steps of the jump in progress that have ended at t."""
    worker = twin.workers[w]
    if worker.jump <= 1 or math.isnan(worker.started_s):
        return 0
    since = t - worker.started_s
    first, half = worker.step_s, worker.slope_s / 2
    estimate = since / first
    if half != 0:
        b = first - half
        root = b * b + 4 * half * since
        estimate = 2 * since / (b + math.sqrt(max(root, 0.0)))
    steps = max(int(estimate), 0)
    while steps > 0 and elapsed_s(twin, w, steps) > since:
        steps -= 1
    while steps < worker.jump - 1 and elapsed_s(twin, w, steps + 1) <= since:
        steps += 1
    return int(min(steps, worker.jump - 1))


@compiled
def catch_up(twin: Twin, w: int, t: float) -> None:
    """Take the blocks of all steps that have begun by t: a router is about to see the cache."""
    worker = twin.workers[w]
    if worker.kv_kept == 0:
        return
    begun = steps_ended(twin, w, t) + 1
    if worker.jump > 1 and not math.isnan(worker.started_s) and begun > worker.grown:
        grow(twin, w, worker.grown, begun - worker.grown)
        worker.grown = begun


@compiled
def wake(twin: Twin, w: int, t: float) -> None:
    """Something has come for this worker: look at it now if idle, else when the step ends."""
    worker = twin.workers[w]
    if math.isnan(worker.started_s):
        set_next(twin, w, max(t, worker.ready_s))
        return
    steps = steps_ended(twin, w, t) + 1
    if steps < worker.jump:
        worker.jump = steps
        set_next(twin, w, worker.started_s + elapsed_s(twin, w, steps))


@compiled
def count_gaps(twin: Twin, w: int, steps: int) -> None:
    """Count the gaps between tokens of the first `steps` steps of a jump."""
    worker = twin.workers[w]
    batch, first_s = worker.running, worker.step_s
    if steps > 0 and batch > worker.newcomers:
        count_gap(twin, first_s, batch - worker.newcomers)
    if batch > 0 and steps > 1:
        last_s = first_s + worker.slope_s * (steps - 1)
        if abs(last_s - first_s) < 0.002 * first_s:
            count_gap(twin, (first_s + last_s) / 2, batch * (steps - 1))
        else:
            for i in range(1, steps):
                count_gap(twin, first_s + worker.slope_s * i, batch)


@compiled
def count_what_has_been(twin: Twin) -> None:
    """The run was stopped: count the steps that have ended of every jump in progress."""
    for w in range(len(twin.workers)):
        count_gaps(twin, w, steps_ended(twin, w, twin.clock[0].now_s))


@compiled
def remember_beginnings(twin: Twin, w: int, steps: int) -> None:
    """Steps end: what the next one knows depends on when the last ones began."""
    worker = twin.workers[w]
    group = twin.groups[worker.group]
    last_s = worker.started_s + elapsed_s(twin, w, steps - 1)
    before_s = worker.last_began_s
    if steps > 1:
        before_s = worker.started_s + elapsed_s(twin, w, steps - 2)
    worker.last_began_s = last_s
    if group.ahead:
        worker.line_known_s = worker.kv_known_s = last_s
    if group.late:
        worker.kv_known_s = before_s if group.ahead else last_s


@compiled
def know_all(twin: Twin, w: int, t: float) -> None:
    """An idle worker knows who has come, and will have begun nothing before t."""
    worker = twin.workers[w]
    worker.line_known_s = worker.kv_known_s = np.inf
    worker.last_began_s = t


@compiled
def end_jump(twin: Twin, w: int, t: float) -> None:
    """Count the tokens and gaps of the steps that end at t; who has all tokens leaves."""
    worker = twin.workers[w]
    steps, batch = worker.jump, worker.running
    worker.busy_s += t - worker.started_s
    worker.outstanding_s -= worker.chunks_s
    count_gaps(twin, w, steps)
    grow(twin, w, worker.grown, steps - worker.grown)
    worker.grown = 0
    worker.step += steps
    remember_beginnings(twin, w, steps)
    worker.context_sum += batch * steps
    worker.newcomers = 0
    first = twin.batch[first_entry(twin, w)]
    while worker.running > 0 and first.key <= worker.step:
        r = first.request
        record = twin.records[r]
        quit_batch(twin, w, 0)
        vacate(twin, w, r, tokens_in_kv(twin, w, r))
        finish(twin, r, FINISHED if math.isnan(record.left_s) else ABORTED, t)
    if worker.leavers > 0:
        let_go(twin, w)
    worker.started_s = np.nan


@compiled
def end_prompt(twin: Twin, w: int, r: int, t: float) -> None:
    """A prompt is computed where its answer is written: that step made the next token."""
    record = twin.records[r]
    request = twin.requests[r]
    if record.generated == 0:
        record.prompt_done_s = record.first_token_s = record.joined_s = t
    else:
        count_gap(twin, t - record.last_token_s, 1)
    in_kv = request.input_tokens + record.generated
    steps = request.output_tokens - record.generated - 1
    record.prompt_done = in_kv
    if steps == 0:
        vacate(twin, w, r, in_kv)
        finish(twin, r, FINISHED, t)
    else:
        join(twin, w, r, in_kv, steps)


@compiled
def join_arrived(twin: Twin, w: int, t: float) -> None:
    """Sequences whose KV cache had arrived when the step was composed enter the batch."""
    worker = twin.workers[w]
    r = worker.arrived_head
    record = twin.records[r]
    request = twin.requests[r]
    while r != NOBODY and record.came_s < worker.kv_known_s:
        following = record.next_request
        if record.end != UNDER_WAY:
            vacate(twin, w, r, request.input_tokens)
            record.place = AWAY
        else:
            record.prompt_done = request.input_tokens
            record.joined_s = t
            join(twin, w, r, request.input_tokens, request.output_tokens)
            twin.newcomer[w, worker.newcomers] = r
            worker.newcomers += 1
        r = following
        record = twin.records[r]
        request = twin.requests[r]
    worker.arrived_head = r
    if r == NOBODY:
        worker.arrived_tail = NOBODY


@compiled
def admit_prompt(twin: Twin, w: int, r: int, t: float) -> None:
    """The first in line gets blocks for its prompt, to be computed here."""
    worker = twin.workers[w]
    request = twin.requests[r]
    record = twin.records[r]
    g = worker.group
    cached = cached_tokens(twin, w, r)
    tokens = request.input_tokens + record.generated
    take(twin, w, r, tokens)
    leave_line(twin, w, r)
    worker.queued_tokens -= request.input_tokens
    record.place = COMPUTING
    record.hit_tokens = cached
    record.prompt_done = 0
    record.done_s = prompt_seconds(twin, g, 0.0, float(cached))
    whole_s = prompt_seconds(twin, g, float(tokens - cached), float(cached))
    worker.outstanding_s += whole_s - record.done_s - record.assumed_s
    record.assumed_s = whole_s
    worker.prompt = r
    if math.isnan(record.prompt_started_s):
        record.prompt_started_s = t


@compiled
def admit_answer(twin: Twin, w: int, r: int, t: float) -> None:
    """The first in line gets blocks for its prompt; its KV cache starts to move."""
    request = twin.requests[r]
    record = twin.records[r]
    worker = twin.workers[w]
    missing = request.input_tokens
    if twin.unit_tokens > 0:
        missing -= cached_tokens(twin, w, r)
    take(twin, w, r, request.input_tokens)
    leave_line(twin, w, r)
    record.place = MOVING
    kv_bytes = missing * twin.groups[worker.group].kv_bytes_per_token
    begin_transfer(twin, w, r, kv_bytes, t)


@compiled
def look_for_end(twin: Twin, w: int, t: float) -> None:
    """Stop the run when the first in a line has waited too long there."""
    clock = twin.clock[0]
    if t - twin.records[first_in_line(twin, w)].line_s > clock.unstable_wait_s:
        clock.stopped_by = w


@compiled
def fill_step(twin: Twin, w: int, t: float, admits: bool) -> float:
    """Spend the step's token budget on prompts; their fixed part, or -1 if there are none."""
    worker = twin.workers[w]
    g = worker.group
    group = twin.groups[g]
    budget = max(group.budget - worker.running, 1)
    fixed_s = -1.0
    while budget > 0:
        r = worker.prompt
        request = twin.requests[r]
        record = twin.records[r]
        if r == NOBODY:
            r = first_in_line(twin, w) if admits else NOBODY
            request = twin.requests[r]
            record = twin.records[r]
            if r == NOBODY or record.came_s >= worker.line_known_s:
                break
            if worker.slots_used >= group.slots:
                break
            if not has_room(twin, w, r, request.input_tokens + record.generated):
                break
            look_for_end(twin, w, t)
            if record.place == TO_PULL:
                admit_answer(twin, w, r, t)
                continue
            admit_prompt(twin, w, r, t)
        cached = record.hit_tokens
        whole = request.input_tokens + record.generated - cached
        if fixed_s < 0:
            fixed_s = prompt_seconds(twin, g, 0.0, float(cached))
        chunk = min(whole - record.prompt_done, budget)
        record.prompt_done += chunk
        budget -= chunk
        done_s = prompt_seconds(twin, g, float(record.prompt_done), float(cached))
        worker.chunks_s += done_s - record.done_s
        record.done_s = done_s
        if record.prompt_done == whole:
            worker.prompt = NOBODY
            record.next_request = NOBODY
            if worker.prompts_head == NOBODY:
                worker.prompts_head = r
            else:
                twin.records[worker.prompts_tail].next_request = r
            worker.prompts_tail = r
    worker.most_kv = max(worker.most_kv, worker.kv_used)
    return fixed_s


@compiled
def some_are_new(twin: Twin, w: int) -> bool:
    """Whether the next step will know of requests that this one does not."""
    worker = twin.workers[w]
    if worker.arrived_head != NOBODY:
        return True
    r = first_in_line(twin, w)
    return r != NOBODY and twin.records[r].came_s >= worker.line_known_s


@compiled
def start_steps(twin: Twin, w: int, t: float, admits: bool) -> None:
    """Begin the next step, or the next run of equal ones."""
    worker = twin.workers[w]
    g, batch = worker.group, worker.running
    group = twin.groups[g]
    worker.chunks_s = 0.0
    grow(twin, w, 0, 1)
    worker.grown = 1
    fixed_s = fill_step(twin, w, t, admits)
    if batch == 0 and fixed_s < 0:
        set_next(twin, w, np.inf)
        return
    jump, slope_s, seconds = 1, 0.0, 0.0
    if batch > 0:
        if batch > group.measured_batch:
            worker.over_step = worker.step
        context = worker.context_sum / batch
        seconds = decode_seconds(twin, g, batch, context)
        if fixed_s < 0 and admits and not some_are_new(twin, w):
            jump = steps_ahead(twin, w)
            if group.contexts > 1 and jump > 1:
                axis, j = twin.context[g], context_segment(twin, g, context)
                row = twin.decode_s[g, batch]
                slope_s = (row[j + 1] - row[j]) / (axis[j + 1] - axis[j])
                if context < axis[0]:
                    slope_s = 0.0
                    jump = min(jump, math.ceil(axis[0] - context))
                elif j < group.contexts - 2:
                    jump = min(jump, math.ceil(axis[j + 1] - context))
                straight_s = row[j] + slope_s * (context - axis[j])
                if min(straight_s, seconds + slope_s * jump) < group.shortest_s:
                    jump = 1
    else:
        seconds = fixed_s
    worker.jump = jump
    worker.step_s = seconds + worker.chunks_s
    worker.slope_s = slope_s
    worker.started_s = t
    for i in range(worker.newcomers):
        twin.records[twin.newcomer[w, i]].first_token_s = t + worker.step_s
    set_next(twin, w, t + elapsed_s(twin, w, jump))

"""The twin's hot loop, compiled. Arrays in, arrays out; no I/O, no randomness.

Time jumps from event to event. Two kinds come from outside a worker, an arrival and a finished
prompt, and both route a request. Between them a worker lives on its own: its steps follow each
other at *boundaries*, and it is brought up to date only when somebody looks at it (`advance`).
A boundary ends one step (tokens out, sequences finished), admits and joins waiting requests, and
starts the next step.

All compiled functions are in this file, because numba's cache notices a change only in the file
of the function that is called.
"""

import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba
import numpy as np

from planner.simulate.state import (
    DECODE,
    GAP_BINS,
    GAP_RATIO,
    GAP_SHORTEST_S,
    NOBODY,
    PREFILL,
    Floats,
    Integers,
    Twin,
)

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile on the first call, keep the machine code on disk.

    The loop allocates nothing, so reference counts (`_nrt`) only cost time: without them it is
    three times faster. With numpy's error model divisions are not checked for zero, which saves
    a third of the time to compile; no divisor here can be 0.
    """
    decorator = numba.njit(cache=True, _nrt=False, error_model="numpy")  # type: ignore[call-overload]  # numba's stubs leave _nrt out
    return cast("Callable[P, R]", decorator(function))


@compiled
def push(keys: Floats, requests: Integers, count: int, key: float, request: int) -> None:
    """Add to a binary heap ordered by key, then request."""
    i = count
    while i > 0:
        up = (i - 1) // 2
        if keys[up] < key or (keys[up] == key and requests[up] < request):
            break
        keys[i] = keys[up]
        requests[i] = requests[up]
        i = up
    keys[i] = key
    requests[i] = request


@compiled
def pop(keys: Floats, requests: Integers, count: int) -> int:
    """Remove and return the request with the smallest key; `count` is before removal."""
    top = requests[0]
    last = count - 1
    key, request = keys[last], requests[last]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= last:
            break
        right = child + 1
        if right < last and (
            keys[right] < keys[child]
            or (keys[right] == keys[child] and requests[right] < requests[child])
        ):
            child = right
        if key < keys[child] or (key == keys[child] and request < requests[child]):
            break
        keys[i] = keys[child]
        requests[i] = requests[child]
        i = child
    keys[i] = key
    requests[i] = request
    return int(top)


@compiled
def step_seconds(twin: Twin, g: int, batch: int, context: float) -> float:
    """Step time: the batch's row, linear in context, as `TimeTable.extended_at`."""
    groups = twin.groups
    points = groups.contexts[g]
    row = twin.step_s[g, batch]
    if points == 1:
        return float(max(row[0], groups.shortest_s[g]))
    axis = twin.context[g]
    j = 0
    while j < points - 2 and axis[j + 1] <= context:
        j += 1
    v = max((context - axis[j]) / (axis[j + 1] - axis[j]), 0.0)
    return float(max(row[j] * (1.0 - v) + row[j + 1] * v, groups.shortest_s[g]))


@compiled
def wait_in_line(twin: Twin, w: int, request: int) -> None:
    """Append to the worker's waiting line."""
    workers, records = twin.workers, twin.records
    records.next_request[request] = NOBODY
    if workers.head[w] == NOBODY:
        workers.head[w] = request
    else:
        records.next_request[workers.tail[w]] = request
    workers.tail[w] = request
    workers.present[w] += 1


@compiled
def admit_next(twin: Twin, w: int) -> int:
    """Give the first in line a slot and KV room for prompt and answer; NOBODY if it must wait."""
    requests, groups, workers, records = twin.requests, twin.groups, twin.workers, twin.records
    request = workers.head[w]
    if request == NOBODY:
        return NOBODY
    g = workers.group[w]
    tokens = requests.input_tokens[request] + requests.output_tokens[request]
    if workers.slots_used[w] >= groups.slots[g]:
        return NOBODY
    if workers.kv_used[w] + tokens > groups.kv_tokens[g]:
        return NOBODY
    workers.head[w] = records.next_request[request]
    workers.slots_used[w] += 1
    workers.kv_used[w] += tokens
    return int(request)


@compiled
def leave(twin: Twin, w: int, r: int, t: float) -> None:
    """The request is answered: free its slot and KV."""
    requests, workers, records = twin.requests, twin.workers, twin.records
    records.finished_s[r] = t
    workers.slots_used[w] -= 1
    workers.kv_used[w] -= requests.input_tokens[r] + requests.output_tokens[r]
    workers.present[w] -= 1


@compiled
def join(twin: Twin, w: int, r: int, context: int, steps: int) -> None:
    """Enter the batch with `context` tokens, to leave it after `steps` steps."""
    workers, records = twin.workers, twin.records
    workers.running[w] += 1
    workers.context_sum[w] += context
    records.joined_step[r] = workers.step[w]
    push(
        twin.finish_key[w],
        twin.finish_request[w],
        workers.finish_count[w],
        float(workers.step[w] + steps),
        r,
    )
    workers.finish_count[w] += 1


@compiled
def end_step(twin: Twin, w: int, t: float) -> None:
    """Count the gaps of the step that ends at t, and let finished sequences leave."""
    requests, workers, records = twin.requests, twin.workers, twin.records
    seconds = t - workers.step_started_s[w]
    workers.busy_s[w] += seconds
    gaps = workers.running[w] - workers.first_tokens[w]
    if gaps > 0:
        position = math.log(seconds / GAP_SHORTEST_S) / math.log(GAP_RATIO)
        twin.gaps[min(max(int(position), 0), GAP_BINS - 1)] += gaps
    workers.step[w] += 1
    workers.context_sum[w] += workers.running[w]
    while workers.finish_count[w] > 0 and twin.finish_key[w, 0] <= workers.step[w]:
        r = pop(twin.finish_key[w], twin.finish_request[w], workers.finish_count[w])
        workers.finish_count[w] -= 1
        workers.running[w] -= 1
        workers.context_sum[w] -= requests.input_tokens[r] + requests.output_tokens[r]
        if workers.over_step[w] >= records.joined_step[r]:
            records.extrapolated[r] = 1
        leave(twin, w, r, t)


@compiled
def start_step(twin: Twin, w: int, t: float, prompt_s: float) -> None:
    """Begin the next step: one token for every running sequence, and `prompt_s` of prompts."""
    groups, workers = twin.groups, twin.workers
    g = workers.group[w]
    batch = workers.running[w]
    seconds = prompt_s
    if batch > 0:
        seconds += step_seconds(twin, g, batch, workers.context_sum[w] / batch)
        if batch > groups.measured_batch[g]:
            workers.over_step[w] = workers.step[w]
    workers.step_prompt_s[w] = prompt_s
    workers.step_started_s[w] = t
    workers.boundary_s[w] = t + seconds


@compiled
def admit_and_move(twin: Twin, w: int, t: float) -> None:
    """Decode: admit whom there is room for; its KV cache starts moving now."""
    workers = twin.workers
    while True:
        r = admit_next(twin, w)
        if r == NOBODY:
            break
        arrives_s = t + twin.transfer_s[workers.group[w], r]
        push(
            twin.moving_key[w],
            twin.moving_request[w],
            workers.moving_count[w],
            arrives_s,
            r,
        )
        workers.moving_count[w] += 1


@compiled
def decode_boundary(twin: Twin, w: int) -> None:
    """One boundary of a decode worker."""
    requests, workers, records = twin.requests, twin.workers, twin.records
    t = workers.boundary_s[w]
    if not math.isnan(workers.step_started_s[w]):
        r = workers.fresh[w]
        while r != NOBODY:
            records.first_token_s[r] = t
            r = records.next_request[r]
        workers.fresh[w] = NOBODY
        end_step(twin, w, t)
        workers.first_tokens[w] = 0
        workers.step_started_s[w] = np.nan
    admit_and_move(twin, w, t)
    while workers.moving_count[w] > 0 and twin.moving_key[w, 0] <= t:
        r = pop(twin.moving_key[w], twin.moving_request[w], workers.moving_count[w])
        workers.moving_count[w] -= 1
        join(twin, w, r, requests.input_tokens[r], requests.output_tokens[r])
        records.joined_s[r] = t
        records.next_request[r] = workers.fresh[w]
        workers.fresh[w] = r
        workers.first_tokens[w] += 1
    if workers.running[w] > 0:
        start_step(twin, w, t, 0.0)
    elif workers.moving_count[w] > 0:
        workers.boundary_s[w] = twin.moving_key[w, 0]
    else:
        workers.boundary_s[w] = np.inf


@compiled
def fill_with_prompts(twin: Twin, w: int, t: float) -> float:
    """Aggregated: spend the step's token budget on prompts, first come first served; seconds.

    A chunk costs its share of the whole prompt's measured time.
    """
    requests, groups, workers, records = twin.requests, twin.groups, twin.workers, twin.records
    g = workers.group[w]
    budget = max(groups.budget[g] - workers.running[w], 1)
    prompt_s = 0.0
    while budget > 0:
        r = workers.prompt[w]
        if r == NOBODY:
            r = admit_next(twin, w)
            if r == NOBODY:
                break
            workers.prompt[w] = r
            workers.prompt_left[w] = requests.new_tokens[r]
            records.prompt_started_s[r] = t
        chunk = min(workers.prompt_left[w], budget)
        prompt_s += twin.prefill_s[g, r] * chunk / requests.new_tokens[r]
        workers.prompt_left[w] -= chunk
        budget -= chunk
        if workers.prompt_left[w] == 0:
            workers.prompt[w] = NOBODY
            records.next_request[r] = workers.fresh[w]
            workers.fresh[w] = r
    return prompt_s


@compiled
def aggregated_boundary(twin: Twin, w: int) -> None:
    """One boundary of an aggregated worker: a completed prompt gives its first token."""
    requests, workers, records = twin.requests, twin.workers, twin.records
    t = workers.boundary_s[w]
    if not math.isnan(workers.step_started_s[w]):
        end_step(twin, w, t)
        workers.step_started_s[w] = np.nan
        workers.outstanding_s[w] -= workers.step_prompt_s[w]
        r = workers.fresh[w]
        workers.fresh[w] = NOBODY
        while r != NOBODY:
            following = records.next_request[r]
            records.first_token_s[r] = t
            records.joined_s[r] = t
            if requests.output_tokens[r] == 1:
                leave(twin, w, r, t)
            else:
                steps = requests.output_tokens[r] - 1
                join(twin, w, r, requests.input_tokens[r] + 1, steps)
            r = following
    prompt_s = fill_with_prompts(twin, w, t)
    if workers.running[w] > 0 or prompt_s > 0:
        start_step(twin, w, t, prompt_s)
    else:
        workers.boundary_s[w] = np.inf


@compiled
def advance(twin: Twin, w: int, t: float) -> None:
    """Bring a worker up to instant t, its boundaries at t included."""
    groups, workers = twin.groups, twin.workers
    if groups.role[workers.group[w]] == DECODE:
        while workers.boundary_s[w] <= t:
            decode_boundary(twin, w)
    else:
        while workers.boundary_s[w] <= t:
            aggregated_boundary(twin, w)


@compiled
def load_of(twin: Twin, w: int, r: int, t: float) -> float:
    """How loaded a worker is for a request: expected time to first token, or batch over speed."""
    requests, groups, workers = twin.requests, twin.groups, twin.workers
    g = workers.group[w]
    role = groups.role[g]
    if role == DECODE:
        return float((workers.present[w] + 1) / groups.speed[g])
    if role == PREFILL:
        return float(max(workers.free_s[w] - t, 0.0) + twin.prefill_s[g, r] + requests.handoff_s[r])
    batch = workers.running[w] + 1
    context = (workers.context_sum[w] + requests.input_tokens[r]) / batch
    waiting_s = max(workers.outstanding_s[w], 0.0) + twin.prefill_s[g, r]
    return float(waiting_s + step_seconds(twin, g, min(batch, groups.slots[g]), context))


@compiled
def choose(
    twin: Twin,
    r: int,
    t: float,
    decoding: bool,
    turn: int,
) -> int:
    """The worker for a prompt, or for its answer when `decoding`; NOBODY when none can hold it.

    Round robin begins at `turn`; when `turn` is NOBODY the least loaded is taken. Workers that
    are not ready are taken only when none is, the earliest first.
    """
    groups, workers = twin.groups, twin.workers
    count = len(workers.group)
    best, earliest = NOBODY, NOBODY
    best_load = np.inf
    for k in range(count):
        w = k if turn == NOBODY else (turn + k) % count
        g = workers.group[w]
        if (groups.role[g] == DECODE) != decoding or not twin.fits[g, r]:
            continue
        if workers.ready_s[w] > t:
            if earliest == NOBODY or workers.ready_s[w] < workers.ready_s[earliest]:
                earliest = w
            continue
        if turn != NOBODY:
            return w
        advance(twin, w, t)
        load = load_of(twin, w, r, t)
        tied = best != NOBODY and abs(load - best_load) <= 1e-12
        if (tied and workers.present[w] < workers.present[best]) or load < best_load - 1e-12:
            best, best_load = w, load
    return best if best != NOBODY else earliest


@compiled
def give_prompt(twin: Twin, w: int, r: int, t: float) -> float:
    """Hand an arrived request to a worker; when its prompt will be done (inf if aggregated)."""
    groups, workers, records = twin.groups, twin.workers, twin.records
    g = workers.group[w]
    records.first_group[r] = g
    if groups.role[g] == PREFILL:
        start = max(workers.free_s[w], t)
        workers.free_s[w] = start + twin.prefill_s[g, r]
        workers.busy_s[w] += twin.prefill_s[g, r]
        records.prompt_started_s[r] = start
        return float(workers.free_s[w])
    records.decode_group[r] = g
    advance(twin, w, t)
    workers.outstanding_s[w] += twin.prefill_s[g, r]
    wait_in_line(twin, w, r)
    if workers.boundary_s[w] == np.inf:
        workers.boundary_s[w] = max(t, workers.ready_s[w])
    return np.inf


@compiled
def give_answer(twin: Twin, w: int, r: int, t: float) -> None:
    """Hand a request whose prompt is done to a decode worker."""
    workers, records = twin.workers, twin.records
    records.decode_group[r] = workers.group[w]
    advance(twin, w, t)
    wait_in_line(twin, w, r)
    if workers.ready_s[w] > t:
        workers.boundary_s[w] = workers.ready_s[w]
        return
    admit_and_move(twin, w, t)
    if workers.running[w] == 0 and workers.moving_count[w] > 0:
        workers.boundary_s[w] = twin.moving_key[w, 0]


@compiled
def run(twin: Twin, in_turn: bool) -> None:
    """Route every request and let every worker finish; fills `workers` and `records`."""
    requests, groups, workers = twin.requests, twin.groups, twin.workers
    count = len(requests.arrival_s)
    done_s, done_request = twin.done_s, twin.done_request
    under_way = arrived = len(workers.group) * 0  # not a literal 0: that would compile twice
    prompt_turn = answer_turn = 0 if in_turn else NOBODY
    while arrived < count or under_way > 0:
        answering = under_way > 0 and (arrived == count or done_s[0] <= requests.arrival_s[arrived])
        if answering:
            t = done_s[0]
            r = pop(done_s, done_request, under_way)
            under_way -= 1
        else:
            t = requests.arrival_s[arrived]
            r = arrived
            arrived += 1
        w = choose(twin, r, t, answering, answer_turn if answering else prompt_turn)
        if w == NOBODY:
            continue  # no worker can hold it: rejected
        if in_turn and answering:
            answer_turn = w + 1
        elif in_turn:
            prompt_turn = w + 1
        if answering:
            give_answer(twin, w, r, t)
        else:
            done = give_prompt(twin, w, r, t)
            if done < np.inf:
                push(done_s, done_request, under_way, done, r)
                under_way += 1
    for w in range(len(workers.group)):
        if groups.role[workers.group[w]] != PREFILL:
            advance(twin, w, 1e300)

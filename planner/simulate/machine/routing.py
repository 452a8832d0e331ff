"""Which worker gets a request, and how it gets there."""

import math

import numpy as np

from planner.simulate.machine.cache import cached_in_units, cached_tokens, count_hits, forget_all
from planner.simulate.machine.compiled import compiled, compiled_into_caller
from planner.simulate.machine.line import finish, first_in_line, vacate, wait_in_line
from planner.simulate.machine.links import distance_of
from planner.simulate.machine.steps import (
    catch_up,
    end_prompt,
    look_for_end,
    release_source,
    steps_ended,
    wake,
)
from planner.simulate.machine.times import decode_seconds, prompt_seconds
from planner.simulate.state import (
    ABSENT,
    AWAY,
    DECODE,
    DRAINING,
    FAILED,
    IN_LINE,
    NOBODY,
    PREFILL,
    PREFIX_AWARE,
    REJECTED,
    ROUND_ROBIN,
    SERVING,
    TO_PULL,
    UNDER_WAY,
    Twin,
)


@compiled
def own_prompt_s(twin: Twin, w: int, r: int) -> float:
    """Seconds of a request's prompt on a worker, as its router sees it."""
    request = twin.requests[r]
    worker = twin.workers[w]
    cached = 0
    if twin.clock[0].router == PREFIX_AWARE or twin.unit_tokens == 0:
        cached = cached_tokens(twin, w, r)
    new = request.input_tokens - cached
    return prompt_seconds(twin, worker.group, float(new), float(cached))


@compiled
def with_hits_s(twin: Twin, w: int, r: int) -> float:
    """The same, from the `hits` that were counted for this prompt."""
    cached = cached_in_units(twin, r, twin.hits[w])
    new = twin.requests[r].input_tokens - cached
    return prompt_seconds(twin, twin.workers[w].group, float(new), float(cached))


@compiled
def handoff_s(twin: Twin, r: int) -> float:
    """What the prefill/decode way adds to TTFT on an idle deployment."""
    request = twin.requests[r]
    groups, prompt = twin.groups, request.input_tokens
    for g in range(len(groups)):
        group = twin.groups[g]
        if group.role == DECODE:
            kv_bytes = prompt * group.kv_bytes_per_token
            moved_s = group.transfer_base_s + kv_bytes / group.transfer_bytes_per_s
            return float(moved_s + decode_seconds(twin, g, 1, float(prompt)))
    return 0.0


@compiled
def waiting_for_prompt_s(  # noqa: PLR0917 (compiled functions take positions)
    twin: Twin, w: int, r: int, t: float, own_s: float, handoff: float
) -> float:
    """Seconds to the first token that a router expects of a worker; `own_s` for the prompt."""
    worker = twin.workers[w]
    group = twin.groups[worker.group]
    waiting_s = max(worker.outstanding_s, 0.0) + own_s
    if group.role == PREFILL:
        return float(waiting_s + handoff)
    batch = worker.running + 1
    tokens = worker.context_sum + worker.running * steps_ended(twin, w, t)
    context = (tokens + twin.requests[r].input_tokens) / batch
    step_s = decode_seconds(twin, worker.group, min(batch, group.slots), context)
    return float(waiting_s + step_s)


@compiled_into_caller
def look_into_caches(twin: Twin, r: int, t: float) -> None:
    """Count what every worker has of a prompt at t."""
    for w in range(len(twin.workers)):
        if twin.workers[w].running > 0:
            catch_up(twin, w, t)
    count_hits(twin, r)


@compiled
def choose(twin: Twin, r: int, t: float, decoding: bool, origin: int) -> int:
    """The worker for a prompt, or for its answer when `decoding`; NOBODY when none can hold it.

    `origin` is where the KV cache is, NOBODY for prompts. Workers that are not ready are taken
    only when none is, the earliest first.
    """
    workers, clock = twin.workers, twin.clock[0]
    count = len(workers)
    if clock.router == ROUND_ROBIN:
        return next_in_turn(twin, r, t, decoding)
    each_its_own = clock.router == PREFIX_AWARE and twin.unit_tokens > 0
    handoff = 0.0 if decoding else handoff_s(twin, r)
    if each_its_own and not decoding:
        look_into_caches(twin, r, t)
    best, earliest, seen = NOBODY, NOBODY, NOBODY
    best_load, own_s, speed = np.inf, 0.0, 1.0
    able = False
    for w in range(count):
        worker = workers[w]
        g = worker.group
        if g != seen:  # what the workers of a group have in common
            seen = g
            able = (twin.groups[g].role == DECODE) == decoding and twin.fits[g, r]
            speed = twin.groups[g].speed
            if able and not decoding and not each_its_own:
                own_s = own_prompt_s(twin, w, r)
        if not able or worker.state != SERVING:
            continue
        if worker.ready_s > t:
            if earliest == NOBODY or worker.ready_s < workers[earliest].ready_s:
                earliest = w
            continue
        if decoding:
            load = (worker.present + 1) / speed
        else:
            if each_its_own:
                own_s = with_hits_s(twin, w, r)
            load = waiting_for_prompt_s(twin, w, r, t, own_s, handoff)
        if load < best_load - 1e-12 or (
            best != NOBODY and load <= best_load + 1e-12 and goes_before(twin, w, best, origin)
        ):
            best, best_load = w, load
    return best if best != NOBODY else earliest


@compiled
def next_in_turn(twin: Twin, r: int, t: float, decoding: bool) -> int:
    """Round robin: the next ready worker that can hold the request, else the first to be ready."""
    workers, clock = twin.workers, twin.clock[0]
    turn = clock.answer_turn if decoding else clock.prompt_turn
    chosen = NOBODY
    for k in range(len(workers)):
        w = (turn + k) % len(workers)
        worker = workers[w]
        decodes = twin.groups[worker.group].role == DECODE
        if decodes != decoding or worker.state != SERVING or not twin.fits[worker.group, r]:
            continue
        if worker.ready_s <= t:
            chosen = w
            break
        if chosen == NOBODY or worker.ready_s < workers[chosen].ready_s:
            chosen = w
    if chosen != NOBODY:
        if decoding:
            clock.answer_turn = chosen + 1
        else:
            clock.prompt_turn = chosen + 1
    return chosen


@compiled
def goes_before(twin: Twin, w: int, best: int, origin: int) -> bool:
    """Among equally loaded workers: whether w is the better one."""
    worker = twin.workers[w]
    other = twin.workers[best]
    if worker.present != other.present:
        return bool(worker.present < other.present)
    if origin == NOBODY:
        return False
    return distance_of(twin, w, origin) < distance_of(twin, best, origin)


@compiled
def put_in_line(twin: Twin, w: int, r: int, t: float) -> None:
    """Give a request to a worker."""
    worker = twin.workers[w]
    wait_in_line(twin, w, r)
    twin.records[r].came_s = t
    twin.records[r].line_s = t
    look_for_end(twin, w, t)
    if worker.ready_s > t:
        wake(twin, w, worker.ready_s)
    elif worker.waiting == 1 or math.isnan(worker.started_s):
        wake(twin, w, t)


@compiled_into_caller
def local_decoder(twin: Twin, r: int, t: float) -> int:
    """Conditional disaggregation: the decode worker that computes a short prompt, or NOBODY."""
    request = twin.requests[r]
    clock = twin.clock[0]
    if clock.local_tokens == 0:
        return NOBODY
    turn = clock.answer_turn
    w = choose(twin, r, t, True, NOBODY)
    if w != NOBODY:
        catch_up(twin, w, t)
        if request.input_tokens - cached_tokens(twin, w, r) < clock.local_tokens:
            return w
    clock.answer_turn = turn
    return NOBODY


@compiled
def route_prompt(twin: Twin, r: int, t: float) -> None:
    """A request has arrived, or starts over."""
    record = twin.records[r]
    request = twin.requests[r]
    clock = twin.clock[0]
    w = local_decoder(twin, r, t)
    worker = twin.workers[w]
    if w == NOBODY:
        w = choose(twin, r, t, False, NOBODY)
        worker = twin.workers[w]
    if w == NOBODY:
        finish(twin, r, REJECTED, t)
        return
    if clock.early_rejection_s < np.inf:
        own_s = own_prompt_s(twin, w, r)
        expected_s = waiting_for_prompt_s(twin, w, r, t, own_s, handoff_s(twin, r))
        if twin.groups[worker.group].role == PREFILL:
            expected_s += shortest_answer_wait_s(twin, r, t)
        if expected_s + max(worker.ready_s - t, 0.0) > clock.early_rejection_s:
            finish(twin, r, REJECTED, t)
            return
    g = worker.group
    group = twin.groups[g]
    record.first_group = g
    if group.role != PREFILL:
        record.decode_group = g
    record.place = IN_LINE
    record.assumed_s = own_prompt_s(twin, w, r)
    worker.outstanding_s += record.assumed_s
    worker.queued_tokens += request.input_tokens
    put_in_line(twin, w, r, t)


@compiled_into_caller
def shortest_answer_wait_s(twin: Twin, r: int, t: float) -> float:
    """How long the first in line has waited, and until the worker is ready: the shortest."""
    shortest_s = np.inf
    for w in range(len(twin.workers)):
        worker = twin.workers[w]
        g = worker.group
        if twin.groups[g].role != DECODE or worker.state != SERVING or not twin.fits[g, r]:
            continue
        first = first_in_line(twin, w)
        waited_s = 0.0 if first == NOBODY else t - twin.records[first].line_s
        shortest_s = min(shortest_s, waited_s + max(worker.ready_s - t, 0.0))
    return 0.0 if shortest_s == np.inf else float(shortest_s)


@compiled_into_caller
def hand_over(twin: Twin, p: int, r: int, t: float) -> None:
    """A prefill worker has computed the prompt: a decode worker shall pull its KV cache."""
    record = twin.records[r]
    holder = twin.workers[p]
    record.prompt_done_s = t
    holder.slots_used -= 1
    holder.present -= 1
    holder.held += 1
    record.source = p
    w = choose(twin, r, t, True, p)
    worker = twin.workers[w]
    if w == NOBODY:
        release_source(twin, r, t)
        finish(twin, r, FAILED, t)
        return
    record.decode_group = worker.group
    record.place = TO_PULL
    put_in_line(twin, w, r, t)


@compiled_into_caller
def end_prompts(twin: Twin, w: int, t: float) -> None:
    """The prompts whose last chunk was in the step that ends."""
    worker = twin.workers[w]
    r = worker.prompts_head
    record = twin.records[r]
    request = twin.requests[r]
    worker.prompts_head = worker.prompts_tail = NOBODY
    prefills = twin.groups[worker.group].role == PREFILL
    while r != NOBODY:
        following = record.next_request
        if record.end != UNDER_WAY:
            vacate(twin, w, r, request.input_tokens + record.generated)
            record.place = AWAY
        elif prefills:
            hand_over(twin, w, r, t)
        else:
            end_prompt(twin, w, r, t)
        r = following
        record = twin.records[r]
        request = twin.requests[r]
    r = worker.prompt
    record = twin.records[r]
    request = twin.requests[r]
    if r != NOBODY and record.end != UNDER_WAY:
        worker.outstanding_s -= record.assumed_s - record.done_s
        vacate(twin, w, r, request.input_tokens + record.generated)
        record.place = AWAY
        worker.prompt = NOBODY


@compiled
def settle(twin: Twin, w: int, t: float) -> None:
    """A draining worker without work is gone, or changes its role."""
    worker = twin.workers[w]
    if worker.state != DRAINING or worker.present > 0 or worker.held > 0:
        return
    if not math.isnan(worker.started_s):
        return
    if worker.flips_to != NOBODY:
        before, after = worker.group, worker.flips_to
        group_before = twin.groups[before]
        group_after = twin.groups[after]
        if group_before.kv_blocks != group_after.kv_blocks or (
            group_before.unit_blocks != group_after.unit_blocks
        ):
            forget_all(twin, w)
        close_account(twin, w, t)
        worker.group = after
        worker.flips_to = NOBODY
        worker.state = SERVING
        worker.ordered_s = t
        worker.ready_s = max(worker.ready_s, t) + group_after.flip_s
        return
    retire(twin, w, t)


@compiled
def retire(twin: Twin, w: int, t: float) -> None:
    """The worker is gone; what it cost is kept."""
    worker = twin.workers[w]
    close_account(twin, w, t)
    forget_all(twin, w)
    worker.state = ABSENT
    worker.ordered_s = np.nan


@compiled
def close_account(twin: Twin, w: int, t: float) -> None:
    """A worker leaves its group: what it cost and did there is kept with the group."""
    worker = twin.workers[w]
    group = twin.groups[worker.group]
    paid_s = t - worker.ordered_s
    group.paid_s += paid_s
    group.starting_s += min(max(worker.ready_s - worker.ordered_s, 0.0), paid_s)
    group.busy_s += worker.busy_s
    group.most_kv = max(group.most_kv, worker.most_kv)
    worker.busy_s = 0.0
    worker.most_kv = 0

"""The sequences that a worker decodes: a heap by the step at which each ends.

KV blocks are not counted sequence by sequence. A sequence needs a block every `block_tokens`
steps, so all that matters is its *phase*, the step at which it does, modulo the block size.
"""

import math

from planner.simulate.machine.cache import give_back, make_room
from planner.simulate.machine.compiled import compiled
from planner.simulate.machine.heaps import lift, remove
from planner.simulate.machine.line import vacate, wait_in_front
from planner.simulate.machine.times import prompt_seconds
from planner.simulate.state import AWAY, NOBODY, RUNNING, Twin


@compiled
def first_entry(twin: Twin, w: int) -> int:
    """Where the worker's heap of running sequences begins."""
    return int(w * twin.newcomer.shape[1])


@compiled
def blocks_to_grow(twin: Twin, w: int, skip: int, steps: int) -> int:
    """Blocks that the batch takes in `steps` steps, after the next `skip` ones."""
    worker = twin.workers[w]
    size = twin.groups[worker.group].block_tokens
    blocks = 0
    if steps >= size:
        blocks = worker.running * (steps // size)
        steps %= size
    phase = (worker.step + skip) % size
    for _ in range(steps):
        blocks += twin.phases[w, phase]
        phase = phase + 1 if phase + 1 < size else 0
    return int(blocks)


@compiled
def join(twin: Twin, w: int, r: int, in_kv: int, steps: int) -> None:
    """Enter the batch with `in_kv` tokens in KV, to leave it after `steps` steps."""
    worker = twin.workers[w]
    record = twin.records[r]
    request = twin.requests[r]
    size = twin.groups[worker.group].block_tokens
    step = worker.step
    phase = (step - in_kv) % size
    record.place = RUNNING
    record.joined_step = step
    record.phase = phase
    twin.phases[w, phase] += 1
    worker.context_sum += request.input_tokens + request.output_tokens - steps
    lift(twin.batch, first_entry(twin, w), worker.running, float(step + steps), r)
    worker.running += 1


@compiled
def quit_batch(twin: Twin, w: int, at: int) -> int:
    """Take the entry at `at` of the heap out of the batch; tokens it had still to come."""
    worker = twin.workers[w]
    base = first_entry(twin, w)
    entry = twin.batch[base + at]
    record = twin.records[entry.request]
    request = twin.requests[entry.request]
    left = int(entry.key) - worker.step
    remove(twin.batch, base, worker.running, at)
    worker.running -= 1
    twin.phases[w, record.phase] -= 1
    worker.context_sum -= request.input_tokens + request.output_tokens - left
    if worker.over_step >= record.joined_step:
        record.extrapolated = 1
    return left


@compiled
def tokens_in_kv(twin: Twin, w: int, r: int) -> int:
    """Tokens of a running sequence whose KV is kept."""
    record = twin.records[r]
    worker = twin.workers[w]
    joined_with = record.prompt_done + worker.step - record.joined_step
    return int(joined_with)


@compiled
def first_leaver(twin: Twin, w: int) -> int:
    """Where in the heap the earliest request is whose client has gone, or -1."""
    worker = twin.workers[w]
    base, at, first = first_entry(twin, w), -1, NOBODY
    for i in range(worker.running):
        r = twin.batch[base + i].request
        gone = not math.isnan(twin.records[r].left_s)
        if gone and (first == NOBODY or r < first):
            at, first = i, r
    return at


@compiled
def let_go(twin: Twin, w: int) -> None:
    """Take out of the batch those whose client has gone, in order of arrival."""
    worker = twin.workers[w]
    worker.leavers = 0
    at = first_leaver(twin, w)
    while at >= 0:
        r = twin.batch[first_entry(twin, w) + at].request
        tokens = tokens_in_kv(twin, w, r)
        quit_batch(twin, w, at)
        vacate(twin, w, r, tokens)
        twin.records[r].place = AWAY
        at = first_leaver(twin, w)


@compiled
def forget_newcomer(twin: Twin, w: int, r: int) -> None:
    """The request has no first token to come any more, if it had."""
    worker = twin.workers[w]
    for i in range(worker.newcomers):
        if twin.newcomer[w, i] == r:
            worker.newcomers -= 1
            twin.newcomer[w, i] = twin.newcomer[w, worker.newcomers]
            return


@compiled
def preempt(twin: Twin, w: int, t: float) -> bool:
    """Take out the last admitted until the next step's new blocks are there; whether any was."""
    worker = twin.workers[w]
    capacity = twin.groups[worker.group].kv_blocks
    base, any_was = first_entry(twin, w), False
    if worker.kv_used + worker.running <= capacity:  # one block a sequence is the most
        return False
    while worker.running > 0 and (worker.kv_used + blocks_to_grow(twin, w, 0, 1) > capacity):
        at, r = -1, worker.prompt
        record = twin.records[r]
        request = twin.requests[r]
        for i in range(worker.running):
            other = twin.batch[base + i].request
            record_other = twin.records[other]
            if r == NOBODY or record_other.admission > record.admission:
                at, r = i, other
                record = twin.records[r]
                request = twin.requests[r]
        if at < 0:
            tokens = request.input_tokens + record.generated
            worker.outstanding_s -= record.assumed_s - record.done_s
            worker.prompt = NOBODY
        else:
            tokens = tokens_in_kv(twin, w, r)
            forget_newcomer(twin, w, r)
            left = quit_batch(twin, w, at)
            record.generated = request.output_tokens - left
            record.last_token_s = t
        give_back(twin, w, r, tokens)
        worker.slots_used -= 1
        record.preemptions += 1
        g = worker.group
        again = request.input_tokens + record.generated
        record.assumed_s = prompt_seconds(twin, g, float(again), 0.0)
        worker.outstanding_s += record.assumed_s
        record.line_s = t
        wait_in_front(twin, w, r)
        any_was = True
    return any_was


@compiled
def steps_ahead(twin: Twin, w: int) -> int:
    """How many decode steps there are before anything changes; the first has its blocks."""
    worker = twin.workers[w]
    steps = int(twin.batch[first_entry(twin, w)].key) - worker.step
    group = twin.groups[worker.group]
    free = group.kv_blocks - worker.kv_used
    size, batch = group.block_tokens, worker.running
    if batch * (steps + size) <= free * size:
        return int(max(steps, 1))
    rounds = free // batch  # in `size` steps every sequence takes one block
    sure = 1 + size * rounds
    free -= rounds * batch
    while sure < steps and twin.phases[w, (worker.step + sure) % size] <= free:
        free -= twin.phases[w, (worker.step + sure) % size]
        sure += 1
    return int(max(min(steps, sure), 1))


@compiled
def grow(twin: Twin, w: int, skip: int, steps: int) -> None:
    """Take the batch's blocks of `steps` steps, after the next `skip` ones."""
    worker = twin.workers[w]
    if worker.running > 0 and steps > 0:
        worker.kv_used += blocks_to_grow(twin, w, skip, steps)
        make_room(twin, w)
        worker.most_kv = max(worker.most_kv, worker.kv_used)

"""KV blocks of a worker, and the prefix blocks that it keeps.

A *unit* is a prefix block of the workload (512 tokens in Mooncake's traces); it takes
`unit_blocks` of the engine's blocks. `holders` has a bit for each worker that keeps a unit, so
that one look tells a router about all of them. Where a worker keeps it is found in one hash table
over (unit, worker), open addressing with linear probing; those that no request uses hang in a
list per worker, least recently used first.
"""

import numpy as np

from planner.simulate.machine.compiled import compiled
from planner.simulate.state import ALL_BITS, BITS, DECODE, NOBODY, Twin


@compiled
def blocks_of(twin: Twin, w: int, tokens: int) -> int:
    """Blocks that hold so many tokens."""
    worker = twin.workers[w]
    size = twin.groups[worker.group].block_tokens
    return int((tokens + size - 1) // size)


@compiled
def home_of(twin: Twin, key: int) -> int:
    """Where the search for a key begins (Fibonacci hashing)."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return int(np.int64(mixed >> np.uint64(20)) & (len(twin.table) - 1))


@compiled
def entry_of(twin: Twin, key: int) -> int:
    """The table's entry with this key, or the empty one where it would go."""
    table, last = twin.table, len(twin.table) - 1
    at = home_of(twin, key)
    while table[at] != NOBODY and twin.unit_slots[table[at]].key != key:
        at = (at + 1) & last
    return at


@compiled
def erase(twin: Twin, at: int) -> None:
    """Empty an entry, moving later ones up so that searches still find them."""
    table, last = twin.table, len(twin.table) - 1
    hole = at
    i = (hole + 1) & last
    while table[i] != NOBODY:
        home = home_of(twin, twin.unit_slots[table[i]].key)
        if ((i - home) & last) >= ((i - hole) & last):
            table[hole] = table[i]
            hole = i
        i = (i + 1) & last
    table[hole] = NOBODY


@compiled
def unlink(twin: Twin, w: int, slot: int) -> None:
    """Take an unused unit out of the worker's list."""
    unit = twin.unit_slots[slot]
    worker = twin.workers[w]
    before, after = unit.before, unit.after
    if before == NOBODY:
        worker.oldest_unit = after
    else:
        twin.unit_slots[before].after = after
    if after == NOBODY:
        worker.newest_unit = before
    else:
        twin.unit_slots[after].before = before


@compiled
def make_room(twin: Twin, w: int) -> None:
    """Forget unused units, least recently used first, until used and kept blocks fit."""
    worker = twin.workers[w]
    group = twin.groups[worker.group]
    while worker.kv_used + worker.kv_kept > group.kv_blocks:
        slot = worker.oldest_unit
        unit = twin.unit_slots[slot]
        unlink(twin, w, slot)
        erase(twin, entry_of(twin, unit.key))
        hold(twin, w, unit.key // len(twin.workers), False)
        unit.after = worker.spare_unit
        worker.spare_unit = slot
        worker.kv_kept -= group.unit_blocks


@compiled
def units_of(twin: Twin, r: int) -> int:
    """Full prefix blocks of a request's prompt."""
    request = twin.requests[r]
    return int(request.unit_to - request.unit_from)


@compiled
def key_of(twin: Twin, w: int, r: int, i: int) -> int:
    """The table's key of a request's i-th unit on a worker."""
    request = twin.requests[r]
    unit = twin.units[request.unit_from + i]
    return int(unit * len(twin.workers) + w)


@compiled
def is_kept(twin: Twin, w: int, r: int, i: int) -> bool:
    """Whether a worker keeps a request's i-th unit."""
    unit = twin.units[twin.requests[r].unit_from + i]
    return bool((twin.holders[unit, w // BITS] >> (w % BITS)) & 1)


@compiled
def hold(twin: Twin, w: int, unit: int, kept: bool) -> None:
    """Say whether a worker keeps a unit."""
    bit = np.int64(1) << (w % BITS)
    if kept:
        twin.holders[unit, w // BITS] |= bit
    else:
        twin.holders[unit, w // BITS] &= ~bit


@compiled
def count_hits(twin: Twin, r: int) -> None:
    """Write into `hits` how many leading units of a prompt each worker keeps."""
    request = twin.requests[r]
    count = units_of(twin, r)
    for word in range(twin.holders.shape[1]):
        first = word * BITS
        last = min(first + BITS, len(twin.workers))
        hopeful = np.int64(ALL_BITS)
        for w in range(first, last):
            twin.hits[w] = count
        for i in range(count):
            still = hopeful & twin.holders[twin.units[request.unit_from + i], word]
            lost = hopeful ^ still
            for w in range(first, last):
                if lost == 0:
                    break
                if lost & 1:
                    twin.hits[w] = i
                lost >>= 1
            hopeful = still
            if hopeful == 0:
                break


@compiled
def hit_units(twin: Twin, w: int, r: int) -> int:
    """Leading units of a request's prompt that the worker has."""
    count = units_of(twin, r)
    for i in range(count):
        if not is_kept(twin, w, r, i):
            return i
    return count


@compiled
def cached_tokens(twin: Twin, w: int, r: int) -> int:
    """Tokens of the prompt that the worker need not compute; at least one it must."""
    request = twin.requests[r]
    if twin.unit_tokens == 0:
        return int(min(request.cached_tokens, request.input_tokens - 1))
    return cached_in_units(twin, r, hit_units(twin, w, r))


@compiled
def cached_in_units(twin: Twin, r: int, hits: int) -> int:
    """Tokens that so many leading units of a prompt save."""
    return int(min(hits * twin.unit_tokens, twin.requests[r].input_tokens - 1))


@compiled
def has_room(twin: Twin, w: int, r: int, tokens: int) -> bool:
    """Whether blocks for `tokens` of a request are free, shared ones aside."""
    worker = twin.workers[w]
    group = twin.groups[worker.group]
    needed = blocks_of(twin, w, tokens)
    if worker.kv_used + needed <= group.kv_blocks:
        return True
    for i in range(units_of(twin, r)):
        if is_kept(twin, w, r, i):
            slot = twin.table[entry_of(twin, key_of(twin, w, r, i))]
            if twin.unit_slots[slot].users > 0:
                needed -= group.unit_blocks
    return bool(worker.kv_used + needed <= group.kv_blocks)


@compiled
def memo_of(twin: Twin, w: int) -> int:
    """The column of `slot_of`: a request can be on a prefill and on a decode worker at once."""
    return 1 if twin.groups[twin.workers[w].group].role == DECODE else 0


@compiled
def take(twin: Twin, w: int, r: int, tokens: int) -> None:
    """Give blocks for `tokens` of a request; its full prompt blocks are known from now on."""
    worker = twin.workers[w]
    unit_blocks = twin.groups[worker.group].unit_blocks
    count, first = units_of(twin, r), twin.requests[r].unit_from
    memo = memo_of(twin, w)
    missing = 0
    for i in range(count):  # what is there must not be forgotten to make room for the rest
        if not is_kept(twin, w, r, i):
            twin.slot_of[first + i, memo] = NOBODY
            missing += 1
            continue
        slot = twin.table[entry_of(twin, key_of(twin, w, r, i))]
        twin.slot_of[first + i, memo] = slot
        unit = twin.unit_slots[slot]
        if unit.users == 0:
            unlink(twin, w, slot)
            worker.kv_kept -= unit_blocks
            worker.kv_used += unit_blocks
        unit.users += 1
    own = blocks_of(twin, w, tokens) - count * unit_blocks
    worker.kv_used += own + missing * unit_blocks
    make_room(twin, w)
    if missing == 0:
        return
    for i in range(count):
        if twin.slot_of[first + i, memo] == NOBODY:
            slot = worker.spare_unit
            unit = twin.unit_slots[slot]
            worker.spare_unit = unit.after
            unit.key = key_of(twin, w, r, i)
            unit.users = 1
            twin.table[entry_of(twin, unit.key)] = slot
            twin.slot_of[first + i, memo] = slot
            hold(twin, w, twin.units[first + i], True)


@compiled
def give_back(twin: Twin, w: int, r: int, tokens: int) -> None:
    """Free a request's blocks, which hold `tokens`; its units stay until room is needed."""
    worker = twin.workers[w]
    unit_blocks = twin.groups[worker.group].unit_blocks
    count, first = units_of(twin, r), twin.requests[r].unit_from
    worker.kv_used -= blocks_of(twin, w, tokens) - count * unit_blocks
    memo = memo_of(twin, w)
    for k in range(count):
        slot = twin.slot_of[first + count - 1 - k, memo]
        unit = twin.unit_slots[slot]
        unit.users -= 1
        if unit.users > 0:
            continue
        worker.kv_used -= unit_blocks
        worker.kv_kept += unit_blocks
        newest = worker.newest_unit
        unit.before = newest
        unit.after = NOBODY
        if newest == NOBODY:
            worker.oldest_unit = slot
        else:
            twin.unit_slots[newest].after = slot
        worker.newest_unit = slot


@compiled
def forget_all(twin: Twin, w: int) -> None:
    """Empty a worker's cache."""
    worker = twin.workers[w]
    first, last = worker.first_unit, worker.last_unit
    for slot in range(first, last):
        unit = twin.unit_slots[slot]
        if unit.key >= 0 and twin.table[entry_of(twin, unit.key)] == slot:
            erase(twin, entry_of(twin, unit.key))
            hold(twin, w, unit.key // len(twin.workers), False)
        unit.users = 0
        unit.after = slot + 1 if slot + 1 < last else NOBODY
    worker.spare_unit = first if last > first else NOBODY
    worker.oldest_unit = NOBODY
    worker.newest_unit = NOBODY
    worker.kv_used = 0
    worker.kv_kept = 0

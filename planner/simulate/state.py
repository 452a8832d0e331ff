"""The twin's state as arrays: what the machine reads and writes.

Each set of columns is one structured array. Python reads it by columns (`workers.running` is an
array), the machine by rows (`workers[w].running` is a number): hence the two type parameters,
the columns' types of integers and of seconds and other real numbers.
"""

from typing import Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Small = NDArray[np.int32]

I = TypeVar("I")  # noqa: E741  # integers: a column, or the number in a row
Row = TypeVar("Row")
F = TypeVar("F")  # real numbers: the same

PREFILL, DECODE, AGGREGATED = 0, 1, 2
NOBODY = -1

# Where a request is.
AWAY, IN_LINE, COMPUTING, TO_PULL, MOVING, ARRIVED, RUNNING = range(7)

# How it ended.
UNDER_WAY, FINISHED, REJECTED, ABORTED, FAILED = range(5)

# What a worker is.
ABSENT, SERVING, DRAINING = range(3)

ROUND_ROBIN, LEAST_LOADED, PREFIX_AWARE = range(3)

# What can be done to a worker.
START, DRAIN, FLIP, FAIL = range(4)

SAME_NODE, SAME_RACK, CROSS_RACK = range(3)

BITS = 63  # workers in one word of `Twin.holders`
ALL_BITS = (1 << BITS) - 1

GAP_SHORTEST_S = 1e-6
GAP_RATIO = 1.01
MOST_SAMPLES = 1_000
GAP_BINS = 2_400  # up to 2e4 s


class Rows(Generic[Row]):
    """What the structured arrays can besides their columns, for the type checker only."""

    def __getitem__(self, row: int) -> Row:
        """One row, as a reference: writing to it writes to the array."""
        raise TypeError("columns are made by planner.simulate.columns.columns_of")

    def copy(self: Self) -> Self:
        """The same rows, in memory of their own."""
        raise TypeError("columns are made by planner.simulate.columns.columns_of")

    def __len__(self) -> int:
        """How many rows there are."""
        raise TypeError("columns are made by planner.simulate.columns.columns_of")


class Requests(Rows["Requests[int, float]"], Generic[I, F]):
    """What arrives: (requests,) columns."""

    arrival_s: F
    input_tokens: I
    output_tokens: I
    cached_tokens: I  # as the workload says; not used with a prefix cache
    unit_from: I  # its full prefix blocks in `units`
    unit_to: I


class Groups(Rows["Groups[int, float]"], Generic[I, F]):
    """Identical workers: (groups,) columns."""

    role: I
    contexts: I  # measured contexts
    shortest_s: F  # shortest decode step
    news: I  # measured prompt lengths
    cacheds: I  # measured cached lengths
    slots: I
    kv_blocks: I
    block_tokens: I
    unit_blocks: I  # blocks of one unit of the prefix cache
    budget: I  # prompt tokens per step
    speed: F  # relative decode speed, for routing
    measured_batch: I
    kv_bytes_per_token: F
    transfer_base_s: F
    transfer_bytes_per_s: F
    start_s: F
    flip_s: F
    ahead: I  # 1: a step is composed when the one before begins
    late: I  # 1: a KV cache that comes during a step is noticed when the next one ends
    most_kv: I  # most blocks in use on a worker that has left the group
    paid_s: F  # of all lives in the group that are over
    starting_s: F  # part of it: not ready yet
    busy_s: F  # part of it: with work


class Workers(Rows["Workers[int, float]"], Generic[I, F]):
    """State of each worker: (workers,) columns; what routing reads shares a cache line."""

    group: I
    state: I
    ready_s: F
    present: I  # slots used and waiting
    outstanding_s: F  # prompt work not done yet
    running: I  # sequences in the batch
    context_sum: I  # their prompt and answer tokens so far
    slots_used: I  # batch, prompts being computed, KV on its way
    started_s: F  # start of the steps in progress; nan when idle
    line_known_s: F  # the step that begins knows who came to the line before; inf: everybody
    kv_known_s: F  # the same of KV caches
    last_began_s: F  # start of the last step that has ended, or of the first since it was idle
    jump: I  # so many equal steps are in progress
    step_s: F  # the first of them
    slope_s: F  # each is so much longer than the one before
    chunks_s: F  # prompt work in the step
    step: I  # steps done
    grown: I  # steps in progress whose blocks are taken
    newcomers: I  # running sequences that get their first token after this step
    kv_used: I  # blocks in use
    kv_kept: I  # blocks kept for their prefix only
    waiting: I
    head: I  # waiting line
    tail: I
    prompt: I  # prompt computed in part
    prompts_head: I  # prompts that the step completes
    prompts_tail: I
    arrived_head: I  # KV has arrived, to join
    arrived_tail: I
    leavers: I  # running sequences whose client has gone
    rack: I
    node: I
    ordered_s: F  # paid for since; nan when absent
    life: I  # how often it was started
    flips_to: I  # the group it joins when it has drained
    held: I  # prompts computed here, still to be pulled
    queued_tokens: I  # prompt tokens in line
    admissions: I
    over_step: I  # last step with a batch larger than measured
    busy_s: F
    most_kv: I
    first_unit: I
    last_unit: I
    spare_unit: I
    oldest_unit: I
    newest_unit: I


class Records(Rows["Records[int, float]"], Generic[I, F]):
    """What happened to each request: (requests,) columns. nan: never."""

    prompt_started_s: F
    prompt_done_s: F
    joined_s: F
    first_token_s: F
    last_token_s: F  # when preempted
    finished_s: F
    left_s: F  # the client has gone
    came_s: F  # to the line, or with its KV cache
    line_s: F  # since when it stands in this line
    place: I
    end: I
    worker: I  # where it is
    source: I  # who holds its KV until it is pulled
    first_group: I
    decode_group: I
    admission: I
    generated: I  # tokens of the answer before the last preemption
    hit_tokens: I  # cached when last admitted for its prompt
    prompt_done: I  # tokens computed of it
    done_s: F  # what those took
    assumed_s: F  # prompt seconds counted in `outstanding_s`
    phase: I  # steps modulo block size at which a new block begins
    joined_step: I
    preemptions: I
    extrapolated: I  # 0 or 1
    next_request: I  # chains


class UnitSlots(Rows["UnitSlots[int, float]"], Generic[I, F]):
    """Places for prefix blocks, each worker's in a row: (slots,) columns."""

    key: I
    users: I
    before: I
    after: I


class Flows(Rows["Flows[int, float]"], Generic[I, F]):
    """Transfers on shared links: (flows,) columns, the active ones first."""

    request: I
    left_bytes: F
    rate: F
    out: I  # links on its way; NOBODY none
    into: I
    up: I
    down: I
    distance: I


class Entries(Rows["Entries[int, float]"], Generic[I, F]):
    """A heap's entries: (places,) columns."""

    key: F
    request: I


class Clock(Rows["Clock[int, float]"], Generic[I, F]):
    """The machine's own variables, one row."""

    now_s: F
    arrived: I  # requests
    departed: I  # clients who went away, of `departures`
    moving: I
    flows: I
    flowed_s: F  # `left_bytes` hold at this instant
    flow_end_s: F
    finished: I
    prompt_turn: I
    answer_turn: I
    nodes: I
    racks: I
    router: I
    local_tokens: I
    early_rejection_s: F
    unstable_wait_s: F
    stopped_by: I  # the worker with the endless line; NOBODY
    samples: I
    sample_s: F  # when the next sample is due
    sample_every_s: F


class Twin(NamedTuple):
    """The whole state.

    The column sets are structured arrays, typed by the classes above: to the compiler each is
    one argument instead of twenty, which is what keeps compiling short.
    """

    requests: Requests[Small, Floats]
    groups: Groups[Integers, Floats]
    workers: Workers[Integers, Floats]
    records: Records[Small, Floats]
    unit_slots: UnitSlots[Integers, Floats]
    flows: Flows[Integers, Floats]
    clock: Clock[Integers, Floats]
    fits: Flags  # (groups, requests) whether the group can hold it
    new: Floats  # (groups, news) measured prompt lengths
    cached: Floats  # (groups, cacheds) measured cached lengths
    prompt_s: Floats  # (groups, news, cacheds); the first row is for no new token at all
    context: Floats  # (groups, contexts) measured contexts
    decode_s: Floats  # (groups, batch + 1, contexts) step time per batch
    batch: Entries[Integers, Floats]  # (workers * slots,) a heap each: step at which who ends
    newcomer: Integers  # (workers, slots) running sequences that get their first token
    phases: Integers  # (workers, block tokens) sequences that need a block at such a step
    next_s: Floats  # (workers,) when each one's step ends; inf when idle
    tree: Integers  # tournament over workers; 1 is the root
    moving: Entries[Integers, Floats]  # (requests,) heap: instant at which a KV cache arrives
    departure_s: Floats  # clients who go away, in order of time
    departure: Integers
    finished: Integers  # (requests,) in order of finishing
    units: Integers  # ids of prefix blocks
    slot_of: Small  # (units, 2) the unit slot of each, on the prefill and on the decode side
    holders: Integers  # (ids, words) bits of the workers that keep a prefix block
    hits: Integers  # (workers,) leading units of a prompt that each keeps
    table: Integers  # hash table of unit slots
    link_bytes_per_s: Floats  # (links,)
    link_flows: Integers
    link_left: Floats  # while rates are set: bandwidth not given away yet,
    link_open: Integers  # and flows that have no rate yet
    distance_base_s: Floats  # (3,) by distance
    distance_flow_bytes_per_s: Floats
    gaps: Integers  # (GAP_BINS,) histogram of the gaps between tokens
    sampled_s: Floats  # (samples,) instants
    sampled: Floats  # (samples, groups, 4) ready, waiting, running, mean share of KV
    unit_tokens: int  # of one unit; 0: no prefix cache

"""A scenario laid out as the machine's arrays."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.profile import Profile, TimeTable
from planner.domain.topology import Distance, Place
from planner.domain.workload import Workload
from planner.simulate.columns import columns_of
from planner.simulate.routes import allowed_groups
from planner.simulate.scenario import ReplicaGroup, RouterPolicy, Scenario
from planner.simulate.state import (
    ABSENT,
    AGGREGATED,
    BITS,
    CROSS_RACK,
    DECODE,
    GAP_BINS,
    LEAST_LOADED,
    MOST_SAMPLES,
    NOBODY,
    PREFILL,
    PREFIX_AWARE,
    ROUND_ROBIN,
    SAME_NODE,
    SAME_RACK,
    SERVING,
    Clock,
    Entries,
    Flags,
    Floats,
    Flows,
    Groups,
    Integers,
    Records,
    Requests,
    Small,
    Twin,
    UnitSlots,
    Workers,
)

Kinds = tuple[tuple[Profile, Role, float], ...]
"""Of every group its profile, its role, and from ordering a replica until it serves, seconds."""

_MOST_KINDS = 16
"""Deployments whose times are kept; one with large batches takes a megabyte."""

_ROLES = {Role.PREFILL: PREFILL, Role.DECODE: DECODE, Role.AGGREGATED: AGGREGATED}
_ROUTERS = {
    RouterPolicy.ROUND_ROBIN: ROUND_ROBIN,
    RouterPolicy.LEAST_LOADED: LEAST_LOADED,
    RouterPolicy.PREFIX_AWARE: PREFIX_AWARE,
    RouterPolicy.BY_LENGTH: LEAST_LOADED,
}
_DISTANCES = {
    Distance.SAME_NODE: SAME_NODE,
    Distance.SAME_RACK: SAME_RACK,
    Distance.CROSS_RACK: CROSS_RACK,
}

SAMPLES = 240
"""Of the series, while requests arrive."""


def lay_out(scenario: Scenario) -> Twin:
    """The twin at offset 0: nothing has arrived, workers idle.

    Raises
    ------
    InputError
        When a request names the same prefix block twice.
    """
    groups, workload = scenario.groups, scenario.workload
    unit_tokens = _unit_tokens(scenario)
    kinds = tuple((g.profile, g.role, g.order_to_ready_s) for g in groups)
    times = _times(kinds, unit_tokens)
    columns, decode_s = times.groups.copy(), times.decode_s
    workers = _workers(groups, columns, unit_tokens)
    requests, units = _requests(workload, unit_tokens)
    heap = (len(workers.group), decode_s.shape[1] - 1)
    departure_s, departure = _departures(scenario)
    slots = int(workers.last_unit.max())
    flows = sum(g.room * g.profile.limits.max_num_seqs for g in groups)
    size = 1 << max(int(2 * slots).bit_length(), 1)
    links, base_s, flow_bytes_per_s = _links(scenario, workers)
    return Twin(
        requests=requests,
        groups=columns,
        workers=workers,
        records=_records(len(workload)),
        unit_slots=_unit_slots(workers, slots),
        flows=columns_of(Flows, flows if scenario.topology is not None else 1),
        clock=_clock(scenario, workers),
        fits=_fits(scenario, columns),
        new=times.new,
        cached=times.cached,
        prompt_s=times.prompt_s,
        context=times.context,
        decode_s=decode_s,
        batch=columns_of(Entries, heap[0] * heap[1]),
        newcomer=np.zeros(heap, dtype=np.int64),
        phases=np.zeros((heap[0], int(columns.block_tokens.max())), dtype=np.int64),
        next_s=np.full(len(workers.group), np.inf),
        tree=_tree(workers),
        moving=columns_of(Entries, len(workload) + 1),
        departure_s=departure_s,
        departure=departure,
        finished=np.zeros(len(workload), dtype=np.int64),
        units=units,
        slot_of=np.full((len(units), 2), NOBODY, dtype=np.int32),
        holders=np.zeros((int(units.max()) + 1, -(-len(workers.group) // BITS)), dtype=np.int64),
        hits=np.zeros(len(workers.group), dtype=np.int64),
        table=np.full(size, NOBODY, dtype=np.int64),
        link_bytes_per_s=links,
        link_flows=np.zeros(len(links), dtype=np.int64),
        link_left=np.zeros(len(links)),
        link_open=np.zeros(len(links), dtype=np.int64),
        distance_base_s=base_s,
        distance_flow_bytes_per_s=flow_bytes_per_s,
        gaps=np.zeros(GAP_BINS, dtype=np.int64),
        sampled_s=np.zeros(MOST_SAMPLES),
        sampled=np.zeros((MOST_SAMPLES, len(groups), 4)),
        unit_tokens=unit_tokens,
    )


def outside_prompts(profile: Profile, prompt: Integers, cached: Small) -> Flags:
    """(requests,) whether a prompt of so many tokens lies beyond what the profile measured."""
    return ~profile.prefill.covers(np.asarray(prompt - cached, float), np.asarray(cached, float))


def outside_answers(profile: Profile, workload: Workload) -> Flags:
    """(requests,) whether the context grows beyond what the profile measured."""
    context = np.asarray(workload.input_tokens + workload.output_tokens, float)
    return ~profile.decode_step.covers(np.zeros_like(context), context)


def _unit_tokens(scenario: Scenario) -> int:
    prefix = scenario.workload.prefix
    if prefix is None or not scenario.prefix_cache:
        return 0
    return prefix.block_tokens


def _fits(scenario: Scenario, columns: Groups[Integers, Floats]) -> Flags:
    """(groups, requests) whether the group can hold the request and is meant for it."""
    groups, workload = scenario.groups, scenario.workload
    new = np.maximum(workload.input_tokens - workload.cached_tokens, 1)
    fits = np.zeros((len(groups), len(workload)), dtype=np.bool_)
    for g, group in enumerate(groups):
        answer = 1 if group.role is Role.PREFILL else workload.output_tokens
        size = int(columns.block_tokens[g])
        blocks = -(-(workload.input_tokens + answer) // size)
        short = workload.input_tokens + answer <= group.profile.limits.max_model_len
        fits[g] = (blocks <= int(columns.kv_blocks[g])) & short & (group.room > 0)
    if scenario.routes:
        fits &= allowed_groups(scenario.routes, groups, workload, seed=scenario.routes_seed)
    decoders = [g for g, group in enumerate(groups) if group.role is Role.DECODE]
    for g, group in enumerate(groups):
        if group.role is Role.PREFILL:  # of no use without somebody to decode
            fits[g] &= fits[decoders].any(axis=0)
    if scenario.router is RouterPolicy.BY_LENGTH:
        for roles in ((Role.PREFILL, Role.AGGREGATED), (Role.DECODE,)):
            _by_length(fits, [g for g, x in enumerate(groups) if x.role in roles], groups, new)
    return fits


def _by_length(
    fits: Flags, those: list[int], groups: tuple[ReplicaGroup, ...], new: Floats
) -> None:
    """Leave each request the groups with the smallest `longest_prompt_tokens` that holds it."""
    bound = np.full((len(groups), fits.shape[1]), np.inf)
    for g in those:
        longest = groups[g].longest_prompt_tokens
        limit = np.inf if longest is None else float(longest)
        fits[g] &= new <= limit
        bound[g] = np.where(fits[g], limit, np.nan)
    smallest = np.nanmin(np.where(fits[those], bound[those], np.inf), axis=0, initial=np.inf)
    for g in those:
        fits[g] &= bound[g] == smallest


def _requests(workload: Workload, unit_tokens: int) -> tuple[Requests[Small, Floats], Integers]:
    """The requests, and the ids of their full prefix blocks, numbered densely."""
    requests = columns_of(Requests, len(workload), np.int32)
    requests.arrival_s[:] = workload.arrival_offset_s
    requests.input_tokens[:] = workload.input_tokens
    requests.output_tokens[:] = workload.output_tokens
    requests.cached_tokens[:] = workload.cached_tokens
    prefix = workload.prefix
    if unit_tokens == 0 or prefix is None:
        return requests, np.zeros(1, dtype=np.int64)
    full = np.minimum(np.diff(prefix.offsets), workload.input_tokens // unit_tokens)
    requests.unit_from[:] = prefix.offsets[:-1]
    requests.unit_to[:] = prefix.offsets[:-1] + full
    units = _dense(prefix.block_ids)
    owner = np.repeat(np.arange(len(workload)), np.diff(prefix.offsets))
    grows = (units[1:] > units[:-1]) | (owner[1:] > owner[:-1])
    if not bool(np.all(grows)):  # seldom: ids are mostly given out in order
        _check_repeats(owner * (int(units.max()) + 1) + units, int(units.max()) + 1)
    return requests, units


def _dense(ids: Integers) -> Integers:
    """The same ids, numbered so that they can be an index."""
    if len(ids) == 0:
        return np.zeros(1, dtype=np.int64)
    if int(ids.min()) >= 0 and int(ids.max()) < 4 * len(ids):
        return ids
    _, dense = np.unique(ids, return_inverse=True)
    return dense.astype(np.int64)


def _check_repeats(pairs: Integers, ids: int) -> None:
    order = np.sort(pairs)
    repeated = order[1:][order[1:] == order[:-1]]
    if len(repeated) > 0:
        raise InputError(
            f"request {int(repeated[0]) // ids} names one prefix block twice: ids must stand for "
            "tokens and all tokens before them; correct the trace, or replay it without a prefix "
            "cache"
        )


def _departures(scenario: Scenario) -> tuple[Floats, Integers]:
    """Clients that go away, in order of time."""
    if scenario.patience_s is None:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    leaves_s = scenario.workload.arrival_offset_s + scenario.patience_s
    going = np.flatnonzero(np.isfinite(leaves_s))
    order = going[np.argsort(leaves_s[going], kind="stable")]
    return leaves_s[order], order.astype(np.int64)


def with_origin(table: TimeTable) -> tuple[Floats, Floats, Floats]:
    """Axes and seconds of a prefill table, with a row for no new tokens at all.

    The first segment is continued to 0, within 0 and the first value; a table with one point is
    a line through 0.
    """
    x, seconds = table.x, table.seconds
    if x[0] == 0 and len(x) > 1:
        return x, table.y, seconds
    if len(x) == 1:
        first = max(float(x[0]), 1.0)
        return np.array([0.0, first]), table.y, np.vstack([np.zeros(len(table.y)), seconds[0]])
    slope = (seconds[1] - seconds[0]) / (x[1] - x[0])
    origin = np.clip(seconds[0] - slope * x[0], 0.0, seconds[0])
    return np.concatenate([[0.0], x]), table.y, np.vstack([origin, seconds])


class _Times(NamedTuple):
    """What a run is laid out with that does not depend on replicas and requests; only read."""

    groups: Groups[Integers, Floats]
    new: Floats
    cached: Floats
    prompt_s: Floats
    context: Floats
    decode_s: Floats


@lru_cache(maxsize=_MOST_KINDS)
def _times(kinds: Kinds, unit_tokens: int) -> _Times:
    columns = _groups(kinds, unit_tokens)
    profiles = [profile for profile, *_ in kinds]
    return _Times(columns, *_prompt_tables(profiles), *_decode_tables(profiles, columns))


def _prompt_tables(profiles: Sequence[Profile]) -> tuple[Floats, Floats, Floats]:
    tables = [with_origin(profile.prefill) for profile in profiles]
    news, cacheds = max(len(t[0]) for t in tables), max(len(t[1]) for t in tables)
    new, cached = np.zeros((len(tables), news)), np.zeros((len(tables), cacheds))
    seconds = np.zeros((len(tables), news, cacheds))
    for g, (x, y, table) in enumerate(tables):
        new[g, : len(x)], cached[g, : len(y)] = x, y
        seconds[g, : len(x), : len(y)] = table
    return new, cached, seconds


def _decode_tables(
    profiles: Sequence[Profile], columns: Groups[Integers, Floats]
) -> tuple[Floats, Floats]:
    """Measured contexts, and for every batch the step time at each of them."""
    most_slots = max(p.limits.max_num_seqs for p in profiles)
    most_contexts = max(len(p.decode_step.y) for p in profiles)
    context = np.zeros((len(profiles), most_contexts))
    step_s = np.ones((len(profiles), most_slots + 1, most_contexts))
    batch = np.arange(most_slots + 1, dtype=np.float64)
    for g, profile in enumerate(profiles):
        table = profile.decode_step
        context[g, : len(table.y)] = table.y
        step_s[g, :, : len(table.y)] = table.extended_at(batch[:, None], table.y[None, :])
        columns.speed[g] = 1.0 / step_s[g, profile.limits.max_num_seqs, 0]
    columns.speed[:] /= columns.speed.max()
    return context, step_s


def _groups(kinds: Kinds, unit_tokens: int) -> Groups[Integers, Floats]:
    columns = columns_of(Groups, len(kinds))
    for g, (profile, role, order_to_ready_s) in enumerate(kinds):
        limits, table = profile.limits, profile.decode_step
        # Prefix blocks must consist of whole blocks of the engine.
        size = int(np.gcd(limits.kv_block_tokens, unit_tokens or limits.kv_block_tokens))
        columns.role[g] = _ROLES[role]
        columns.contexts[g] = len(table.y)
        columns.shortest_s[g] = table.seconds.min()
        columns.news[g] = len(with_origin(profile.prefill)[0])
        columns.cacheds[g] = len(profile.prefill.y)
        columns.slots[g] = limits.max_num_seqs
        columns.block_tokens[g] = size
        columns.kv_blocks[g] = limits.kv_capacity_tokens // size
        columns.unit_blocks[g] = unit_tokens // size
        columns.budget[g] = limits.max_num_batched_tokens
        columns.measured_batch[g] = int(table.x[-1])
        columns.kv_bytes_per_token[g] = limits.kv_bytes_per_token
        columns.transfer_base_s[g] = profile.transfer.base_s
        columns.transfer_bytes_per_s[g] = profile.transfer.bandwidth_bytes_per_s
        columns.start_s[g] = order_to_ready_s
        columns.flip_s[g] = profile.lifecycle.flip_s
        columns.ahead[g] = int(limits.async_scheduling)
        columns.late[g] = int(limits.late_kv_notice)
    return columns


def _workers(
    groups: tuple[ReplicaGroup, ...], columns: Groups[Integers, Floats], unit_tokens: int
) -> Workers[Integers, Floats]:
    rooms = [g.room for g in groups]
    workers = columns_of(Workers, sum(rooms))
    workers.group[:] = np.repeat(np.arange(len(groups)), rooms)
    number = np.concatenate([np.arange(room) for room in rooms])
    serves = number < np.repeat([g.replicas for g in groups], rooms)
    workers.state[:] = np.where(serves, SERVING, ABSENT)
    workers.ordered_s[:] = np.where(serves, 0.0, np.nan)
    workers.ready_s[:] = np.repeat([g.start_delay_s for g in groups], rooms)
    places = [p for g in groups for p in (g.places or (Place(),) * g.room)]
    workers.rack[:] = [p.rack for p in places]
    workers.node[:] = [p.node for p in places]
    workers.started_s[:] = np.nan
    for chain in (
        workers.head, workers.tail, workers.prompt, workers.prompts_head, workers.prompts_tail,
        workers.arrived_head, workers.arrived_tail, workers.over_step, workers.flips_to,
        workers.spare_unit, workers.oldest_unit, workers.newest_unit,
    ):  # fmt: skip
        chain[:] = NOBODY
    if unit_tokens > 0:
        most = max(
            int(b) // int(u) for b, u in zip(columns.kv_blocks, columns.unit_blocks, strict=True)
        )
        workers.first_unit[:] = np.arange(len(number)) * (most + 1)
        workers.last_unit[:] = workers.first_unit + most + 1
        workers.spare_unit[:] = workers.first_unit
    return workers


def _unit_slots(workers: Workers[Integers, Floats], count: int) -> UnitSlots[Integers, Floats]:
    slots = columns_of(UnitSlots, max(count, 1))
    slots.key[:] = NOBODY
    slots.after[:] = np.arange(1, max(count, 1) + 1)
    slots.after[np.maximum(workers.last_unit - 1, 0)] = NOBODY
    return slots


def _tree(workers: Workers[Integers, Floats]) -> Integers:
    """The tournament's leaves are the workers; those beyond repeat the last one."""
    count = len(workers.group)
    size = 1 << max(count - 1, 1).bit_length()
    tree = np.zeros(2 * size, dtype=np.int64)
    tree[size:] = np.minimum(np.arange(size), count - 1)
    for i in range(size - 1, 0, -1):
        tree[i] = tree[2 * i]
    return tree


def _links(scenario: Scenario, workers: Workers[Integers, Floats]) -> tuple[Floats, Floats, Floats]:
    """Bandwidths: per node out, in, within; per rack out, in. And by distance: base, flow."""
    if scenario.topology is None:
        return np.zeros(0), np.zeros(3), np.ones(3)
    by = scenario.topology.links
    nodes, racks = int(workers.node.max()) + 1, int(workers.rack.max()) + 1
    out = by[Distance.SAME_RACK].link_bytes_per_s
    bandwidth = np.concatenate(
        [
            np.full(2 * nodes, out),
            np.full(nodes, by[Distance.SAME_NODE].link_bytes_per_s),
            np.full(2 * racks, by[Distance.CROSS_RACK].link_bytes_per_s),
        ]
    )
    base_s, flow = np.zeros(len(_DISTANCES)), np.zeros(len(_DISTANCES))
    for distance, row in _DISTANCES.items():
        base_s[row], flow[row] = by[distance].base_s, by[distance].flow_bytes_per_s
    return bandwidth, base_s, flow


def _clock(scenario: Scenario, workers: Workers[Integers, Floats]) -> Clock[Integers, Floats]:
    clock = columns_of(Clock, 1)
    clock.flow_end_s[:] = np.inf
    clock.nodes[:] = int(workers.node.max()) + 1
    clock.racks[:] = int(workers.rack.max()) + 1
    clock.router[:] = _ROUTERS[scenario.router]
    clock.local_tokens[:] = scenario.local_prefill_tokens
    clock.early_rejection_s[:] = scenario.early_rejection_s
    clock.unstable_wait_s[:] = scenario.unstable_wait_s
    clock.stopped_by[:] = NOBODY
    clock.sample_every_s[:] = max(scenario.workload.duration_s, 1e-3) / SAMPLES
    return clock


def _records(count: int) -> Records[Small, Floats]:
    records = columns_of(Records, count, np.int32)
    for instant in (
        records.prompt_started_s, records.prompt_done_s, records.joined_s, records.first_token_s,
        records.last_token_s, records.finished_s, records.left_s,
    ):  # fmt: skip
        instant[:] = np.nan
    for link in (
        records.worker, records.source, records.first_group,
        records.decode_group, records.next_request,
    ):  # fmt: skip
        link[:] = NOBODY
    return records

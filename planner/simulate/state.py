"""The state of the twin as columns, and how a scenario is laid out in them."""

from typing import NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.domain.workload import Workload
from planner.simulate.scenario import ReplicaGroup, Scenario

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Columns = TypeVar("Columns")

PREFILL, DECODE, AGGREGATED = 0, 1, 2
NOBODY = -1

GAP_SHORTEST_S = 1e-6
GAP_RATIO = 1.01
GAP_BINS = 2_400  # up to 2e4 s


class Requests:
    """What arrives: (requests,) columns."""

    arrival_s: Floats
    input_tokens: Integers
    output_tokens: Integers
    new_tokens: Integers
    handoff_s: Floats  # what the prefill/decode way adds to TTFT on an idle deployment


class Groups:
    """Identical workers: (groups,) columns."""

    role: Integers
    contexts: Integers  # measured contexts
    shortest_s: Floats
    slots: Integers
    kv_tokens: Integers
    budget: Integers  # prompt tokens per step
    speed: Floats  # relative decode speed, for routing
    measured_batch: Integers


class Workers:
    """State of each worker: (workers,) columns."""

    group: Integers
    ready_s: Floats
    free_s: Floats  # prefill: when it will have computed all its prompts
    boundary_s: Floats  # next boundary; inf when idle
    step_started_s: Floats  # start of the step in progress; nan when none is
    step: Integers  # steps done
    running: Integers  # sequences in the batch
    context_sum: Integers  # their prompt and answer tokens so far
    slots_used: Integers  # running, moving and computing a prompt
    kv_used: Integers
    present: Integers  # slots used and waiting
    outstanding_s: Floats  # prompt work not done yet
    step_prompt_s: Floats  # prompt work in the step in progress
    head: Integers  # waiting line
    tail: Integers
    fresh: Integers  # joined for the step in progress, or prompts that it completes (chain)
    first_tokens: Integers  # running sequences for which this step makes their first token
    prompt: Integers  # prompt computed in part
    prompt_left: Integers  # its tokens left
    over_step: Integers  # last step with a batch larger than measured
    finish_count: Integers
    moving_count: Integers
    busy_s: Floats


class Records:
    """What happened to each request: (requests,) columns. nan: never."""

    prompt_started_s: Floats
    joined_s: Floats
    first_token_s: Floats
    finished_s: Floats
    first_group: Integers
    decode_group: Integers
    joined_step: Integers
    next_request: Integers  # chains: waiting lines, fresh ones
    extrapolated: Integers  # 0 or 1


class Twin(NamedTuple):
    """The whole state.

    The four column sets are structured arrays, typed by the classes above: to the compiler each
    is one argument instead of twenty, which is what keeps compiling short.
    """

    requests: Requests
    groups: Groups
    workers: Workers
    records: Records
    prefill_s: Floats  # (groups, requests) seconds to compute the prompt
    transfer_s: Floats  # (groups, requests) seconds to pull its KV cache
    fits: Flags  # (groups, requests) whether the group can take it
    context: Floats  # (groups, contexts) measured contexts
    step_s: Floats  # (groups, batch + 1, contexts) step time per batch
    finish_key: Floats  # (workers, slots) heap: step at which a sequence ends
    finish_request: Integers
    moving_key: Floats  # (workers, slots) heap: instant at which a KV cache has arrived
    moving_request: Integers
    done_s: Floats  # (requests,) heap: instant at which a prompt is done
    done_request: Integers
    gaps: Integers  # (GAP_BINS,) histogram of the gaps between tokens


_ROLES = {Role.PREFILL: PREFILL, Role.DECODE: DECODE, Role.AGGREGATED: AGGREGATED}


def lay_out(scenario: Scenario) -> Twin:
    """The twin at offset 0: nothing has arrived, workers idle."""
    groups, workload = scenario.groups, scenario.workload
    context, step_s = _step_tables(groups)
    prefill_s, transfer_s, fits = _request_tables(groups, workload)
    workers = _workers(groups)
    heap = (len(workers.group), step_s.shape[1] - 1)
    return Twin(
        requests=_requests(workload, _handoff(groups, workload, transfer_s)),
        groups=_groups(groups, step_s),
        workers=workers,
        records=_records(len(workload)),
        prefill_s=prefill_s,
        transfer_s=transfer_s,
        fits=fits,
        context=context,
        step_s=step_s,
        finish_key=np.zeros(heap),
        finish_request=np.zeros(heap, dtype=np.int64),
        moving_key=np.zeros(heap),
        moving_request=np.zeros(heap, dtype=np.int64),
        done_s=np.zeros(len(workload)),
        done_request=np.zeros(len(workload), dtype=np.int64),
        gaps=np.zeros(GAP_BINS, dtype=np.int64),
    )


def columns_of(kind: type[Columns], count: int) -> Columns:
    """A structured array of zeros with the columns that `kind` declares."""
    fields = [
        (name, np.float64 if annotation == Floats else np.int64)
        for name, annotation in kind.__annotations__.items()
    ]
    return cast("Columns", np.zeros(count, dtype=fields).view(np.recarray))


def prompt_parts(workload: Workload) -> tuple[Floats, Floats]:
    """(requests,) prompt tokens to compute, at least one whatever is cached; and the others."""
    new = np.maximum(workload.input_tokens - workload.cached_tokens, 1).astype(np.float64)
    return new, workload.input_tokens - new


def outside_prompts(profile: Profile, workload: Workload) -> Flags:
    """(requests,) whether a prompt lies beyond what the profile measured."""
    return ~profile.prefill.covers(*prompt_parts(workload))


def outside_answers(profile: Profile, workload: Workload) -> Flags:
    """(requests,) whether the context grows beyond what the profile measured."""
    context = (workload.input_tokens + workload.output_tokens).astype(np.float64)
    return ~profile.decode_step.covers(np.zeros_like(context), context)


def _request_tables(
    groups: tuple[ReplicaGroup, ...], workload: Workload
) -> tuple[Floats, Floats, Flags]:
    """(groups, requests) prompt time, transfer time, and whether the group can take it."""
    new, cached = prompt_parts(workload)
    prompt = workload.input_tokens.astype(np.float64)
    shape = (len(groups), len(workload))
    prefill_s, transfer_s, fits = np.ones(shape), np.zeros(shape), np.zeros(shape, dtype=np.bool_)
    for g, group in enumerate(groups):
        limits = group.profile.limits
        if group.role is Role.DECODE:
            transfer_s[g] = group.profile.transfer.seconds(limits.kv_bytes_per_token * prompt)
        else:
            prefill_s[g] = group.profile.prefill.extended_at(new, cached)
        answer = 1 if group.role is Role.PREFILL else workload.output_tokens
        most = min(limits.kv_capacity_tokens, limits.max_model_len)
        fits[g] = (workload.input_tokens + answer <= most) & (group.replicas > 0)
    decoders = [g for g, group in enumerate(groups) if group.role is Role.DECODE]
    for g, group in enumerate(groups):
        if group.role is Role.PREFILL:  # of no use without somebody to decode
            fits[g] &= fits[decoders].any(axis=0)
    return prefill_s, transfer_s, fits


def _handoff(groups: tuple[ReplicaGroup, ...], workload: Workload, transfer_s: Floats) -> Floats:
    """(requests,) what the prefill/decode way adds to TTFT on an idle deployment, seconds."""
    for g, group in enumerate(groups):
        if group.role is Role.DECODE:
            prompt = workload.input_tokens.astype(np.float64)
            handoff_s: Floats = transfer_s[g] + group.profile.decode_step.extended_at(1.0, prompt)
            return handoff_s
    return np.zeros(len(workload))


def _requests(workload: Workload, handoff_s: Floats) -> Requests:
    requests = columns_of(Requests, len(workload))
    requests.arrival_s[:] = workload.arrival_offset_s
    requests.input_tokens[:] = workload.input_tokens
    requests.output_tokens[:] = workload.output_tokens
    requests.new_tokens[:] = prompt_parts(workload)[0]
    requests.handoff_s[:] = handoff_s
    return requests


def _step_tables(groups: tuple[ReplicaGroup, ...]) -> tuple[Floats, Floats]:
    """Measured contexts, and for every batch the step time at each of them."""
    most_slots = max(g.profile.limits.max_num_seqs for g in groups)
    most_contexts = max(len(g.profile.decode_step.y) for g in groups)
    context = np.zeros((len(groups), most_contexts))
    step_s = np.ones((len(groups), most_slots + 1, most_contexts))
    batch = np.arange(most_slots + 1, dtype=np.float64)
    for g, group in enumerate(groups):
        table = group.profile.decode_step
        context[g, : len(table.y)] = table.y
        step_s[g, :, : len(table.y)] = table.extended_at(batch[:, None], table.y[None, :])
    return context, step_s


def _groups(groups: tuple[ReplicaGroup, ...], step_s: Floats) -> Groups:
    columns = columns_of(Groups, len(groups))
    for g, group in enumerate(groups):
        limits, table = group.profile.limits, group.profile.decode_step
        columns.role[g] = _ROLES[group.role]
        columns.contexts[g] = len(table.y)
        columns.shortest_s[g] = table.seconds.min()
        columns.slots[g] = limits.max_num_seqs
        columns.kv_tokens[g] = limits.kv_capacity_tokens
        columns.budget[g] = limits.max_num_batched_tokens
        columns.speed[g] = 1.0 / step_s[g, limits.max_num_seqs, 0]
        columns.measured_batch[g] = int(table.x[-1])
    columns.speed[:] /= columns.speed.max()
    return columns


def _workers(groups: tuple[ReplicaGroup, ...]) -> Workers:
    counts = [g.replicas for g in groups]
    workers = columns_of(Workers, sum(counts))
    workers.group[:] = np.repeat(np.arange(len(groups)), counts)
    workers.ready_s[:] = np.repeat([g.start_delay_s for g in groups], counts)
    workers.free_s[:] = workers.ready_s
    workers.boundary_s[:] = np.inf
    workers.step_started_s[:] = np.nan
    for chain in (workers.head, workers.tail, workers.fresh, workers.prompt, workers.over_step):
        chain[:] = NOBODY
    return workers


def _records(count: int) -> Records:
    records = columns_of(Records, count)
    for instant in (
        records.prompt_started_s,
        records.joined_s,
        records.first_token_s,
        records.finished_s,
    ):
        instant[:] = np.nan
    for link in (records.first_group, records.decode_group, records.next_request):
        link[:] = NOBODY
    return records

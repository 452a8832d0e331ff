"""What should be known before a simulation's figures are believed, in sentences."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from planner.domain.fleet import Role
from planner.domain.spec import Spec
from planner.domain.wording import counted
from planner.service.answers.circumstances import Replicas, usd_per_gpu_hour
from planner.simulate import Outcome, ReplicaGroup, RouterPolicy, Scenario, SimulationResult

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

HOLE_RATIO = 0.05
HOLE_GAPS = 20.0
HOLE_S = 60.0
"""A time without requests is called a hole when it is longer than this share of the interval,
so many mean gaps and so many seconds: arrivals at random have such a gap less than once in
10^6 traces."""


def flags_of(
    spec: Spec,
    pools: Sequence[Replicas],
    scenario: Scenario,
    result: SimulationResult,
    *,
    given: bool,
) -> tuple[str, ...]:
    """One sentence each.

    Parameters
    ----------
    result : SimulationResult
        The run, or the first of the futures.
    given : bool
        Whether its requests were given, not drawn.
    """
    return (
        *_pools(spec, pools),
        *_router(scenario, given=given),
        *_blocks(pools, scenario),
        *_rejected(scenario, result, given=given),
        *_stranded(result, given=given),
        *_too_late(scenario, result),
        *_outside(pools, scenario, result),
        *(holes(result.arrival_s, scenario.workload.duration_s) if given else ()),
    )


def _pools(spec: Spec, pools: Sequence[Replicas]) -> Iterator[str]:
    for number, pool in enumerate(pools):
        if pool.replicas == 0:
            yield f"pool {number} ({pool.shape.label}) is empty: it has no replica that serves"
        if pool.replicas > 0 and usd_per_gpu_hour(spec, pool) is None:
            yield (
                f"the spec has no {pool.purchase_option} price for {pool.shape.accelerator}: the "
                f"cost of pool {number} ({pool.shape.label}) is left out"
            )


def _router(scenario: Scenario, *, given: bool) -> Iterator[str]:
    blocks = given and scenario.workload.prefix is not None
    if scenario.router is RouterPolicy.PREFIX_AWARE and not (blocks and scenario.prefix_cache):
        requests = "the requests" if given else "futures"
        why = "the prefix cache is off" if blocks else f"{requests} name no prefix blocks"
        yield f"router prefix_aware knows no more than least_loaded here: {why}"
    if scenario.router is RouterPolicy.BY_LENGTH and all(
        group.longest_prompt_tokens is None for group in scenario.groups
    ):
        yield "router by_length acts as least_loaded here: no pool was given a longest prompt"


def _blocks(pools: Sequence[Replicas], scenario: Scenario) -> Iterator[str]:
    """KV blocks that prefix blocks do not consist of: both are then counted in smaller ones."""
    prefix = scenario.workload.prefix
    if prefix is None or not scenario.prefix_cache:
        return
    for number, (pool, group) in enumerate(zip(pools, scenario.groups, strict=True)):
        block = group.profile.limits.kv_block_tokens
        if prefix.block_tokens % block:
            yield (
                f"the requests' prefix blocks of {prefix.block_tokens} tokens do not consist of "
                f"whole KV blocks of {block} (pool {number}, {pool.shape.label}): its memory is "
                f"counted in blocks of {math.gcd(prefix.block_tokens, block)}, which wastes less"
            )


def _rejected(scenario: Scenario, result: SimulationResult, *, given: bool) -> Iterator[str]:
    """Why requests were rejected, where nobody asked for that (early rejection was asked for)."""
    where = "" if given else " of the first future"
    rejected = result.outcome == Outcome.REJECTED
    too_long = rejected & ~_fit(scenario, result)
    if too_long.any():
        first = int(np.argmax(too_long))
        yield (
            f"rejected because no replica can hold them{where}: {too_long.sum():,} of "
            f"{counted(len(rejected), 'request')}, the first is request {first} (counted from 0) "
            "at "
            f"{result.arrival_s[first]:,.1f} s with {result.input_tokens[first]:,} + "
            f"{result.output_tokens[first]:,} tokens; {_rooms(scenario)} by KV cache and "
            "max_model_len"
        )
    others = int((rejected & ~too_long).sum())
    if others and scenario.early_rejection_s == math.inf:
        by_length = scenario.router is RouterPolicy.BY_LENGTH
        why = "every pool's longest prompt is shorter, or " if by_length else ""
        yield (
            f"rejected because {why}no replica was left to take them{where}: {others:,} of "
            f"{counted(len(rejected), 'request')}"
        )


def _stranded(result: SimulationResult, *, given: bool) -> Iterator[str]:
    """Prompts computed for nothing; after a failure, requests without a token start over."""
    where = "" if given else " of the first future"
    stranded = int(((result.outcome == Outcome.FAILED) & np.isnan(result.ttft_s)).sum())
    if stranded:
        yield (
            f"failed because no decode replica was left to write the answer{where}: {stranded:,} "
            f"of {counted(len(result.outcome), 'request')}"
        )


def _fit(scenario: Scenario, result: SimulationResult) -> Flags:
    """(requests,) whether prompt and answer fit into the replicas that there are."""
    whole = result.input_tokens + result.output_tokens
    alone = whole <= _most(scenario, Role.AGGREGATED)
    prompt = result.input_tokens + 1 <= _most(scenario, Role.PREFILL)
    return np.asarray(alone | (prompt & (whole <= _most(scenario, Role.DECODE))))


def _rooms(scenario: Scenario) -> str:
    """The longest request that fits, and the longest prompt where that is the tighter bound."""
    whole = max(_most(scenario, Role.AGGREGATED), _most(scenario, Role.DECODE))
    prompt = _most(scenario, Role.PREFILL)
    shorter = f" ({prompt - 1:,} of prompt on prefill)" if 0 < prompt < whole else ""
    return f"{whole:,} fit{shorter}"


def _most(scenario: Scenario, role: Role) -> int:
    """The longest request that replicas of a role can hold, tokens; 0 without any."""
    rooms = (room_tokens(g) for g in scenario.groups if g.role is role and g.room > 0)
    return max(rooms, default=0)


def room_tokens(group: ReplicaGroup) -> int:
    """The longest request, prompt and answer, that a replica of the group can hold, tokens."""
    limits = group.profile.limits
    size = limits.kv_block_tokens
    return min(limits.kv_capacity_tokens // size * size, limits.max_model_len)


def _too_late(scenario: Scenario, result: SimulationResult) -> Iterator[str]:
    for event in scenario.events:
        if event.at_s > result.end_s:
            yield (
                f"the {event.incident} at {event.at_s:,g} s comes after the run's end "
                f"({result.end_s:,.0f} s): it did not happen"
            )


def _outside(
    pools: Sequence[Replicas], scenario: Scenario, result: SimulationResult
) -> Iterator[str]:
    """Lengths beyond what a profile measured, by pool."""
    for number, (pool, group) in enumerate(zip(pools, scenario.groups, strict=True)):
        name = f"pool {number} ({pool.shape.label}, profile {group.profile.profile_id})"
        table = group.profile.prefill
        own = result.prompt_group == number
        new = (result.input_tokens - result.cached_tokens)[own]
        if len(new) and new.max() > table.x[-1]:
            yield (
                f"{name} computed prompts of up to {new.max():,} tokens but was measured up to "
                f"{table.x[-1]:,.0f}: times beyond are extrapolated"
            )
        cached = result.cached_tokens[own]
        if table.reach is not None and not bool(
            np.all(table.covers(np.minimum(new, table.x[-1]), cached))
        ):
            yield (
                f"{name} took up to {cached.max():,} tokens of a prompt from the cache but was not "
                f"measured so far (up to {table.reach[0]:,.0f} tokens with short prompts, "
                f"{table.reach[-1]:,.0f} with long ones): times beyond are extrapolated"
            )
        yield from _long_answers(name, group, result, result.decode_group == number)


def _long_answers(
    name: str, group: ReplicaGroup, result: SimulationResult, own: Flags
) -> Iterator[str]:
    """Contexts beyond what was measured, and batches that were not measured with such contexts."""
    step, most = group.profile.decode_step, group.profile.limits.max_num_seqs
    context = (result.input_tokens + result.output_tokens)[own]
    if len(context) == 0:
        return
    if (len(step.y) > 1 or step.reach is not None) and context.max() > step.y[-1]:
        yield (
            f"{name} decoded with contexts of up to {context.max():,} tokens but was measured "
            f"up to {step.y[-1]:,.0f}: times beyond are extrapolated"
        )
    usual = float(np.median(context))
    if step.reach is not None and step.most_x(usual) < min(most, step.x[-1]):
        yield (
            f"{name} may decode {most:,} sequences at once but was measured up to "
            f"{step.most_x(usual):,.0f} with contexts of {usual:,.0f} tokens: steps of more are "
            "extrapolated"
        )


def holes(arrival_s: Floats, duration_s: float) -> Iterator[str]:
    """Long times without a request: a quiet night, or a part that was not recorded."""
    if len(arrival_s) < 2:
        return
    edges = np.concatenate([[0.0], arrival_s, [duration_s]])
    gaps = np.diff(edges)
    longest = int(np.argmax(gaps))
    usual_s = (duration_s - float(gaps[longest])) / len(gaps)
    if gaps[longest] > max(HOLE_RATIO * duration_s, HOLE_GAPS * usual_s, HOLE_S):
        yield (
            f"no request arrives for {gaps[longest]:,.0f} s from {edges[longest]:,.0f} s on: "
            "if the trace has a hole there, the figures flatter"
        )

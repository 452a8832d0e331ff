"""A trace made to fit another machine: shorter requests, another rate, finer arrivals."""

from dataclasses import replace

import numpy as np

from forecaster.prefixes import cached_tokens
from planner.domain.workload import Floats, Integers, PrefixBlocks, Workload


def rescale(
    workload: Workload,
    *,
    length_ratio: float,
    rate_ratio: float,
    max_input_tokens: int,
    max_output_tokens: int,
) -> Workload:
    """The same requests with other lengths, at another pace.

    Lengths are multiplied by `length_ratio`, rounded, and kept within 1 and the maxima. Prefix
    blocks shrink alike: their tokens are rounded to a whole number of at least 1, cached tokens
    follow the rounded block, and blocks beyond a request's new end are dropped. The rate changes
    by stretching time; no request is left out, because thinning a trace destroys its bursts.

    Parameters
    ----------
    length_ratio, rate_ratio : float
        New length over old, new rate over old.

    Raises
    ------
    ValueError
        When a ratio is not above 0 or a maximum is below 1.
    """
    for field, value in (("length_ratio", length_ratio), ("rate_ratio", rate_ratio)):
        if not 0 < value < np.inf:
            raise ValueError(f"{field} must be above 0 and finite, got {value:g}")
    for field, most in (
        ("max_input_tokens", max_input_tokens),
        ("max_output_tokens", max_output_tokens),
    ):
        if most < 1:
            raise ValueError(f"{field} must be at least 1, got {most}")
    input_tokens = _scaled(workload.input_tokens, length_ratio, max_input_tokens)
    prefix = _scaled_prefix(workload.prefix, length_ratio, input_tokens)
    cached_ratio = (
        length_ratio
        if prefix is None or workload.prefix is None
        else prefix.block_tokens / workload.prefix.block_tokens
    )
    cached = np.rint(workload.cached_tokens * cached_ratio).astype(np.int64)
    return Workload(
        start_at=workload.start_at,
        arrival_offset_s=workload.arrival_offset_s / rate_ratio,
        input_tokens=input_tokens,
        output_tokens=_scaled(workload.output_tokens, length_ratio, max_output_tokens),
        # The last prompt token is always computed, as in the reader.
        cached_tokens=np.minimum(cached, input_tokens - 1),
        request_class=workload.request_class,
        duration_s=workload.duration_s / rate_ratio,
        prefix=prefix,
    )


def _scaled(tokens: Integers, ratio: float, most: int) -> Integers:
    scaled: Integers = np.clip(np.rint(tokens * ratio), 1, most).astype(np.int64)
    return scaled


def _scaled_prefix(
    prefix: PrefixBlocks | None, ratio: float, input_tokens: Integers
) -> PrefixBlocks | None:
    if prefix is None:
        return None
    block_tokens = max(1, round(prefix.block_tokens * ratio))
    had = np.diff(prefix.offsets)
    kept = np.minimum(had, -(-input_tokens // block_tokens))
    position = np.arange(len(prefix.block_ids)) - np.repeat(prefix.offsets[:-1], had)
    return PrefixBlocks(
        block_tokens=block_tokens,
        offsets=np.concatenate([[0], np.cumsum(kept)]).astype(np.int64),
        block_ids=prefix.block_ids[position < np.repeat(kept, had)],
    )


def reblock(workload: Workload, *, block_tokens: int) -> Workload:
    """The same requests with prefix blocks of another size.

    A new block is shared where the old one that holds its last token is. Cached tokens are
    counted again: with larger blocks fewer are, as the last shared one is cut off.
    """
    old = workload.prefix
    if old is None or old.block_tokens == block_tokens:
        return workload
    had = np.diff(old.offsets)
    covered = np.minimum(workload.input_tokens, had * old.block_tokens)
    counts = -(-covered // block_tokens)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    last = np.minimum((position + 1) * block_tokens, np.repeat(covered, counts)) - 1
    holder = old.block_ids[np.repeat(old.offsets[:-1], counts) + last // old.block_tokens]
    _, known = np.unique(holder, return_inverse=True)
    _, ids = np.unique(known * (int(counts.max(initial=0)) + 1) + position, return_inverse=True)
    prefix = PrefixBlocks(
        block_tokens=block_tokens, offsets=offsets, block_ids=ids.astype(np.int64)
    )
    return replace(
        workload, prefix=prefix, cached_tokens=cached_tokens(prefix, workload.input_tokens)
    )


def spread_ticks(workload: Workload, *, tick_s: float, rng: np.random.Generator) -> Workload:
    """The same requests with arrivals spread evenly inside their clock tick.

    Undoes a coarse clock (`ReadReport.arrival_tick_s`): each arrival moves later by less than one
    tick. Requests keep their order, so prefixes and cached tokens stay true.

    Raises
    ------
    ValueError
        When `tick_s` is not above 0.
    """
    if not 0 < tick_s < np.inf:
        raise ValueError(f"tick_s must be above 0 s and finite, got {tick_s:g}")
    moved: Floats = np.sort(workload.arrival_offset_s + tick_s * rng.random(len(workload)))
    last_s = float(moved[-1]) if len(moved) else 0.0
    return Workload(
        start_at=workload.start_at,
        arrival_offset_s=moved,
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        cached_tokens=workload.cached_tokens,
        request_class=workload.request_class,
        duration_s=max(workload.duration_s, last_s),
        prefix=workload.prefix,
    )

"""Which leading part of a prompt an earlier prompt already had."""

from collections.abc import Sequence

import numpy as np

from planner.domain.workload import Integers, PrefixBlocks


def leading_seen(block_ids: Sequence[int], seen: set[int]) -> int:
    """How many leading blocks were seen before; the first new block ends the prefix."""
    for position, block_id in enumerate(block_ids):
        if block_id not in seen:
            return position
    return len(block_ids)


def cached_tokens_of(seen_blocks: int, *, block_tokens: int, input_tokens: int) -> int:
    """Prompt tokens that an unbounded prefix cache would save.

    At most `input_tokens - 1`: an engine computes at least the last prompt token, whose output
    it needs for the first answer token.
    """
    return min(seen_blocks * block_tokens, input_tokens - 1)


def cached_tokens(blocks: PrefixBlocks, input_tokens: Integers) -> Integers:
    """(requests,) prompt tokens that an earlier request already had, in order of arrival."""
    seen: set[int] = set()
    cached = np.zeros(len(input_tokens), dtype=np.int64)
    for index, tokens in enumerate(input_tokens.tolist()):
        ids = blocks.of(index).tolist()
        cached[index] = cached_tokens_of(
            leading_seen(ids, seen), block_tokens=blocks.block_tokens, input_tokens=tokens
        )
        seen.update(ids)
    return cached

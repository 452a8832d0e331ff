"""What one worker's KV cache holds, as its events tell it.

Memory: about 100 bytes for a block that is held (`benchmarks/serving/kv.py` measures it), and 200
at the most for one that was evicted and is remembered. The worker's own capacity bounds the first;
`REMEMBERED_BLOCKS` bounds the second, and `MOST_BLOCKS` both when events of evictions are lost.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from serving.kv.events import Batch, Cleared, Event, Medium, Removed, Stored

MOST_BLOCKS = 2_000_000
"""Blocks of one worker and medium; 32 million tokens in blocks of 16."""
REMEMBERED_BLOCKS = 100_000
"""Evicted blocks that are remembered, to see whether they are wanted again."""
AGE_BUCKETS = 24
"""Ages are counted by doublings from one second: up to 97 days."""


@dataclass(slots=True)
class Ages:
    """A histogram of seconds by doublings; bucket 0 is below one second."""

    counts: list[int] = field(default_factory=lambda: [0] * AGE_BUCKETS)

    def add(self, seconds: float) -> None:
        """Count one."""
        bucket = 0 if seconds < 1 else min(int(math.log2(seconds)) + 1, AGE_BUCKETS - 1)
        self.counts[bucket] += 1

    @property
    def median_s(self) -> float | None:
        """The median, seconds, to a factor of 1.4 (middle of its bucket); None without any."""
        total = sum(self.counts)
        if total == 0:
            return None
        seen = 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if 2 * seen >= total:
                return 0.5 if bucket == 0 else 2.0 ** (bucket - 0.5)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheTotals:
    """Counts since the view began; subtract two for an interval.

    Parameters
    ----------
    stored_blocks : int
        Blocks that were computed or received, and cached.
    stored_again_blocks : int
        Those of them that were in the cache already: requests with the same prompt at the same
        time, and the last block of a prompt that was found whole (vLLM computes it once more).
    evicted_blocks : int
    wanted_again_blocks : int
        Stored blocks that this worker had evicted before: a larger cache would have had them.
    """

    stored_blocks: int = 0
    stored_again_blocks: int = 0
    evicted_blocks: int = 0
    wanted_again_blocks: int = 0

    def __sub__(self, earlier: "CacheTotals") -> "CacheTotals":
        return CacheTotals(
            stored_blocks=self.stored_blocks - earlier.stored_blocks,
            stored_again_blocks=self.stored_again_blocks - earlier.stored_again_blocks,
            evicted_blocks=self.evicted_blocks - earlier.evicted_blocks,
            wanted_again_blocks=self.wanted_again_blocks - earlier.wanted_again_blocks,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What lies in one medium."""

    medium: Medium
    blocks: int
    tokens: int


@dataclass(slots=True)
class WorkerCache:
    """One worker's cache. `apply` takes its events in their order.

    Parameters
    ----------
    block_tokens : int
        Tokens of a block, as the last stored event says; 0 before any.
    overflowed_blocks : int
        Blocks that were forgotten because more are said to be held than `most_blocks`: events of
        their eviction must have been lost.
    """

    most_blocks: int = MOST_BLOCKS
    remembered_blocks: int = REMEMBERED_BLOCKS
    block_tokens: int = 0
    overflowed_blocks: int = 0
    ages: Ages = field(default_factory=Ages)
    _held: dict[Medium, dict[int, float]] = field(default_factory=dict)
    _tokens: dict[Medium, int] = field(default_factory=dict)
    _odd: dict[Medium, dict[int, int]] = field(default_factory=dict)
    _evicted: "OrderedDict[int, None]" = field(default_factory=OrderedDict)
    _stored: int = 0
    _again: int = 0
    _removed: int = 0
    _wanted: int = 0

    def apply(self, batch: Batch) -> None:
        """Take in one step's events."""
        for event in batch.events:
            self.take(event, batch.at_s)

    def take(self, event: Event, at_s: float) -> None:
        """Take in one event."""
        if isinstance(event, Stored):
            self._store(event, at_s)
        elif isinstance(event, Removed):
            self._remove(event, at_s)
        elif isinstance(event, Cleared):
            self.clear()

    def clear(self) -> None:
        """The cache is empty: it was reset, or the worker began anew."""
        self._held.clear()
        self._tokens.clear()
        self._odd.clear()
        self._evicted.clear()

    def holds(self, block: int) -> bool:
        """Whether a block lies in any medium."""
        return any(block in held for held in self._held.values())

    @property
    def held(self) -> tuple[Held, ...]:
        """What is held, by medium."""
        return tuple(
            Held(medium=medium, blocks=len(self._held[medium]), tokens=self._tokens[medium])
            for medium in Medium
            if self._held.get(medium)
        )

    @property
    def totals(self) -> CacheTotals:
        """Counts since the view began."""
        return CacheTotals(
            stored_blocks=self._stored,
            stored_again_blocks=self._again,
            evicted_blocks=self._removed,
            wanted_again_blocks=self._wanted,
        )

    def _store(self, event: Stored, at_s: float) -> None:
        medium = event.medium
        held = self._held.setdefault(medium, {})
        if medium not in self._tokens:
            self._tokens[medium] = 0
        self._set_block_tokens(event.block_tokens)
        new = 0
        for block in event.blocks:
            if block in held:
                self._again += 1
            else:
                new += 1
            if block in self._evicted:
                del self._evicted[block]
                self._wanted += 1
            held[block] = at_s
            if not event.counts_tokens or event.block_tokens != self.block_tokens:
                self._odd.setdefault(medium, {})[block] = (
                    event.block_tokens if event.counts_tokens else 0
                )
        self._stored += len(event.blocks)
        if event.counts_tokens:
            self._tokens[medium] += new * event.block_tokens
        while len(held) > self.most_blocks:
            self._drop(medium, next(iter(held)))
            self.overflowed_blocks += 1

    def _set_block_tokens(self, tokens: int) -> None:
        """Blocks are as large as the largest; what was held before is smaller."""
        if tokens <= self.block_tokens:
            return
        for medium, held in self._held.items():
            odd = self._odd.setdefault(medium, {})
            for block in held:
                odd.setdefault(block, self.block_tokens)
        self.block_tokens = tokens

    def _remove(self, event: Removed, at_s: float) -> None:
        for block in event.blocks:
            stored_at_s = self._drop(event.medium, block)
            self._removed += 1
            if stored_at_s is not None:
                self.ages.add(at_s - stored_at_s)
            if not self.holds(block):
                self._evicted[block] = None
                self._evicted.move_to_end(block)
        while len(self._evicted) > self.remembered_blocks:
            self._evicted.popitem(last=False)

    def _drop(self, medium: Medium, block: int) -> float | None:
        """Take a block out; when it was stored, or None where it is not known."""
        stored_at_s = self._held.get(medium, {}).pop(block, None)
        odd = self._odd.get(medium, {}).pop(block, None)
        if stored_at_s is not None:
            self._tokens[medium] -= self.block_tokens if odd is None else odd
        return stored_at_s

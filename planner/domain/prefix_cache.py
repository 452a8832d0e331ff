"""How much of its prompts a traffic finds in prefix caches of another size."""

import math
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheReuse:
    """Share of prompt tokens that one LRU prefix cache of this size saves."""

    cache_tokens: int
    reuse_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixCache:
    """The prefix caches that prompts met, and what that traffic would find in smaller and larger.

    Parameters
    ----------
    cache_tokens : int
        KV cache of all replicas that compute prompts, together.
    reuse : tuple of CacheReuse
        Share of prompt tokens found, by size, smallest first: taken as one cache, so that it says
        how reuse changes with size, and not what a router finds.
    """

    cache_tokens: int
    reuse: tuple[CacheReuse, ...]

    def __post_init__(self) -> None:
        if self.cache_tokens < 1:
            raise ValueError(f"cache_tokens must be at least 1, got {self.cache_tokens}")
        if not self.reuse:
            raise ValueError("reuse needs at least one size")
        for one in self.reuse:
            if one.cache_tokens < 1 or not 0 <= one.reuse_ratio <= 1:
                raise ValueError(
                    "reuse needs cache_tokens of at least 1 and reuse_ratio in [0, 1], got "
                    f"{one.cache_tokens} and {one.reuse_ratio:g}"
                )
        for smaller, larger in pairwise(self.reuse):
            if smaller.cache_tokens >= larger.cache_tokens:
                raise ValueError("reuse must be in order of cache_tokens, each size once")

    def reuse_at(self, cache_tokens: int) -> float:
        """Share found in a cache of this size, between measured sizes by the logarithm of size.

        Beyond the smallest and the largest measured size it stays what it is there.
        """
        smallest, largest = self.reuse[0], self.reuse[-1]
        if cache_tokens <= smallest.cache_tokens:
            return smallest.reuse_ratio
        for before, after in pairwise(self.reuse):
            if cache_tokens <= after.cache_tokens:
                way = math.log(cache_tokens / before.cache_tokens) / math.log(
                    after.cache_tokens / before.cache_tokens
                )
                return before.reuse_ratio + way * (after.reuse_ratio - before.reuse_ratio)
        return largest.reuse_ratio

    def change(self, *, before_tokens: int, after_tokens: int) -> float:
        """Factor of the share found when the cache goes from one size to another.

        1 where nothing is found in the first: a factor of nothing tells nothing.
        """
        before = self.reuse_at(before_tokens)
        return self.reuse_at(after_tokens) / before if before > 0 else 1.0

"""Prefix caches and what traffic would find in caches of other sizes, as JSON."""

from typing import Annotated, Self

from pydantic import Field

from planner.domain.prefix_cache import CacheReuse, PrefixCache
from planner.service.documents.document import Document, Number

CacheTokens = Annotated[int, Field(ge=1, le=10**13, description="tokens, whole caches together")]


class CacheReuseDocument(Document):
    """What one LRU prefix cache of a size saves."""

    cache_tokens: CacheTokens
    reuse_ratio: Annotated[float, Number, Field(ge=0, le=1, description="of prompt tokens, 0..1")]


class PrefixCacheDocument(Document):
    """The prefix caches of all replicas that compute prompts; `poolwise kv --json` prints it."""

    cache_tokens: CacheTokens
    reuse: list[CacheReuseDocument] = Field(min_length=1, max_length=100)

    @classmethod
    def of(cls, caches: PrefixCache) -> Self:
        """The document of some caches."""
        return cls(
            cache_tokens=caches.cache_tokens,
            reuse=[CacheReuseDocument.model_validate(one) for one in caches.reuse],
        )

    def prefix_cache(self) -> PrefixCache:
        """The caches; ValueError when sizes are not in order."""
        return PrefixCache(
            cache_tokens=self.cache_tokens,
            reuse=tuple(
                CacheReuse(cache_tokens=one.cache_tokens, reuse_ratio=one.reuse_ratio)
                for one in self.reuse
            ),
        )

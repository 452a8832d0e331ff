"""The KV view as JSON."""

from collections.abc import Sequence
from typing import Self

from planner.domain.fleet import Role
from planner.service.documents.document import Document
from planner.service.documents.prefix_cache import PrefixCacheDocument
from serving.kv.events import Medium
from serving.kv.policy import PolicyAdvice
from serving.kv.view import KvSnapshot
from serving.routers.policies import RouterPolicy


class HeldDocument(Document):
    """What lies in one medium."""

    medium: Medium
    blocks: int
    tokens: int


class HitSourcesDocument(Document):
    """Where the KV cache of prompt tokens came from; shares sum to 1."""

    tokens_per_s: float
    computed_ratio: float
    local_ratio: float
    transferred_ratio: float


class WorkerKvDocument(Document):
    """One worker; see `serving.kv.view.WorkerKv`. Null: not known."""

    name: str
    role: Role
    listening: bool
    is_complete: bool
    missing_batches: int
    restarts: int
    held: list[HeldDocument]
    held_tokens: int
    block_tokens: int
    capacity_tokens: int | None
    cached_ratio: float | None
    usage_ratio: float | None
    kv_bytes_per_token: float | None
    waiting: float | None
    preemptions_per_s: float | None
    stored_per_s: float
    evicted_per_s: float
    wanted_again_ratio: float | None
    eviction_age_s: float | None
    sources: HitSourcesDocument | None


class ReuseDocument(Document):
    """Shares of prompts' blocks that caches would have held; see `serving.kv.reuse`."""

    blocks: int
    sample_ratio: float
    found_ratio: float
    infinite_ratio: float
    cache_aware_ratio: float
    blind_ratio: float


class PolicyDocument(Document):
    """A recommended router policy."""

    role: Role
    policy: RouterPolicy
    option: str
    reasons: list[str]
    saved_ratio: float | None


class KvDocument(Document):
    """All workers, what their prompts could share, and the policies that suit them."""

    seconds: float
    prefix_reuse_ratio: float | None
    reuse: ReuseDocument | None
    reuse_so_far: ReuseDocument | None
    prefix_cache: PrefixCacheDocument | None
    workers: list[WorkerKvDocument]
    policies: list[PolicyDocument]

    @classmethod
    def of(cls, snapshot: KvSnapshot, policies: Sequence[PolicyAdvice]) -> Self:
        """The document of a snapshot."""
        so_far, caches = snapshot.reuse_so_far, snapshot.prefix_cache
        return cls(
            seconds=snapshot.seconds,
            prefix_reuse_ratio=snapshot.prefix_reuse_ratio,
            reuse=None if snapshot.reuse is None else ReuseDocument.model_validate(snapshot.reuse),
            reuse_so_far=None if so_far is None else ReuseDocument.model_validate(so_far),
            prefix_cache=None if caches is None else PrefixCacheDocument.of(caches),
            workers=[WorkerKvDocument.model_validate(w) for w in snapshot.workers],
            policies=[PolicyDocument.model_validate(p) for p in policies],
        )

"""What runs: replicas, pools of them, and the fleet."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import total_ordering
from hashlib import sha256

from planner.domain.hardware import PurchaseOption
from planner.domain.model import Dtype


class Role(StrEnum):
    """What a replica does with a request: its prompt, its answer, or both."""

    PREFILL = "prefill"
    DECODE = "decode"
    AGGREGATED = "aggregated"


@total_ordering
@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaShape:
    """One kind of replica. Everything that changes its speed is in here.

    Parameters
    ----------
    tp, pp, dp : int
        Tensor, pipeline and data parallel degrees; accelerators = tp x pp x dp.
    engine_flags : tuple of str
        Engine options that differ from the profile's defaults, in the engine's own spelling.
    weight_dtype, kv_dtype : Dtype or None
        Formats of weights and KV cache; None: the model's own.
    max_num_batched_tokens, max_num_seqs : int or None
        Tokens computed in one step (chunk size) and sequences decoded together at the most;
        None: as its profile was measured.
    """

    role: Role
    model: str
    accelerator: str
    tp: int = 1
    pp: int = 1
    dp: int = 1
    engine_flags: tuple[str, ...] = ()
    weight_dtype: Dtype | None = None
    kv_dtype: Dtype | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None

    def __post_init__(self) -> None:
        for name in ("tp", "pp", "dp", "max_num_batched_tokens", "max_num_seqs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def __lt__(self, other: "ReplicaShape") -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[str | int | tuple[str, ...], ...]:
        own = self.weight_dtype or "", self.kv_dtype or ""
        limits = self.max_num_batched_tokens or 0, self.max_num_seqs or 0
        degrees = self.tp, self.pp, self.dp
        place = self.role, self.model, self.accelerator
        return (*place, *degrees, self.engine_flags, *own, *limits)

    @property
    def accelerators(self) -> int:
        """Accelerators that one replica occupies."""
        return self.tp * self.pp * self.dp

    @property
    def engine(self) -> tuple[str | int | tuple[str, ...], ...]:
        """All but the role: the model's engine as it runs. Roles can be flipped within it."""
        return self._order[1:]

    @property
    def label(self) -> str:
        """A short name for tables and solver rows, as in `decode:h100:tp2`.

        What is not as usual follows: `decode:h100:tp4:pp2:w-fp8:kv-fp8:chunk2048:seqs64`.
        """
        more = (
            ("pp", self.pp if self.pp > 1 else None),
            ("dp", self.dp if self.dp > 1 else None),
            ("w-", self.weight_dtype),
            ("kv-", self.kv_dtype),
            ("chunk", self.max_num_batched_tokens),
            ("seqs", self.max_num_seqs),
        )
        suffixes = "".join(f":{name}{value}" for name, value in more if value is not None)
        return f"{self.role}:{self.accelerator}:tp{self.tp}{suffixes}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Identical replicas under one purchase option, by state.

    `ready` replicas take traffic; `starting` and `draining` ones occupy accelerators without
    taking new traffic. `stuck` ones were to start, but did not come in time, or found no place:
    nobody waits for them any more, and they are taken back. A target does not know of them, so
    that they are no part of a fleet's version.
    """

    shape: ReplicaShape
    purchase_option: PurchaseOption = PurchaseOption.ON_DEMAND
    ready: int = 0
    starting: int = 0
    draining: int = 0
    stuck: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        for name in ("ready", "starting", "draining", "stuck"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} of pool {self.shape.label} must be at least 0")

    @property
    def replicas(self) -> int:
        """Replicas that serve or soon will: ready + starting."""
        return self.ready + self.starting

    @property
    def accelerators(self) -> int:
        """Accelerators occupied, draining replicas included."""
        return (self.asked + self.draining) * self.shape.accelerators

    @property
    def asked(self) -> int:
        """Replicas that the target was asked for, those that do not come included."""
        return self.replicas + self.stuck


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPool:
    """The part of a pool that stands in one topology cell."""

    cell: str
    pool: Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All pools of a deployment at one instant.

    Parameters
    ----------
    read_at : datetime
        When it was observed, with a time zone.
    version : str
        Changes whenever the counts do; a plan is bound to the version it was made from.
    by_cell : tuple of CellPool
        The same replicas by topology cell; empty where nobody knows, or there are no cells.

    Raises
    ------
    ValueError
        When a pool is listed twice, or the cells hold other replicas than the pools.
    """

    pools: tuple[Pool, ...]
    read_at: datetime
    version: str
    by_cell: tuple[CellPool, ...] = ()

    def __post_init__(self) -> None:
        keys = [(p.shape, p.purchase_option) for p in self.pools]
        if len(keys) != len(set(keys)):
            raise ValueError("a fleet lists each pool once: (shape, purchase_option) repeats")
        if self.read_at.tzinfo is None:
            raise ValueError("read_at needs a time zone")
        parts = [(p.cell, p.pool.shape, p.pool.purchase_option) for p in self.by_cell]
        if len(parts) != len(set(parts)):
            raise ValueError(
                "a fleet lists each pool once a cell: (shape, purchase_option) repeats"
            )
        if self.by_cell and _occupied(merged(self.by_cell)) != _occupied(self.pools):
            raise ValueError("the cells hold other replicas than the pools: give every pool a cell")

    def runs(self, model: str, accelerator: str) -> bool:
        """Whether a replica of a model runs on an accelerator: another one starts warm there."""
        return any(
            (p.shape.model, p.shape.accelerator) == (model, accelerator) and p.replicas > 0
            for p in self.pools
        )

    @property
    def is_placed(self) -> bool:
        """Whether the cell of every replica is known."""
        return bool(self.by_cell) or not _occupied(self.pools)

    def replicas(self, role: Role, *, model: str | None = None) -> int:
        """Replicas (ready + starting) in a role, of one model or of all."""
        return sum(
            p.replicas
            for p in self.pools
            if p.shape.role == role and (model is None or p.shape.model == model)
        )

    def pool(self, shape: ReplicaShape, purchase_option: PurchaseOption) -> Pool:
        """The pool of this shape, an empty one when there is none."""
        for pool in self.pools:
            if pool.shape == shape and pool.purchase_option == purchase_option:
                return pool
        return Pool(shape=shape, purchase_option=purchase_option)


def version_of(pools: Iterable[Pool]) -> str:
    """Derive a fleet's version from its pools: equal pools, equal version, in any order."""
    return sha256(repr(_occupied(pools)).encode()).hexdigest()[:16]


def merged(parts: Iterable[CellPool]) -> tuple[Pool, ...]:
    """The pools that parts of them in cells make up."""
    whole: dict[tuple[ReplicaShape, PurchaseOption], Pool] = {}
    for part in (p.pool for p in parts):
        key = part.shape, part.purchase_option
        before = whole.get(key) or Pool(shape=part.shape, purchase_option=part.purchase_option)
        whole[key] = replace(
            before,
            ready=before.ready + part.ready,
            starting=before.starting + part.starting,
            draining=before.draining + part.draining,
            stuck=before.stuck + part.stuck,
        )
    return tuple(whole[key] for key in sorted(whole))


def _occupied(pools: Iterable[Pool]) -> list[Pool]:
    """Pools with replicas, in order."""
    occupied = [p for p in pools if p.asked or p.draining]
    return sorted(occupied, key=lambda p: (p.shape, p.purchase_option))

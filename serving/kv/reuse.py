"""What share of the prompts a cache could have held: an infinite one, and those there are.

Every stored block is a reference to it. Its parent tells which prompt it goes on from: where that
is not one that is being written right now, the request found it in the cache, and its ancestors
count as referenced too. The references go into ghosts, which hold hashes and no KV cache:

* everything seen so far (an infinite cache),
* one cache of the present size per worker, each request sent to the one that holds most of it,
* the same, with requests sent anywhere (evenly, by a fixed sequence that looks random: in turn,
  traffic that is periodic too would always meet the same worker),
* one cache for all together, of a quarter to four times the present size: how reuse goes with size.

Only a sample of the blocks is tracked, chosen by hash, with caches smaller by the same factor: hit
ratios of LRU caches stay what they are. The sample halves when it grows past `most_blocks`, so
memory is bounded (about 900 bytes for a tracked block, all ghosts together).

What is not seen: a request whose whole blocks were all in the cache stores nothing, so that no
event tells of it, unless it asked for `kv_cache_report_mode: full` (in the request's
`vllm_xargs`). On aggregated workers answers are stored like prompts and count as such.

References
----------
Waldspurger et al., Efficient MRC Construction with SHARDS (FAST '15): spatially hashed sampling
with scaled cache sizes.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from serving.kv.events import Batch, Cleared, Medium, Stored

MOST_TRACKED = 50_000
OPEN_S = 30.0
"""A prompt or answer whose last block was stored longer ago is no longer being written."""
MOST_OPEN = 10_000
LONGEST_PROMPT_BLOCKS = 20_000
LEAST_BLOCKS = 200
"""Referenced blocks before a reuse potential says anything."""
SIZES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the present caches together, for reuse by size."""
MATCH_RATIO = 0.3
"""Share of a prompt that a cache must hold before it draws the request: smg's default."""

_MULTIPLIER, _INCREMENT = 6364136223846793005, 1442695040888963407
"""Knuth's linear congruential generator (MMIX): the same draws for the same events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReuseTotals:
    """Referenced blocks since the view began; subtract two for an interval.

    Parameters
    ----------
    referenced : int
        Blocks of prompts; from the sample, where it is one.
    seen_before : int
        Those that an infinite cache would have held.
    found : int
        Those that their own worker did hold.
    cache_aware, blind : int
        Those that caches of the present size would have held, by routing.
    """

    referenced: int = 0
    found: int = 0
    seen_before: int = 0
    cache_aware: int = 0
    blind: int = 0

    def __sub__(self, earlier: "ReuseTotals") -> "ReuseTotals":
        return ReuseTotals(
            referenced=self.referenced - earlier.referenced,
            found=self.found - earlier.found,
            seen_before=self.seen_before - earlier.seen_before,
            cache_aware=self.cache_aware - earlier.cache_aware,
            blind=self.blind - earlier.blind,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReusePotential:
    """Shares of the prompts' whole blocks, 0..1.

    Parameters
    ----------
    blocks : int
        Referenced blocks that it is made of.
    sample_ratio : float
        Share of all blocks that is tracked.
    found_ratio : float
        Found by their own worker, as they were routed.
    infinite_ratio : float
        Found in a cache of any size that all workers share.
    cache_aware_ratio : float
        Found in caches of the present size, each request sent where most of it lies.
    blind_ratio : float
        The same, with requests sent anywhere.
    """

    blocks: int
    sample_ratio: float
    found_ratio: float
    infinite_ratio: float
    cache_aware_ratio: float
    blind_ratio: float


def potential(totals: ReuseTotals, *, sample_ratio: float) -> ReusePotential | None:
    """Shares of an interval's references; None without any."""
    if totals.referenced <= 0:
        return None
    return ReusePotential(
        blocks=totals.referenced,
        sample_ratio=sample_ratio,
        found_ratio=totals.found / totals.referenced,
        infinite_ratio=totals.seen_before / totals.referenced,
        cache_aware_ratio=totals.cache_aware / totals.referenced,
        blind_ratio=totals.blind / totals.referenced,
    )


@dataclass(slots=True)
class _Ghost:
    """An LRU cache of hashes, `blocks` large."""

    blocks: int
    used: int = 0
    lru: "OrderedDict[int, None]" = field(default_factory=OrderedDict)

    def use(self, chain: list[int]) -> None:
        """Reference blocks along one prompt; its head is kept longest, as vLLM does."""
        self.used += len(chain)
        for block in reversed(chain):
            self.lru[block] = None
            self.lru.move_to_end(block)
        self.trim()

    def resize(self, blocks: float) -> None:
        """Hold so many blocks from now on, and at least one."""
        self.blocks = max(round(blocks), 1)
        self.trim()

    def trim(self) -> None:
        """Evict what was not used for longest."""
        while len(self.lru) > self.blocks:
            self.lru.popitem(last=False)

    def leading(self, chain: list[int]) -> int:
        """Blocks at the chain's head that are there."""
        for count, block in enumerate(chain):
            if block not in self.lru:
                return count
        return len(chain)


@dataclass(slots=True)
class _Way:
    """The ghost that a request went to (by worker, or size); whether all was found there so far."""

    worker: str
    whole: bool = True


@dataclass(frozen=True, slots=True)
class _Open:
    """A prompt that is being written."""

    at_s: float
    aware: _Way
    blind: _Way
    sized: tuple[_Way, ...]


@dataclass(slots=True)
class Reuse:
    """Ghost caches of the workers that compute prompts.

    Parameters
    ----------
    capacities : mapping of str to int
        KV cache of each worker, blocks.
    """

    capacities: Mapping[str, int]
    most_blocks: int = MOST_TRACKED
    _referenced: int = 0
    _found: int = 0
    _seen_before: int = 0
    _in_aware: int = 0
    _in_blind: int = 0
    _halvings: int = 0
    _parents: "OrderedDict[int, int | None]" = field(default_factory=OrderedDict)
    _seen: set[int] = field(default_factory=set)
    _aware: dict[str, _Ghost] = field(default_factory=dict)
    _blind: dict[str, _Ghost] = field(default_factory=dict)
    _together_blocks: int = 0
    _sized: dict[str, _Ghost] = field(default_factory=dict)
    _in_sized: dict[str, int] = field(default_factory=dict)
    _referenced_sized: int = 0
    _open: "OrderedDict[int, _Open]" = field(default_factory=OrderedDict)
    _draw: int = 1

    def __post_init__(self) -> None:
        self.resize(self.capacities)

    @property
    def totals(self) -> ReuseTotals:
        """Counts since the view began."""
        return ReuseTotals(
            referenced=self._referenced,
            found=self._found,
            seen_before=self._seen_before,
            cache_aware=self._in_aware,
            blind=self._in_blind,
        )

    @property
    def by_size(self) -> tuple[tuple[int, float], ...]:
        """Sizes of one cache for all, blocks, and the share of references found in each.

        Since the workers' caches have their present size together; empty before `LEAST_BLOCKS`.
        """
        if self._referenced_sized < LEAST_BLOCKS:
            return ()
        return tuple(
            (max(round(self._together_blocks * size), 1), found / self._referenced_sized)
            for size, found in zip(SIZES, self._in_sized.values(), strict=True)
        )

    @property
    def sample_ratio(self) -> float:
        """Share of all blocks that is tracked."""
        return 2.0**-self._halvings

    @property
    def tracked_blocks(self) -> int:
        """Blocks whose hashes are kept."""
        return len(self._seen)

    def resize(self, capacities: Mapping[str, int]) -> None:
        """Workers came, went, or told their capacity (blocks)."""
        self.capacities = dict(capacities)
        for ghosts in (self._aware, self._blind):
            for name in [n for n in ghosts if n not in capacities]:
                del ghosts[name]
            for name, blocks in capacities.items():
                ghosts.setdefault(name, _Ghost(blocks=1)).resize(blocks * self.sample_ratio)
        together = sum(self.capacities.values())
        if together != self._together_blocks:
            self._together_blocks, self._referenced_sized = together, 0
            self._in_sized = {str(size): 0 for size in SIZES}
        for size in SIZES:
            ghost = self._sized.setdefault(str(size), _Ghost(blocks=1))
            ghost.resize(together * size * self.sample_ratio)

    def apply(self, batch: Batch) -> None:
        """Take in one step's events of a worker that computes prompts."""
        if not self._aware:
            return
        for event in batch.events:
            if isinstance(event, Stored):
                if event.medium is Medium.DEVICE and event.counts_tokens and event.blocks:
                    self._store(event, batch.at_s)
            elif isinstance(event, Cleared):
                self._open.clear()

    def _store(self, event: Stored, at_s: float) -> None:
        going_on = None if event.parent is None else self._open.pop(event.parent, None)
        if going_on is None or at_s - going_on.at_s > OPEN_S:
            ancestors = self._ancestors(event.parent)
            chain = self._sampled([*ancestors, *event.blocks])
            self._found += len(self._sampled(ancestors)) << self._halvings
            aware, blind = self._route(chain)
            ways = _Open(at_s, aware, blind, tuple(_Way(size) for size in self._sized))
        else:
            chain = self._sampled(event.blocks)
            ways = replace(going_on, at_s=at_s)
        self._remember(event)
        self._reference(chain, ways)
        self._open[event.blocks[-1]] = ways
        while len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)

    def _reference(self, chain: list[int], ways: _Open) -> None:
        weight = 1 << self._halvings  # blocks that each one of the sample stands for
        self._referenced += weight * len(chain)
        self._seen_before += weight * sum(block in self._seen for block in chain)
        self._in_aware += weight * _found(self._aware, ways.aware, chain)
        self._in_blind += weight * _found(self._blind, ways.blind, chain)
        self._referenced_sized += weight * len(chain)
        for way in ways.sized:
            self._in_sized[way.worker] += weight * _found(self._sized, way, chain)
        self._seen.update(chain)
        while len(self._seen) > self.most_blocks:
            self._halve()

    def _route(self, chain: list[int]) -> tuple[_Way, _Way]:
        """Where a new request goes: where most of it lies, and anywhere."""
        names = list(self._aware)
        held = {name: self._aware[name].leading(chain) for name in names}
        best = max(names, key=held.__getitem__)
        if held[best] <= MATCH_RATIO * len(chain):
            best = min(names, key=lambda n: self._aware[n].used)
        self._draw = (self._draw * _MULTIPLIER + _INCREMENT) % 2**64
        return _Way(best), _Way(names[(self._draw >> 33) % len(names)])

    def _ancestors(self, block: int | None) -> list[int]:
        """Blocks from the prompt's beginning to `block`, as far as they are known."""
        found: list[int] = []
        while block is not None and len(found) < LONGEST_PROMPT_BLOCKS:
            found.append(block)
            block = self._parents.get(block)
        found.reverse()
        return found

    def _remember(self, event: Stored) -> None:
        parent = event.parent
        for block in event.blocks:
            if block not in self._parents:
                self._parents[block] = parent
            parent = block
        while len(self._parents) > 4 * self.most_blocks:
            self._parents.popitem(last=False)

    def _sampled(self, blocks: Iterable[int]) -> list[int]:
        mask = (1 << self._halvings) - 1
        return [b for b in blocks if not b & mask]

    def _halve(self) -> None:
        """Track half as many blocks from here on."""
        self._halvings += 1
        self._seen = set(self._sampled(self._seen))
        for ghosts in (self._aware, self._blind, self._sized):
            for ghost in ghosts.values():
                ghost.lru = OrderedDict.fromkeys(self._sampled(ghost.lru))
        self.resize(self.capacities)


def _found(ghosts: Mapping[str, _Ghost], way: _Way, chain: list[int]) -> int:
    """Blocks that a request finds in its ghost, which then has them all."""
    ghost = ghosts.get(way.worker)
    if ghost is None:
        return 0
    found = ghost.leading(chain) if way.whole else 0
    way.whole = way.whole and found == len(chain)
    ghost.use(chain)
    return found

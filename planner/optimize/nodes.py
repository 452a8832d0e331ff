"""How replicas of several sizes fit into nodes, none of them spanning two.

Where the sizes divide each other, counting blocks is exact (`fit_nodes`). Where they do not, the
ways to fill one node are listed, and how many nodes are filled which way is decided (`fill_nodes`).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from planner.optimize.inputs import AcceleratorLimit, Integers

MOST_PATTERNS = 400
"""More ways to fill a node are not listed: then sizes are rounded up until they divide."""

_MOST_STATES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NodeKind:
    """Nodes of one size, and the ways to fill one.

    Parameters
    ----------
    count : int
        How many there are.
    fits : (patterns, sizes) int
        Replicas of each size in a node that is filled so; nothing more fits beside them.
    """

    count: int
    fits: Integers


def divide(sizes: Collection[int]) -> bool:
    """Whether each size divides the next larger one."""
    return all(large % small == 0 for small, large in pairwise(sorted({*sizes})))


def rounded_size(size: int, per_node: int) -> int:
    """The next power of two, at most a whole node: such sizes pack as if they divided."""
    return min(1 << (size - 1).bit_length(), per_node)


def node_kinds(limit: AcceleratorLimit, sizes: Sequence[int]) -> tuple[NodeKind, ...] | None:
    """Whole nodes, and the one that is not whole; None where there are too many ways to fill one.

    Parameters
    ----------
    sizes : sequence of int
        Increasing.
    """
    nodes, rest = divmod(limit.total, limit.per_node)
    kinds = []
    for count, room in ((nodes, limit.per_node), (1, rest)):
        if count and room:
            found: list[tuple[int, ...]] = []
            for pattern in _patterns(sizes, room):
                found.append(pattern)
                if len(found) > MOST_PATTERNS:
                    return None
            fits = np.array(found, dtype=np.int64).reshape(-1, len(sizes))
            kinds.append(NodeKind(count=count, fits=fits))
    return tuple(kinds)


def _patterns(sizes: Sequence[int], room: int) -> Iterator[tuple[int, ...]]:
    """Every way to fill a node so that nothing more fits."""
    if not sizes:
        yield ()
        return
    *smaller, largest = sizes
    if not smaller:
        yield (room // largest,)
        return
    for count in range(room // largest, -1, -1):
        left = room - count * largest
        for rest in _patterns(smaller, left):
            unused = left - sum(n * s for n, s in zip(rest, smaller, strict=True))
            if unused < largest:
                yield (*rest, count)


def blocks_of(limit: AcceleratorLimit, size: int) -> int:
    """Blocks of `size` accelerators that fit into the nodes, none spanning two of them."""
    nodes, rest = divmod(limit.total, limit.per_node)
    return nodes * (limit.per_node // size) + rest // size


def packs(counts: Mapping[int, int], limit: AcceleratorLimit) -> bool:
    """Whether so many replicas of each size fit into the nodes without spanning them."""
    sizes = sorted(size for size, count in counts.items() if count > 0)
    if not sizes or _first_fit(counts, limit):
        return True
    if divide(sizes):
        return False  # then first fit, largest first, finds every packing
    kinds = node_kinds(limit, sizes)
    if kinds is None:
        return False
    left = {tuple(counts[size] for size in sizes)}
    for kind in reversed(kinds):
        for _ in range(kind.count):
            left = {
                tuple(max(n - p, 0) for n, p in zip(have, pattern, strict=True))
                for have in left
                for pattern in kind.fits.tolist()
            }
            if any(not any(have) for have in left):
                return True
            if len(left) > _MOST_STATES:
                return False
    return False


def _first_fit(counts: Mapping[int, int], limit: AcceleratorLimit) -> bool:
    """First fit, largest first."""
    nodes, rest = divmod(limit.total, limit.per_node)
    free = [limit.per_node] * nodes + [rest]
    for size in sorted(counts, reverse=True):
        for _ in range(counts[size]):
            node = next((i for i, room in enumerate(free) if room >= size), None)
            if node is None:
                return False
            free[node] -= size
    return True

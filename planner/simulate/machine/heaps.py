"""Binary heaps, ordered by key, then request; and a tree that knows the next worker.

Several heaps can lie in one array: `base` is where one begins.
"""

from planner.simulate.machine.compiled import compiled
from planner.simulate.state import Entries, Floats, Integers, Twin


@compiled
def lift(heap: Entries[Integers, Floats], base: int, at: int, key: float, request: int) -> None:
    """Put an entry at `at` or above, where it belongs."""
    i = at
    while i > 0:
        up = (i - 1) // 2
        above = heap[base + up]
        if above.key < key or (above.key == key and above.request < request):
            break
        entry = heap[base + i]
        entry.key = above.key
        entry.request = above.request
        i = up
    entry = heap[base + i]
    entry.key = key
    entry.request = request


@compiled
def remove(heap: Entries[Integers, Floats], base: int, count: int, at: int) -> None:
    """Take out the entry at `at`; `count` is before."""
    last = count - 1
    end = heap[base + last]
    key, request = end.key, end.request
    if at == last:
        return
    i = at
    while True:
        child = 2 * i + 1
        if child >= last:
            break
        least = heap[base + child]
        if child + 1 < last:
            right = heap[base + child + 1]
            if right.key < least.key or (right.key == least.key and right.request < least.request):
                child += 1
                least = right
        if key < least.key or (key == least.key and request < least.request):
            break
        entry = heap[base + i]
        entry.key = least.key
        entry.request = least.request
        i = child
    lift(heap, base, i, key, request)


@compiled
def find(heap: Entries[Integers, Floats], count: int, request: int) -> int:
    """Where a request is in the heap at the array's start, or -1."""
    for i in range(count):
        if heap[i].request == request:
            return i
    return -1


@compiled
def set_next(twin: Twin, w: int, at_s: float) -> None:
    """Say when a worker's step ends; the tree's root is the worker whose step ends first."""
    next_s, tree = twin.next_s, twin.tree
    next_s[w] = at_s
    i = (w + len(tree) // 2) // 2
    while i > 0:
        left, right = tree[2 * i], tree[2 * i + 1]
        tree[i] = right if next_s[right] < next_s[left] else left
        i //= 2

"""What was found in prefix caches of one size, brought to another size."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from forecaster.shapes import with_reuse
from planner.domain.errors import HistoryError
from planner.domain.prefix_cache import PrefixCache
from planner.domain.workload import ObservedWindow

Known = tuple[datetime, PrefixCache]


def at_cache_size(
    by_class: Mapping[str, Sequence[ObservedWindow]], cache_tokens: int | None = None
) -> dict[str, list[ObservedWindow]]:
    """The same windows as if all prompts had met caches of one size.

    Each window's share of cached tokens is multiplied by what the newest measurement of reuse by
    several sizes says of the change from its own cache; without one nothing changes (windows that
    are seen live tell what was found in the one size that there was). A window that does not tell
    its own is taken to have had that of the next one that does, or else of the last one before.
    Classes are not told apart: all change alike.

    Parameters
    ----------
    cache_tokens : int or None
        KV cache of all replicas that will compute prompts, together; None: that of the newest
        window that tells it.

    Raises
    ------
    HistoryError
        When a size is asked for and no window tells reuse by size.
    """
    known = sorted(
        (
            (w.end_at, w.prefix_cache)
            for of_class in by_class.values()
            for w in of_class
            if w.prefix_cache is not None
        ),
        key=lambda one: one[0],
    )
    by_size = next((c for _, c in reversed(known) if len(c.reuse) > 1), None)
    if by_size is None:
        if cache_tokens is None:
            return {name: list(windows) for name, windows in by_class.items()}
        raise HistoryError(
            f"reuse in prefix caches of {cache_tokens:,} tokens is not known, because no window "
            "tells reuse in caches of several sizes: give windows `prefix_cache`, as "
            "`poolwise kv --json` prints it"
        )
    wanted = cache_tokens or known[-1][1].cache_tokens
    return {
        name: [_at_size(window, known, by_size, wanted) for window in windows]
        for name, windows in by_class.items()
    }


def _at_size(
    window: ObservedWindow, known: Sequence[Known], by_size: PrefixCache, wanted: int
) -> ObservedWindow:
    own = window.prefix_cache
    if own is None:
        after = bisect_left(known, window.end_at, key=lambda one: one[0])
        own = known[min(after, len(known) - 1)][1]
    factor = by_size.change(before_tokens=own.cache_tokens, after_tokens=wanted)
    if factor == 1 or window.input_tokens == 0:
        return window
    cached = min(round(window.cached_tokens * factor), window.input_tokens)
    shape = window.shape
    return replace(
        window,
        cached_tokens=cached,
        shape=None if shape is None else with_reuse(shape, shape.reuse_ratio * factor),
    )

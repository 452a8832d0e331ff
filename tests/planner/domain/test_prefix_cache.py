"""Reuse by cache size: between what was measured, and never beyond it."""

import pytest

from planner.domain.prefix_cache import CacheReuse, PrefixCache


def caches(now: int, **reuse: float) -> PrefixCache:
    return PrefixCache(
        cache_tokens=now,
        reuse=tuple(
            CacheReuse(cache_tokens=int(size[1:]), reuse_ratio=ratio)
            for size, ratio in reuse.items()
        ),
    )


MEASURED = caches(1000, _1000=0.2, _4000=0.6)


@pytest.mark.parametrize(
    ("size", "found"), [(1000, 0.2), (2000, 0.4), (4000, 0.6), (10, 0.2), (10**9, 0.6)]
)
def test_between_sizes_by_the_logarithm_and_held_beyond_them(size, found) -> None:
    assert MEASURED.reuse_at(size) == pytest.approx(found)


def test_a_change_is_a_factor_and_nothing_found_tells_nothing() -> None:
    assert MEASURED.change(before_tokens=1000, after_tokens=4000) == pytest.approx(3.0)
    nothing = caches(1000, _1000=0.0, _4000=0.6)
    assert nothing.change(before_tokens=1000, after_tokens=4000) == 1.0


@pytest.mark.parametrize(
    ("now", "reuse", "said"),
    [
        (0, {"_1000": 0.2}, "cache_tokens must be at least 1"),
        (1, {}, "at least one size"),
        (1, {"_1000": 1.2}, "reuse_ratio in"),
        (1, {"_4000": 0.2, "_1000": 0.3}, "in order"),
    ],
)
def test_what_cannot_be_is_refused(now, reuse, said) -> None:
    with pytest.raises(ValueError, match=said):
        caches(now, **reuse)

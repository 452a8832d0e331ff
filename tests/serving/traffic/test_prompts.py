"""Prompts have exact lengths and share exactly what the trace shares."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from planner.domain.errors import EngineError
from planner.domain.workload import PrefixBlocks, Workload
from serving.traffic.prompts import PromptWriter, read_words

WORDS = tuple(f"w{i}" for i in range(300))
WRITER = PromptWriter(words=WORDS, seed=7)


def workload(blocks: list[list[int]], input_tokens: list[int]) -> Workload:
    count = len(blocks)
    return Workload(
        start_at=datetime(2026, 1, 1, tzinfo=UTC),
        arrival_offset_s=np.arange(count, dtype=float),
        input_tokens=np.array(input_tokens),
        output_tokens=np.ones(count, dtype=np.int64),
        cached_tokens=np.zeros(count, dtype=np.int64),
        request_class=np.full(count, "default"),
        duration_s=float(count),
        prefix=PrefixBlocks(
            block_tokens=4,
            offsets=np.cumsum([0, *(len(b) for b in blocks)]),
            block_ids=np.array([i for b in blocks for i in b]),
        ),
    )


@pytest.mark.parametrize("tokens", [1, 2, 17, 1000])
def test_unique_prompt_has_so_many_words(tokens: int) -> None:
    assert len(WRITER.unique(tokens, number=3).split()) == tokens


def test_unique_prompts_differ_from_their_first_words() -> None:
    first, second = WRITER.unique(20, number=1), WRITER.unique(20, number=2)
    assert first.split()[:5] != second.split()[:5]


def test_prefix_is_shared_and_the_rest_is_not() -> None:
    a = WRITER.with_prefix(10, 15, prefix=0, number=1).split()
    b = WRITER.with_prefix(10, 15, prefix=0, number=2).split()
    assert (len(a), a[:10], a[10:] == b[10:]) == (15, b[:10], False)


def test_requests_share_the_blocks_that_the_trace_shares() -> None:
    trace = workload([[1, 2, 3], [1, 2, 9]], [12, 11])
    first, second = (WRITER.of_request(trace, i).split() for i in (0, 1))
    assert (len(first), len(second)) == (12, 11)
    assert first[:8] == second[:8]
    assert first[8:11] != second[8:11]


def test_prompt_longer_than_its_blocks_is_filled_up() -> None:
    assert len(WRITER.of_request(workload([[1]], [10]), 0).split()) == 10


def test_missing_word_list_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"words\.json is missing or unreadable"):
        read_words(tmp_path)

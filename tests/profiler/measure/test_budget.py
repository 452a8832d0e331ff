"""The budget binds: a slow engine, one that hangs, and one that is down for a while."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from planner.domain.errors import MeasurementError
from profiler.measure.budget import Budget, BudgetSpentError, guess_s, payable
from profiler.measure.session import Progress
from profiler.measure.where import Range
from profiler.run import finished, measure
from profiler.samples import Kind, Point
from tests.profiler.measure.imitation import Imitation, imitated_server
from tests.profiler.measure.test_run import AREA, PLAN, SETTING, journal, target

KINDS = (Kind.PREFILL, Kind.DECODE)
BINDING = replace(PLAN, whole_area=False)
WIDE = Range(
    new_tokens=(16, 1024),
    cached_tokens=(0, 512),
    sequences=(1, 64),
    context_tokens=(32, 1024),
    longest_tokens=2048,
)


def coarse_s(area: Range, ttft_s: float, gap_s: float) -> float:
    return sum(guess_s(p, ttft_s, gap_s) for kind in KINDS for p in area.coarse(kind))


@pytest.mark.parametrize("slowness", [0.1, 1.0, 10.0])
def test_coarse_points_are_what_can_be_paid(slowness: float) -> None:
    ttft_s, gap_s = 0.1 * slowness, 0.02 * slowness
    area = payable(WIDE, KINDS, ttft_s=ttft_s, gap_s=gap_s, left_s=60.0)
    assert coarse_s(area, ttft_s, gap_s) <= 60.0
    assert (area == WIDE) == (coarse_s(WIDE, ttft_s, gap_s) <= 42.0)


def test_what_is_dear_is_made_shorter() -> None:
    prompts = payable(WIDE, KINDS, ttft_s=1.0, gap_s=1e-4, left_s=30.0)
    assert prompts.new_tokens[1] < WIDE.new_tokens[1]
    batches = payable(WIDE, KINDS, ttft_s=1e-3, gap_s=0.05, left_s=30.0)
    assert batches.sequences[1] < WIDE.sequences[1]
    assert batches.new_tokens == WIDE.new_tokens


def test_range_that_can_never_be_paid_ends_somewhere() -> None:
    area = payable(WIDE, KINDS, ttft_s=1e3, gap_s=1e3, left_s=1.0)
    assert area.new_tokens[1] >= area.new_tokens[0]
    assert area.sequences[1] == 2


def test_outages_are_not_counted() -> None:
    assert Budget(total_s=10.0, lost_s=lambda: 100.0).left_s > 100.0


def test_work_is_broken_off_when_the_time_is_over() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            ended.append(True)

    with pytest.raises(BudgetSpentError, match="budget of 1 s was spent"):
        asyncio.run(Budget(total_s=1.0).within(work()))
    assert ended == [True]


def test_slow_engine_gets_shorter_tables_and_says_so(tmp_path: Path) -> None:
    with imitated_server(Imitation(prompt_s=1e-2, step_s=2e-3)) as server:
        kept = journal(tmp_path)
        plan = replace(BINDING, budget_s=40.0, held_out=0)
        began = time.monotonic()
        outcome = measure(target(server), plan, kept)
        took_s = time.monotonic() - began
    assert outcome.spent_s <= took_s + 1.0
    assert outcome.spent_s <= 1.25 * plan.budget_s
    (note,) = [n for n in kept.notes if n.startswith("a budget of 40 s pays for less")]
    assert "(of 256) new" in note
    profile = finished(kept, SETTING, plan, outcome)
    assert profile.prefill.x[-1] < AREA.new_tokens[1]
    assert any(
        "points, " in n and f"a full grid of that spacing has {AREA.exhaustive_points}" in n
        for n in profile.provenance.notes
    )


def test_engine_that_becomes_slow_is_left_at_the_end_of_the_budget(tmp_path: Path) -> None:
    with imitated_server(Imitation()) as server:
        kept = journal(tmp_path)

        def slow_down(now: Progress) -> None:
            if now.samples >= 2:
                server.slowness = 600.0  # the short request takes a quarter of a minute

        plan = replace(BINDING, budget_s=15.0, look_every_s=1e9)
        outcome = measure(target(server), plan, kept, tell=slow_down)
    assert outcome.spent_s < 2 * plan.budget_s
    assert any("the budget of 15 s was spent" in n for n in kept.notes)
    assert len(kept.samples.taken) >= 2


def test_server_that_hangs_is_said_within_the_budget(tmp_path: Path) -> None:
    with imitated_server(Imitation(prompt_s=60.0)) as server:
        plan = replace(BINDING, budget_s=2.0)
        with pytest.raises(MeasurementError, match=r"within the budget of 2 s: it hangs"):
            measure(target(server), plan, journal(tmp_path))


def test_time_in_which_the_server_is_down_costs_no_points(tmp_path: Path) -> None:
    with imitated_server(Imitation()) as server:
        kept = journal(tmp_path)
        seen: list[Progress] = []

        def go_down(now: Progress) -> None:
            seen.append(now)
            if now.samples == 2 and not server.refusals:
                server.refusals = [(500, {"retry-after": "1"})] * 5

        plan = replace(BINDING, budget_s=20.0, held_out=0, target_ratio=float("inf"))
        began = time.monotonic()
        outcome = measure(target(server, patience_s=60.0), plan, kept, tell=go_down)
        took_s = time.monotonic() - began
    assert outcome.spent_s < took_s - 4.0
    assert Point(Kind.PREFILL, 256, 0) in kept.samples.points(Kind.PREFILL)

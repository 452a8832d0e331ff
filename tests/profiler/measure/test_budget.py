"""The budget binds: a slow engine, one that hangs, and one that is down for a while."""

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from planner.domain.errors import MeasurementError
from planner.domain.profile import Profile
from profiler.measure.budget import Budget, BudgetSpentError, guess_s, payable
from profiler.measure.journal import Journal
from profiler.measure.probe import Probe
from profiler.measure.requests import Sender
from profiler.measure.session import Plan, Progress, Session
from profiler.measure.where import Range
from profiler.run import Outcome, breaking_off, finished, measure
from profiler.samples import Kind, Point, Sample
from serving.traffic.load import LoadClient
from serving.traffic.prompts import PromptWriter
from tests.profiler.measure.imitation import MODEL, Imitation, imitated_server
from tests.profiler.measure.test_run import PLAN, SETTING, WORDS, journal, target

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


@pytest.mark.parametrize("longest", [(64, 512, 64), (4, 320, 256), (16, 96, 96)])
def test_range_that_was_made_shorter_still_makes_both_tables(longest: tuple[int, int, int]) -> None:
    sequences, context, prompt = longest
    asked = replace(
        WIDE,
        new_tokens=(16, prompt),
        sequences=(1, sequences),
        context_tokens=(32, context),
        cached_tokens=(0, min(prompt, 64)),
    )
    area = payable(asked, KINDS, ttft_s=10.0, gap_s=1.0, left_s=5.0)
    assert area != asked
    assert all(len(area.coarse(kind)) >= 3 for kind in KINDS)


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


@dataclass(slots=True)
class Simulated(Probe):
    """A probe that takes its time by a formula, on a clock of its own: no machine is too busy."""

    token_s: float = 1e-3
    step_s: float = 1e-2
    slow_after: int = 10**9
    slowness: float = 1.0
    now_s: float = 0.0
    taken: int = 0

    def clock(self) -> float:
        return self.now_s

    def _passes(self, seconds: float) -> float:
        seconds *= self.slowness if self.taken >= self.slow_after else 1.0
        self.now_s += seconds
        return seconds

    async def sentinel(self) -> tuple[float, float]:
        """As `Probe.sentinel`."""
        self._passes(128 * self.token_s + 12 * self.step_s)
        return 128 * self.token_s, self.step_s

    async def sample(self, point: Point, *, held_out: bool = False) -> Sample:
        """As `Probe.sample`."""
        self.taken += 1
        once_s = (point.x + 0.1 * point.y) * self.token_s
        values = {"busy_s": once_s, "alone_ttft_s": once_s, "burst": 2.0, "alone_count": 1.0}
        if point.kind is Kind.DECODE:
            step_s = self.step_s * (1 + 0.02 * point.x)
            values = {"step_s": step_s, "context_tokens": float(point.y), "first_s": 0.1}
        took_s = self._passes(guess_s(point, 128 * self.token_s, self.step_s))
        return Sample(
            point=point,
            values=values,
            measured_at=datetime.now(UTC),
            took_s=took_s,
            held_out=held_out,
        )


def simulated(**changes: float) -> Simulated:
    return Simulated(
        sender=Sender(client=LoadClient(url="http://127.0.0.1:9", model=MODEL)),
        writer=PromptWriter(words=WORDS, seed=1),
        block_tokens=16,
        **changes,  # type: ignore[arg-type]
    )


def ran(probe: Simulated, kept: Journal, plan: Plan) -> bool:
    session = Session(probe=probe, journal=kept, plan=plan, clock=probe.clock)
    return asyncio.run(session.run())


@pytest.mark.parametrize("slowness", [0.1, 1.0, 4.0, 12.0])
def test_run_ends_with_its_budget_however_slow_the_engine_is(
    tmp_path: Path, slowness: float
) -> None:
    probe, kept = simulated(token_s=1e-3 * slowness, step_s=2e-2 * slowness), journal(tmp_path)
    plan = replace(BINDING, area=WIDE, budget_s=110.0, target_ratio=1e-3)
    reached = ran(probe, kept, plan)
    assert probe.now_s <= 1.05 * plan.budget_s
    profile = finished(kept, SETTING, plan, Outcome(reached=reached, spent_s=probe.now_s))
    shorter = [n for n in kept.notes if n.startswith("a budget of 110 s pays for less")]
    assert len(shorter) == (profile.prefill.x[-1] < WIDE.new_tokens[1])
    assert bool(shorter) == (slowness > 1)
    assert any(
        f"a full grid of that spacing has {WIDE.exhaustive_points} points" in n
        for n in profile.provenance.notes
    )


def test_whole_area_is_covered_where_that_is_asked_for(tmp_path: Path) -> None:
    probe, kept = simulated(token_s=1e-2, step_s=0.2), journal(tmp_path)
    ran(probe, kept, replace(BINDING, area=WIDE, budget_s=20.0, whole_area=True))
    assert set(WIDE.coarse(Kind.PREFILL)) <= set(kept.samples.points(Kind.PREFILL))
    assert probe.now_s > 20.0


def test_engine_that_becomes_slow_takes_no_second_budget(tmp_path: Path) -> None:
    probe = simulated(token_s=1e-3, step_s=1e-2, slow_after=8, slowness=10.0)
    kept = journal(tmp_path)
    plan = replace(BINDING, area=WIDE, budget_s=110.0, look_every_s=1e9)
    ran(probe, kept, plan)
    dearest = max(s.took_s for s in kept.samples.taken)
    assert probe.now_s <= plan.budget_s + dearest + 3 * 10 * (0.128 + 0.12)


@pytest.mark.parametrize("slow_after", [2, 3, 4])
def test_engine_that_becomes_slow_early_still_makes_a_profile(
    tmp_path: Path, slow_after: int
) -> None:
    """As on a machine that others begin to use: the least points are taken, and that is said."""
    probe = simulated(token_s=2e-3, step_s=2e-2, slow_after=slow_after, slowness=6.0)
    kept = journal(tmp_path)
    plan = replace(BINDING, area=WIDE, budget_s=60.0, target_ratio=1e-3)
    reached = ran(probe, kept, plan)
    profile = finished(kept, SETTING, plan, Outcome(reached=reached, spent_s=probe.now_s))
    assert profile.prefill.x[-1] > 0
    dearest = max(s.took_s for s in kept.samples.taken)  # nothing is broken off on this clock
    assert probe.now_s <= 2 * plan.budget_s + dearest
    late = [note for note in kept.notes if "more than the budget of 60 s" in note]
    assert len(late) == (probe.now_s > 1.05 * plan.budget_s)


def test_server_that_hangs_is_said_within_the_budget(tmp_path: Path) -> None:
    with imitated_server(Imitation(prompt_s=60.0)) as server:
        plan = replace(BINDING, budget_s=2.0)
        with pytest.raises(MeasurementError, match=r"within the budget of 2 s: it hangs"):
            measure(target(server), plan, journal(tmp_path))


def test_server_that_hangs_in_the_middle_ends_no_run_as_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiler.measure.session.HANGS_S", 0.5)
    kept, profiles, late_s = journal(tmp_path), list[Profile](), [0.0]
    plan = replace(BINDING, budget_s=1e5, look_every_s=1e9)
    with imitated_server(Imitation()) as server:

        def hang(now: Progress) -> None:
            if now.samples == 10 and now.next_text.startswith(("prefill", "decode")):
                server.hangs_after = 0
                late_s[0] = 1e6  # the budget ends while this sample is waited for

        def clock() -> float:
            return time.perf_counter() + late_s[0]

        async def measured() -> None:
            client = LoadClient(url=server.url, model=MODEL)
            probe = Probe(
                sender=Sender(client=client),
                writer=PromptWriter(words=WORDS, seed=1),
                block_tokens=16,
            )
            session = Session(probe=probe, journal=kept, plan=plan, tell=hang, clock=clock)
            try:
                await session.run()
            finally:
                await client.close()

        with (
            pytest.raises(MeasurementError, match=r"does not answer any more.*goes on from it"),
            breaking_off(kept, plan, SETTING, profiles.append),
        ):
            asyncio.run(measured())
    (profile,) = profiles
    assert profile.details is not None
    assert not profile.details.complete
    assert journal(tmp_path).finished_at is None


def test_budget_that_earlier_runs_spent_makes_a_profile_of_what_they_left(tmp_path: Path) -> None:
    plan = replace(BINDING, area=WIDE, budget_s=60.0, target_ratio=1e-3)
    ran(simulated(token_s=1e-3, step_s=1e-2), journal(tmp_path), plan)
    later, probe = journal(tmp_path), simulated(token_s=1e-3, step_s=1e-2)
    reached = ran(probe, later, replace(plan, budget_s=20.0))
    assert (reached, probe.now_s) == (False, 0.0)
    profile = finished(later, SETTING, plan, Outcome(reached=reached, spent_s=60.0))
    assert any("of a budget of 20 s: nothing more was" in n for n in profile.provenance.notes)


def test_budget_that_was_spent_on_too_little_says_how_to_go_on(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.add(
        Sample(
            point=Point(Kind.PREFILL, 64, 0),
            values={"busy_s": 30.0, "alone_ttft_s": 30.0},
            measured_at=datetime.now(UTC),
            took_s=90.0,
        )
    )
    with pytest.raises(MeasurementError, match=r"took 90 s of a budget of 60 s.*longer --budget-s"):
        ran(simulated(), kept, replace(BINDING, area=WIDE, budget_s=60.0))


def test_time_in_which_the_server_is_down_is_told(tmp_path: Path) -> None:
    with imitated_server(Imitation(refusals=[(500, {"retry-after": "0.3"})] * 3)) as server:

        async def send(sender: Sender) -> None:
            await sender.one(lambda: "w1 w2", 1)
            await sender.client.close()

        down = Sender(client=LoadClient(url=server.url, model=MODEL))
        asyncio.run(send(down))
        assert down.outage_s >= 0.9
        server.refusals = [(429, {"retry-after": "0.3"})]
        busy = Sender(client=LoadClient(url=server.url, model=MODEL))
        asyncio.run(send(busy))
        assert busy.outage_s == 0

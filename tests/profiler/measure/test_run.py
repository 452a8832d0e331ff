"""A run against a server: what it measures, keeps, and makes of every kind of answer."""

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from planner.domain.errors import EngineError, InputError, MeasurementError, ProfileError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.profile import EngineLimits, LifecycleTimes, Profile
from profiler.fitting.profile import Setting
from profiler.measure.facts import EngineIdentity, cpu_facts, gpu_facts, read_engine_facts
from profiler.measure.journal import Journal
from profiler.measure.session import Plan, Progress
from profiler.measure.where import Range
from profiler.run import Target, breaking_off, finished, journal_for, measure
from profiler.samples import Kind
from tests.profiler.measure.imitation import LONGEST, MODEL, Imitation, imitated_server

WORDS = tuple(f"w{i}" for i in range(200))
AREA = Range(
    new_tokens=(16, 256),
    cached_tokens=(0, 128),
    sequences=(1, 4),
    context_tokens=(32, 160),
    longest_tokens=LONGEST,
)
# Client and server share a process here, so that nothing is disturbed by being slower.
PLAN = Plan(
    area=AREA,
    budget_s=12.0,
    held_out=2,
    least_samples=1,
    step_tokens=512,
    disturbed_ratio=50.0,
    whole_area=True,
)
SHORT = replace(PLAN, budget_s=0.0, held_out=0)
SETTING = Setting(
    shape=ReplicaShape(role=Role.AGGREGATED, model=MODEL, accelerator="none"),
    limits=EngineLimits(
        kv_capacity_tokens=8192,
        kv_bytes_per_token=64.0,
        max_num_seqs=4,
        max_num_batched_tokens=512,
        max_model_len=LONGEST,
    ),
    lifecycle=LifecycleTimes(start_cold_s=1, start_warm_s=1, flip_s=1, drain_s=1),
    machine="test",
    engine="imitation",
    measured_at=datetime(2026, 1, 1, tzinfo=UTC),
    source="test",
)


@pytest.fixture
def server() -> Iterator[Imitation]:
    with imitated_server(Imitation()) as running:
        yield running


def target(server: Imitation, *, patience_s: float = 5.0) -> Target:
    return Target(
        url=server.url,
        model=MODEL,
        words=WORDS,
        block_tokens=16,
        identity=EngineIdentity(server.url),
        patience_s=patience_s,
    )


def journal(tmp_path: Path) -> Journal:
    return journal_for(tmp_path / "p.json", {"of": "test"}, fresh=False)


def test_run_makes_a_profile_with_its_errors(server: Imitation, tmp_path: Path) -> None:
    kept = journal(tmp_path)
    seen: list[Progress] = []
    outcome = measure(target(server), PLAN, kept, tell=seen.append)
    profile = finished(kept, SETTING, PLAN, outcome)
    details = profile.details
    assert details is not None
    assert details.complete
    assert details.prefill.held_out_points == 2
    assert details.decode_step.median_error_ratio is not None
    assert details.samples == len(kept.samples.taken) > len(AREA.coarse(Kind.PREFILL))
    assert float(profile.prefill.at(256, 0)) > float(profile.prefill.at(16, 0))
    assert float(profile.decode_step.at(4, 32)) >= float(profile.decode_step.at(1, 32))
    assert seen[-1].left_s <= seen[0].left_s


def test_later_run_goes_on_from_the_journal(server: Imitation, tmp_path: Path) -> None:
    measure(target(server), SHORT, journal(tmp_path))
    asked = server.asked
    again = journal(tmp_path)
    had = len(again.samples.taken)
    outcome = measure(target(server), SHORT, again)
    assert had == len(again.samples.taken)  # nothing was missing
    assert server.asked - asked < asked / 2
    last = again.samples.taken[-1].measured_at
    profile = finished(again, SETTING, SHORT, outcome)
    assert profile.provenance.measured_at == last
    with pytest.raises(ProfileError, match="was finished"):
        journal(tmp_path)


def test_samples_of_a_machine_that_was_faster_are_not_mixed_in(
    server: Imitation, tmp_path: Path
) -> None:
    plan = replace(SHORT, disturbed_ratio=2.0)
    measure(target(server), plan, journal(tmp_path))
    again = journal(tmp_path)
    had = len(again.samples.taken)
    server.slowness = 10.0
    measure(target(server), plan, again)
    assert again.samples.disturbed >= had
    assert any("of an earlier run were set aside" in note for note in again.notes)
    assert all(again.samples.undisturbed(p) for p in AREA.coarse(Kind.PREFILL))


def test_busy_server_is_asked_again_when_it_says(server: Imitation, tmp_path: Path) -> None:
    server.refusals = [(429, {"retry-after": "0"}), (503, {"retry-after": "0"})]
    kept = journal(tmp_path)
    measure(target(server), SHORT, kept)
    assert any("429" in note for note in kept.notes)


@pytest.mark.parametrize("asked", ["nan", "inf", "soon"])
def test_busy_server_that_names_no_time_is_asked_again_anyway(
    server: Imitation, tmp_path: Path, asked: str
) -> None:
    server.refusals = [(429, {"retry-after": asked})]
    kept = journal(tmp_path)
    measure(target(server), replace(SHORT, kinds=(Kind.PREFILL,)), kept)
    assert any("429" in note for note in kept.notes)


def test_server_that_wants_to_be_left_alone_for_long_is(server: Imitation, tmp_path: Path) -> None:
    server.refusals = [(429, {"retry-after": "300"})]
    with pytest.raises(MeasurementError, match=r"asks to be asked again in 300 s only: HTTP 429"):
        measure(target(server), SHORT, journal(tmp_path))


def test_stream_that_is_held_back_is_refused(server: Imitation, tmp_path: Path) -> None:
    server.holds_back = True
    with pytest.raises(MeasurementError, match=r"come all at once.*proxy_buffering off"):
        measure(target(server), SHORT, journal(tmp_path))


def test_two_runs_do_not_write_to_one_journal(server: Imitation, tmp_path: Path) -> None:
    kept = journal(tmp_path)

    def another(now: Progress) -> None:
        if now.samples == 2:
            journal(tmp_path).note("of another run")

    with pytest.raises(MeasurementError, match="is the same command running twice"):
        measure(target(server), SHORT, kept, tell=another)
    assert len(kept.samples.taken) == 2


def test_prompts_sent_again_are_new_ones(server: Imitation, tmp_path: Path) -> None:
    """Those of a group that were answered the first time are in the prefix cache since."""
    server.refuse_every = 5
    bare = replace(AREA, cached_tokens=(0, 0))
    kept = journal(tmp_path)
    measure(target(server), replace(SHORT, area=bare, kinds=(Kind.PREFILL,)), kept)
    assert any("429" in note for note in kept.notes)
    assert {found for _, found in server.found} == {0}


def test_server_that_stays_busy_is_given_up(server: Imitation, tmp_path: Path) -> None:
    server.refusals = [(429, {})] * 10_000
    with pytest.raises(MeasurementError, match=r"for 1 s: HTTP 429.*smaller batches.*is kept"):
        measure(target(server, patience_s=1.0), SHORT, journal(tmp_path))


def test_server_that_does_not_stream_is_refused(server: Imitation, tmp_path: Path) -> None:
    server.streams = False
    with pytest.raises(MeasurementError, match="does not stream"):
        measure(target(server), SHORT, journal(tmp_path))


def test_answers_that_end_early_are_refused(server: Imitation, tmp_path: Path) -> None:
    server.ends_after = 3
    with pytest.raises(MeasurementError, match=r"ended after 3 of 12 tokens.*ignore_eos"):
        measure(target(server), SHORT, journal(tmp_path))


def test_streams_without_a_token_are_given_up_soon(server: Imitation, tmp_path: Path) -> None:
    server.ends_after = 0
    with pytest.raises(MeasurementError, match=r"3 times over.*hold no token"):
        measure(target(server, patience_s=60.0), SHORT, journal(tmp_path))


def test_stream_cut_in_the_middle_of_a_line_is_asked_for_again(
    server: Imitation, tmp_path: Path
) -> None:
    server.cut_after = 3
    with pytest.raises(MeasurementError, match="cut off in the middle of a line"):
        measure(target(server, patience_s=1.0), SHORT, journal(tmp_path))


ENDED = """
import asyncio, os, signal, sys
from pathlib import Path
from planner.service.demo.signals import ending_on_signals
from tests.profiler.measure import test_run as t
from tests.profiler.measure.imitation import Imitation, imitated_server

async def kill():
    os.kill(os.getpid(), signal.SIGTERM)

def end(now):
    if now.samples == 2:
        end.task = asyncio.ensure_future(kill())

with imitated_server(Imitation()) as server, ending_on_signals():
    t.measure(t.target(server), t.SHORT, t.journal(Path(sys.argv[1])), tell=end)
"""


def test_run_that_is_asked_to_end_leaves_without_a_word(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDED, tmp_path],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    # The server of this test says that its client is gone.
    assert (done.returncode, "never retrieved" in done.stderr) == (128 + signal.SIGTERM, False)
    assert len(journal(tmp_path).samples.taken) >= 2


def test_server_that_counts_no_tokens_is_counted_by_chunks(
    server: Imitation, tmp_path: Path
) -> None:
    server.counts = False
    kept = journal(tmp_path)
    measure(target(server), SHORT, kept)
    assert kept.samples.points(Kind.DECODE)


def test_words_are_found_by_asking(server: Imitation, tmp_path: Path) -> None:
    unknown = Target(url=server.url, model=MODEL, block_tokens=16)
    kept = journal(tmp_path)
    measure(unknown, SHORT, kept)
    assert kept.samples.points(Kind.PREFILL)


def test_words_cannot_be_found_where_prompts_are_not_counted(
    server: Imitation, tmp_path: Path
) -> None:
    server.counts = False
    unknown = Target(url=server.url, model=MODEL, block_tokens=16)
    with pytest.raises(MeasurementError, match="does not say how many tokens a prompt has"):
        measure(unknown, SHORT, journal(tmp_path))


def test_context_that_is_too_long_is_left_out_and_said(server: Imitation, tmp_path: Path) -> None:
    wide = Range(
        new_tokens=(16, 800),
        cached_tokens=(0, 0),
        sequences=(1, 4),
        context_tokens=(32, 160),
        longest_tokens=2000,
    )
    kept = journal(tmp_path)
    measure(target(server), replace(SHORT, area=wide), kept)
    assert any("the tables end at requests of 600 tokens" in note for note in kept.notes)
    assert {p.x for p in kept.samples.points(Kind.PREFILL)} >= {16, 598}


@pytest.mark.parametrize("says", [True, False])
def test_tables_are_made_within_what_the_server_really_takes(
    server: Imitation, tmp_path: Path, says: bool
) -> None:
    """Decoding counts sequences and contexts: only the latter say how long a request is."""
    server.longest, server.says_longest = 250, says
    wide = Range(
        new_tokens=(16, 500),
        cached_tokens=(0, 64),
        sequences=(1, 8),
        context_tokens=(32, 400),
        longest_tokens=LONGEST,
    )
    kept = journal(tmp_path)
    plan = replace(SHORT, area=wide, budget_s=4.0)
    unknown = replace(target(server), words=None)  # all words at once are longer, too
    outcome = measure(unknown, plan, kept)
    profile = finished(kept, SETTING, plan, outcome)
    assert profile.prefill.x[-1] >= 100
    assert profile.decode_step.y[-1] >= 64
    assert all(words <= 250 for words, _ in server.found)


def test_point_that_cannot_be_measured_is_left_out_and_said(
    server: Imitation, tmp_path: Path
) -> None:
    # Answers are over before the prompt comes, and longer ones do not fit.
    server.longest, server.step_s = 280, 5e-4
    area = replace(AREA, longest_tokens=280)
    plan = replace(SHORT, kinds=(Kind.PREFILL, Kind.DECODE, Kind.MIXED), area=area)
    kept = journal(tmp_path)
    measure(target(server), plan, kept)
    assert any(note.startswith("left out: a prompt of 256") for note in kept.notes)
    assert len(kept.samples.points(Kind.PREFILL)) == len(plan.area.coarse(Kind.PREFILL))


def test_restarted_engine_is_warmed_up_again_and_said(server: Imitation, tmp_path: Path) -> None:
    kept = journal(tmp_path)

    def restart(now: Progress) -> None:
        if now.samples == 2:
            server.started_at = 2000.0

    measure(target(server), SHORT, kept, tell=restart)
    assert any("restarted in the middle" in note for note in kept.notes)
    assert len(kept.samples.points(Kind.DECODE)) == len(AREA.coarse(Kind.DECODE))


def test_engine_that_dies_leaves_what_was_measured(server: Imitation, tmp_path: Path) -> None:
    kept, profiles = journal(tmp_path), list[Profile]()

    def die(now: Progress) -> None:
        if now.samples >= len(AREA.coarse(Kind.PREFILL)) + len(AREA.coarse(Kind.DECODE)) - 1:
            server.refusals = [(500, {})] * 10_000

    with (
        pytest.raises(MeasurementError, match="the same command goes on"),
        breaking_off(kept, SHORT, SETTING, profiles.append),
    ):
        measure(target(server, patience_s=0.5), PLAN, kept, tell=die)
    (profile,) = profiles
    assert profile.details is not None
    assert not profile.details.complete
    assert any(
        note.startswith("INCOMPLETE: the run broke off") for note in profile.provenance.notes
    )


def test_interrupted_run_leaves_a_profile_only_when_there_is_enough(tmp_path: Path) -> None:
    profiles: list[Profile] = []
    with (
        pytest.raises(KeyboardInterrupt),
        breaking_off(journal(tmp_path), SHORT, SETTING, profiles.append),
    ):
        raise KeyboardInterrupt
    assert profiles == []


def test_full_disk_is_said_and_costs_nothing_that_was_kept(
    server: Imitation, tmp_path: Path
) -> None:
    kept = journal(tmp_path)
    size = kept.path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 700, hard))
    try:
        with pytest.raises(MeasurementError, match=r"cannot be written \(File too large\)"):
            measure(target(server), SHORT, kept)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    again = journal(tmp_path)  # no half line in it
    assert len(again.samples.taken) == len(kept.samples.taken)


def test_samples_of_a_disturbed_machine_are_set_aside_and_said(
    server: Imitation, tmp_path: Path
) -> None:
    kept = journal(tmp_path)

    def slow_down(now: Progress) -> None:
        waiting = now.next_text.startswith("waiting")
        server.slowness = 60.0 if 2 <= now.samples < 4 and not waiting else 1.0

    # Looks after every sample; 60 times as slow is told from any neighbour.
    plan = replace(SHORT, disturbed_ratio=10.0, look_every_s=0.0, poll_s=0.1)
    measure(target(server), plan, kept, tell=slow_down)
    assert kept.samples.disturbed >= 1
    assert any("slower than at the beginning" in note for note in kept.notes)
    again = journal(tmp_path)
    assert again.samples.disturbed == kept.samples.disturbed
    assert all(kept.samples.undisturbed(p) for p in AREA.coarse(Kind.PREFILL))


def test_facts_are_read_from_the_server(server: Imitation) -> None:
    facts = read_engine_facts(server.url, MODEL)
    assert (facts.version, facts.max_model_len) == ("0.0-imitated", LONGEST)
    assert (facts.kv_capacity_tokens, facts.kv_block_tokens) == (8192, 16)
    assert facts.prefix_cache is True


def test_wrong_model_names_those_that_are_served(server: Imitation) -> None:
    with pytest.raises(InputError, match=f"does not serve other: it lists {MODEL}"):
        read_engine_facts(server.url, "other")


def test_server_that_is_down_is_said() -> None:
    with pytest.raises(EngineError, match="is the server running"):
        read_engine_facts("http://127.0.0.1:9", MODEL)


def test_processor_is_named() -> None:
    facts = cpu_facts()
    assert facts.name
    assert facts.power_w is None


@pytest.mark.gpu
def test_gpu_tells_its_name_memory_and_power() -> None:
    facts = gpu_facts((0,))
    assert facts.name.startswith("1 x ")
    assert facts.memory_bytes is not None
    assert facts.power_w is not None
    assert dict(facts.told)["driver"]
